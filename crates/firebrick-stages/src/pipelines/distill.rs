//! Context distillation: one's own prompt becomes part of one's own model.

use anyhow::{Result, bail};
use firebrick_data::hub;
use firebrick_pipeline::Pipeline;
use firebrick_tensor::Workers;
use serde::{Deserialize, Serialize};

use super::{Goes, Input, Made};
use crate::Env;
use crate::checkpoint::located;
use crate::distill::{CompareDistilled, Distill, Teach};
use crate::estimate::{Load, Work};
use crate::language::{Base, TakeModel, TakeTokenizer};
use crate::recipe::{BaseRecipe, ContextRecipe, DistillRecipe, DistilledRecipe, RowsRecipe};
use crate::report::WritePage;
use crate::rows::{Rows, Wanted};

/// The numbers of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where all randomness comes from.
    pub seed: u64,
    /// What the student begins as.
    pub base: BaseRecipe,
    /// Another model of the same vocabulary that reads the prompt; empty: the student as it begins.
    pub teacher: String,
    /// How many texts are taken.
    pub data: RowsRecipe,
    /// Context and precision of both.
    pub model: ContextRecipe,
    /// How the prompt is distilled.
    pub distill: DistillRecipe,
    /// How the student is measured.
    pub evaluate: DistilledRecipe,
}

impl super::Recipe for Recipe {
    const NAME: &'static str = "distill";
    const ABOUT: &'static str = "context distillation: your own prompt becomes part of your own model";
    const BUILT_IN: &'static [(&'static str, &'static str)] = &[
        ("lora", include_str!("../../recipes/distill/lora.toml")),
        ("whole", include_str!("../../recipes/distill/whole.toml")),
    ];
    const INPUTS: &'static [Input] = &[
        Input { about: "The model that is to do without the prompt", required: true, ..Input::MODEL },
        Input {
            name: "prompt",
            value: "FILE",
            about: "The prompt, as text: conversations \"Human: … Assistant: …\", or anything else",
            required: true,
            goes: Goes::File,
        },
        Input {
            name: "teacher",
            value: "DIR|FILE|hub:REPO",
            about: "Another model of the same vocabulary that reads the prompt; default: the model itself",
            required: false,
            goes: Goes::Setting("teacher"),
        },
        Input {
            name: "data",
            value: "FILE|DIR|hub:REPO",
            about: "Text or conversations that both read; default: documents and questions of the built-in world",
            required: false,
            goes: Goes::Data(hub::Wanted::Comparisons),
        },
    ];
    const EXAMPLES: &'static [(&'static str, &'static str)] = &[
        ("distill --model ./smollm2 --prompt hhh.txt --data chats.jsonl", "adapted by LoRA"),
        ("distill --model ./small --teacher ./large --prompt hhh.txt --data chats.jsonl", "from a larger teacher"),
    ];
    const MADE: Option<Made> = Some(Made::LanguageModel("distill"));

    fn usual(_given: &[&str]) -> &'static str {
        "lora"
    }

    fn validate(&self) -> Result<()> {
        self.base.validate()?;
        self.data.validate()?;
        self.distill.train.validate("distill.train")?;
        self.evaluate.validate()?;
        if self.base.checkpoint().is_none() {
            bail!("recipe: `base.model` is empty; name the model by --model");
        }
        Ok(())
    }

    fn pipeline(&self, env: &Env) -> Result<Pipeline<Env>> {
        let seed = self.seed;
        let ContextRecipe { context, precision } = self.model;
        let mut p = Pipeline::new(Self::NAME);
        let wanted = if env.data.is_some() { Wanted::Text } else { Wanted::WorldText };
        let rows = Rows { seed, input: "data", wanted, recipe: self.data };
        let data = p.add("data", rows, ());
        let base = Base::of(&self.base.model)?;
        let context = base.context(context)?;
        let tokenizer = p.add("tokenizer", TakeTokenizer(base.clone()), ());
        let student = p.add("base", TakeModel { base, context, precision }, ());
        let teacher = match self.teacher.as_str() {
            "" => student,
            model => {
                let base = Base::of(model)?;
                let context = base.context(context)?;
                p.add("teacher", TakeModel { base, context, precision }, ())
            }
        };
        let DistillRecipe { texts, max_tokens, top_k, train } = self.distill;
        let teach = Teach { seed, context, texts, max_tokens, top_k, micro_batch_size: train.micro_batch_size };
        let taught = p.add("teach", teach, (data, tokenizer, teacher));
        let distilled = p.add("distill", Distill { seed, lora: self.base.lora(), train }, (taught, tokenizer, student));
        let compare = CompareDistilled { seed, context, max_tokens, recipe: self.evaluate };
        let measurements = p.add("evaluate", compare, (data, tokenizer, teacher, student, distilled));
        let page =
            WritePage { title: "Context distillation".to_owned(), trained: vec!["distill"], recipe: self.clone() };
        p.add("report", page, (vec![data], vec![distilled], Vec::new(), measurements));
        Ok(p)
    }

    fn derived(&self) -> Result<Vec<String>> {
        let context = self.model.context;
        let shape = |source: &str| -> Result<_> { Ok(located(source)?.config()?) };
        let student = shape(&self.base.model)?;
        let teacher = if self.teacher.is_empty() { student } else { shape(&self.teacher)? };
        let DistillRecipe { texts, max_tokens, train, .. } = self.distill;
        let load = Load::trained(&student, self.base.lora());
        let workers = Workers::default().count();
        let learning = Work::training(&load, texts * train.passes, max_tokens, train.micro_batch_size, workers);
        Ok(Work::reading(&Load::frozen(&teacher), texts, context).then(learning).lines("reading and training"))
    }
}
