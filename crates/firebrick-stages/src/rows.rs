//! Stage `data` of the commands: the rows of one's own file or folder, in a part to learn from and a part to measure on.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use firebrick_data::layout::Layout;
use firebrick_data::pmp::{RankedPair, ranked_pairs};
use firebrick_data::{comparisons, conversations, folder, hhh_tasks, split, store, text, threads};
use firebrick_pipeline::{BoxError, Stage, StageContext, digest};
use firebrick_text::dialogue;
use firebrick_types::{Dialogue, Example, LabelledComparison, Message, Seed, Thread};
use firebrick_world::{World, WorldConfig};
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::Env;
use crate::artifacts::{Corpus, Summary, write_json};
use crate::error::{BadInput, unwrapped};
use crate::recipe::RowsRecipe;

/// The rows of an input, of the kind that is wanted.
#[derive(Clone, Debug, Serialize)]
pub struct Rows {
    /// Where all randomness comes from.
    pub seed: u64,
    /// The input.
    pub input: &'static str,
    /// What it must hold.
    pub wanted: Wanted,
    /// How much is taken.
    #[serde(flatten)]
    pub recipe: RowsRecipe,
}

/// What a pipeline needs of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Two responses to a prompt, of which one was preferred.
    Comparisons,
    /// Questions with answers, each with a score.
    Threads,
    /// What a policy is asked: prompts, or those of comparisons.
    Prompts,
    /// Conversations or text to finetune on, or the preferred responses of comparisons.
    Examples,
    /// Text, or conversations as text, with a prompt beside it.
    Text,
    /// Documents and questions of the built-in world, with a prompt beside it.
    WorldText,
    /// Whatever can be measured on: prompts, text, comparisons, HHH tasks.
    Anything,
}

impl Wanted {
    /// Whether a prompt stands beside the rows, the input `prompt`.
    fn with_prompt(self) -> bool {
        matches!(self, Self::Text | Self::WorldText)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Comparisons => "comparisons",
            Self::Threads => "questions with scored answers",
            Self::Prompts => "prompts",
            Self::Examples => "conversations or text",
            Self::Text | Self::WorldText => "text",
            Self::Anything => "prompts, text, comparisons or HHH tasks",
        }
    }
}

/// Rows to learn from and rows to measure on, with what happened to each file.
struct Parts<T> {
    train: Vec<T>,
    held_out: Vec<T>,
    notes: Vec<String>,
}

impl<T> Parts<T> {
    fn counts(&self) -> [usize; 2] {
        [self.train.len(), self.held_out.len()]
    }
}

/// A file of an input, with its name and whether it is a test set.
#[derive(Clone)]
struct Source {
    path: PathBuf,
    name: String,
    test: bool,
}

impl Source {
    fn of(path: PathBuf) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split('.').next().unwrap_or_default().to_owned();
        Self { path, name, test: false }
    }
}

/// What a file or folder has, by kind.
#[derive(Default)]
struct Sources {
    comparisons: Vec<Source>,
    conversations: Vec<Source>,
    threads: Vec<Source>,
    texts: Vec<Source>,
    prompts: Vec<Source>,
    hhh_tasks: Vec<Source>,
}

impl Sources {
    fn of(place: &Path) -> Result<Self> {
        if place.is_dir() {
            let found = folder::list(place)?;
            let of = |paths: Vec<PathBuf>| paths.into_iter().map(Source::of).collect::<Vec<_>>();
            let tranche = |tranche: folder::Tranche| {
                let source = |path, test| Source { path, name: tranche.name.clone(), test };
                let train = tranche.train.map(|path| source(path, false));
                let test = tranche.test.map(|path| source(path, true));
                train.into_iter().chain(test).collect::<Vec<_>>()
            };
            let mut sources = Self {
                comparisons: found.tranches.into_iter().flat_map(tranche).collect(),
                threads: of(found.threads),
                texts: of(found.texts),
                hhh_tasks: of(found.hhh_tasks),
                ..Self::default()
            };
            for (path, layout) in found.others {
                let test = folder::is_test(&path);
                sources.add(Source { test, ..Source::of(path) }, layout);
            }
            return Ok(sources);
        }
        let mut found = Self::default();
        found.add(Source::of(place.to_owned()), Layout::of(place)?);
        Ok(found)
    }

    fn add(&mut self, source: Source, layout: Layout) {
        let kind = match layout {
            Layout::Comparisons => &mut self.comparisons,
            Layout::Conversations => &mut self.conversations,
            Layout::Threads => &mut self.threads,
            Layout::Text => &mut self.texts,
            Layout::Prompts => &mut self.prompts,
            Layout::HhhTask => &mut self.hhh_tasks,
        };
        kind.push(source);
    }

    fn all(&self) -> impl Iterator<Item = &Source> {
        let all = [&self.comparisons, &self.conversations, &self.threads, &self.texts, &self.prompts, &self.hhh_tasks];
        all.into_iter().flatten()
    }

    /// What there is, in words.
    fn listed(&self) -> String {
        let kinds = [
            ("comparisons, which `reward` takes", self.comparisons.len()),
            ("conversations, which `sft` takes", self.conversations.len()),
            ("questions with answers, which `pmp` takes", self.threads.len()),
            ("text, which `distill` and `evaluate` take", self.texts.len()),
            ("prompts, which `rl` takes", self.prompts.len()),
            ("HHH tasks, which `evaluate` takes", self.hhh_tasks.len()),
        ];
        let there = kinds.iter().filter(|(_, count)| *count > 0).map(|(name, _)| *name).collect::<Vec<_>>();
        if there.is_empty() { "nothing that is known".to_owned() } else { there.join("; ") }
    }
}

impl Rows {
    /// The file or folder of the input.
    fn place<'a>(&self, env: &'a Env) -> Result<&'a Path> {
        env.input(self.input).ok_or_else(|| anyhow!("nothing is given as `--{}`", self.input))
    }

    /// The sources of the input that this stage reads.
    ///
    /// # Errors
    /// If there are none: with what there is, and which command takes that.
    fn sources(&self, env: &Env) -> Result<Sources> {
        if self.wanted == Wanted::WorldText {
            return Ok(Sources::default());
        }
        let place = self.place(env)?;
        let found = Sources::of(place)?;
        let listed = found.listed();
        let none = Sources::default();
        let kept = match self.wanted {
            Wanted::Comparisons => Sources { comparisons: found.comparisons, ..none },
            Wanted::Threads => Sources { threads: found.threads, ..none },
            Wanted::Prompts => {
                let asking = [found.prompts, found.comparisons, found.conversations].concat();
                Sources { prompts: asking, ..none }
            }
            // The responses of comparisons are learnt only where there is nothing better.
            Wanted::Examples | Wanted::Text if found.conversations.is_empty() && found.texts.is_empty() => {
                Sources { conversations: found.comparisons, ..none }
            }
            Wanted::Examples | Wanted::Text => {
                Sources { conversations: found.conversations, texts: found.texts, ..none }
            }
            Wanted::Anything => Sources { threads: Vec::new(), ..found },
            Wanted::WorldText => none,
        };
        if kept.all().next().is_none() {
            let (input, place, wanted) = (self.input, place.display(), self.wanted.name());
            return Err(BadInput::new(format!("--{input} {place}: {wanted} are wanted; it holds {listed}")).into());
        }
        Ok(kept)
    }

    fn seed(&self, name: &str) -> Seed {
        Seed::new(self.seed).derive("rows").derive(self.input).derive(name)
    }

    /// The rows of some sources. Where none of them is a test set, some conversations are held out, or all if nothing is learnt from.
    fn parts<T>(
        &self,
        sources: &[Source],
        read: impl Fn(&Source) -> Result<(Vec<T>, String)>,
        key: impl Fn(&T) -> String,
    ) -> Result<Parts<T>> {
        let (mut train, mut held_out, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        for source in sources {
            let (rows, note) = read(source)?;
            notes.push(format!("{}: {note}", source.path.display()));
            if source.test { &mut held_out } else { &mut train }.extend(rows);
        }
        if self.wanted == Wanted::Anything {
            // Nothing is learnt: without a test set all is measured on, with one that alone.
            let others = std::mem::take(&mut train);
            held_out = if held_out.is_empty() { others } else { held_out };
        } else if held_out.is_empty() {
            let is_held_out = |row: &T| split::bucket(&key(row)) < self.recipe.held_out;
            (held_out, train) = train.into_iter().partition(is_held_out);
        } else {
            // What is measured on is not learnt from (T-24).
            let tested = held_out.iter().map(&key).collect::<HashSet<_>>();
            let before = train.len();
            train.retain(|row| !tested.contains(&key(row)));
            if train.len() < before {
                let dropped = before - train.len();
                notes.push(format!("{dropped} rows to learn from share a conversation with a test set: dropped"));
            }
        }
        train.shuffle(&mut self.seed("train").rng());
        train.truncate(self.recipe.rows);
        held_out.shuffle(&mut self.seed("held out").rng());
        held_out.truncate(self.recipe.held_out_rows);
        Ok(Parts { train, held_out, notes })
    }

    fn comparisons(&self, sources: &[Source]) -> Result<Parts<LabelledComparison>> {
        let read = |source: &Source| {
            let (rows, hygiene) = comparisons::read(&source.path, &source.name)?;
            Ok((rows, hygiene.to_string()))
        };
        self.parts(sources, read, |one| one.prompt().opening().unwrap_or_default().to_owned())
    }

    fn texts(&self, sources: &[Source]) -> Result<Parts<String>> {
        let read = |source: &Source| {
            let rows = text::read(&source.path, self.recipe.document_characters)?;
            let note = format!("{} documents", rows.len());
            Ok((rows, note))
        };
        self.parts(sources, read, String::clone)
    }

    fn threads(&self, sources: &[Source]) -> Result<Parts<Thread>> {
        let read = |source: &Source| {
            let rows = threads::read(&source.path)?;
            let note = format!("{} questions", rows.len());
            Ok((rows, note))
        };
        self.parts(sources, read, |thread: &Thread| format!("{}\n{}", thread.title, thread.body))
    }

    fn examples(&self, sources: &[Source]) -> Result<Parts<Example>> {
        let read = |source: &Source| {
            let (rows, kept) = conversations::read(&source.path, self.recipe.document_characters)?;
            Ok((rows, kept.to_string()))
        };
        self.parts(sources, read, |row| row.opening().to_owned())
    }

    fn prompts(&self, sources: &[Source]) -> Result<Parts<Dialogue>> {
        let read = |source: &Source| {
            let mut seen = HashSet::new();
            let mut rows = conversations::prompts(&source.path)?;
            rows.retain(|prompt| seen.insert(prompt.clone()));
            let note = format!("{} different prompts", rows.len());
            Ok((rows, note))
        };
        self.parts(sources, read, |prompt| prompt.opening().unwrap_or_default().to_owned())
    }

    /// Documents and questions of the built-in world.
    fn world(&self) -> Result<Parts<String>> {
        let world = World::new(WorldConfig::default(), self.seed("world"))?;
        let count = self.recipe.rows + self.recipe.held_out_rows;
        let text = |index: usize| {
            let seed = self.seed("texts").at(&[index as u64]);
            if index.is_multiple_of(2) { world.document(seed) } else { thread_text(&world.thread(seed)) }
        };
        let mut texts = (0..count).map(text).collect::<Vec<_>>();
        let held_out = texts.split_off(self.recipe.rows);
        Ok(Parts { train: texts, held_out, notes: vec!["documents and questions of the built-in world".to_owned()] })
    }

    /// An error if one of the parts is empty that is needed.
    fn check(&self, [train, held_out]: [usize; 2]) -> Result<()> {
        let learns = self.wanted != Wanted::Anything;
        if held_out > 0 && (train > 0 || !learns) {
            return Ok(());
        }
        Err(BadInput::new(format!(
            "of the {} in --{}, {train} are left to learn from and {held_out} to measure on; give more data, or another \
             `data.held_out` than {}",
            self.wanted.name(),
            self.input,
            self.recipe.held_out
        ))
        .into())
    }
}

/// The preferred dialogues, each once.
fn preferred(comparisons: &[LabelledComparison]) -> Vec<String> {
    let mut seen = HashSet::new();
    let text = |one: &LabelledComparison| {
        let (chosen, _) = one.chosen_and_rejected()?;
        Some(dialogue::render(&one.prompt().with(Message::assistant(chosen))))
    };
    comparisons.iter().filter_map(text).filter(|text| seen.insert(text.clone())).collect()
}

/// A row as text.
fn example_text(row: &Example) -> String {
    match row {
        Example::Conversation(dialogue) => dialogue::render(dialogue),
        Example::Text(text) => text.clone(),
    }
}

/// What stands before the last response of a row.
fn asked(row: &Example) -> Option<Dialogue> {
    let Example::Conversation(dialogue) = row else { return None };
    let (_, before) = dialogue.messages.split_last()?;
    Some(Dialogue::new(before.to_vec()))
}

/// A question with its best answer as one text.
fn thread_text(thread: &Thread) -> String {
    let best = thread.answers.iter().max_by_key(|answer| (answer.score, answer.accepted));
    let question = [thread.title.as_str(), thread.body.as_str()].join("\n").trim().to_owned();
    let turns =
        std::iter::once(Message::human(question)).chain(best.map(|answer| Message::assistant(answer.body.trim())));
    dialogue::render(&Dialogue::new(turns.collect()))
}

impl Stage<Env> for Rows {
    const VERSION: u32 = 1;
    type Inputs = ();
    type Output = Corpus;

    fn external(&self, env: &Env) -> Result<BTreeMap<String, String>, BoxError> {
        let sources = self.sources(env).map_err(unwrapped)?;
        let root = env.input(self.input).map(Path::canonicalize).transpose()?;
        let root = root.map(|place| if place.is_file() { place.with_file_name("") } else { place }).unwrap_or_default();
        let fingerprint = |path: &Path| {
            let path = path.canonicalize()?;
            let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
            Ok::<_, BoxError>((name, digest(&path)?))
        };
        let prompt = self.wanted.with_prompt().then(|| env.input("prompt")).flatten();
        sources.all().map(|source| source.path.as_path()).chain(prompt).map(fingerprint).collect()
    }

    fn run(&self, (): (), ctx: &StageContext, env: &Env) -> Result<(), BoxError> {
        self.write(ctx, env).map_err(unwrapped)
    }
}

impl Rows {
    /// Reads all sources and writes the corpus.
    fn write(&self, ctx: &StageContext, env: &Env) -> Result<()> {
        let sources = self.sources(env)?;
        let dir = ctx.artifact();
        let (mut counts, mut notes, mut texts) = ([0; 2], Vec::new(), [Vec::new(), Vec::new()]);
        let add = |counts: &mut [usize; 2], of: [usize; 2]| *counts = [counts[0] + of[0], counts[1] + of[1]];
        if !sources.comparisons.is_empty() {
            let parts = self.comparisons(&sources.comparisons)?;
            store::write(&dir.join(Corpus::TRAIN_COMPARISONS), &parts.train)?;
            store::write(&dir.join(Corpus::TEST_COMPARISONS), &parts.held_out)?;
            texts[0].extend(preferred(&parts.train));
            texts[1].extend(preferred(&parts.held_out));
            add(&mut counts, parts.counts());
            notes.extend(parts.notes);
        }
        if !sources.conversations.is_empty() || self.wanted == Wanted::Examples {
            let rows = [&sources.conversations[..], if self.wanted == Wanted::Examples { &sources.texts } else { &[] }];
            let parts = self.examples(&rows.concat())?;
            if self.wanted == Wanted::Examples {
                write_json(&dir.join(Corpus::TRAIN_EXAMPLES), &parts.train)?;
                write_json(&dir.join(Corpus::HELD_OUT_EXAMPLES), &parts.held_out)?;
            }
            let prompts = parts.held_out.iter().filter_map(asked).collect::<Vec<_>>();
            if self.wanted == Wanted::Anything && sources.prompts.is_empty() && !prompts.is_empty() {
                write_json(&dir.join(Corpus::HELD_OUT_PROMPTS), &prompts)?;
            }
            texts[0].extend(parts.train.iter().map(example_text));
            texts[1].extend(parts.held_out.iter().map(example_text));
            add(&mut counts, parts.counts());
            notes.extend(parts.notes);
        }
        if !sources.threads.is_empty() {
            let parts = self.threads(&sources.threads)?;
            let pairs = [&parts.train, &parts.held_out].map(|threads| ranked_pairs(threads, self.seed("pairs")));
            store::write(&dir.join(Corpus::RANKED_PAIRS), &pairs[0])?;
            store::write(&dir.join(Corpus::HELD_OUT_RANKED_PAIRS), &pairs[1])?;
            let text = |pair: &RankedPair| format!("{}{}", pair.context, pair.chosen);
            texts[0].extend(pairs[0].iter().map(text));
            texts[1].extend(pairs[1].iter().map(text));
            add(&mut counts, [pairs[0].len(), pairs[1].len()]);
            notes.extend(parts.notes);
        }
        let has_text = !sources.texts.is_empty() && self.wanted != Wanted::Examples;
        if has_text || self.wanted == Wanted::WorldText {
            let world = self.wanted == Wanted::WorldText;
            let parts = if world { self.world()? } else { self.texts(&sources.texts)? };
            add(&mut counts, parts.counts());
            texts[0].extend(parts.train);
            texts[1].extend(parts.held_out);
            notes.extend(parts.notes);
        }
        if !sources.hhh_tasks.is_empty() {
            let mut items = Vec::new();
            for source in &sources.hhh_tasks {
                let read = hhh_tasks::read(&source.path)?;
                notes.push(format!("{}: {} evaluation items", source.path.display(), read.len()));
                items.extend(read);
            }
            add(&mut counts, [0, items.len()]);
            write_json(&dir.join(Corpus::HHH_ITEMS), &items)?;
        }
        if !sources.prompts.is_empty() {
            let parts = self.prompts(&sources.prompts)?;
            write_json(&dir.join(Corpus::TRAIN_PROMPTS), &parts.train)?;
            write_json(&dir.join(Corpus::HELD_OUT_PROMPTS), &parts.held_out)?;
            add(&mut counts, parts.counts());
            notes.extend(parts.notes);
        }
        notes.iter().for_each(|note| tracing::info!("{note}"));
        self.check(counts)?;
        if self.wanted.with_prompt() {
            let path = env.input("prompt").context("nothing is given as `--prompt`")?;
            let prompt =
                fs::read_to_string(path).with_context(|| format!("cannot read --prompt {} as text", path.display()))?;
            fs::write(dir.join(Corpus::PROMPT), prompt)
                .with_context(|| format!("cannot write into {}", dir.display()))?;
        }
        let [text, held_out_text] = texts;
        store::write(&dir.join(Corpus::TRAIN_TEXT), &text)?;
        store::write(&dir.join(Corpus::HELD_OUT_TEXT), &held_out_text)?;
        let name = self.wanted.name();
        let kept = [(format!("{name} to learn from"), counts[0]), (format!("{name} held out"), counts[1])].into();
        let source = env.input(self.input).map_or("the built-in world".to_owned(), |place| place.display().to_string());
        write_json(&dir.join(Corpus::SUMMARY), &Summary { source, kept, notes, world: None })?;
        Ok(())
    }
}
