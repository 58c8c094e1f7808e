//! `firebrick data …`

use std::fmt::Write;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use firebrick_data::check::{Report, check};
use firebrick_data::convert::{Converted, Form, convert};
use firebrick_data::layout::Layout;
use firebrick_data::rows::{self, Content, Row};
use firebrick_data::{Error, folder};
use firebrick_stages::BadInput;
use firebrick_stages::checkpoint::located;
use firebrick_text::{Counted, Masked, Renderer};
use firebrick_types::{Dialogue, LabelledComparison, TokenId};

use crate::say::{remark, say};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Say what a file or folder holds, which rows cannot be used and why, and which pipeline takes it.
    #[command(after_help = CHECK)]
    Check(Check),
    /// Show rows as conversations or, with a model, as its tokens, those that are learnt from in colour.
    #[command(after_help = SHOW)]
    Show(Show),
    /// Write the rows of a file in another layout of their kind.
    #[command(after_help = CONVERT)]
    Convert(Convert),
}

const CHECK: &str = "Examples:
  firebrick data check train.jsonl            one file
  firebrick data check . --limit 3            all files of a folder, no more than 3 rows of each kind of fault
Exits with 2 if a row is broken or a file has none that can be used.";

const SHOW: &str = "Examples:
  firebrick data show train.jsonl                                   the first row
  firebrick data show train.jsonl --row 2 --count 3                 three rows from line 2 on
  firebrick data show train.jsonl --model model.gguf                as the model's tokens
  firebrick data show train.jsonl --model model.gguf --ids          a token a line, with its id
Tokens that are learnt from are in colour on a terminal, else between [ and ], as with NO_COLOR set.";

const CONVERT: &str = "Examples:
  firebrick data convert train.jsonl pairs.jsonl                        a prompt with two responses, as lists of messages
  firebrick data convert train.jsonl hh.jsonl.gz --to transcripts       as in HH-RLHF, compressed
  firebrick data convert train.jsonl prompts.jsonl --to prompts         what is asked
  firebrick data convert train.jsonl train.parquet                      a table, which other commands read as well
What the new file does not say is told. No file is overwritten.";

#[derive(Args)]
pub(crate) struct Check {
    /// A file of rows or text, or a folder.
    #[arg(value_name = "FILE|DIR")]
    data: PathBuf,
    /// The most rows to name of each kind of fault.
    #[arg(long, value_name = "ROWS", default_value_t = 20)]
    limit: usize,
}

#[derive(Args)]
pub(crate) struct Show {
    /// A file of rows or text.
    file: PathBuf,
    /// A model whose tokens are shown: a folder, a stage of a pipeline's run, a .gguf file, or hub:OWNER/NAME.
    #[arg(long, value_name = "DIR|FILE|hub:REPO")]
    model: Option<String>,
    /// The first row to show: its line, or its place in a file without lines.
    #[arg(long, value_name = "N", default_value_t = 1)]
    row: u64,
    /// How many rows.
    #[arg(long, value_name = "ROWS", default_value_t = 1)]
    count: usize,
    /// Show a token a line, with its id.
    #[arg(long, requires = "model")]
    ids: bool,
}

#[derive(Args)]
pub(crate) struct Convert {
    /// A file of comparisons, conversations or prompts.
    file: PathBuf,
    /// The file to write, which must not exist: .jsonl, .jsonl.gz or .parquet.
    out: PathBuf,
    /// The layout to write [default: chosen-rejected of comparisons, messages of conversations].
    #[arg(long, value_name = "LAYOUT", value_parser = form())]
    to: Option<Form>,
}

fn form() -> impl TypedValueParser<Value = Form> {
    let named = |name: String| Form::ALL.into_iter().find(|form| form.name() == name).expect("it is a possible value");
    PossibleValuesParser::new(Form::ALL.map(Form::name)).map(named)
}

/// # Errors
/// If the command cannot be carried out.
pub(crate) fn execute(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Check(given) => check_all(given),
        Command::Show(given) => show(given),
        Command::Convert(Convert { file, out, to }) => {
            let Converted { form, rows, dropped, lost } = convert(file, out, *to)?;
            say(format_args!("{}: {rows} rows as {}", out.display(), form.name()));
            for (reason, rows) in dropped {
                remark(format_args!("note: left out for {reason}: {}", numbers(&rows, unit(file), 20)));
            }
            for what in lost {
                remark(format_args!("note: not in the new file: {what}"));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check_all(Check { data, limit }: &Check) -> Result<ExitCode> {
    let (files, ignored) = if data.is_dir() { folder::files(data)? } else { (vec![data.clone()], Vec::new()) };
    let mut usable = 0;
    for file in &files {
        let report = check(file);
        say_report(file, &report, *limit);
        usable += usize::from(report.is_usable());
    }
    for folder::Ignored { path, reason } in ignored {
        say(format_args!("{}: left alone, {reason}", path.display()));
    }
    if data.is_dir() {
        say(format_args!("{usable} of {} files are usable as they are", files.len()));
    }
    Ok(if usable == files.len() && usable > 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn say_report(file: &Path, Report { layout, rows, kept, dropped, unread, faulty }: &Report, limit: usize) {
    match layout {
        Some(layout) => say(format_args!("{}: {layout}, for {}", file.display(), takers(*layout))),
        None => say(format_args!("{}: no known layout", file.display())),
    }
    let count: usize = dropped.values().map(Vec::len).sum();
    let plural = if *rows == 1 { "" } else { "s" };
    say(format_args!("  {rows} row{plural}: {kept} usable, {count} dropped, {} broken", faulty.len()));
    for (reason, rows) in dropped {
        say(format_args!("  dropped for {reason}: {} ({})", rows.len(), numbers(rows, unit(file), limit)));
    }
    for what in unread {
        say(format_args!("  not read: {}", plain(what)));
    }
    let name = file.display().to_string();
    for error in faulty.iter().take(limit) {
        let fault = error.fault();
        let told = fault.strip_prefix(&name).map_or(fault.as_str(), |rest| rest.trim_start_matches([',', ':', ' ']));
        say(format_args!("  broken: {}", plain(told)));
    }
    if faulty.len() > limit {
        say(format_args!("  and {} more", faulty.len() - limit));
    }
    if let Some(shape) = faulty.iter().find_map(Error::shape) {
        say(format_args!("  a row is {shape}"));
    }
}

/// The pipelines that take a file, first the one it is made for.
fn takers(layout: Layout) -> &'static str {
    match layout {
        Layout::Comparisons => "`reward`; also `sft`, `rl` and `evaluate`",
        Layout::Conversations => "`sft`; also `rl`, `distill` and `evaluate`",
        Layout::Prompts => "`rl` and `evaluate`",
        Layout::Threads => "`pmp`",
        Layout::Text => "`sft`, `distill` and `evaluate`",
        Layout::HhhTask => "`evaluate`",
    }
}

/// What the rows of a file are counted by.
fn unit(file: &Path) -> &'static str {
    let name = file.to_string_lossy();
    if name.ends_with(".jsonl") || name.ends_with(".jsonl.gz") { "line" } else { "row" }
}

/// Some numbers of rows, as `lines 3, 5 and 2 more`.
fn numbers(rows: &[u64], unit: &str, limit: usize) -> String {
    let named = rows.iter().take(limit).map(u64::to_string).collect::<Vec<_>>().join(", ");
    let more = rows.len().saturating_sub(limit);
    let plural = if rows.len() == 1 { "" } else { "s" };
    match (named.is_empty(), more) {
        (false, 0) => format!("{unit}{plural} {named}"),
        (false, more) => format!("{unit}{plural} {named} and {more} more"),
        (true, _) => format!("{} {unit}{plural}", rows.len()),
    }
}

/// The longest document of a text, in characters, as pipelines cut it.
const DOCUMENT_CHARACTERS: usize = 2000;

fn show(Show { file, model, row: first, count, ids }: &Show) -> Result<ExitCode> {
    let rows = rows::read(file, Layout::of(file)?, DOCUMENT_CHARACTERS)?;
    let renderer = model.as_deref().map(renderer).transpose()?;
    let has_colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (mut last, mut shown, mut code) = (0, 0, ExitCode::SUCCESS);
    for row in rows {
        let number = match &row {
            Ok(row) => row.number,
            Err(error) => error.line().unwrap_or(last + 1),
        };
        last = number;
        if number < *first {
            continue;
        }
        if shown == *count {
            break;
        }
        shown += 1;
        let place = format!("{}, {} {number}", file.display(), unit(file));
        match row {
            Err(error) => {
                remark(format_args!("error: {error}"));
                code = ExitCode::from(2);
            }
            Ok(Row { content: Err(dropped), .. }) => say(format_args!("{place}: dropped for {dropped}")),
            Ok(Row { content: Ok(content), .. }) => match &renderer {
                None => say(format_args!("{place}: {}\n{}", content.name(), plain(&content.to_string()))),
                Some(renderer) => {
                    let told = Told { renderer, has_colour, ids: *ids };
                    told.row(&place, &content).with_context(|| place.clone())?;
                }
            },
        }
    }
    if shown == 0 && *count > 0 {
        let (unit, file) = (unit(file), file.display());
        return Err(BadInput::new(format!(
            "{file}: --row {first}: its last row is {unit} {last}; give one up to that"
        ))
        .into());
    }
    Ok(code)
}

fn renderer(source: &str) -> Result<Renderer> {
    let checkpoint = located(source)?;
    let text = checkpoint.text(checkpoint.config()?.vocab)?;
    let missing = || BadInput::new(format!("{source} brings no tokenizer; put its tokenizer.json beside it"));
    Ok(text.ok_or_else(missing)?.renderer)
}

/// How tokens are shown.
struct Told<'a> {
    renderer: &'a Renderer,
    has_colour: bool,
    ids: bool,
}

impl Told<'_> {
    fn row(&self, place: &str, content: &Content) -> Result<()> {
        match content {
            Content::Comparison(one) => self.comparison(place, content.name(), one)?,
            Content::HhhItem(item) => {
                let one = LabelledComparison::of_chosen(item.prompt.clone(), &item.chosen, &item.rejected, "");
                self.comparison(place, content.name(), &one)?;
            }
            Content::Example(example) => {
                let what = content.name();
                let masked = self.renderer.example(example, Counted::Assistant)?;
                let counted = masked.counted.iter().filter(|&&counted| counted).count();
                say(format_args!(
                    "{place}: {what} of {} tokens, {counted} of which are learnt from",
                    masked.tokens.len()
                ));
                self.say(&masked);
            }
            Content::Prompt(prompt) => self.prompt(place, prompt)?,
            // Which two answers are compared is drawn in a run.
            Content::Thread(_) => say(format_args!("{place}: {}\n{}", content.name(), plain(&content.to_string()))),
        }
        Ok(())
    }

    fn prompt(&self, place: &str, prompt: &Dialogue) -> Result<()> {
        let tokens = self.renderer.prompt(prompt)?;
        say(format_args!("{place}: a prompt of {} tokens, where a response begins", tokens.len()));
        self.say(&Masked { counted: vec![false; tokens.len()], tokens, left_out: 0 });
        Ok(())
    }

    fn comparison(&self, place: &str, what: &str, one: &LabelledComparison) -> Result<()> {
        let Some(tokens) = self.renderer.comparison(one)? else {
            return self.prompt(&format!("{place}: a tie"), one.prompt());
        };
        say(format_args!(
            "{place}: {what}, its prompt of {} tokens, behind which each response stands",
            tokens.prompt.len()
        ));
        self.say(&Masked { counted: vec![false; tokens.prompt.len()], tokens: tokens.prompt, left_out: 0 });
        for (name, tokens) in [("chosen", tokens.chosen), ("rejected", tokens.rejected)] {
            let end = tokens.last().map(|&end| format!("{} ({end})", self.text(&[end]))).unwrap_or_default();
            say(format_args!("{name}, {} tokens, its score read on the last, {end}:", tokens.len()));
            self.say(&Masked { counted: vec![true; tokens.len()], tokens, left_out: 0 });
        }
        Ok(())
    }

    fn say(&self, Masked { tokens, counted, .. }: &Masked) {
        if self.ids {
            for (token, &counted) in tokens.iter().zip(counted) {
                let text = format!("{:?}", self.renderer.tokenizer().token_text(*token));
                say(format_args!("{token:>8} {}", self.mark(&text, counted)));
            }
            return;
        }
        let mut line = String::new();
        let mut start = 0;
        for run in counted.chunk_by(|a, b| a == b) {
            line += &self.mark(&self.text(&tokens[start..start + run.len()]), run[0]);
            start += run.len();
        }
        say(line);
    }

    /// The text of tokens, names of special ones included.
    fn text(&self, tokens: &[TokenId]) -> String {
        let tokenizer = self.renderer.tokenizer();
        let bytes = tokens.iter().flat_map(|&token| tokenizer.token_bytes(token)).collect::<Vec<_>>();
        plain(&String::from_utf8_lossy(&bytes))
    }

    fn mark(&self, text: &str, counted: bool) -> String {
        match (counted, self.has_colour) {
            (false, _) => text.to_owned(),
            (true, true) => format!("\u{1b}[32m{text}\u{1b}[0m"),
            (true, false) => format!("[{text}]"),
        }
    }
}

/// Text without the characters that would steer a terminal.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => plain.push(character),
            _ if character.is_control() => {
                let _ = write!(plain, "{}", character.escape_default());
            }
            _ => plain.push(character),
        }
    }
    plain
}
