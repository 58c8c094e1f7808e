//! A preference model (reward model) from one's own comparisons (B-09).

use anyhow::Result;
use firebrick_data::hub;
use firebrick_pipeline::Pipeline;
use firebrick_tensor::Workers;
use serde::{Deserialize, Serialize};

use super::{Goes, Input, Made};
use crate::Env;
use crate::error::BadInput;
use crate::estimate::{Load, Work};
use crate::judge::Judge;
use crate::language::{Base, Start, TakeTokenizer};
use crate::recipe::{BaseRecipe, JudgeRecipe, PairRecipe, PmpRecipe, RowsRecipe, Shape, TokenizerRecipe, TrainRecipe};
use crate::report::WritePage;
use crate::reward_model::{AddHead, Pmp, RewardModel, TakeRewardModel};
use crate::rows::{Rows, Wanted};

/// The numbers of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where all randomness comes from.
    pub seed: u64,
    /// What the model begins with.
    pub base: BaseRecipe,
    /// How much of the comparisons, and of the questions for pretraining, is taken.
    pub data: RowsRecipe,
    /// How the tokenizer is trained, without a checkpoint.
    pub tokenizer: TokenizerRecipe,
    /// The shape of the model.
    pub model: Shape,
    /// How the language model is pretrained, without a checkpoint.
    pub pretrain: TrainRecipe,
    /// How the preference model is pretrained on questions with scored answers, where such are given.
    pub pmp: PmpRecipe,
    /// How it learns from comparisons.
    pub pm: PairRecipe,
    /// How the finished model is measured.
    pub evaluate: JudgeRecipe,
}

impl super::Recipe for Recipe {
    const NAME: &'static str = "reward";
    const ABOUT: &'static str = "a preference model (reward model) from your own comparisons";
    const BUILT_IN: &'static [(&'static str, &'static str)] = &[
        ("lora", include_str!("../../recipes/reward/lora.toml")),
        ("scratch", include_str!("../../recipes/reward/scratch.toml")),
    ];
    const INPUTS: &'static [Input] = &[
        Input::MODEL,
        Input {
            name: "data",
            value: "FILE|DIR|hub:REPO",
            about: "Comparisons to learn from: chosen and rejected responses",
            required: true,
            goes: Goes::Data(hub::Wanted::Comparisons),
        },
        Input {
            name: "pmp",
            value: "FILE|DIR",
            about: "Questions with scored answers, to pretrain on before",
            required: false,
            goes: Goes::File,
        },
    ];
    const EXAMPLES: &'static [(&'static str, &'static str)] = &[
        ("reward --model ./smollm2 --data pairs.jsonl", "from a checkpoint, adapted by LoRA"),
        ("reward --data ../hh-rlhf --out runs/reward", "a small model from nothing"),
        ("reward --model ./smollm2 --data pairs.jsonl --pmp stack.jsonl.gz", "pretrained on ranked answers first"),
        ("reward --model ./smollm2 --data pairs.jsonl --set pm.train.passes=2", "two epochs"),
    ];
    const MADE: Option<Made> = Some(Made::PreferenceModel("reward"));

    fn usual(given: &[&str]) -> &'static str {
        if given.contains(&"model") { "lora" } else { "scratch" }
    }

    fn validate(&self) -> Result<()> {
        self.model.config(1).validate()?;
        self.base.validate()?;
        self.data.validate()?;
        self.tokenizer.validate()?;
        self.pretrain.validate("pretrain")?;
        self.pmp.pairs.train.validate("pmp.train")?;
        self.pm.train.validate("pm.train")?;
        self.evaluate.validate()
    }

    fn pipeline(&self, env: &Env) -> Result<Pipeline<Env>> {
        let Self { seed, model, .. } = *self;
        let lora = self.base.lora();
        let mut p = Pipeline::new(Self::NAME);
        let rows = |input, wanted| Rows { seed, input, wanted, recipe: self.data };
        let data = p.add("data", rows("data", Wanted::Comparisons), ());
        let start = Start { seed, base: &self.base, tokenizer: &self.tokenizer, model, pretrain: self.pretrain };
        let model = Shape { context: start.config()?.context, ..model };
        let mut corpora = vec![data];
        let (mut trained, mut models) = (vec!["reward"], Vec::new());
        let with_pmp = env.input("pmp").is_some();
        let (tokenizer, head) = if start.is_reward_model()? {
            if with_pmp {
                let message =
                    "--pmp goes before the first reward model is trained, and --model is one already; leave one out";
                return Err(BadInput::new(message).into());
            }
            let base = Base::reward_model("--model", &self.base.model)?;
            (p.add("tokenizer", TakeTokenizer(base.clone()), ()), p.add("base", TakeRewardModel(base), ()))
        } else {
            let (tokenizer, base) = start.add(&mut p, data)?;
            if with_pmp {
                let questions = p.add("pmp-data", rows("pmp", Wanted::Threads), ());
                corpora.push(questions);
                let pmp = Pmp { seed, model, lora, recipe: self.pmp.clone() };
                let pmp = p.add("pmp", pmp, (questions, tokenizer, base));
                trained.insert(0, "pmp");
                models.push(pmp);
                (tokenizer, pmp)
            } else {
                (tokenizer, p.add("head", AddHead { seed }, (base,)))
            }
        };
        let reward = RewardModel { seed, half: None, model, lora, recipe: self.pm.clone() };
        let reward = p.add("reward", reward, (data, tokenizer, head));
        models.push(reward);
        let judge = Judge { recipe: self.evaluate };
        let measurements = p.add("evaluate", judge, (data, tokenizer, reward));
        let title = "Preference model".to_owned();
        p.add(
            "report",
            WritePage { title, trained, recipe: self.clone() },
            (corpora, Vec::new(), models, measurements),
        );
        Ok(p)
    }

    fn derived(&self) -> Result<Vec<String>> {
        let Self { seed, model, pretrain, .. } = *self;
        let start = Start { seed, base: &self.base, tokenizer: &self.tokenizer, model, pretrain };
        let (config, workers) = (start.config()?, Workers::default().count());
        let (rows, micro_batch) = (2 * self.data.rows * self.pm.train.passes, 2 * self.pm.train.micro_batch_size);
        let load = Load::trained(&config, self.base.lora());
        let work = Work::training(&load, rows, config.context, micro_batch, workers);
        Ok(start.work(self.data.rows)?.then(work).lines("training"))
    }
}
