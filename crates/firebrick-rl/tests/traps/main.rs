//! Traps of reinforcement learning, through the whole loop with small models.

#![cfg(feature = "train")]

mod rewards;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use firebrick_models::{Architecture, Decoder, DecoderConfig, ScoredDecoder};
use firebrick_rl::ppo::{self, PpoConfig};
use firebrick_rl::{Error, Prompt, RewardModel, policy_loss, shaped_rewards};
use firebrick_sampling::{Finish, Sample, Sampler, Stop, generate};
use firebrick_tensor::{CausalLm, Feed, Incremental, Mask, Parameters, SequenceScorer, TokenBatch, TokenValues};
use firebrick_testkit::{assert_close, cpu, gradient};
use firebrick_text::{EOC as EOC_NAME, ResponseFormat, StopStrings, Tokenizer};
use firebrick_train::{
    AdamWConfig, Checkpoint, Checkpoints, Error as TrainError, Event, Observer, ObserverError, Run, Schedule, Values,
};
use firebrick_types::{Seed, TokenId};

const VOCAB: usize = 20;
const EOC: TokenId = 1;

fn shape() -> DecoderConfig {
    DecoderConfig {
        vocab: VOCAB,
        context: 16,
        n_layer: 1,
        d_model: 16,
        heads: 2,
        d_ff: 32,
        architecture: Architecture::gpt(),
    }
}

/// A decoder whose distributions are far from uniform, as a fresh one's are.
fn policy() -> Decoder {
    shape().init(Seed::new(1).derive("policy"), &cpu().autodiff())
}

fn critic() -> ScoredDecoder {
    shape().init_scored(Seed::new(1).derive("critic"), &cpu().autodiff()).with_zero_head()
}

fn preference_model() -> ScoredDecoder {
    shape().init_scored(Seed::new(1).derive("preference model"), &cpu())
}

/// Of several lengths, and without the end of context.
fn prompts() -> Vec<Vec<TokenId>> {
    vec![vec![12, 13, 14], vec![15], vec![16, 17, 18, 19, 12], vec![13, 15]]
}

/// A tokenizer whose token `n` is the letter of that number, but for the end of context.
fn letters() -> Tokenizer {
    let name =
        |id: usize| if id == EOC as usize { EOC_NAME.to_owned() } else { char::from(b'a' + id as u8).to_string() };
    let vocab = (0..VOCAB).map(|id| (name(id), id.into())).collect::<serde_json::Map<_, _>>();
    let bytes =
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [{"id": EOC, "content": EOC_NAME, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": bytes,
        "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    Tokenizer::parse(&json.to_string(), Path::new("letters"), None).unwrap()
}

/// Two tokens 4, `ee`, end a response as the end of context does.
fn format() -> ResponseFormat {
    ResponseFormat::new(EOC, vec![EOC], StopStrings::new(letters(), ["ee"]))
}

fn named(prompts: &[Vec<TokenId>]) -> Vec<Prompt> {
    prompts.iter().enumerate().map(|(index, tokens)| Prompt::new(format!("p{index}"), tokens.clone())).collect()
}

/// A run of PPO on these prompts by this scorer.
fn train<P, S>(
    policy: P,
    scorer: &S,
    prompts: &[Vec<TokenId>],
    config: &PpoConfig,
    run: Run<'_, P>,
) -> Result<(P, ScoredDecoder), Error>
where
    P: Incremental + Module + Send,
    S: SequenceScorer + Module + Send,
{
    let format = format();
    let reward = RewardModel { scorer, format: &format, micro_batch_size: 3, workers: run.workers };
    ppo::train(policy, critic(), &reward, &named(prompts), &format, config, run)
}

fn config() -> PpoConfig {
    PpoConfig {
        iterations: 1,
        prompts_per_iteration: 4,
        samples_per_prompt: 4,
        sequences_per_update: 16,
        micro_batch_size: 16,
        passes: 1,
        max_response_tokens: 6,
        temperature: 1.0,
        kl_coefficient: 0.1,
        gamma: 1.0,
        lambda: 0.95,
        policy_clip: 0.2,
        value_clip: 0.2,
        policy_learning_rate: 1e-2,
        value_learning_rate: 1e-2,
        schedule: Schedule::Constant,
        clip_norm: 1.0,
        adamw: AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() },
    }
}

/// The metrics of every step, up to the one at which the run is killed.
#[derive(Default)]
struct Record {
    steps: Vec<Values>,
    killed_at: Option<u64>,
}

impl Record {
    fn value(&self, step: usize, name: &str) -> f64 {
        self.steps[step].iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no metric `{name}`")).1
    }

    fn first_and_last(&self, name: &str) -> (f64, f64) {
        (self.value(0, name), self.value(self.steps.len() - 1, name))
    }
}

impl Observer for Record {
    fn on(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        if let Event::Step { done, values, .. } = event {
            self.steps.push(values.clone());
            if self.killed_at == Some(done) {
                return Err("killed".into());
            }
        }
        Ok(())
    }
}

fn seed() -> Seed {
    Seed::new(7)
}

/// A whole run on [`prompts`].
fn run<P, S>(policy: P, scorer: &S, config: &PpoConfig) -> (P, ScoredDecoder, Record)
where
    P: Incremental + Module + Send,
    S: SequenceScorer + Module + Send,
{
    let mut record = Record::default();
    let (policy, critic) = train(policy, scorer, &prompts(), config, Run::new(seed()).observer(&mut record)).unwrap();
    (policy, critic, record)
}

/// A policy that reads nothing but the position: row `t` holds the logits after token `t`.
#[derive(Module, Debug)]
struct Table {
    logits: Param<Tensor<2>>,
}

impl Table {
    /// Every row gives these tokens these logits, and the others none to speak of.
    fn new(likely: &[(TokenId, f32)]) -> Self {
        let device = cpu().autodiff();
        let table = Self { logits: Param::from_tensor(Tensor::zeros([shape().context, VOCAB], &device)) };
        (0..shape().context).fold(table, |table, position| table.with_row(position, likely))
    }

    /// With another row.
    fn with_row(self, position: usize, likely: &[(TokenId, f32)]) -> Self {
        let mut parameters = Parameters::of(&self);
        let mut values = parameters.remove("logits").unwrap();
        let row = &mut values[position * VOCAB..(position + 1) * VOCAB];
        row.fill(-60.0);
        likely.iter().for_each(|&(token, logit)| row[token as usize] = logit);
        parameters.insert("logits", vec![shape().context, VOCAB], values);
        parameters.load(self).unwrap()
    }

    fn rows(&self, positions: Vec<i64>, device: &Device) -> Tensor<2> {
        let count = positions.len();
        self.logits.val().select(0, Tensor::<1, Int>::from_data(TensorData::new(positions, [count]), device))
    }
}

impl CausalLm for Table {
    fn logits(&self, batch: &TokenBatch) -> Tensor<2> {
        let positions = batch.sequence_starts().positions().into_iter().map(|position| position as i64).collect();
        self.rows(positions, batch.device())
    }

    fn vocab(&self) -> usize {
        VOCAB
    }

    fn context(&self) -> usize {
        shape().context
    }
}

impl Incremental for Table {
    /// How many tokens each slot has read.
    type Cache = Vec<usize>;

    fn cache(&self, slots: usize, _capacity: usize) -> Vec<usize> {
        vec![0; slots]
    }

    fn extend(&self, lengths: &mut Vec<usize>, feeds: &[Feed<'_>]) -> Tensor<2> {
        feeds.iter().for_each(|feed| lengths[feed.slot] += feed.tokens.len());
        self.rows(feeds.iter().map(|feed| lengths[feed.slot] as i64 - 1).collect(), &self.devices()[0])
    }

    fn forget(&self, lengths: &mut Vec<usize>, slot: usize) {
        lengths[slot] = 0;
    }

    fn copy(&self, lengths: &mut Vec<usize>, from: usize, to: usize) {
        lengths[to] = lengths[from];
    }
}

/// Scores a sequence by the sum of what its tokens are worth.
#[derive(Module, Debug)]
struct Worth {
    of: Param<Tensor<1>>,
}

impl Worth {
    fn new(tokens: &[TokenId], worth: f32) -> Self {
        let mut values = vec![0.0; VOCAB];
        tokens.iter().for_each(|&token| values[token as usize] = worth);
        Self { of: Param::from_tensor(Tensor::from_floats(values.as_slice(), &cpu())) }
    }
}

impl SequenceScorer for Worth {
    fn scores(&self, batch: &TokenBatch) -> Tensor<1> {
        let of_one =
            |sequence: &[TokenId]| self.of.val().select(0, TokenBatch::of(&[sequence], batch.device()).ids()).sum();
        Tensor::cat(batch.sequences().map(of_one).collect(), 0)
    }

    fn context(&self) -> usize {
        shape().context
    }
}

/// The metrics of one iteration of a policy that has moved away from its reference.
///
/// A run is handed the reference; a checkpoint says where the policy has got to.
fn moved(reference: Table, policy: &Table, scorer: &Worth, prompts: &[Vec<TokenId>], config: &PpoConfig) -> Record {
    let dir = tempfile::tempdir().unwrap();
    let mut checkpoints = Checkpoints::new(dir.path(), Duration::from_secs(3600));
    let tensors =
        Parameters::default().with("0.model.", Parameters::of(policy)).with("1.model.", Parameters::of(&critic()));
    checkpoints.save(&Checkpoint { steps: 0, tensors, counters: vec![0_u64, 0] }).unwrap();
    let mut record = Record::default();
    train(reference, scorer, prompts, config, Run::new(seed()).checkpoints(checkpoints).observer(&mut record)).unwrap();
    record
}

/// The log-probabilities of softmax(logits / temperature).
fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let total = logits.iter().map(|logit| (logit / temperature).exp()).sum::<f64>();
    logits.iter().map(|logit| logit / temperature - total.ln()).collect()
}

/// Whatever the cut into prompts, updates, micro-batches and passes.
#[test]
fn t01_the_first_ratio_is_one() {
    for (samples_per_prompt, sequences_per_update, micro_batch_size, passes) in
        [(1, 4, 4, 1), (2, 8, 3, 1), (2, 3, 2, 2), (3, 12, 5, 2)]
    {
        let config =
            PpoConfig { iterations: 2, samples_per_prompt, sequences_per_update, micro_batch_size, passes, ..config() };
        let (_, _, record) = run(policy(), &preference_model(), &config);
        for step in 0..2 {
            assert_eq!(record.value(step, "val/ratio_first_max_deviation"), 0.0, "step {step} of {config:?}");
        }
        assert_eq!(record.value(0, "objective/kl"), 0.0, "{config:?}");
        assert_eq!(record.value(0, "objective/kl_exact"), 0.0, "{config:?}");
        assert!(record.value(1, "objective/kl_exact") > 0.0, "nothing was learnt: {config:?}");
    }
}

/// In the first update nothing is clipped, and the loss is minus the mean of the whitened advantages.
#[test]
fn t01_the_first_loss_is_zero() {
    let (_, _, record) = run(policy(), &preference_model(), &config());
    assert_close(record.value(0, "val/ratio"), 1.0, 1e-6);
    for name in ["val/ratio_var", "policy/approxkl_avg", "policy/clipfrac_avg", "val/clipfrac_avg"] {
        assert_eq!(record.value(0, name), 0.0, "{name}");
    }
    // A mean of numbers of size 1, each rounded to 2⁻²⁴.
    assert_close(record.value(0, "loss/policy_avg"), 0.0, 1e-6);
    assert!(record.value(0, "grad_norm/policy") > 0.0);
}

/// On the training device and off it.
#[test]
fn t02_two_passes_give_the_same_bits() {
    let model = policy();
    let bits = |logits: Tensor<2>| {
        let logits = logits.without_autodiff().into_data().try_to_vec::<f32>().unwrap();
        logits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let training = TokenBatch::of(&prompts(), &cpu().autodiff());
    let plain = TokenBatch::of(&prompts(), &cpu());
    let first = bits(model.logits(&training));
    assert_eq!(first, bits(model.logits(&training)));
    assert_eq!(first, bits(model.valid().logits(&plain)));
}

#[test]
fn t03_an_untrained_policy_is_its_reference_at_every_temperature() {
    for temperature in [0.7, 1.0] {
        let (_, _, record) = run(policy(), &preference_model(), &PpoConfig { temperature, ..config() });
        for name in ["objective/kl", "objective/kl_exact", "val/ratio_first_max_deviation"] {
            assert_eq!(record.value(0, name), 0.0, "{name} at temperature {temperature}");
        }
    }
}

/// Two tokens alone are likely, so that a count of one tells every sampled log-probability.
#[test]
fn t03_the_temperature_divides_policy_and_reference() {
    let (a, b) = (2, 3);
    let (of_policy, of_reference) = ([-0.2_f64, 0.6], [0.5_f64, -0.3]);
    let table = |logits: [f64; 2]| Table::new(&[(a, logits[0] as f32), (b, logits[1] as f32)]);
    let tokens = 3.0;
    for temperature in [0.7, 1.0] {
        let config = PpoConfig { temperature, max_response_tokens: 3, samples_per_prompt: 16, ..config() };
        let record = moved(table(of_reference), &table(of_policy), &Worth::new(&[b], 1.0), &prompts(), &config);
        let (p, q) = (log_softmax(&of_policy, temperature), log_softmax(&of_reference, temperature));
        let k1 = [p[0] - q[0], p[1] - q[1]];
        // The score counts b in a response; the other tokens are a.
        let count = record.value(0, "objective/scores");
        assert!(0.0 < count && count < tokens);
        let kl = (tokens - count) * k1[0] + count * k1[1];
        assert_close(record.value(0, "objective/kl"), kl, 1e-5);
        let exact = tokens * (p[0].exp() * k1[0] + p[1].exp() * k1[1]);
        assert_close(record.value(0, "objective/kl_exact"), exact, 1e-5);
        let entropy = -tokens * (p[0].exp() * p[0] + p[1].exp() * p[1]);
        assert_close(record.value(0, "objective/entropy"), entropy, 1e-5);
        assert_close(record.value(0, "objective/rlhf_reward"), count - config.kl_coefficient * kl, 1e-5);
        assert_close(record.value(0, "objective/non_score_reward"), -config.kl_coefficient * kl, 1e-5);
    }
}

/// The first response token is predicted at the prompt's last one, position 4; what is predicted before it is the prompt.
#[test]
fn t04_the_divergence_is_of_response_tokens() {
    let (likely, other) = ([(2, 0.5), (3, -0.3)], [(2, -1.0), (3, 1.0)]);
    let kl_exact = |position: usize| {
        let policy = Table::new(&likely).with_row(position, &other);
        let config = PpoConfig { max_response_tokens: 3, ..config() };
        let prompt = vec![vec![12, 13, 14, 15, 16]];
        let record = moved(Table::new(&likely), &policy, &Worth::new(&[3], 1.0), &prompt, &config);
        (record.value(0, "objective/kl"), record.value(0, "objective/kl_exact"))
    };
    // Position 7 predicts a fourth response token, which is never sampled.
    for position in [0, 1, 2, 3, 7] {
        assert_eq!(kl_exact(position), (0.0, 0.0), "position {position}");
    }
    let (p, q) = (log_softmax(&[-1.0, 1.0], 1.0), log_softmax(&[0.5, -0.3], 1.0));
    let expected = p[0].exp() * (p[0] - q[0]) + p[1].exp() * (p[1] - q[1]);
    for position in [4, 5, 6] {
        assert_close(kl_exact(position).1, expected, 1e-5);
    }
}

/// Half of the tokens are worth a point each.
fn worth_half() -> Worth {
    Worth::new(&[2, 3, 5, 6, 7, 8, 9, 10, 11], 1.0)
}

#[test]
fn t06_a_heavy_penalty_keeps_the_policy_near() {
    let kl = |kl_coefficient| {
        let config = PpoConfig { iterations: 20, kl_coefficient, ..config() };
        run(policy(), &worth_half(), &config).2.first_and_last("objective/kl_exact").1
    };
    let (free, held) = (kl(0.0), kl(50.0));
    assert!(held < 0.2 * free, "{held} nats with the penalty, {free} without");
}

/// A policy that has run away turns round when the score is gone and only the penalty is left.
#[test]
fn t06_without_a_score_the_policy_returns() {
    let dir = tempfile::tempdir().unwrap();
    let go_on = |scorer: &Worth, iterations, kl_coefficient| {
        let config = PpoConfig { iterations, kl_coefficient, ..config() };
        let mut record = Record::default();
        let run = Run::new(seed()).checkpoints(Checkpoints::new(dir.path(), Duration::ZERO)).observer(&mut record);
        train(policy(), scorer, &prompts(), &config, run).unwrap();
        record.first_and_last("objective/kl_exact")
    };
    let (_, away) = go_on(&worth_half(), 20, 0.0);
    let (_, back) = go_on(&Worth::new(&[], 0.0), 60, 100.0);
    assert!(back < 0.5 * away, "{away} nats away, {back} after the way back");
}

/// At the first token half of the responses end; the others never do.
#[test]
fn t10_a_response_cut_by_length_has_not_ended() {
    let ends = |first: &[(TokenId, f32)]| {
        let policy = Table::new(&[(2, 0.0)]).with_row(0, first);
        let mut record = Record::default();
        let config = PpoConfig { samples_per_prompt: 8, ..config() };
        let scorer = Worth::new(&[2], 1.0);
        train(policy, &scorer, &[vec![15]], &config, Run::new(seed()).observer(&mut record)).unwrap();
        let value = |name| record.value(0, name);
        (value("val/num_eos_tokens"), value("response_length"), value("objective/scores"))
    };
    // 32 responses of at most 6 tokens.
    assert_eq!(ends(&[(EOC, 0.0)]), (32.0, 1.0, 0.0));
    assert_eq!(ends(&[(2, 0.0)]), (0.0, 6.0, 6.0));
    let (ended, length, score) = ends(&[(EOC, 0.0), (2, 0.0)]);
    assert!(0.0 < ended && ended < 32.0);
    assert_close(length, (ended + (32.0 - ended) * 6.0) / 32.0, 1e-12);
    assert_close(score, (32.0 - ended) * 6.0 / 32.0, 1e-12);
}

#[test]
fn t10_a_stop_string_ends_a_response_and_is_not_judged() {
    let policy = Table::new(&[(4, 0.0)]).with_row(0, &[(2, 0.0)]);
    let mut record = Record::default();
    // Token 2, then the stop string: one token of text that is worth 1, two that are worth nothing because they are not read.
    let scorer = Worth::new(&[2, 4], 1.0);
    train(policy, &scorer, &[vec![15]], &config(), Run::new(seed()).observer(&mut record)).unwrap();
    let found = ["val/num_eos_tokens", "response_length", "objective/scores"].map(|name| record.value(0, name));
    assert_eq!(found, [16.0, 3.0, 1.0]);
}

#[test]
fn t12_a_judged_sequence_ends_with_the_end_of_context_once() {
    let check = |response: &[TokenId], judged: &[TokenId]| {
        assert_eq!(format().scored_sequence(&[12, 13], response), judged, "{response:?}");
    };
    check(&[2, 3, EOC], &[12, 13, 2, 3, EOC]); // ended by the token
    check(&[2, 4, 4], &[12, 13, 2, EOC]); // by the stop string
    check(&[2, 3], &[12, 13, 2, 3, EOC]); // by length
    check(&[2, 4], &[12, 13, 2, 4, EOC]); // by length, inside what might have become a stop string
    check(&[EOC], &[12, 13, EOC]);
}

/// A preference model that keeps what it was shown.
#[derive(Module, Debug)]
struct Witness {
    model: ScoredDecoder,
    #[module(skip)]
    seen: Arc<Mutex<Vec<Vec<TokenId>>>>,
}

impl SequenceScorer for Witness {
    fn scores(&self, batch: &TokenBatch) -> Tensor<1> {
        self.seen.lock().unwrap().extend(batch.sequences().map(<[TokenId]>::to_vec));
        self.model.scores(batch)
    }

    fn context(&self) -> usize {
        self.model.context()
    }
}

/// Score of one sequence, read alone.
fn score_alone(model: &ScoredDecoder, sequence: &[TokenId]) -> f64 {
    f64::from(model.scores(&TokenBatch::of(&[sequence], &cpu())).into_scalar::<f32>())
}

#[test]
fn t12_the_preference_model_reads_the_prompt_the_response_and_one_end() {
    let scorer = Witness { model: preference_model(), seen: Arc::default() };
    let (_, _, record) = run(policy(), &scorer, &PpoConfig { micro_batch_size: 3, ..config() });
    let seen = scorer.seen.lock().unwrap();
    assert_eq!(seen.len(), 16);
    for sequence in seen.iter() {
        assert!(prompts().iter().any(|prompt| sequence.starts_with(prompt)), "{sequence:?} has no prompt");
        let ends = sequence.iter().filter(|&&token| token == EOC).count();
        assert!(ends == 1 && sequence.ends_with(&[EOC]), "{sequence:?}");
    }
    let mean = seen.iter().map(|sequence| score_alone(&scorer.model, sequence)).sum::<f64>() / 16.0;
    assert_close(record.value(0, "objective/scores"), mean, 1e-6);
}

/// The 32 responses to one prompt that the first iteration samples, sampled again from the seeds of their places.
fn sampled_by_hand(prompt: &[TokenId], config: &PpoConfig) -> Vec<Sample> {
    let places = (0..4).flat_map(|place| (0..8).map(move |sample| [place, sample]));
    let seeds = places.map(|place| seed().derive("ppo/rollout").at(&place)).collect::<Vec<_>>();
    let sampler = Sampler { temperature: config.temperature, ..Sampler::default() };
    let stop = Stop::of(&format(), config.max_response_tokens);
    generate(&policy().valid(), &vec![prompt.to_vec(); 32], &seeds, &sampler, &stop)
}

#[test]
fn t10_what_ends_a_response_is_its_last_token_and_only_there() {
    let (mut ended, mut cut) = (0, 0);
    for sample in sampled_by_hand(&[16, 17, 18], &config()) {
        let (last, before) = sample.tokens.split_last().unwrap();
        assert!(!before.contains(&EOC), "{sample:?}");
        match sample.finish {
            Finish::Stop => ended += 1,
            Finish::Length => cut += 1,
        }
        let says_so = *last == EOC || sample.tokens.ends_with(&[4, 4]);
        assert_eq!(sample.finish == Finish::Stop, says_so, "{sample:?}");
        assert!(says_so || sample.tokens.len() == 6, "{sample:?}");
    }
    assert!(ended > 0 && cut > 0, "{ended} ended and {cut} cut: one case is left out");
}

/// Judged and scored one by one: the loop neither scales nor clips nor centres what the preference model says.
#[test]
fn t41_the_reward_is_the_score_of_the_preference_model() {
    let (prompt, config) = (vec![16, 17, 18], PpoConfig { samples_per_prompt: 8, ..config() });
    let samples = sampled_by_hand(&prompt, &config);
    let model = preference_model();
    let score = |sample: &Sample| score_alone(&model, &format().scored_sequence(&prompt, &sample.tokens));
    let scores = samples.iter().map(score).collect::<Vec<_>>();
    let ended = samples.iter().filter(|sample| sample.finish == Finish::Stop).count();
    let mut record = Record::default();
    train(policy(), &model, &[prompt], &config, Run::new(seed()).observer(&mut record)).unwrap();
    let mean = scores.iter().sum::<f64>() / 32.0;
    assert_close(record.value(0, "objective/scores"), mean, 1e-6);
    assert_close(record.value(0, "objective/rlhf_reward"), mean, 1e-6); // the divergence is 0 yet
    assert_eq!(record.value(0, "val/num_eos_tokens"), ended as f64);
}

/// Every sequence is judged 3 by its one end of context, so every return is 3 and every value's loss ½ · 3².
#[test]
fn t18_a_critic_with_a_zero_head_begins_at_zero_and_learns() {
    let values = critic().values(&TokenBatch::of(&prompts(), &cpu().autodiff()));
    assert!(values.without_autodiff().into_data().iter::<f32>().all(|value| value == 0.0));
    let config = PpoConfig { iterations: 40, lambda: 1.0, kl_coefficient: 0.0, value_learning_rate: 0.05, ..config() };
    let (_, _, record) = run(policy(), &Worth::new(&[EOC], 3.0), &config);
    let (first, last) = record.first_and_last("loss/value_avg");
    assert_close(first, 4.5, 1e-5);
    assert!(last < 0.1 * first, "the loss of the values went from {first} to {last}");
}

#[test]
fn t20_the_learning_rate_counts_samples_not_updates() {
    for (sequences_per_update, passes) in [(16, 1), (4, 3)] {
        let schedule = Schedule::Halving { every: 32 };
        let config = PpoConfig { iterations: 5, sequences_per_update, passes, schedule, ..config() };
        let (_, _, record) = run(policy(), &preference_model(), &config);
        // 16 samples an iteration: halved after every second one.
        for (step, factor) in [1.0, 1.0, 0.5, 0.5, 0.25].into_iter().enumerate() {
            assert_close(record.value(step, "lr"), 1e-2 * factor, 1e-12);
        }
    }
}

/// The policy learns in place of nothing that somebody else holds.
#[test]
fn t21_training_changes_neither_the_reference_nor_the_scorer() {
    let (reference, scorer) = (policy(), preference_model());
    let plain = reference.valid();
    let bytes = || [Parameters::of(&reference), Parameters::of(&plain), Parameters::of(&scorer)].map(|p| p.to_bytes());
    let before = bytes();
    let (trained, _, record) = run(reference.clone(), &scorer, &PpoConfig { iterations: 3, ..config() });
    assert!(before == bytes(), "a model that is not trained has changed");
    assert!(Parameters::of(&trained).to_bytes() != before[0], "nothing was learnt");
    // A reference that went along would stay at no distance.
    assert!(record.value(1, "objective/kl_exact") > 0.0 && record.value(2, "objective/kl_exact") > 0.0);
}

#[test]
fn t22_what_is_liked_becomes_likelier_and_what_is_disliked_rarer() {
    let liked = [2, 3, 5, 6, 7];
    let counts = |worth: f32| {
        let config = PpoConfig { iterations: 20, kl_coefficient: 0.0, ..config() };
        let (first, last) = run(policy(), &Worth::new(&liked, worth), &config).2.first_and_last("objective/scores");
        (first / f64::from(worth), last / f64::from(worth))
    };
    let (before, more) = counts(1.0);
    assert!(more > 1.5 * before, "liked tokens went from {before} a response to {more}");
    let (before, fewer) = counts(-1.0);
    assert!(fewer < 0.5 * before, "disliked tokens went from {before} a response to {fewer}");
}

/// Neither the ratio, nor its gradient, nor the penalty is clamped, so that a divergence is seen.
#[test]
fn t38_a_log_ratio_of_thirty_passes() {
    let (log_probs, old) = ([0.0_f32, -30.0], [-30.0_f32, 0.0]);
    let tensor = |numbers: [f32; 2], like: &Tensor<1>| {
        let tensor = Tensor::<1>::from_floats(numbers, &cpu());
        if like.is_autodiff() { tensor.autodiff() } else { tensor }
    };
    let losses = |log_probs: Tensor<1>| {
        let (old, advantages) = (tensor(old, &log_probs), tensor([-1.0, 1.0], &log_probs));
        policy_loss(log_probs, old, advantages, 0.2)
    };
    let log_probs = Tensor::<1>::from_floats(log_probs, &cpu());
    let ratio = [30.0_f64.exp(), (-30.0_f64).exp()];
    let found = losses(log_probs.clone()).ratio.into_data().try_to_vec::<f32>().unwrap();
    for (found, expected) in found.into_iter().zip(ratio) {
        assert_close(f64::from(found) / expected, 1.0, 1e-5);
    }
    // d(−A ρ)/d log π = −A ρ, in the two cases that the clip of PPO lets through.
    let slopes = gradient(log_probs.clone(), |log_probs| losses(log_probs).loss.sum());
    let slopes = slopes.into_data().try_to_vec::<f32>().unwrap();
    assert_close(f64::from(slopes[0]) / ratio[0], 1.0, 1e-5);
    assert_close(f64::from(slopes[1]) / -ratio[1], 1.0, 1e-5);
    let mask = Mask::from_spans(&[(0, 2)], 2, &cpu());
    let (old, log_probs) = (tensor(old, &log_probs).unsqueeze(), log_probs.unsqueeze());
    let rewards = shaped_rewards(Tensor::from_floats([1.0], &cpu()), log_probs, old, &mask, 0.5);
    assert_close(rewards, [-15.0, 16.0], 1e-6);
}

/// What a run that is killed after each of these steps, one after the other, ends with.
fn killed(dir: &Path, config: &PpoConfig, kills: &[u64]) -> ([Vec<u8>; 2], Vec<Values>) {
    let mut steps: Vec<Values> = Vec::new();
    for killed_at in kills.iter().copied().map(Some).chain([None]) {
        let checkpoints = Checkpoints::new(dir, Duration::ZERO);
        let done = checkpoints.load::<Vec<u64>>().unwrap().map_or(0, |checkpoint| checkpoint.steps);
        steps.truncate(done as usize);
        let mut record = Record { killed_at, ..Record::default() };
        let run = Run::new(seed()).checkpoints(checkpoints).observer(&mut record);
        let result = train(policy(), &preference_model(), &prompts(), config, run);
        steps.extend(record.steps);
        match (result, killed_at) {
            (Ok((policy, critic)), None) => {
                return ([Parameters::of(&policy), Parameters::of(&critic)].map(|p| p.to_bytes()), steps);
            }
            (Err(Error::Train(TrainError::Observer(_))), Some(_)) => {}
            (result, _) => panic!("expected the run to be killed at {killed_at:?}: {:?}", result.map(|_| ())),
        }
    }
    unreachable!("the last run is not killed")
}

#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let config = PpoConfig { iterations: 4, sequences_per_update: 8, micro_batch_size: 3, passes: 2, ..config() };
    let whole = run(policy(), &preference_model(), &config);
    let expected = [Parameters::of(&whole.0), Parameters::of(&whole.1)].map(|p| p.to_bytes());
    for kills in [&[1][..], &[2], &[4], &[2, 3, 3]] {
        let dir = tempfile::tempdir().unwrap();
        let (parameters, steps) = killed(dir.path(), &config, kills);
        assert!(parameters == expected, "killed at {kills:?}, a run ends with other parameters");
        assert_eq!(steps, whole.2.steps, "killed at {kills:?}");
    }
}

/// Samples do not depend on how their update is cut up, and neither do its gradients, up to the order of summation.
#[test]
fn micro_batches_change_nothing_but_the_rounding() {
    // An ε of 1 makes the step proportional to the gradient; a small one would turn the rounding of a gradient near 0 into a
    // step of full length.
    let adamw = AdamWConfig { epsilon: 1.0, weight_decay: 0.0, ..AdamWConfig::default() };
    let run = |micro_batch_size| {
        let config = PpoConfig {
            micro_batch_size,
            adamw,
            policy_learning_rate: 1.0,
            value_learning_rate: 1.0,
            clip_norm: 100.0,
            ..config()
        };
        run(policy(), &preference_model(), &config)
    };
    let whole = run(16);
    let moved = Parameters::of(&whole.0);
    assert!(moved != Parameters::of(&policy()));
    for micro_batch_size in [1, 3, 8] {
        let parts = run(micro_batch_size);
        // Sums of a few hundred numbers of size 1 in f32 differ by some 10⁻⁶ when they are cut otherwise.
        for ((name, value), (_, expected)) in parts.2.steps[0].iter().zip(&whole.2.steps[0]) {
            assert!((value - expected).abs() < 1e-5 * expected.abs().max(1.0), "{name}: {value}, {expected} as one");
        }
        for (parts, whole) in
            [(Parameters::of(&parts.0), Parameters::of(&whole.0)), (Parameters::of(&parts.1), Parameters::of(&whole.1))]
        {
            for ((_, _, values), (_, _, expected)) in parts.iter().zip(whole.iter()) {
                let numbers = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
                assert_close(numbers(values), numbers(expected), 1e-5);
            }
        }
    }
}
