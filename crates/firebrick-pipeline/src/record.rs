//! What a stage was made from, and how that differs from what it would be made from now.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pipeline::Listing;
use crate::{Error, files, layout};

/// The layout of the files that this crate writes.
pub(crate) const SCHEMA: u32 = 1;

/// A schema number, if it is one that this version can read.
pub(crate) fn known_schema<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        SCHEMA => Ok(SCHEMA),
        other => Err(D::Error::custom(format!("schema {other} is not schema {SCHEMA}, which this version reads"))),
    }
}

/// All that decides what a stage makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The stage's name in the pipeline.
    pub stage: String,
    /// Its [`Stage::VERSION`](crate::Stage::VERSION).
    pub version: u32,
    /// The stage itself, as JSON.
    pub recipe: Value,
    /// The fingerprints of outside data, by name.
    pub external: BTreeMap<String, String>,
    /// The artifacts it reads, in order.
    pub inputs: Vec<Input>,
}

/// An artifact that a stage reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The stage that made it.
    pub stage: String,
    /// Its digest.
    pub digest: String,
}

impl Identity {
    /// The BLAKE3 hash of this identity as JSON without white space and with sorted keys, as 64 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let mut canonical = serde_json::to_value(self).expect("an identity is plain data with text for keys");
        canonical.sort_all_objects();
        blake3::hash(canonical.to_string().as_bytes()).to_hex().to_string()
    }

    /// What differs between this identity, of what was made, and that of what would be made `now`.
    pub(crate) fn differences(&self, now: &Self) -> Vec<Difference> {
        let stage = || now.stage.clone();
        let mut all = Vec::new();
        if self.version != now.version {
            all.push(Difference::Version { stage: stage(), was: self.version, now: now.version });
        }
        fields(&now.stage, Some(&self.recipe), Some(&now.recipe), &mut all);
        let names: BTreeSet<_> = self.external.keys().chain(now.external.keys()).collect();
        for name in names {
            let (was, now) = (self.external.get(name).cloned(), now.external.get(name).cloned());
            if was != now {
                all.push(Difference::Data { stage: stage(), name: name.clone(), was, now });
            }
        }
        let stages = |inputs: &[Input]| inputs.iter().map(|input| input.stage.clone()).collect::<Vec<_>>();
        let (was, new) = (stages(&self.inputs), stages(&now.inputs));
        if was != new {
            all.push(Difference::Inputs { stage: stage(), was, now: new });
        } else {
            let changed = self.inputs.iter().zip(&now.inputs).filter(|(was, now)| was.digest != now.digest);
            all.extend(changed.map(|(input, _)| Difference::Input { stage: stage(), input: input.stage.clone() }));
        }
        all
    }
}

/// Adds the leaves in which two recipes differ; lists of different lengths differ as a whole.
fn fields(path: &str, was: Option<&Value>, now: Option<&Value>, all: &mut Vec<Difference>) {
    match (was, now) {
        (Some(Value::Object(was)), Some(Value::Object(now))) => {
            let keys = now.keys().chain(was.keys().filter(|key| !now.contains_key(*key)));
            keys.for_each(|key| fields(&format!("{path}.{key}"), was.get(key), now.get(key), all));
        }
        (Some(Value::Array(was)), Some(Value::Array(now))) if was.len() == now.len() => {
            let pairs = was.iter().zip(now).enumerate();
            pairs.for_each(|(index, (was, now))| fields(&format!("{path}[{index}]"), Some(was), Some(now), all));
        }
        _ if was == now => {}
        _ => all.push(Difference::Field { path: path.to_owned(), was: was.cloned(), now: now.cloned() }),
    }
}

/// One thing in which what a stage was made from differs from what it would be made from now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Difference {
    /// A field of the recipe.
    Field {
        /// The stage and the field, for instance `pretrain.adamw.beta_2`.
        path: String,
        /// What it was, unless it was absent.
        was: Option<Value>,
        /// What it is, unless it is absent.
        now: Option<Value>,
    },
    /// The version of the stage's code.
    Version {
        /// The stage.
        stage: String,
        /// What it was.
        was: u32,
        /// What it is.
        now: u32,
    },
    /// Data from outside of the pipeline.
    Data {
        /// The stage.
        stage: String,
        /// The data's name.
        name: String,
        /// The fingerprint it had, unless it was not read.
        was: Option<String>,
        /// The fingerprint it has, unless it is no longer read.
        now: Option<String>,
    },
    /// Which stages it reads from.
    Inputs {
        /// The stage.
        stage: String,
        /// Which they were.
        was: Vec<String>,
        /// Which they are.
        now: Vec<String>,
    },
    /// The artifact of a stage that it reads from.
    Input {
        /// The stage.
        stage: String,
        /// The stage it reads from.
        input: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<Value>| value.as_ref().map_or("absent".to_owned(), Value::to_string);
        let list = |stages: &[String]| if stages.is_empty() { "none".to_owned() } else { stages.join(", ") };
        match self {
            Self::Field { path, was, now } => write!(f, "{path}: was {}, now {}", value(was), value(now)),
            Self::Version { stage, was, now } => write!(f, "{stage}: the stage's version was {was}, now {now}"),
            Self::Data { stage, name, was: None, .. } => write!(f, "{stage}: data file {name} is new"),
            Self::Data { stage, name, now: None, .. } => write!(f, "{stage}: data file {name} is no longer read"),
            Self::Data { stage, name, .. } => write!(f, "{stage}: data file {name} changed"),
            Self::Inputs { stage, was, now } => write!(f, "{stage}: the inputs were {}, now {}", list(was), list(now)),
            Self::Input { stage, input } => write!(f, "{stage}: the artifact of `{input}` changed"),
        }
    }
}

/// What `record.json` says of a finished stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this layout.
    #[serde(deserialize_with = "known_schema")]
    pub schema: u32,
    /// What the artifact was made from.
    #[serde(flatten)]
    pub identity: Identity,
    /// The [`Identity::fingerprint`].
    pub fingerprint: String,
    /// The [`Artifact::KIND`](crate::Artifact::KIND).
    pub kind: String,
    /// The [`digest`](crate::digest) of the artifact.
    pub digest: String,
    /// The versions of what made it, as [`Options::versions`](crate::Options::versions) gave them.
    pub versions: BTreeMap<String, String>,
    /// How long the process that finished it took, in seconds; interrupted ones before it are not counted.
    pub wall_seconds: f64,
    /// When it finished, in seconds since 1970.
    pub finished_at_unix: u64,
}

impl Record {
    /// Holds the recorded kind against the one that is wanted.
    pub(crate) fn check_kind(&self, root: &Path, now: &'static str) -> Result<(), Error> {
        if self.kind == now {
            return Ok(());
        }
        let (root, stage, was) = (root.to_owned(), self.identity.stage.clone(), self.kind.clone());
        Err(Error::Kind { root, stage, was, now })
    }
}

/// What `work/fingerprint.json` says of a stage that has begun.
#[derive(Serialize, Deserialize)]
pub(crate) struct Begun {
    #[serde(deserialize_with = "known_schema")]
    pub(crate) schema: u32,
    #[serde(flatten)]
    pub(crate) identity: Identity,
    pub(crate) fingerprint: String,
}

/// What there is of a stage on disk.
pub(crate) enum Trace {
    Nothing,
    Begun(Begun),
    Finished(Record),
}

impl Trace {
    pub(crate) fn read(root: &Path, stage: &str) -> Result<Self, Error> {
        let Some(folder) = layout::find(root, stage)? else { return Ok(Self::Nothing) };
        let fix = || format!("put it back or make the stage again with `--rebuild {stage}`");
        if let Some(record) = files::read_json(&folder.join(layout::RECORD), fix)? {
            return Ok(Self::Finished(record));
        }
        let Some(begun) = files::read_json(&folder.join(layout::BEGUN), fix)? else { return Ok(Self::Nothing) };
        // Work that holds nothing else is nothing to go on with, and nothing to lose.
        let bare = files::entries(&folder.join(layout::WORK))?.len() == 1;
        Ok(if bare { Self::Nothing } else { Self::Begun(begun) })
    }
}

/// The record of a finished stage, found by its name below the root of a run.
///
/// # Errors
/// If no such stage is known or finished there, or if its record is damaged.
pub fn read_record(root: &Path, stage: &str) -> Result<Record, Error> {
    if let Trace::Finished(record) = Trace::read(root, stage)? {
        return Ok(record);
    }
    match Listing::read(root)? {
        Some(listing) if !listing.stages.iter().any(|known| known == stage) => {
            Err(Error::unknown_stage(stage, listing.stages))
        }
        _ => Err(Error::Unfinished { root: root.to_owned(), stage: stage.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(recipe: Value) -> Identity {
        let inputs = ["sft", "rm"].map(|stage| Input { stage: stage.into(), digest: format!("of {stage}") });
        let external = BTreeMap::from([("hh/train.jsonl".to_owned(), "aa".to_owned())]);
        Identity { stage: "ppo".into(), version: 1, recipe, external, inputs: inputs.into() }
    }

    fn told(was: &Identity, now: &Identity) -> Vec<String> {
        was.differences(now).iter().map(Difference::to_string).collect()
    }

    #[test]
    fn recipes_differ_leaf_by_leaf() {
        let was =
            identity(json!({"lr": 0.001, "adamw": {"beta": [0.9, 0.95]}, "layers": [1], "gone": "x", "same": null}));
        let now =
            identity(json!({"lr": 3e-4, "adamw": {"beta": [0.9, 0.999]}, "layers": [1, 2], "new": true, "same": null}));
        assert_eq!(
            told(&was, &now),
            [
                "ppo.lr: was 0.001, now 0.0003",
                "ppo.adamw.beta[1]: was 0.95, now 0.999",
                "ppo.layers: was [1], now [1,2]",
                "ppo.new: was absent, now true",
                "ppo.gone: was \"x\", now absent",
            ]
        );
        assert_eq!(told(&was, &was), [""; 0]);
    }

    #[test]
    fn all_else_that_bears_identity_is_told() {
        let was = identity(json!({}));
        let mut now = was.clone();
        now.version = 2;
        now.external =
            BTreeMap::from([("hh/train.jsonl".to_owned(), "bb".to_owned()), ("b".to_owned(), "b".to_owned())]);
        now.inputs[1].digest = "else".into();
        assert_eq!(
            told(&was, &now),
            [
                "ppo: the stage's version was 1, now 2",
                "ppo: data file b is new",
                "ppo: data file hh/train.jsonl changed",
                "ppo: the artifact of `rm` changed",
            ]
        );
        now.inputs.pop();
        assert_eq!(told(&was, &now)[3], "ppo: the inputs were sft, rm, now sft");
        assert_eq!(told(&now, &was)[1], "ppo: data file b is no longer read");
    }

    #[test]
    fn the_fingerprint_is_of_everything_but_the_order_of_fields() {
        let one = identity(json!({"a": 1, "b": {"c": 2, "d": 3}}));
        assert_eq!(one.fingerprint(), identity(json!({"b": {"d": 3, "c": 2}, "a": 1})).fingerprint());
        let mut swapped = one.clone();
        swapped.inputs.reverse();
        let others = [
            identity(json!({"a": 1, "b": {"c": 2, "d": 4}})),
            Identity { version: 2, ..one.clone() },
            Identity { stage: "dpo".into(), ..one.clone() },
            Identity { external: BTreeMap::new(), ..one.clone() },
            swapped,
        ];
        for other in others {
            assert_ne!(one.fingerprint(), other.fingerprint(), "{other:?}");
        }
    }

    /// Recorded once: a change here would make every finished stage look changed.
    #[test]
    fn fingerprints_are_stable_across_versions() {
        assert_eq!(
            identity(json!({"learning_rate": 3e-4})).fingerprint(),
            "76f0c10c9a85eafbd44b54c806491237e3d989b4669b65d5037f8ec031cf8e2e"
        );
    }

    #[test]
    fn a_record_survives_its_file() {
        let record = Record {
            schema: SCHEMA,
            identity: identity(json!({"lr": 0.1, "big": u64::MAX, "least": i64::MIN, "third": 1.0 / 3.0})),
            fingerprint: "f".into(),
            kind: "policy".into(),
            digest: "d".into(),
            versions: BTreeMap::from([("burn".to_owned(), "0.22.1".to_owned())]),
            wall_seconds: 1.5,
            finished_at_unix: 1_700_000_000,
        };
        let text = serde_json::to_string_pretty(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        let error = serde_json::from_str::<Record>(&text.replace("\"schema\": 1", "\"schema\": 2")).unwrap_err();
        assert!(error.to_string().starts_with("schema 2 is not schema 1, which this version reads"), "{error}");
    }
}
