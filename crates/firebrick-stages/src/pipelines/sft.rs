//! Supervised finetuning on one's own rows.

use anyhow::Result;
use firebrick_data::hub;
use firebrick_pipeline::Pipeline;
use firebrick_tensor::Workers;
use serde::{Deserialize, Serialize};

use super::{Goes, Input, Made};
use crate::Env;
use crate::estimate::{Load, Work};
use crate::language::Start;
use crate::recipe::{BaseRecipe, RowsRecipe, SftEvaluateRecipe, SftRecipe, Shape, TokenizerRecipe, TrainRecipe};
use crate::report::WritePage;
use crate::rows::{Rows, Wanted};
use crate::sft::{CompareSft, Sft};

/// The numbers of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where all randomness comes from.
    pub seed: u64,
    /// What the model begins with.
    pub base: BaseRecipe,
    /// How much data is taken.
    pub data: RowsRecipe,
    /// How the tokenizer is trained, without a checkpoint.
    pub tokenizer: TokenizerRecipe,
    /// The shape of the model.
    pub model: Shape,
    /// How the language model is pretrained, without a checkpoint.
    pub pretrain: TrainRecipe,
    /// How it is finetuned.
    pub sft: SftRecipe,
    /// How it is measured before and after.
    pub evaluate: SftEvaluateRecipe,
}

impl super::Recipe for Recipe {
    const NAME: &'static str = "sft";
    const ABOUT: &'static str = "supervised finetuning (SFT) on your own conversations, completions or text";
    const BUILT_IN: &'static [(&'static str, &'static str)] = &[
        ("lora", include_str!("../../recipes/sft/lora.toml")),
        ("scratch", include_str!("../../recipes/sft/scratch.toml")),
    ];
    const INPUTS: &'static [Input] = &[
        Input::MODEL,
        Input {
            name: "data",
            value: "FILE|DIR|hub:REPO",
            about: "Rows of messages, of prompt and completion, or of text",
            required: true,
            goes: Goes::Data(hub::Wanted::Comparisons),
        },
    ];
    const EXAMPLES: &'static [(&'static str, &'static str)] = &[
        ("sft --model ./smollm2 --data chats.jsonl", "from a checkpoint, adapted by LoRA"),
        ("sft --data chats.jsonl --out runs/sft", "a small model from nothing"),
        (
            "sft --model ./smollm2 --data book.txt --set sft.all_tokens=true",
            "all tokens are learnt, not the assistant's alone",
        ),
        ("sft --model ./smollm2 --data chats.jsonl --set sft.train.passes=3", "three epochs"),
    ];
    const MADE: Option<Made> = Some(Made::LanguageModel("sft"));

    fn usual(given: &[&str]) -> &'static str {
        if given.contains(&"model") { "lora" } else { "scratch" }
    }

    fn validate(&self) -> Result<()> {
        self.model.config(1).validate()?;
        self.base.validate()?;
        self.data.validate()?;
        self.tokenizer.validate()?;
        self.pretrain.validate("pretrain")?;
        self.sft.train.validate("sft.train")?;
        self.evaluate.validate()
    }

    fn pipeline(&self, _env: &Env) -> Result<Pipeline<Env>> {
        let Self { seed, model, .. } = *self;
        let mut p = Pipeline::new(Self::NAME);
        let data = p.add("data", Rows { seed, input: "data", wanted: Wanted::Examples, recipe: self.data }, ());
        let start = Start { seed, base: &self.base, tokenizer: &self.tokenizer, model, pretrain: self.pretrain };
        let (tokenizer, base) = start.add(&mut p, data)?;
        let sft = Sft { seed, lora: self.base.lora(), recipe: self.sft };
        let tuned = p.add("sft", sft, (data, tokenizer, base));
        let compare = CompareSft { seed, all_tokens: self.sft.all_tokens, recipe: self.evaluate };
        let measurements = p.add("evaluate", compare, (data, tokenizer, base, tuned));
        let page = WritePage { title: "Supervised finetuning".to_owned(), trained: vec!["sft"], recipe: self.clone() };
        p.add("report", page, (vec![data], vec![tuned], Vec::new(), measurements));
        Ok(p)
    }

    fn derived(&self) -> Result<Vec<String>> {
        let Self { seed, model, pretrain, .. } = *self;
        let start = Start { seed, base: &self.base, tokenizer: &self.tokenizer, model, pretrain };
        let (config, workers) = (start.config()?, Workers::default().count());
        let (rows, micro_batch) = (self.data.rows * self.sft.train.passes, self.sft.train.micro_batch_size);
        let load = Load::trained(&config, self.base.lora());
        let work = Work::training(&load, rows, config.context, micro_batch, workers);
        Ok(start.work(self.data.rows)?.then(work).lines("training"))
    }
}
