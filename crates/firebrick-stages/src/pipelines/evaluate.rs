//! One's own models measured side by side.

use anyhow::{Result, bail};
use firebrick_data::hub;
use firebrick_pipeline::Pipeline;
use serde::{Deserialize, Serialize};

use super::{Goes, Input};
use crate::Env;
use crate::compare::Compare;
use crate::language::{Base, TakeModel, TakeTokenizer};
use crate::recipe::{CompareRecipe, ContextRecipe, RowsRecipe};
use crate::report::WritePage;
use crate::reward_model::TakeRewardModel;
use crate::rows::{Rows, Wanted};

/// The numbers of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where all randomness comes from.
    pub seed: u64,
    /// The model; the others are compared with it.
    pub model: String,
    /// Other models.
    pub compare: Vec<String>,
    /// Reward models that judge responses; the last decides who wins.
    pub reward: Vec<String>,
    /// How much data is taken.
    pub data: RowsRecipe,
    /// Context and precision of the models.
    pub limits: ContextRecipe,
    /// What is measured, and of how much.
    pub evaluate: CompareRecipe,
}

impl super::Recipe for Recipe {
    const NAME: &'static str = "evaluate";
    const ABOUT: &'static str =
        "your own models measured: HHH, perplexity, preference accuracy, win rate by a reward model, KL";
    const BUILT_IN: &'static [(&'static str, &'static str)] =
        &[("laptop", include_str!("../../recipes/evaluate/laptop.toml"))];
    const INPUTS: &'static [Input] = &[
        Input { about: "The model to measure", required: true, goes: Goes::Setting("model"), ..Input::MODEL },
        Input {
            name: "compare",
            value: "DIR|FILE|hub:REPO",
            about: "Another model to measure beside it; may be repeated",
            required: false,
            goes: Goes::Settings("compare"),
        },
        Input {
            name: "reward",
            value: "DIR|hub:REPO",
            about: "A reward model that scores responses and judges comparisons; may be repeated",
            required: false,
            goes: Goes::Settings("reward"),
        },
        Input {
            name: "data",
            value: "FILE|DIR|hub:REPO",
            about: "What to measure on: prompts, text, comparisons, HHH tasks",
            required: true,
            goes: Goes::Data(hub::Wanted::Comparisons),
        },
    ];
    const EXAMPLES: &'static [(&'static str, &'static str)] = &[
        ("evaluate --model runs/sft/model --data ../data", "perplexity and HHH"),
        ("evaluate --model ./smollm2 --compare runs/rl/model --reward RM --data p.jsonl", "win rate and KL"),
    ];

    fn usual(_given: &[&str]) -> &'static str {
        "laptop"
    }

    fn validate(&self) -> Result<()> {
        self.data.validate()?;
        self.evaluate.validate()?;
        if self.model.is_empty() {
            bail!("recipe: `model` is empty; name the model by --model");
        }
        if self.reward.len() > 2 {
            bail!("recipe: `reward` names {} reward models; at most two are compared", self.reward.len());
        }
        Ok(())
    }

    fn pipeline(&self, _env: &Env) -> Result<Pipeline<Env>> {
        let seed = self.seed;
        let ContextRecipe { context, precision } = self.limits;
        let mut p = Pipeline::new(Self::NAME);
        let data = p.add("data", Rows { seed, input: "data", wanted: Wanted::Anything, recipe: self.data }, ());
        let (mut vocabularies, mut models, mut policies) = (Vec::new(), Vec::new(), Vec::new());
        for (index, source) in std::iter::once(&self.model).chain(&self.compare).enumerate() {
            let base = Base::of(source)?;
            let context = base.context(context)?;
            let name = if index == 0 { "model".to_owned() } else { format!("compare-{index}") };
            vocabularies.push(p.add(format!("{name}-tokenizer"), TakeTokenizer(base.clone()), ()));
            models.push(p.add(name.clone(), TakeModel { base, context, precision }, ()));
            policies.push(name);
        }
        let mut judges = Vec::new();
        let rewards = ["reward", "test_reward"];
        for (source, name) in self.reward.iter().zip(["reward", "test-reward"]) {
            judges.push(p.add(name, TakeRewardModel(Base::reward_model("--reward", source)?), ()));
        }
        let rewards = rewards[..judges.len()].to_vec();
        let compare = Compare { seed, policies, rewards, recipe: self.evaluate };
        let measurements = p.add("evaluate", compare, (data, vocabularies, models, judges));
        let page = WritePage { title: "Evaluation".to_owned(), trained: Vec::new(), recipe: self.clone() };
        p.add("report", page, (vec![data], Vec::new(), Vec::new(), measurements));
        Ok(p)
    }
}
