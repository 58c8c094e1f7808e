//! Stage `data`: text, comparisons and evaluation items from the built-in world or a folder.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use firebrick_data::pmp::{RankedPair, ranked_pairs, stackexchange_score};
use firebrick_data::{comparisons, folder, hhh_prompt, hhh_tasks, split, store, text, threads};
use firebrick_pipeline::{BoxError, Stage, StageContext, digest};
use firebrick_text::dialogue;
use firebrick_types::{Dialogue, HhhItem, LabelledComparison, Message, Seed, Thread, ThreadAnswer};
use firebrick_world::{SimulatedComparison, World};
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, Summary, write_json};
use crate::recipe::DataRecipe;

/// Text, comparisons and evaluation items from the built-in world or a folder.
#[derive(Clone, Debug, Serialize)]
pub struct Data {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Whether the data comes from the environment's folder, or is the built-in world's.
    pub from_folder: bool,
    /// How much is taken.
    #[serde(flatten)]
    pub recipe: DataRecipe,
}

/// Everything, before it is written.
#[derive(Default)]
struct Collected {
    train_text: Vec<String>,
    held_out_text: Vec<String>,
    dialogues: Vec<String>,
    train: Vec<LabelledComparison>,
    test: Vec<LabelledComparison>,
    probabilities: Option<Vec<f64>>,
    ranked: Vec<RankedPair>,
    items: Vec<HhhItem>,
    prompt: String,
    notes: Vec<String>,
}

impl Data {
    fn collect_world(&self) -> Result<Collected> {
        let world = World::new(self.recipe.world, Seed::new(self.seed))?;
        let seed = Seed::new(self.seed).derive("hh/data");
        let at = |name: &str, index: usize| seed.derive(name).at(&[index as u64]);
        let documents =
            (0..self.recipe.documents).map(|index| Document::from(world.document(at("documents", index)))).collect();
        let (train_text, held_out_text) = self.split_text(documents);
        let labelled = (0..self.recipe.comparisons).map(|index| world.comparison(at("comparisons", index))).collect();
        let labelled = split::by_conversation(labelled, self.recipe.held_out, |one: &SimulatedComparison| {
            one.labelled.prompt().opening().unwrap_or_default()
        })?;
        let threads = (0..self.recipe.threads).map(|index| world.thread(at("threads", index))).collect::<Vec<_>>();
        Ok(Collected {
            train_text,
            held_out_text,
            dialogues: threads.iter().filter_map(as_dialogue).collect(),
            train: labelled.train.into_iter().map(|one| one.labelled).collect(),
            probabilities: Some(labelled.held_out.iter().map(|one| one.probability).collect()),
            test: labelled.held_out.into_iter().map(|one| one.labelled).collect(),
            ranked: ranked_pairs(&threads, seed),
            items: (0..self.recipe.hhh_items).map(|index| world.hhh_item(at("hhh", index))).collect(),
            prompt: world.hhh_prompt(self.recipe.prompt_conversations),
            notes: vec![format!(
                "annotators agree with the noise-free order {:.0} % of the time",
                100.0 * self.recipe.world.agreement
            )],
        })
    }

    fn collect_folder(&self, dir: &Path) -> Result<Collected> {
        let sources = folder::discover(dir)?;
        let seed = Seed::new(self.seed).derive("hh/data");
        let mut all = Collected::default();
        let name = |path: &Path| path.strip_prefix(dir).unwrap_or(path).display().to_string();

        let mut questions = Vec::new();
        for path in &sources.threads {
            let read = threads::read(path)?;
            all.notes.push(format!("{}: {} questions", name(path), read.len()));
            questions.extend(read);
        }
        questions.shuffle(&mut seed.derive("threads").rng());
        questions.truncate(self.recipe.threads);
        all.dialogues = questions.iter().filter_map(as_dialogue).collect();
        all.ranked = ranked_pairs(&questions, seed);
        if all.ranked.is_empty() {
            all.notes.push("no ranked answers: preference models are not pretrained".to_owned());
        }

        for tranche in &sources.tranches {
            for (path, test) in [(&tranche.train, false), (&tranche.test, true)] {
                let Some(path) = path else { continue };
                let (read, hygiene) = comparisons::read(path, &tranche.name)?;
                all.notes.push(format!("{}: {hygiene}", name(path)));
                if test { &mut all.test } else { &mut all.train }.extend(read);
            }
        }
        // The files' own split may share conversations (T-24): what is tested on is not learnt from.
        let tested =
            all.test.iter().filter_map(|one| one.prompt().opening()).map(str::to_owned).collect::<HashSet<_>>();
        let before = all.train.len();
        all.train.retain(|one| one.prompt().opening().is_none_or(|opening| !tested.contains(opening)));
        if all.train.len() < before {
            all.notes.push(format!(
                "{} training comparisons share a conversation with a test file: dropped",
                before - all.train.len()
            ));
        }
        if all.test.is_empty() && !all.train.is_empty() {
            let train = std::mem::take(&mut all.train);
            let parts = split::by_conversation(train, self.recipe.held_out, |one: &LabelledComparison| {
                one.prompt().opening().unwrap_or_default()
            })?;
            (all.train, all.test) = (parts.train, parts.held_out);
        }
        all.train.shuffle(&mut seed.derive("comparisons").rng());
        all.train.truncate(self.recipe.comparisons);
        let mut documents = Vec::new();
        for path in &sources.texts {
            let read = text::read(path, self.recipe.document_characters)?;
            all.notes.push(format!("{}: {} documents", name(path), read.len()));
            documents.extend(read.into_iter().map(Document::from));
        }
        documents.shuffle(&mut seed.derive("documents").rng());
        documents.truncate(self.recipe.documents);
        // A small model answers in dialogues only if it has read some. Those of one conversation stay on one side of the
        // split (T-24).
        let preferred = |one: &LabelledComparison| {
            let (chosen, _) = one.chosen_and_rejected()?;
            let key = one.prompt().opening().unwrap_or_default().to_owned();
            Some(Document { key, text: dialogue::render(&one.prompt().with(Message::assistant(chosen))) })
        };
        documents.extend(all.train.iter().filter_map(preferred));
        (all.train_text, all.held_out_text) = self.split_text(documents);
        if all.held_out_text.is_empty() {
            let held_out = all.test.iter().filter_map(preferred).map(|one| one.text).collect::<Vec<_>>();
            let mut seen = HashSet::new();
            all.held_out_text = held_out.into_iter().filter(|text| seen.insert(text.clone())).collect();
            all.notes.push(
                "no text is held out: the preferred dialogues of the held-out comparisons stand for it".to_owned(),
            );
        }

        for path in &sources.hhh_tasks {
            let items = hhh_tasks::read(path)?;
            all.notes.push(format!("{}: {} evaluation items", name(path), items.len()));
            all.items.extend(items);
        }
        let others = sources.others.iter();
        all.notes
            .extend(others.map(|(path, layout)| format!("{}: left alone, {layout} outside of a tranche", name(path))));
        all.notes.extend(sources.ignored.iter().map(|one| format!("{}: left alone, {}", name(&one.path), one.reason)));
        all.prompt = if self.recipe.prompt_conversations > 1 { hhh_prompt::FULL } else { hhh_prompt::SHORT }.to_owned();
        Ok(all)
    }

    /// Documents to learn from and to measure on, by the digest of their key; of equal texts the first.
    fn split_text(&self, documents: Vec<Document>) -> (Vec<String>, Vec<String>) {
        let mut seen = HashSet::new();
        let unique = documents.into_iter().filter(|document| seen.insert(document.text.clone())).collect::<Vec<_>>();
        let (train, held_out): (Vec<_>, Vec<_>) =
            unique.into_iter().partition(|document| split::bucket(&document.key) >= self.recipe.held_out);
        let text = |document: Document| document.text;
        (train.into_iter().map(text).collect(), held_out.into_iter().map(text).collect())
    }
}

/// A text, and what decides on which side of the split it falls.
struct Document {
    key: String,
    text: String,
}

impl From<String> for Document {
    fn from(text: String) -> Self {
        Self { key: text.clone(), text }
    }
}

/// A question and its best answer as a dialogue.
fn as_dialogue(thread: &Thread) -> Option<String> {
    let best = |answer: &&ThreadAnswer| stackexchange_score(answer.score, answer.accepted);
    let answer = thread.answers.iter().max_by_key(best)?;
    let question = [thread.title.as_str(), thread.body.as_str()].join("\n").trim().to_owned();
    let turns = vec![Message::human(question), Message::assistant(answer.body.trim())];
    Some(dialogue::render(&Dialogue::new(turns)))
}

impl Stage<Env> for Data {
    const VERSION: u32 = 4;
    type Inputs = ();
    type Output = Corpus;

    fn external(&self, env: &Env) -> Result<BTreeMap<String, String>, BoxError> {
        let Some(dir) = env.data.as_ref().filter(|_| self.from_folder) else { return Ok(BTreeMap::new()) };
        let sources = folder::discover(dir)?;
        let root = dir.canonicalize()?;
        let comparisons = sources.tranches.iter().flat_map(|tranche| [&tranche.train, &tranche.test]).flatten();
        let files = comparisons.chain(&sources.threads).chain(&sources.texts).chain(&sources.hhh_tasks);
        let fingerprint = |path: &std::path::PathBuf| {
            let name = path.strip_prefix(&root).or_else(|_| path.strip_prefix(dir)).unwrap_or(path);
            Ok((name.display().to_string(), digest(path)?))
        };
        files.map(fingerprint).collect()
    }

    fn run(&self, (): (), ctx: &StageContext, env: &Env) -> Result<(), BoxError> {
        let all = match &env.data {
            Some(dir) if self.from_folder => self.collect_folder(dir)?,
            None if self.from_folder => return Err("there is no folder of data".into()),
            _ => self.collect_world()?,
        };
        let parts = [
            ("the text to learn from", all.train_text.len(), "data.documents"),
            ("the held-out text", all.held_out_text.len(), "data.held_out"),
            ("the training comparisons", all.train.len(), "data.comparisons"),
            ("the test comparisons", all.test.len(), "data.held_out"),
        ];
        if let Some((what, _, key)) = parts.iter().find(|(_, count, _)| *count == 0) {
            let counts = parts.map(|(what, count, _)| format!("{what}: {count}")).join(", ");
            return Err(anyhow::anyhow!("nothing is left of {what} ({counts}); raise `{key}` or give more data").into());
        }
        let dir = ctx.artifact();
        store::write(&dir.join(Corpus::TRAIN_TEXT), &all.train_text)?;
        store::write(&dir.join(Corpus::HELD_OUT_TEXT), &all.held_out_text)?;
        store::write(&dir.join(Corpus::DIALOGUES), &all.dialogues)?;
        store::write(&dir.join(Corpus::TRAIN_COMPARISONS), &all.train)?;
        store::write(&dir.join(Corpus::TEST_COMPARISONS), &all.test)?;
        store::write(&dir.join(Corpus::RANKED_PAIRS), &all.ranked)?;
        if let Some(probabilities) = &all.probabilities {
            write_json(&dir.join(Corpus::TEST_PROBABILITIES), probabilities)?;
        }
        write_json(&dir.join(Corpus::HHH_ITEMS), &all.items)?;
        let prompt = dir.join(Corpus::PROMPT);
        std::fs::write(&prompt, &all.prompt).with_context(|| format!("cannot write {}", prompt.display()))?;
        let world = (!self.from_folder).then_some((self.recipe.world, self.seed));
        let source = if world.is_some() { "the built-in world" } else { "a folder of data" };
        let kept = [
            ("documents to learn from", all.train_text.len()),
            ("documents held out", all.held_out_text.len()),
            ("comparisons to learn from", all.train.len()),
            ("comparisons held out", all.test.len()),
            ("ranked pairs", all.ranked.len()),
            ("HHH items", all.items.len()),
        ];
        let kept = kept.map(|(name, count)| (name.to_owned(), count)).into();
        write_json(&dir.join(Corpus::SUMMARY), &Summary { source: source.to_owned(), kept, notes: all.notes, world })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::pipelines::{Recipe as _, rlhf};

    fn recipe() -> rlhf::Recipe {
        crate::recipe::load("smoke", rlhf::Recipe::BUILT_IN, &[]).expect("the recipe is built in")
    }

    /// A folder of comparisons: files by name, each with rows of these conversations, and whether the last is preferred.
    fn folder(files: &[(&str, std::ops::Range<usize>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, conversations) in files {
            let row = |index: usize| {
                let side = |answer: &str| format!("\n\nHuman: question {index}\n\nAssistant: {answer} {index}");
                serde_json::json!({"chosen": side("good"), "rejected": side("bad")}).to_string() + "\n"
            };
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("a folder can be made");
            std::fs::write(path, conversations.clone().map(row).collect::<String>()).expect("a file can be written");
        }
        dir
    }

    fn collect(files: &[(&str, std::ops::Range<usize>)]) -> Collected {
        Data { seed: 17, from_folder: true, recipe: recipe().data }
            .collect_folder(folder(files).path())
            .expect("the folder holds comparisons")
    }

    fn preferred(comparisons: &[LabelledComparison]) -> HashSet<String> {
        let chosen = |one: &LabelledComparison| Message::assistant(one.chosen_and_rejected().expect("it is no tie").0);
        comparisons.iter().map(|one| dialogue::render(&one.prompt().with(chosen(one)))).collect()
    }

    #[test]
    fn one_file_of_comparisons_gives_text_to_learn_from_and_held_out_text() {
        // With a test file of its own too, where no opening of so few happens to be held out.
        for files in [&[("helpful/train.jsonl", 0..200)][..], &[("a/train.jsonl", 1..2), ("a/test.jsonl", 200..204)]] {
            let all = collect(files);
            assert!(!all.train.is_empty() && !all.test.is_empty(), "{files:?}");
            assert_eq!(all.train_text.iter().cloned().collect::<HashSet<_>>(), preferred(&all.train), "{files:?}");
            assert_eq!(all.held_out_text.iter().cloned().collect::<HashSet<_>>(), preferred(&all.test), "{files:?}");
            // T-24: nothing that is measured on is learnt from.
            assert!(preferred(&all.train).is_disjoint(&preferred(&all.test)));
        }
    }

    #[test]
    fn text_that_is_held_out_stays_the_only_one() {
        let all = collect(&[("helpful/train.jsonl", 0..200), ("helpful/test.jsonl", 200..210)]);
        assert!(
            all.held_out_text.len() > 1 && preferred(&all.test).is_disjoint(&all.held_out_text.into_iter().collect())
        );
    }
}
