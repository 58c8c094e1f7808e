//! Preference-model pretraining on questions with scored answers.

use anyhow::Result;
use firebrick_data::hub;
use firebrick_pipeline::Pipeline;
use firebrick_tensor::Workers;
use serde::{Deserialize, Serialize};

use super::{Goes, Input, Made};
use crate::Env;
use crate::estimate::{Load, Work};
use crate::judge::JudgeRanked;
use crate::language::Start;
use crate::recipe::{BaseRecipe, JudgeRecipe, PmpRecipe, RowsRecipe, Shape, TokenizerRecipe, TrainRecipe};
use crate::report::WritePage;
use crate::reward_model::Pmp;
use crate::rows::{Rows, Wanted};

/// The numbers of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where all randomness comes from.
    pub seed: u64,
    /// What the model begins with.
    pub base: BaseRecipe,
    /// How many questions are taken.
    pub data: RowsRecipe,
    /// How the tokenizer is trained, without a checkpoint.
    pub tokenizer: TokenizerRecipe,
    /// The shape of the model.
    pub model: Shape,
    /// How the language model is pretrained, without a checkpoint.
    pub pretrain: TrainRecipe,
    /// How the preference model learns.
    pub pmp: PmpRecipe,
    /// How the finished model is measured.
    pub evaluate: JudgeRecipe,
}

impl super::Recipe for Recipe {
    const NAME: &'static str = "pmp";
    const ABOUT: &'static str = "preference-model pretraining on your own questions with scored answers";
    const BUILT_IN: &'static [(&'static str, &'static str)] = &[
        ("lora", include_str!("../../recipes/pmp/lora.toml")),
        ("scratch", include_str!("../../recipes/pmp/scratch.toml")),
    ];
    const INPUTS: &'static [Input] = &[
        Input::MODEL,
        Input {
            name: "data",
            value: "FILE|DIR",
            about: "Questions with scored answers, such as those of Stack Exchange",
            required: true,
            goes: Goes::Data(hub::Wanted::Comparisons),
        },
    ];
    const EXAMPLES: &'static [(&'static str, &'static str)] = &[
        ("pmp --model ./smollm2 --data stack.jsonl.gz", "from a checkpoint, adapted by LoRA"),
        ("pmp --data ../stackexchange", "a small model from nothing"),
        ("pmp --model ./smollm2 --data stack.jsonl.gz --set pmp.binarize=false", "ranked pairs instead of binary ones"),
    ];
    const MADE: Option<Made> = Some(Made::PreferenceModel("pmp"));

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
        self.evaluate.validate()
    }

    fn pipeline(&self, _env: &Env) -> Result<Pipeline<Env>> {
        let Self { seed, model, .. } = *self;
        let mut p = Pipeline::new(Self::NAME);
        let data = p.add("data", Rows { seed, input: "data", wanted: Wanted::Threads, recipe: self.data }, ());
        let start = Start { seed, base: &self.base, tokenizer: &self.tokenizer, model, pretrain: self.pretrain };
        let (tokenizer, base) = start.add(&mut p, data)?;
        let model = Shape { context: start.config()?.context, ..model };
        let pmp = Pmp { seed, model, lora: self.base.lora(), recipe: self.pmp.clone() };
        let trained = p.add("pmp", pmp, (data, tokenizer, base));
        let judge = JudgeRanked { binarize: self.pmp.binarize, context: model.context, recipe: self.evaluate };
        let measurements = p.add("evaluate", judge, (data, tokenizer, trained));
        let title = "Preference-model pretraining".to_owned();
        let page = WritePage { title, trained: vec!["pmp"], recipe: self.clone() };
        p.add("report", page, (vec![data], Vec::new(), vec![trained], measurements));
        Ok(p)
    }

    fn derived(&self) -> Result<Vec<String>> {
        let Self { seed, model, pretrain, .. } = *self;
        let start = Start { seed, base: &self.base, tokenizer: &self.tokenizer, model, pretrain };
        let (config, workers, train) = (start.config()?, Workers::default().count(), self.pmp.pairs.train);
        let pairs = self.data.rows * train.passes * if self.pmp.binarize { 2 } else { 1 };
        let load = Load::trained(&config, self.base.lora());
        let work = Work::training(&load, 2 * pairs, config.context, 2 * train.micro_batch_size, workers);
        Ok(start.work(self.data.rows)?.then(work).lines("training"))
    }
}
