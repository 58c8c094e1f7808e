//! Stage `evaluate`: what the finished models can do.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use firebrick_eval::tasks::{Hhh, HhhChoice};
use firebrick_eval::{Batching, Choice, LengthBaseline, accuracy, head_to_head, win_table};
use firebrick_models::{Decoder, ScoredDecoder};
use firebrick_pipeline::{BoxError, Output, Stage, StageContext};
use firebrick_sampling::{Finish, Sampler, Stop, generate};
use firebrick_stats::{
    bootstrap_mean, brier_score, calibration_curve, calibration_slope, elo_ratings, expected_calibration_error,
    pearson, wilson,
};
use firebrick_tensor::{Incremental, ResponseBatch, Workers, kl, scores};
use firebrick_text::{Renderer, dialogue};
use firebrick_train::sft::{Sample, held_out};
use firebrick_train::{Event, Observer, lm};
use firebrick_types::{Dialogue, HhhItem, LabelledComparison, Measured, Role, Seed, TokenId};
use firebrick_world::World;
use rand::seq::SliceRandom;
use serde::Serialize;

use super::results::{Calibration, Estimate, Oracle, PmAccuracy, PolicyResult, Results, Shown, TurnAccuracy};
use crate::Env;
use crate::artifacts::{Corpus, Evaluation, LanguageModel, PreferenceModel, Vocabulary, write_json};
use crate::metrics::measured;
use crate::ppo::fitting;
use crate::recipe::{EvaluateRecipe, PolicyName, Shape};
use crate::recorder::Recorder;
use crate::reward_model::{pair, pair_scores};

/// Measures the finished models (B-12, B-18, A-09).
#[derive(Clone, Debug, Serialize)]
pub struct Evaluate {
    /// Where all randomness comes from.
    pub seed: u64,
    /// The policy's shape.
    pub model: Shape,
    /// Longest answer, in tokens.
    pub max_response_tokens: usize,
    /// What logits are divided by when answers are drawn.
    pub temperature: f64,
    /// What is measured, and of how much.
    #[serde(flatten)]
    pub recipe: EvaluateRecipe,
}

/// A policy to be measured.
struct Policy<'a> {
    name: PolicyName,
    model: &'a Decoder,
    /// What stands before every prompt.
    prefix: &'a [TokenId],
}

/// The preference models on the test comparisons.
struct Preference {
    /// Tranche by tranche, then all together.
    accuracy: Vec<PmAccuracy>,
    by_turns: Vec<TurnAccuracy>,
    /// Predicted, observed, count.
    curve: Vec<(f64, f64, u64)>,
    /// The train preference model's, of the chosen and the rejected response of every pair.
    scores: Vec<(f64, f64)>,
}

/// A prompt and the answer to it.
type Exchange<'a> = (&'a Vec<TokenId>, &'a Vec<TokenId>);

/// The answers of a policy.
struct Answers {
    texts: Vec<String>,
    tokens: Vec<Vec<TokenId>>,
    finished: f64,
    train_scores: Vec<f64>,
    test_scores: Vec<f64>,
    /// helpful, honest, harmless
    oracle: Option<Vec<[f64; 3]>>,
}

impl Answers {
    /// Their mean length, in tokens.
    fn length(&self) -> f64 {
        self.tokens.iter().map(Vec::len).sum::<usize>() as f64 / self.tokens.len() as f64
    }
}

impl Evaluate {
    fn seed(&self, name: &str) -> Seed {
        Seed::new(self.seed).derive("hh/evaluate").derive(name)
    }

    fn mean(&self, values: &[f64], name: &str) -> Result<Estimate> {
        let mut rng = self.seed("bootstrap").derive(name).rng();
        Ok(bootstrap_mean(values, self.recipe.resamples, self.recipe.confidence, &mut rng)
            .with_context(|| name.to_owned())?
            .into())
    }

    /// The held-out comparisons that are judged, in their order, and the probabilities of their outcomes where they are known.
    fn judged(&self, corpus: &Corpus) -> Result<(Vec<LabelledComparison>, Option<Vec<f64>>)> {
        let (test, probabilities) = (corpus.test_comparisons()?, corpus.test_probabilities()?);
        let mut chosen = (0..test.len()).collect::<Vec<_>>();
        if chosen.len() > self.recipe.comparisons {
            chosen.shuffle(&mut self.seed("comparisons").rng());
            chosen.truncate(self.recipe.comparisons);
            chosen.sort_unstable();
        }
        let probabilities = probabilities.map(|all| chosen.iter().map(|&index| all[index]).collect());
        Ok((chosen.into_iter().map(|index| test[index].clone()).collect(), probabilities))
    }

    /// The preference models on the test comparisons.
    fn preference(
        &self,
        corpus: &Corpus,
        renderer: &Renderer,
        [train_pm, test_pm]: [&ScoredDecoder; 2],
        workers: Workers,
    ) -> Result<Preference> {
        let train = corpus.train_comparisons()?;
        let (test, probabilities) = self.judged(corpus)?;
        let lengths = |comparisons: &[LabelledComparison]| {
            let of = |(chosen, rejected): (&str, &str)| (chosen.len(), rejected.len());
            comparisons.iter().filter_map(|one| one.chosen_and_rejected().map(of)).collect::<Vec<_>>()
        };
        let baseline = LengthBaseline::fit(&lengths(&train));
        let length_outcomes = baseline.outcomes(&lengths(&test));
        let pairs = test.iter().filter_map(|one| pair(renderer, one).transpose()).collect::<Result<Vec<_>>>()?;
        let score = |model: &ScoredDecoder| {
            pair_scores(model, &pairs, self.model.context, self.recipe.micro_batch_size, workers)
        };
        let (train_scores, test_scores) = (score(train_pm), score(test_pm));
        let (train_right, test_right) = (accuracy(&train_scores), accuracy(&test_scores));
        let differences = train_scores.iter().map(|(chosen, rejected)| chosen - rejected).collect::<Vec<_>>();
        let share = |right: &[f64], chosen: &[usize]| -> Result<Estimate> {
            let right = chosen.iter().map(|&index| right[index]).sum::<f64>();
            Ok(wilson(right.round() as u64, chosen.len() as u64, self.recipe.confidence)?.into())
        };
        let row = |tranche: &str, chosen: &[usize]| -> Result<PmAccuracy> {
            let mean =
                |f: &dyn Fn(usize) -> f64| chosen.iter().map(|&index| f(index)).sum::<f64>() / chosen.len() as f64;
            let (clean, ceiling) = match &probabilities {
                Some(p) => (
                    Some(mean(&|index| if p[index] >= 0.5 { train_right[index] } else { 1.0 - train_right[index] })),
                    Some(mean(&|index| p[index].max(1.0 - p[index]))),
                ),
                None => (None, None),
            };
            let differences = chosen.iter().map(|&index| differences[index]).collect::<Vec<_>>();
            Ok(PmAccuracy {
                tranche: tranche.to_owned(),
                pairs: chosen.len(),
                train_pm: share(&train_right, chosen)?,
                test_pm: share(&test_right, chosen)?,
                length: share(&length_outcomes, chosen)?,
                clean,
                ceiling,
                calibration: Calibration {
                    brier: brier_score(&differences)?,
                    ece: expected_calibration_error(&differences, self.recipe.calibration_bins)?,
                    slope: calibration_slope(&differences).ok(),
                },
            })
        };
        let human_turns =
            |one: &LabelledComparison| one.prompt().messages.iter().filter(|turn| turn.role == Role::Human).count();
        let (mut tranches, mut turns) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        for (index, one) in test.iter().enumerate() {
            tranches.entry(one.source.as_str()).or_default().push(index);
            turns.entry(human_turns(one)).or_default().push(index);
        }
        let mut accuracy = tranches.iter().map(|(tranche, chosen)| row(tranche, chosen)).collect::<Result<Vec<_>>>()?;
        accuracy.push(row("all", &(0..test.len()).collect::<Vec<_>>())?);
        let by_turns = turns.iter().map(|(&turns, chosen)| {
            Ok(TurnAccuracy { turns, pairs: chosen.len(), accuracy: share(&train_right, chosen)? })
        });
        Ok(Preference {
            by_turns: by_turns.collect::<Result<_>>()?,
            curve: calibration_curve(&differences, self.recipe.calibration_bins)?
                .into_iter()
                .map(|bin| (bin.mean_prediction, bin.observed, bin.count))
                .collect(),
            accuracy,
            scores: train_scores,
        })
    }

    /// A policy's answers, each with a seed of its own, and what they are worth.
    fn answers(
        &self,
        policy: &Policy<'_>,
        prompts: &[Dialogue],
        renderer: &Renderer,
        world: Option<&World>,
        pms: [&ScoredDecoder; 2],
        workers: Workers,
    ) -> Result<Answers> {
        let responses = renderer.response_format();
        let plain = prompts.iter().map(|prompt| renderer.prompt(prompt)).collect::<Result<Vec<_>, _>>()?;
        let read = plain.iter().map(|prompt| renderer.after(policy.prefix, prompt)).collect::<Vec<_>>();
        let sampler = Sampler { temperature: self.temperature, ..Sampler::default() };
        let stop = Stop::of(&responses, self.max_response_tokens);
        let seeds = (0..prompts.len()).map(|index| self.seed("answers").at(&[index as u64])).collect::<Vec<_>>();
        let model = policy.model.clone().prepacked();
        let chunks = read.chunks(64).zip(seeds.chunks(64)).map(|chunk| (model.clone(), chunk)).collect();
        let samples =
            Workers::default().map(chunks, |(model, (prompts, seeds)): (Decoder, (&[Vec<TokenId>], &[Seed]))| {
                generate(&model, prompts, seeds, &sampler, &stop)
            });
        let samples = samples.into_iter().flatten().collect::<Vec<_>>();
        let finished =
            samples.iter().filter(|sample| sample.finish == Finish::Stop).count() as f64 / samples.len() as f64;
        let judged =
            plain.iter().zip(&samples).map(|(prompt, sample)| responses.scored_sequence(prompt, &sample.tokens));
        let judged = judged.collect::<Vec<_>>();
        let [train_scores, test_scores] = pms.map(|pm| scores(pm, &judged, self.recipe.micro_batch_size, &workers));
        let texts = samples.iter().map(|sample| responses.text(&sample.tokens).trim().to_owned()).collect::<Vec<_>>();
        let oracle = world.and_then(|world| {
            let judge = |(prompt, text): (&Dialogue, &String)| {
                world.judge(prompt, text).map(|judged| [judged.helpful, judged.honest, judged.harmless])
            };
            prompts.iter().zip(&texts).map(judge).collect()
        });
        let tokens = samples.into_iter().map(|sample| sample.tokens).collect();
        Ok(Answers { texts, tokens, finished, train_scores, test_scores, oracle })
    }

    /// The exact divergence of `policy` from `initial` over each answer, in nats.
    fn divergences(
        &self,
        policy: &Decoder,
        initial: &Decoder,
        prompts: &[Vec<TokenId>],
        answers: &Answers,
        env: &Env,
    ) -> Vec<f64> {
        let whole = prompts.iter().zip(&answers.tokens).collect::<Vec<_>>();
        let chunks =
            whole.chunks(self.recipe.micro_batch_size).map(|chunk| (policy.clone(), initial.clone(), chunk)).collect();
        let rows = env.workers.map(chunks, |(policy, initial, chunk): (Decoder, Decoder, &[Exchange<'_>])| {
            let batch = ResponseBatch::of(chunk.iter().map(|(prompt, answer)| (&prompt[..], &answer[..])), &env.device);
            let tempered = |model: &Decoder| batch.logits(model, self.temperature);
            let divergences = batch.split_by_response(kl(tempered(&policy), tempered(&initial)));
            divergences.iter().map(|answer| answer.iter().sum::<f32>()).collect::<Vec<_>>()
        });
        rows.into_iter().flatten().map(f64::from).collect()
    }

    /// The perplexity of documents, behind the policy's prompt if it has one; of those that then do not fit the context the beginning.
    fn perplexity(
        &self,
        policy: &Policy<'_>,
        documents: &[Vec<TokenId>],
        renderer: &Renderer,
        workers: Workers,
    ) -> f64 {
        let (end, by) = (renderer.end(), self.recipe.micro_batch_size);
        if policy.prefix.is_empty() {
            return lm::perplexity(policy.model, documents, end, by, &workers);
        }
        let behind = |document: &Vec<TokenId>| {
            let before = [&[end], policy.prefix].concat();
            let counted = [vec![false; before.len()], vec![true; document.len()]].concat();
            Sample::new([before, document.clone()].concat(), counted)
        };
        let samples = documents.iter().map(behind).collect::<Vec<_>>();
        held_out(policy.model, &samples, by, &workers).loss().exp()
    }

    /// Accuracy on the two-way items, over all and by category, by mutual information; nothing if there are none.
    fn hhh(
        &self,
        policy: &Policy<'_>,
        corpus: &Corpus,
        renderer: &Renderer,
        workers: Workers,
    ) -> Result<Vec<Measured>, BoxError> {
        let bare = renderer.unasked(policy.prefix)?;
        let item = |item: HhhItem| -> Result<HhhChoice> {
            let context = renderer.after(policy.prefix, &renderer.prompt(&item.prompt)?);
            let choice = |answer: &str| -> Result<Choice> {
                let answer = renderer.response(answer)?;
                Ok(Choice { context: context.clone(), bare_context: bare.clone(), answer })
            };
            let (chosen, rejected) = (choice(&item.chosen)?, choice(&item.rejected)?);
            Ok(HhhChoice { category: item.category, chosen, rejected })
        };
        let items = corpus.hhh_items()?.into_iter().map(item).collect::<Result<_>>()?;
        let batching = Batching { micro_batch_size: self.recipe.micro_batch_size, workers };
        firebrick_eval::evaluate(&Hhh { items, confidence: self.recipe.confidence }, policy.model, &batching)
    }
}

fn mean_of(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// How far the stage is: the preference models are a step, and of each policy its answers and its measures.
struct Steps {
    recorder: Recorder,
    done: u64,
}

impl Steps {
    fn begin(mut recorder: Recorder, policies: usize) -> Result<Self> {
        let begin = Event::Begin { unit: "parts", steps: 1 + 2 * policies as u64, done: 0 };
        recorder.on(begin).map_err(anyhow::Error::from_boxed)?;
        Ok(Self { recorder, done: 0 })
    }

    fn step(&mut self, metrics: &[Measured]) -> Result<()> {
        self.done += 1;
        let mut values = metrics.iter().map(|one| (one.name.clone(), one.estimate)).collect::<Vec<_>>();
        values.sort_by(|(a, _), (b, _)| a.cmp(b));
        let step = Event::Step { done: self.done, samples: self.done, units: 1, values: &values };
        self.recorder.on(step).map_err(anyhow::Error::from_boxed)
    }
}

impl Stage<Env> for Evaluate {
    const VERSION: u32 = 5;
    type Inputs = (
        Output<Corpus>,
        Output<Vocabulary>,
        Output<LanguageModel>,
        Output<LanguageModel>,
        Output<LanguageModel>,
        Output<PreferenceModel>,
        Output<PreferenceModel>,
    );
    type Output = Evaluation;

    fn run(
        &self,
        (corpus, Vocabulary(renderer), base, distilled, rlhf, train_pm, test_pm): (
            Corpus,
            Vocabulary,
            LanguageModel,
            LanguageModel,
            LanguageModel,
            PreferenceModel,
            PreferenceModel,
        ),
        ctx: &StageContext,
        env: &Env,
    ) -> Result<(), BoxError> {
        let device = &env.device;
        let [base, distilled, rlhf] = [base.load(device)?, distilled.load(device)?, rlhf.load(device)?];
        let [train_pm, test_pm] = [train_pm.load(device)?, test_pm.load(device)?];
        let world = corpus.world()?;
        let mut metrics: Vec<Measured> = Vec::new();
        let mut progress = Steps::begin(env.observer(ctx), self.recipe.policies.len())?;

        let preference = self.preference(&corpus, &renderer, [&train_pm, &test_pm], env.workers)?;
        let overall = preference.accuracy.last().expect("the last row is all tranches");
        metrics.push(overall.train_pm.measured("pm/accuracy"));
        metrics.push(overall.test_pm.measured("pm/test_pm_accuracy"));
        metrics.push(overall.length.measured("pm/length_baseline"));
        metrics.push(measured("pm/brier", overall.calibration.brier));
        metrics.push(measured("pm/ece", overall.calibration.ece));
        metrics.extend(overall.clean.map(|clean| measured("pm/clean_accuracy", clean)));
        metrics.extend(overall.ceiling.map(|ceiling| measured("pm/ceiling", ceiling)));
        progress.step(&metrics)?;

        let mut prompts = corpus.test_comparisons()?.into_iter().map(|one| one.comparison.prompt).collect::<Vec<_>>();
        prompts.sort_by_key(dialogue::render);
        prompts.dedup();
        prompts.shuffle(&mut self.seed("prompts").rng());
        let prefix = renderer.passage(&corpus.prompt()?)?;
        let lengths = prompts.iter().map(|prompt| Ok(renderer.prompt(prompt)?.len())).collect::<Result<Vec<_>>>()?;
        let mut lengths = lengths.into_iter();
        prompts.retain(|_| {
            prefix.len() + lengths.next().expect("one of each") + self.max_response_tokens < self.model.context
        });
        prompts.truncate(self.recipe.prompts);
        if prompts.is_empty() {
            return Err(anyhow::anyhow!(
                "no held-out prompt fits `model.context` = {} with the HHH prompt of {} tokens and an answer of {}",
                self.model.context,
                prefix.len(),
                self.max_response_tokens
            )
            .into());
        }
        let policy = |&name: &PolicyName| match name {
            PolicyName::Pretrained => Policy { name, model: &base, prefix: &[] },
            PolicyName::Prompted => Policy { name, model: &base, prefix: &prefix },
            PolicyName::Distilled => Policy { name, model: &distilled, prefix: &[] },
            PolicyName::Rlhf => Policy { name, model: &rlhf, prefix: &[] },
        };
        let policies = self.recipe.policies.iter().map(policy).collect::<Vec<_>>();
        let mut answers = Vec::new();
        for policy in &policies {
            let of = self.answers(policy, &prompts, &renderer, world.as_ref(), [&train_pm, &test_pm], env.workers)?;
            metrics.push(measured(format!("finished/{}", policy.name.as_str()), of.finished));
            metrics.push(measured(format!("response_length/{}", policy.name.as_str()), of.length()));
            progress.step(&metrics)?;
            answers.push(of);
        }
        let scored = policies
            .iter()
            .zip(&answers)
            .map(|(policy, answers)| (policy.name.as_str(), answers.test_scores.as_slice()));
        let elo = elo_ratings(&win_table(&scored.collect::<Vec<_>>()), self.recipe.elo_prior)?;
        let mut documents = corpus.held_out_text()?;
        documents.truncate(self.recipe.documents);
        let documents = documents.iter().map(|text| renderer.document(text)).collect::<Result<Vec<_>, _>>()?;

        let mut results = Vec::new();
        for (index, (policy, answers)) in policies.iter().zip(&answers).enumerate() {
            let name = policy.name.as_str();
            let oracle = match &answers.oracle {
                None => None,
                Some(judged) => {
                    let mean = |axis: usize| judged.iter().map(|one| one[axis]).sum::<f64>() / judged.len() as f64;
                    let means = judged.iter().map(|one| one.iter().sum::<f64>() / 3.0).collect::<Vec<_>>();
                    let score = self.mean(&means, &format!("oracle/{name}"))?;
                    metrics.push(score.measured(format!("oracle/{name}")));
                    for (axis, axis_name) in ["helpful", "honest", "harmless"].into_iter().enumerate() {
                        metrics.push(measured(format!("oracle/{name}/{axis_name}"), mean(axis)));
                    }
                    Some(Oracle { score, helpful: mean(0), honest: mean(1), harmless: mean(2) })
                }
            };
            let hhh = self.hhh(policy, &corpus, &renderer, env.workers)?;
            metrics.extend(
                hhh.first()
                    .map(|all| Measured { interval: all.interval, ..measured(format!("hhh/{name}"), all.estimate) }),
            );
            let perplexity = self.perplexity(policy, &documents, &renderer, env.workers);
            metrics.push(measured(format!("perplexity/{name}"), perplexity));
            progress.step(&metrics)?;
            results.push(PolicyResult {
                name: name.to_owned(),
                train_pm: self.mean(&answers.train_scores, &format!("train_pm/{name}"))?,
                test_pm: self.mean(&answers.test_scores, &format!("test_pm/{name}"))?,
                oracle,
                elo: elo.ratings[index].elo,
                elo_error: elo.ratings[index].standard_error,
                finished: answers.finished,
                length: answers.length(),
                perplexity,
                hhh,
            });
        }
        let of = |name| policies.iter().position(|policy| policy.name == name).map(|index| &answers[index]);
        let compared = "the recipe is checked to measure both";
        let before = of(PolicyName::Distilled).expect(compared);
        let after = of(PolicyName::Rlhf).expect(compared);
        let wins = head_to_head(&after.test_scores, &before.test_scores);
        let win_rate: Estimate =
            wilson(wins.iter().sum::<f64>().round() as u64, wins.len() as u64, self.recipe.confidence)?.into();
        let plain = prompts.iter().map(|prompt| renderer.prompt(prompt)).collect::<Result<Vec<_>, _>>()?;
        let (plain, _) = fitting(plain.into_iter(), self.model.context, self.max_response_tokens);
        let divergence = self.mean(&self.divergences(&rlhf, &distilled, &plain, after, env), "kl")?;
        metrics.push(win_rate.measured("win_rate"));
        let lengths = after.tokens.iter().map(|answer| answer.len() as f64).collect::<Vec<_>>();
        let correlation = pearson(&lengths, &after.train_scores).ok();
        metrics.extend(correlation.map(|value| measured("length_score_correlation/rlhf", value)));
        // Scores mean nothing by themselves, their differences do (T-25).
        let gain = |before: &[f64], after: &[f64]| mean_of(after) - mean_of(before);
        metrics.push(measured("train_pm/gain", gain(&before.train_scores, &after.train_scores)));
        metrics.push(measured("test_pm/gain", gain(&before.test_scores, &after.test_scores)));
        metrics.push(divergence.measured("kl"));
        metrics.sort_by(|a, b| a.name.cmp(&b.name));

        let scores_of = |answers: &Answers, index: usize| {
            let mut shown = vec![
                ("train PM".to_owned(), answers.train_scores[index]),
                ("test PM".to_owned(), answers.test_scores[index]),
            ];
            if let Some(oracle) = &answers.oracle {
                let names = ["helpful", "honest", "harmless"];
                shown.extend(names.iter().zip(oracle[index]).map(|(name, value)| ((*name).to_owned(), value)));
            }
            shown
        };
        let shown = (0..prompts.len().min(self.recipe.shown)).map(|index| Shown {
            prompt: dialogue::render(&prompts[index]).trim().to_owned(),
            before: before.texts[index].clone(),
            after: after.texts[index].clone(),
            before_scores: scores_of(before, index),
            after_scores: scores_of(after, index),
        });
        let results = Results {
            by_turns: preference.by_turns,
            calibration_curve: preference.curve,
            chosen_scores: preference.scores.iter().map(|(chosen, _)| *chosen).collect(),
            rejected_scores: preference.scores.iter().map(|(_, rejected)| *rejected).collect(),
            pm: preference.accuracy,
            policies: results,
            win_rate,
            kl: divergence,
            before_scores: before.train_scores.clone(),
            after_scores: after.train_scores.clone(),
            shown: shown.collect(),
            metrics,
        };
        write_json(&ctx.artifact().join(Evaluation::FILE), &results)?;
        Ok(())
    }
}
