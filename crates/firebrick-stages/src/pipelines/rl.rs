//! PPO of one's own policy against one's own reward model (B-24 to B-26).

use anyhow::{Result, bail};
use firebrick_data::hub;
use firebrick_pipeline::Pipeline;
use firebrick_rl::ppo::PpoConfig;
use firebrick_tensor::Workers;
use serde::{Deserialize, Serialize};

use super::{Goes, Input, Made};
use crate::Env;
use crate::checkpoint::located;
use crate::compare::Compare;
use crate::estimate::{Load, Work};
use crate::language::{Base, TakeModel, TakeTokenizer};
use crate::ppo::Ppo;
use crate::recipe::{BaseRecipe, CompareRecipe, ContextRecipe, ProbeRecipe, RowsRecipe};
use crate::report::WritePage;
use crate::reward_model::TakeRewardModel;
use crate::rows::{Rows, Wanted};

/// The numbers of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where all randomness comes from.
    pub seed: u64,
    /// What the policy begins as.
    pub base: BaseRecipe,
    /// What it is rewarded by.
    pub reward: RewardRecipe,
    /// How many prompts are taken.
    pub data: RowsRecipe,
    /// The policy's context and precision.
    pub model: ContextRecipe,
    /// How it learns.
    pub ppo: PpoConfig,
    /// How often held-out prompts are answered meanwhile.
    pub probe: ProbeRecipe,
    /// How the finished policy is compared with the initial one.
    pub evaluate: CompareRecipe,
}

impl super::Recipe for Recipe {
    const NAME: &'static str = "rl";
    const ABOUT: &'static str = "a policy trained by PPO against your own reward model";
    const BUILT_IN: &'static [(&'static str, &'static str)] =
        &[("lora", include_str!("../../recipes/rl/lora.toml")), ("whole", include_str!("../../recipes/rl/whole.toml"))];
    const INPUTS: &'static [Input] = &[
        Input { about: "The policy to begin with", required: true, ..Input::MODEL },
        Input {
            name: "reward",
            value: "DIR|hub:REPO",
            about: "The reward model: a folder that `pipeline reward` or `transformers` wrote",
            required: true,
            goes: Goes::Setting("reward.model"),
        },
        Input {
            name: "test-reward",
            value: "DIR|hub:REPO",
            about: "Another reward model, which only watches: it tells gains from over-optimisation",
            required: false,
            goes: Goes::Setting("reward.test_model"),
        },
        Input {
            name: "prompts",
            value: "FILE|DIR|hub:REPO",
            about: "Prompts, or comparisons or conversations whose prompts are taken",
            required: true,
            goes: Goes::Data(hub::Wanted::Comparisons),
        },
    ];
    const EXAMPLES: &'static [(&'static str, &'static str)] = &[
        ("rl --model ./smollm2 --reward runs/reward/model --prompts pairs.jsonl", "adapted by LoRA"),
        (
            "rl --model runs/sft/model --reward RM --test-reward RM2 --prompts p.jsonl",
            "watched by a second reward model",
        ),
        ("rl --model runs/sft/model --reward RM --prompts p.jsonl --recipe whole", "all weights of a small model"),
    ];
    const MADE: Option<Made> = Some(Made::LanguageModel("ppo"));

    fn usual(_given: &[&str]) -> &'static str {
        "lora"
    }

    fn validate(&self) -> Result<()> {
        self.base.validate()?;
        self.data.validate()?;
        self.evaluate.validate()?;
        if self.base.checkpoint().is_none() {
            bail!("recipe: `base.model` is empty; name the policy by --model");
        }
        if self.reward.model.is_empty() {
            bail!("recipe: `reward.model` is empty; name the reward model by --reward");
        }
        super::validate_ppo(&self.ppo, self.model.context)
    }

    fn pipeline(&self, _env: &Env) -> Result<Pipeline<Env>> {
        let seed = self.seed;
        let ContextRecipe { context, precision } = self.model;
        let mut p = Pipeline::new(Self::NAME);
        let base = Base::of(&self.base.model)?;
        let context = base.context(context)?;
        super::validate_ppo(&self.ppo, context)?;
        let reward = Base::reward_model("--reward", &self.reward.model)?;
        let test_reward = match self.reward.test_model.as_str() {
            "" => None,
            model => Some(Base::reward_model("--test-reward", model)?),
        };
        let data = p.add("data", Rows { seed, input: "prompts", wanted: Wanted::Prompts, recipe: self.data }, ());
        let tokenizer = p.add("tokenizer", TakeTokenizer(base.clone()), ());
        let policy = p.add("base", TakeModel { base, context, precision }, ());
        let reward = p.add("reward", TakeRewardModel(reward), ());
        let watching = test_reward.map(|base| p.add("test-reward", TakeRewardModel(base), ()));
        let watching = watching.into_iter().collect::<Vec<_>>();
        let (lora, probe) = (self.base.lora(), Some(self.probe));
        let ppo = Ppo { seed, context, half: None, lora, recipe: self.ppo, probe };
        let trained = p.add("ppo", ppo, (data, tokenizer, policy, reward, watching.clone(), Vec::new()));
        let rewards = [&["reward"][..], &["test_reward"][..watching.len()]].concat();
        let policies = ["before", "after"].map(str::to_owned).into();
        let compare = Compare { seed, policies, rewards, recipe: self.evaluate };
        let judges = [vec![reward], watching].concat();
        let inputs = (data, vec![tokenizer; 2], vec![policy, trained], judges);
        let measurements = p.add("evaluate", compare, inputs);
        let page = WritePage { title: "PPO".to_owned(), trained: vec!["ppo"], recipe: self.clone() };
        p.add("report", page, (vec![data], vec![trained], Vec::new(), measurements));
        Ok(p)
    }

    fn derived(&self) -> Result<Vec<String>> {
        let ppo = &self.ppo;
        let shape = |source: &str| -> Result<_> { Ok(located(source)?.config()?) };
        let (policy, reward) = (shape(&self.base.model)?, shape(&self.reward.model)?);
        let context = self.model.context.min(policy.context);
        let [per_iteration, workers] = [ppo.samples_per_iteration(), Workers::default().count()];
        let samples = per_iteration * ppo.iterations;
        let (trained, frozen) = (Load::trained(&policy, self.base.lora()), Load::frozen(&policy));
        let learning = |load: &Load| Work::training(load, samples * ppo.passes, context, ppo.micro_batch_size, workers);
        // The policy samples and reads, the reference and the reward model read; policy and critic learn.
        let reading = Work::reading(&frozen, 3 * samples, context);
        let judging = Work::reading(&Load::frozen(&reward), samples, context);
        let work = learning(&trained).and(learning(&trained)).and(reading).and(judging);
        let mut lines = vec![format!("derived: {per_iteration} samples an iteration, {samples} in all")];
        lines.extend(work.lines("PPO"));
        Ok(lines)
    }
}

/// What a policy is rewarded by.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardRecipe {
    /// The reward model.
    pub model: String,
    /// Another one, which only watches; empty: none.
    pub test_model: String,
}
