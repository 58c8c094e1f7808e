//! Stage `evaluate` of the commands that compare language models: what each answers to the same prompts, and what that is worth.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use firebrick_eval::tasks::{Hhh, HhhChoice};
use firebrick_eval::{Batching, Choice, head_to_head};
use firebrick_models::{Decoder, ScoredDecoder};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_rl::{Group, Prompt, Response, Reward};
use firebrick_sampling::{Finish, Sample, Sampler, Stop, generate};
use firebrick_stats::{bootstrap_mean, pearson, wilson};
use firebrick_tensor::{CausalLm, Incremental, ResponseBatch, kl};
use firebrick_text::{Renderer, dialogue};
use firebrick_train::lm;
use firebrick_types::{Dialogue, HhhItem, Measured, Seed, TokenId};
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, LanguageModel, PreferenceModel, Vocabulary, write_json};
use crate::judge::Judged;
use crate::measurements::{Answer, Exchange, Measurements, Plot, Table};
use crate::metrics::measured;
use crate::ppo::LoadedReward;
use crate::recipe::{CompareRecipe, JudgeRecipe};

/// Compares language models on held-out prompts, text, items and comparisons, as far as the data has them.
#[derive(Clone, Debug, Serialize)]
pub struct Compare {
    /// Where all randomness comes from.
    pub seed: u64,
    /// What the policies are called, the one that the others are compared with first.
    pub policies: Vec<String>,
    /// What the reward models are called; the last one decides who wins.
    pub rewards: Vec<&'static str>,
    /// How they are measured.
    #[serde(flatten)]
    pub recipe: CompareRecipe,
}

/// A policy that is measured.
struct Policy<'a> {
    name: &'a str,
    model: Decoder,
    renderer: Renderer,
}

/// The responses of a policy to the prompts.
struct Responses {
    prompts: Vec<Prompt>,
    samples: Vec<Sample>,
    texts: Vec<String>,
    /// By each reward model.
    scores: Vec<Vec<f64>>,
}

impl Compare {
    fn seed(&self, name: &str) -> Seed {
        Seed::new(self.seed).derive("compare").derive(name)
    }

    fn mean(&self, name: &str, values: &[f64]) -> Result<Measured> {
        let mut rng = self.seed("bootstrap").derive(name).rng();
        let interval = bootstrap_mean(values, self.recipe.resamples, self.recipe.confidence, &mut rng)?;
        Ok(measured(name, interval.estimate).interval(interval.low, interval.high))
    }

    /// The held-out prompts that leave room for a response in every model, each once.
    fn prompts(&self, corpus: &Corpus, policies: &[Policy<'_>]) -> Result<Vec<Dialogue>> {
        let mut prompts = corpus.held_out_prompts()?;
        prompts.sort_by_key(dialogue::render);
        prompts.dedup();
        prompts.shuffle(&mut self.seed("prompts").rng());
        let all = prompts.len();
        let fits = |prompt: &Dialogue| -> Result<bool> {
            for Policy { model, renderer, .. } in policies {
                if renderer.prompt(prompt)?.len() + self.recipe.max_response_tokens >= model.context() {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let mut kept = Vec::new();
        for prompt in prompts {
            if kept.len() < self.recipe.prompts && fits(&prompt)? {
                kept.push(prompt);
            }
        }
        if kept.is_empty() && all > 0 {
            let response = self.recipe.max_response_tokens;
            return Err(anyhow!(
                "none of the {all} held-out prompts leaves room for `evaluate.max_response_tokens` = {response} in the context of \
                 every model; lower it, or raise the context"
            ));
        }
        Ok(kept)
    }

    /// What a policy answers, each prompt with a seed of its own, and what the reward models say.
    fn responses(
        &self,
        policy: &Policy<'_>,
        dialogues: &[Dialogue],
        rewards: &[PreferenceModel],
        env: &Env,
    ) -> Result<Responses> {
        let Policy { model, renderer, .. } = policy;
        let format = renderer.response_format();
        let prompt = |(index, dialogue): (usize, &Dialogue)| -> Result<Prompt> {
            Ok(Prompt {
                dialogue: Some(dialogue.clone()),
                ..Prompt::new(index.to_string(), renderer.prompt(dialogue)?)
            })
        };
        let prompts = dialogues.iter().enumerate().map(prompt).collect::<Result<Vec<_>>>()?;
        let sampler = Sampler { temperature: self.recipe.temperature, ..Sampler::default() };
        let stop = Stop::of(&format, self.recipe.max_response_tokens);
        let seed = self.seed("responses");
        let packed = model.clone().prepacked();
        let numbered = prompts.iter().zip(0_u64..).collect::<Vec<_>>();
        let chunks = numbered.chunks(64).map(|chunk| (packed.clone(), chunk)).collect();
        let samples = env.workers.map(chunks, |(model, chunk): (Decoder, &[(&Prompt, u64)])| {
            let tokens = chunk.iter().map(|(prompt, _)| prompt.tokens.clone()).collect::<Vec<_>>();
            let seeds = chunk.iter().map(|&(_, index)| seed.at(&[index])).collect::<Vec<_>>();
            generate(&model, &tokens, &seeds, &sampler, &stop)
        });
        let samples = samples.into_iter().flatten().collect::<Vec<_>>();
        let texts = samples.iter().map(|sample| format.text(&sample.tokens)).collect::<Vec<_>>();
        let groups = || {
            let group = |((prompt, sample), text)| {
                let (sample, text): (&Sample, &String) = (sample, text);
                let response = Response { tokens: &sample.tokens, text, finish: sample.finish };
                Group { prompt, responses: vec![response] }
            };
            prompts.iter().zip(&samples).zip(&texts).map(group).collect::<Vec<_>>()
        };
        let score = |pm: &PreferenceModel| -> Result<Vec<f64>> {
            let reward = LoadedReward::of(pm, renderer, env)?;
            let reward = reward.reward(&format, self.recipe.micro_batch_size, env.workers);
            reward.score(&groups()).map_err(anyhow::Error::from_boxed)
        };
        let scores = rewards.iter().map(score).collect::<Result<_>>()?;
        Ok(Responses { scores, samples, texts, prompts })
    }

    /// The exact divergence of a policy from the first one over each of its responses, in nats.
    fn divergences(&self, policy: &Policy<'_>, first: &Policy<'_>, responses: &Responses, env: &Env) -> Vec<f64> {
        type Exchange<'a> = (&'a [TokenId], &'a [TokenId]);
        let exchange = |(prompt, sample)| {
            let (prompt, sample): (&Prompt, &Sample) = (prompt, sample);
            (&prompt.tokens[..], &sample.tokens[..])
        };
        let whole = responses.prompts.iter().zip(&responses.samples).map(exchange).collect::<Vec<_>>();
        let chunks = whole.chunks(self.recipe.micro_batch_size);
        let chunks = chunks.map(|chunk| (policy.model.clone(), first.model.clone(), chunk)).collect();
        let rows = env.workers.map(chunks, |(policy, first, chunk): (Decoder, Decoder, &[Exchange<'_>])| {
            let batch = ResponseBatch::of(chunk.iter().copied(), &env.device);
            let logits = |model: &Decoder| batch.logits(model, self.recipe.temperature.max(f64::MIN_POSITIVE));
            let divergences = batch.split_by_response(kl(logits(&policy), logits(&first)));
            divergences.iter().map(|response| response.iter().sum::<f32>()).collect::<Vec<_>>()
        });
        rows.into_iter().flatten().map(f64::from).collect()
    }

    /// Accuracy on two-way items by mutual information, over all and by category.
    fn hhh(&self, policy: &Policy<'_>, items: &[HhhItem], env: &Env) -> Result<Vec<Measured>, BoxError> {
        let renderer = &policy.renderer;
        let bare = renderer.unasked(&[])?;
        let item = |item: &HhhItem| -> Result<HhhChoice> {
            let context = renderer.prompt(&item.prompt)?;
            let choice = |answer: &str| -> Result<Choice> {
                let answer = renderer.response(answer)?;
                Ok(Choice { context: context.clone(), bare_context: bare.clone(), answer })
            };
            let (chosen, rejected) = (choice(&item.chosen)?, choice(&item.rejected)?);
            Ok(HhhChoice { category: item.category.clone(), chosen, rejected })
        };
        let items = items.iter().map(item).collect::<Result<_>>()?;
        let batching = Batching { micro_batch_size: self.recipe.micro_batch_size, workers: env.workers };
        firebrick_eval::evaluate(&Hhh { items, confidence: self.recipe.confidence }, &policy.model, &batching)
    }

    /// What the responses to the same prompts are worth.
    fn policies(
        &self,
        policies: &[Policy<'_>],
        dialogues: &[Dialogue],
        rewards: &[PreferenceModel],
        env: &Env,
        found: &mut Measurements,
    ) -> Result<()> {
        let responses = policies.iter().map(|policy| self.responses(policy, dialogues, rewards, env));
        let responses = responses.collect::<Result<Vec<_>>>()?;
        let columns = ["policy", "length", "finished"].into_iter().chain(self.rewards.iter().copied());
        let columns = columns.map(str::to_owned).chain(["win rate", "KL", "length and score"].map(str::to_owned));
        let mut rows = Vec::new();
        for (policy, of) in policies.iter().zip(&responses) {
            let name = policy.name;
            let lengths = of.samples.iter().map(|sample| sample.tokens.len() as f64).collect::<Vec<_>>();
            let ended = of.samples.iter().filter(|sample| sample.finish == Finish::Stop).count();
            let length = self.mean(&format!("response_length/{name}"), &lengths)?;
            let finished = wilson(ended as u64, of.samples.len() as u64, self.recipe.confidence)?;
            let finished =
                measured(format!("finished/{name}"), finished.estimate).interval(finished.low, finished.high);
            let mut cells = vec![name.to_owned(), length.show(1), finished.show(3)];
            found.metrics.extend([length, finished]);
            for (reward, scores) in self.rewards.iter().zip(&of.scores) {
                let score = self.mean(&format!("{reward}/{name}"), scores)?;
                cells.push(score.show(3));
                found.metrics.push(score);
            }
            let first = &policies[0];
            let is_first = std::ptr::eq(policy, first);
            cells.push(match (of.scores.last(), responses[0].scores.last()) {
                (Some(scores), Some(others)) if !is_first => {
                    let wins = head_to_head(scores, others);
                    let won = wins.iter().sum::<f64>().round() as u64;
                    let interval = wilson(won, wins.len() as u64, self.recipe.confidence)?;
                    let rate = measured(format!("win_rate/{name}"), interval.estimate);
                    let rate = rate.interval(interval.low, interval.high);
                    let shown = rate.show(3);
                    found.metrics.push(rate);
                    shown
                }
                _ => "–".to_owned(),
            });
            // A divergence is between distributions over the same tokens.
            cells.push(if is_first || !policy.renderer.reads_as(&first.renderer) {
                "–".to_owned()
            } else {
                let divergence = self.mean(&format!("kl/{name}"), &self.divergences(policy, first, of, env))?;
                let shown = divergence.show(2);
                found.metrics.push(divergence);
                shown
            });
            let correlation = of.scores.first().and_then(|scores| pearson(&lengths, scores).ok());
            cells.push(correlation.map_or("–".to_owned(), |value| format!("{value:.2}")));
            found.metrics.extend(correlation.map(|value| measured(format!("length_score_correlation/{name}"), value)));
            rows.push(cells);
        }
        let caption =
            format!("Responses to {} held-out prompts; win rate and KL against {}", dialogues.len(), policies[0].name);
        found.tables.push(Table { caption, columns: columns.collect(), rows });
        if let Some(reward) = self.rewards.first() {
            let samples = policies.iter().zip(&responses).map(|(one, of)| (one.name.to_owned(), of.scores[0].clone()));
            let (title, samples) = ("Scores of responses".to_owned(), samples.collect());
            found.plots.push(Plot::Histograms { title, x: (*reward).to_owned(), samples });
        }
        found.exchanges.extend(dialogues.iter().enumerate().take(self.recipe.shown).map(|(index, prompt)| {
            let answer = |(policy, of): (&Policy<'_>, &Responses)| {
                let scores =
                    self.rewards.iter().zip(&of.scores).map(|(name, scores)| ((*name).to_owned(), scores[index]));
                Answer {
                    model: policy.name.to_owned(),
                    text: of.texts[index].trim().to_owned(),
                    scores: scores.collect(),
                }
            };
            let answers = policies.iter().zip(&responses).map(answer).collect();
            Exchange { prompt: dialogue::render(prompt).trim().to_owned(), answers }
        }));
        Ok(())
    }
}

impl Stage<Env> for Compare {
    const VERSION: u32 = 1;
    type Inputs = (Output<Corpus>, Vec<Output<Vocabulary>>, Vec<Output<LanguageModel>>, Vec<Output<PreferenceModel>>);
    type Output = Measurements;

    fn run(
        &self,
        (corpus, vocabularies, models, rewards): (Corpus, Vec<Vocabulary>, Vec<LanguageModel>, Vec<PreferenceModel>),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let policy = |((name, vocabulary), model): ((_, Vocabulary), &LanguageModel)| {
            let name: &String = name;
            Ok(Policy { name, model: model.load(&env.device)?, renderer: vocabulary.0 })
        };
        let policies = self.policies.iter().zip(vocabularies).zip(&models).map(policy).collect::<Result<Vec<_>>>()?;
        let mut found = Measurements::default();
        let dialogues = self.prompts(&corpus, &policies)?;
        if !dialogues.is_empty() {
            self.policies(&policies, &dialogues, &rewards, env, &mut found)?;
        }
        let items = corpus.hhh_items_if_any()?;
        let mut text = corpus.held_out_text_if_any()?;
        text.truncate(self.recipe.documents);
        let mut by_category = BTreeMap::<String, Vec<String>>::new();
        for policy in &policies {
            if !items.is_empty() {
                for one in self.hhh(policy, &items, env)? {
                    let shown = one.show(3);
                    if one.name == "hhh" {
                        let all = measured(format!("hhh/{}", policy.name), one.estimate);
                        found.metrics.push(Measured { interval: one.interval, ..all });
                    }
                    by_category.entry(one.name).or_default().push(shown);
                }
            }
            if !text.is_empty() {
                let documents =
                    text.iter().map(|text| policy.renderer.document(text)).collect::<Result<Vec<_>, _>>()?;
                let (end, by) = (policy.renderer.end(), self.recipe.micro_batch_size);
                let perplexity = lm::perplexity(&policy.model, &documents, end, by, &env.workers);
                found.metrics.push(measured(format!("perplexity/{}", policy.name), perplexity));
            }
        }
        if !by_category.is_empty() {
            let columns = std::iter::once("category".to_owned()).chain(self.policies.iter().cloned()).collect();
            let rows = by_category.into_iter().map(|(name, cells)| [vec![name], cells].concat()).collect();
            let caption =
                "HHH comparisons by mutual information: accuracy, with Wilson intervals; chance is ½".to_owned();
            found.tables.push(Table { caption, columns, rows });
        }
        let comparisons = corpus.test_comparisons_if_any()?;
        for (name, pm) in self.rewards.iter().zip(&rewards) {
            if comparisons.is_empty() {
                break;
            }
            let scorer: ScoredDecoder = pm.load(&env.device)?;
            let own = pm.own_renderer(&policies[0].renderer)?;
            let renderer = own.as_ref().unwrap_or(&policies[0].renderer);
            let CompareRecipe { micro_batch_size, confidence, calibration_bins, .. } = self.recipe;
            let recipe = JudgeRecipe { micro_batch_size, confidence, calibration_bins };
            let judged = Judged::of(&scorer, &comparisons, &comparisons, renderer, &recipe, env.workers)?;
            let mut of = judged.measurements(&recipe)?;
            for one in &mut of.metrics {
                one.name = format!("{name}_{}", one.name);
            }
            of.tables.iter_mut().for_each(|table| table.caption = format!("{name}: {}", table.caption));
            found.metrics.extend(of.metrics);
            found.tables.extend(of.tables);
        }
        let wins = found.metrics.iter().filter(|one| one.name.starts_with("win_rate/"));
        let remarks = wins.map(|one| {
            let name = one.name.trim_start_matches("win_rate/");
            let verdict = if one.beats_chance() { "above" } else { "NOT clearly above" };
            format!("{name} is preferred to {} on {} of prompts, {verdict} chance.", self.policies[0], one.show(3))
        });
        found.remarks = remarks.collect();
        if found.metrics.is_empty() {
            let reason = "the data has no prompts, text, HHH items or comparisons (with --reward) to measure on";
            return Err(anyhow!("{reason}; give a file or folder that has").into());
        }
        write_json(&ctx.artifact().join(Measurements::FILE), &found)?;
        Ok(())
    }
}
