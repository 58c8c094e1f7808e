//! From raw preference data to an aligned policy and its report (B-01).

pub mod evaluate;
pub mod report;
pub(crate) mod results;

use std::path::Path;

use anyhow::{Result, bail};
use firebrick_data::hub;
use firebrick_pipeline::{Output, Pipeline, open};
use firebrick_rl::ppo::PpoConfig;
use serde::{Deserialize, Serialize};

use self::evaluate::Evaluate;
use self::report::WriteReport;
use super::{Goes, Input, Made, Results};
use crate::Env;
use crate::artifacts::{Evaluation, LanguageModel};
use crate::data::Data;
use crate::distill::{Distill, Teach};
use crate::language::{Base, Pretrain, TakeModel, TakeTokenizer, TrainTokenizer};
use crate::ppo::Ppo;
use crate::recipe::{
    BaseRecipe, DataRecipe, DistillRecipe, EvaluateRecipe, ModelRecipe, PairRecipe, PmpRecipe, PolicyName, Shape,
    TokenizerRecipe, TrainRecipe,
};
use crate::reward_model::{Half, Pmp, RewardModel};

/// The numbers of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where all randomness comes from.
    pub seed: u64,
    /// What the models begin with.
    pub base: BaseRecipe,
    /// How much data is taken.
    pub data: DataRecipe,
    /// How the tokenizer is trained.
    pub tokenizer: TokenizerRecipe,
    /// The shapes of the models.
    pub model: ModelRecipe,
    /// How the language model is pretrained.
    pub pretrain: TrainRecipe,
    /// How the prompt is distilled.
    pub distill: DistillRecipe,
    /// How preference models are pretrained.
    pub pmp: PmpRecipe,
    /// How preference models learn from comparisons.
    pub pm: PairRecipe,
    /// How the policy is trained.
    pub ppo: PpoConfig,
    /// How the finished models are measured.
    pub evaluate: EvaluateRecipe,
}

impl super::Recipe for Recipe {
    const NAME: &'static str = "rlhf";
    const ABOUT: &'static str = "from raw preference data to an aligned policy and its report";
    const BUILT_IN: &'static [(&'static str, &'static str)] = &[
        ("world", include_str!("../../../recipes/rlhf/world.toml")),
        ("tiny", include_str!("../../../recipes/rlhf/tiny.toml")),
        ("small", include_str!("../../../recipes/rlhf/small.toml")),
        ("smoke", include_str!("../../../recipes/rlhf/smoke.toml")),
    ];
    const BANDS: &'static [(&'static str, &'static str)] = &[
        ("world", include_str!("../../../recipes/rlhf/world.bands.toml")),
        ("tiny", include_str!("../../../recipes/rlhf/tiny.bands.toml")),
        ("smoke", include_str!("../../../recipes/rlhf/smoke.bands.toml")),
    ];
    const INPUTS: &'static [Input] = &[
        Input {
            name: "model",
            value: "DIR|FILE|hub:REPO",
            about: "A checkpoint to begin with; default: one is pretrained",
            required: false,
            goes: Goes::Setting("base.model"),
        },
        Input {
            name: "data",
            value: "DIR|hub:REPO",
            about: "A folder of comparisons, questions and text; default: the built-in world",
            required: false,
            goes: Goes::Data(hub::Wanted::Comparisons),
        },
    ];
    const EXAMPLES: &'static [(&'static str, &'static str)] = &[
        ("rlhf", "the built-in world"),
        ("rlhf --data ../data", "comparisons, questions and text from a folder"),
        ("rlhf --data hub:Anthropic/hh-rlhf", "from the Hugging Face Hub"),
        ("rlhf --model ./smollm2 --data ../data", "beginning with a checkpoint, adapted by LoRA"),
        ("rlhf --plan --set ppo.kl_coefficient=0.01", "what would be run"),
        ("rlhf --rebuild ppo", "make a stage again, and what depends on it"),
    ];
    const MADE: Option<Made> = Some(Made::LanguageModel("ppo"));

    fn usual(given: &[&str]) -> &'static str {
        match (given.contains(&"model"), given.contains(&"data")) {
            (true, _) => "small",
            (false, true) => "tiny",
            (false, false) => "world",
        }
    }

    fn validate(&self) -> Result<()> {
        for shape in [self.model.policy(), self.model.preference_model(), self.model.critic()] {
            shape.config(1).validate()?;
        }
        self.data.world.validate()?;
        let positive = [
            ("data.documents", self.data.documents),
            ("data.document_characters", self.data.document_characters),
            ("data.comparisons", self.data.comparisons),
            ("data.threads", self.data.threads),
            ("pretrain.batch_size", self.pretrain.batch_size),
            ("pretrain.micro_batch_size", self.pretrain.micro_batch_size),
            ("pretrain.passes", self.pretrain.passes),
            ("distill.texts", self.distill.texts),
            ("distill.top_k", self.distill.top_k),
            ("distill.train.batch_size", self.distill.train.batch_size),
            ("distill.train.micro_batch_size", self.distill.train.micro_batch_size),
            ("distill.train.passes", self.distill.train.passes),
            ("pmp.train.batch_size", self.pmp.pairs.train.batch_size),
            ("pmp.train.micro_batch_size", self.pmp.pairs.train.micro_batch_size),
            ("pmp.train.passes", self.pmp.pairs.train.passes),
            ("pm.train.batch_size", self.pm.train.batch_size),
            ("pm.train.micro_batch_size", self.pm.train.micro_batch_size),
            ("pm.train.passes", self.pm.train.passes),
            ("evaluate.comparisons", self.evaluate.comparisons),
            ("evaluate.prompts", self.evaluate.prompts),
            ("evaluate.documents", self.evaluate.documents),
            ("evaluate.micro_batch_size", self.evaluate.micro_batch_size),
            ("evaluate.resamples", self.evaluate.resamples),
            ("evaluate.calibration_bins", self.evaluate.calibration_bins),
        ];
        if let Some((key, _)) = positive.into_iter().find(|&(_, number)| number == 0) {
            bail!("recipe: `{key}` is 0; it must be at least 1");
        }
        if !(0.0 < self.data.held_out && self.data.held_out < 1.0) {
            bail!("recipe: `data.held_out` is {}; it must lie between 0 and 1", self.data.held_out);
        }
        if self.tokenizer.vocab < 257 {
            bail!(
                "recipe: `tokenizer.vocab` is {}; 256 bytes and the end of context need at least 257",
                self.tokenizer.vocab
            );
        }
        if self.base.lora_rank > 0 && self.base.checkpoint().is_none() {
            bail!(
                "recipe: `base.lora_rank` = {} adapts weights that were never trained; name a checkpoint in `base.model`, or set \
                 it to 0",
                self.base.lora_rank
            );
        }
        let same = self.model.policy() == self.model.preference_model() && self.model.policy() == self.model.critic();
        if self.base.checkpoint().is_some() && !same {
            bail!(
                "recipe: `model.preference_model` or `model.critic` differs from the policy, but all models begin with \
                 `base.model`; leave both empty, or set `base.model` to \"\""
            );
        }
        for name in [PolicyName::Distilled, PolicyName::Rlhf] {
            if self.evaluate.policies.iter().filter(|&&one| one == name).count() != 1 {
                bail!("recipe: `evaluate.policies` must name `{}` once", name.as_str());
            }
        }
        if !(0.0 < self.evaluate.confidence && self.evaluate.confidence < 1.0) {
            bail!("recipe: `evaluate.confidence` is {}; it must lie between 0 and 1", self.evaluate.confidence);
        }
        let prior = self.evaluate.elo_prior;
        if prior < 0.0 || !prior.is_finite() {
            bail!("recipe: `evaluate.elo_prior` is {prior}; it must be 0 or more");
        }
        let comparisons = self.data.comparisons as f64 * (1.0 - self.data.held_out) / 2.0;
        for (key, batch, samples) in [
            ("distill.train.batch_size", self.distill.train.batch_size, self.distill.texts as f64),
            ("pm.train.batch_size", self.pm.train.batch_size, comparisons),
        ] {
            if batch as f64 > samples {
                bail!(
                    "recipe: `{key}` = {batch} is larger than its data, {samples:.0} samples; lower it or take more data"
                );
            }
        }
        super::validate_ppo(&self.ppo, self.model.context)
    }

    fn pipeline(&self, env: &Env) -> Result<Pipeline<Env>> {
        let seed = self.seed;
        let lora = self.base.lora();
        let [policy_shape, pm_shape, critic_shape] =
            [self.model.policy(), self.model.preference_model(), self.model.critic()];
        let mut p = Pipeline::new("rlhf");
        let data = p.add("data", Data { seed, from_folder: env.data.is_some(), recipe: self.data.clone() }, ());
        let mut bases: Vec<(Shape, Output<LanguageModel>)> = Vec::new();
        let tokenizer = match self.base.checkpoint() {
            Some(source) => {
                let base = Base::of(source)?;
                let tokenizer = p.add("tokenizer", TakeTokenizer(base.clone()), ());
                let Shape { context, precision, .. } = policy_shape;
                bases.push((policy_shape, p.add("base", TakeModel { base, context, precision }, ())));
                tokenizer
            }
            None => {
                let tokenizer = p.add("tokenizer", TrainTokenizer { vocab: self.tokenizer.vocab }, (data,));
                for (name, model) in
                    [("pretrain", policy_shape), ("pretrain-pm", pm_shape), ("pretrain-critic", critic_shape)]
                {
                    // A critic of a preference model's shape begins as that preference model.
                    if bases.iter().all(|(shape, _)| *shape != model) {
                        let train = self.pretrain;
                        bases.push((model, p.add(name, Pretrain { seed, model, train }, (data, tokenizer))));
                    }
                }
                tokenizer
            }
        };
        let base_of = |wanted: Shape| bases.iter().find(|(shape, _)| *shape == wanted).expect("it was pretrained").1;
        let base = base_of(policy_shape);
        let DistillRecipe { texts, max_tokens, top_k, train } = self.distill;
        let (context, micro_batch_size) = (policy_shape.context, train.micro_batch_size);
        let teach = Teach { seed, context, texts, max_tokens, top_k, micro_batch_size };
        let taught = p.add("teach", teach, (data, tokenizer, base));
        let distilled = p.add("distill", Distill { seed, lora, train }, (taught, tokenizer, base));
        let pmp = Pmp { seed, model: pm_shape, lora, recipe: self.pmp.clone() };
        let pmp = p.add("pmp", pmp, (data, tokenizer, base_of(pm_shape)));
        let pm = |half| RewardModel { seed, half: Some(half), model: pm_shape, lora, recipe: self.pm.clone() };
        let train_pm = p.add("pm-train", pm(Half::First), (data, tokenizer, pmp));
        let test_pm = p.add("pm-test", pm(Half::Second), (data, tokenizer, pmp));
        let critic = if critic_shape == pm_shape { Vec::new() } else { vec![base_of(critic_shape)] };
        let context = policy_shape.context;
        let ppo = Ppo { seed, context, half: Some(Half::First), lora, recipe: self.ppo, probe: None };
        let policy = p.add("ppo", ppo, (data, tokenizer, distilled, train_pm, Vec::new(), critic));
        let evaluate = Evaluate {
            seed,
            model: policy_shape,
            max_response_tokens: self.ppo.max_response_tokens,
            temperature: self.ppo.temperature,
            recipe: self.evaluate.clone(),
        };
        let inputs = (data, tokenizer, base, distilled, policy, train_pm, test_pm);
        let evaluation = p.add("evaluate", evaluate, inputs);
        let inputs = (data, base, distilled, pmp, train_pm, test_pm, policy, evaluation);
        p.add("report", WriteReport { recipe: self.clone() }, inputs);
        Ok(p)
    }

    fn derived(&self) -> Result<Vec<String>> {
        let per_iteration = self.ppo.samples_per_iteration();
        let in_all = per_iteration * self.ppo.iterations;
        let of = |shape: Shape| shape.config(1).non_embedding_parameters();
        let [policy, pm, critic] = [self.model.policy(), self.model.preference_model(), self.model.critic()].map(of);
        Ok(vec![
            format!("derived: {per_iteration} samples a PPO iteration, {in_all} in all"),
            format!("non-embedding parameters: policy {policy}, preference models {pm}, critic {critic}"),
        ])
    }

    fn results(run: &Path) -> Result<Results> {
        let Evaluation(results) = open(run, "evaluate")?;
        Ok(Results { summary: results.summary(), metrics: results.metrics })
    }
}
