//! What a run would do.

use std::fmt;

use serde::Serialize;

use crate::Difference;

/// How the stages of a pipeline stand below a root. It displays as a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The pipeline's name.
    pub pipeline: String,
    /// Its stages, in order.
    pub stages: Vec<PlannedStage>,
}

/// How one stage stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedStage {
    /// Its number, from 1.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// The stages it reads from.
    pub inputs: Vec<String>,
    /// What it makes.
    pub kind: &'static str,
    /// How it stands.
    pub status: Status,
    /// In what it [changed](Status::Changed).
    pub differences: Vec<Difference>,
}

/// How a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Made from what it would be made from now: it is skipped.
    Finished,
    /// Made, or begun, from something else: a run stops.
    Changed,
    /// Begun from what it would be made from now: it is resumed.
    Interrupted,
    /// Not begun.
    ToDo,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Finished => "finished",
            Self::Changed => "changed",
            Self::Interrupted => "interrupted",
            Self::ToDo => "to do",
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: fn(&PlannedStage) -> &str, title: &str| {
            self.stages.iter().map(|stage| text(stage).len()).chain([title.len()]).max().unwrap_or(0)
        };
        let name = width(|stage| &stage.name, "stage");
        let kind = width(|stage| stage.kind, "makes");
        writeln!(f, "{:>3}  {:<name$}  {:<11}  {:<kind$}  from", "#", "stage", "status", "makes")?;
        for stage in &self.stages {
            let inputs = if stage.inputs.is_empty() { "-".to_owned() } else { stage.inputs.join(", ") };
            let (number, status) = (stage.index, stage.status);
            writeln!(f, "{number:>3}  {:<name$}  {status:<11}  {:<kind$}  {inputs}", stage.name, stage.kind)?;
            for difference in &stage.differences {
                writeln!(f, "       {difference}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_an_aligned_table() {
        let stage = |index, name: &str, inputs: &[&str], kind, status, differences| {
            let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
            PlannedStage { index, name: name.to_owned(), inputs, kind, status, differences }
        };
        let version = Difference::Version { stage: "reward-model".into(), was: 1, now: 2 };
        let stages = vec![
            stage(1, "data", &[], "corpus", Status::Finished, vec![]),
            stage(2, "reward-model", &["data"], "reward weights", Status::Changed, vec![version]),
            stage(10, "ppo", &["data", "reward-model"], "policy", Status::ToDo, vec![]),
        ];
        let plan = Plan { pipeline: "hh".to_owned(), stages };
        let expected = "  \
  #  stage         status       makes           from
  1  data          finished     corpus          -
  2  reward-model  changed      reward weights  data
       reward-model: the stage's version was 1, now 2
 10  ppo           to do        policy          data, reward-model
";
        assert_eq!(plan.to_string(), expected);
        let json = serde_json::to_value(&plan).unwrap();
        assert_eq!(json["stages"][2]["status"], "to-do");
        assert_eq!(json["stages"][1]["differences"][0]["version"]["now"], 2);
    }
}
