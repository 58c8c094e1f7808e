//! The same rows in another layout of their kind.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};
use std::path::Path;

use firebrick_text::dialogue::{parse, render};
use firebrick_types::{Dialogue, Example, LabelledComparison, Message, Role};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use crate::conversations::{conversation, prompt_rows_of, rows_of};
use crate::file::create_atomically;
use crate::folder::is_jsonl;
use crate::jsonl::{self, Record};
use crate::layout::Layout;
use crate::rows::{Dropped, Row, Rows, role_name};
use crate::{Error, comparisons, store};

/// How a row is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `{"messages": [{"role", "content"}]}`: a conversation.
    Messages,
    /// `{"prompt": [{"role", "content"}], "completion": [{"role", "content"}]}`: a conversation, its last response apart.
    PromptCompletion,
    /// `{"chosen": "\n\nHuman: …\n\nAssistant: …", "rejected": …}`: a comparison as in HH-RLHF.
    Transcripts,
    /// `{"prompt": [{"role", "content"}], "chosen": [{"role", "content"}], "rejected": [{"role", "content"}]}`: a comparison.
    ChosenRejected,
    /// `{"prompt": [{"role", "content"}]}`.
    Prompts,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 5] =
        [Self::Messages, Self::PromptCompletion, Self::Transcripts, Self::ChosenRejected, Self::Prompts];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::PromptCompletion => "prompt-completion",
            Self::Transcripts => "transcripts",
            Self::ChosenRejected => "chosen-rejected",
            Self::Prompts => "prompts",
        }
    }

    /// The forms that rows of a layout can be written in, first the one that loses nothing.
    pub fn of(layout: Layout) -> &'static [Self] {
        match layout {
            Layout::Comparisons => {
                &[Self::ChosenRejected, Self::Transcripts, Self::Messages, Self::PromptCompletion, Self::Prompts]
            }
            Layout::Conversations => &[Self::Messages, Self::PromptCompletion, Self::Prompts],
            Layout::Prompts => &[Self::Prompts],
            Layout::Threads | Layout::Text | Layout::HhhTask => &[],
        }
    }
}

/// What was written, and what was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// How.
    pub form: Form,
    /// Rows that were written.
    pub rows: usize,
    /// The numbers of the rows that were left out, by the reason.
    pub dropped: BTreeMap<Dropped, Vec<u64>>,
    /// What else the file says that the new one does not.
    pub lost: Vec<String>,
}

/// Writes the rows of a file as another file, whole or not at all, in a form of their kind, by default the one that loses nothing.
///
/// The ending of the new file's name decides: `.jsonl`, `.jsonl.gz`, or `.parquet`, a table of [`store`].
///
/// ```
/// use firebrick_data::convert::{Form, convert};
///
/// let folder = tempfile::tempdir()?;
/// let [file, out] = ["train.jsonl", "pairs.jsonl"].map(|name| folder.path().join(name));
/// std::fs::write(&file, r#"{"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}"#)?;
/// let converted = convert(&file, &out, None)?;
/// assert_eq!((converted.form, converted.rows), (Form::ChosenRejected, 1));
/// assert!(std::fs::read_to_string(&out)?.contains(r#"[{"role":"assistant","content":"Hello."}]"#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the file cannot be read, one of its rows is an error, its rows cannot be written so, the new file is there already, has no known
/// ending or cannot be written.
pub fn convert(path: &Path, out: &Path, form: Option<Form>) -> Result<Converted, Error> {
    if out.exists() {
        return Err(Error::Exists { path: out.into() });
    }
    let is_table = store::is_table(out);
    if !is_table && !is_jsonl(out) {
        return Err(Error::Ending { path: out.into() });
    }
    let layout = Layout::of(path)?;
    // A table has one way to keep a row.
    let is_possible = |form: &Form| !is_table || !matches!(form, Form::Transcripts | Form::PromptCompletion);
    let forms = Form::of(layout).iter().copied().filter(is_possible).collect::<Vec<_>>();
    let Some(&form) = forms.iter().find(|one| form.is_none_or(|form| form == **one)) else {
        let names = forms.iter().map(|form| form.name()).collect::<Vec<_>>().join(", ");
        let instead = match (forms.is_empty(), is_table) {
            (true, _) => "give comparisons, conversations or prompts".to_owned(),
            (false, true) => format!("choose one of {names}, or a name that ends in .jsonl"),
            (false, false) => format!("choose one of {names}"),
        };
        let wanted = form.map_or("anything else", Form::name);
        return Err(Error::NotConvertible { path: path.into(), found: layout, wanted, instead });
    };
    let Written { kept, rows, dropped } = match form {
        Form::ChosenRejected | Form::Transcripts => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            write(out, comparisons::rows(path, &name)?, |number, row| pair(path, number, row, form))
        }
        Form::Messages | Form::PromptCompletion => {
            write(out, rows_of(path, layout, usize::MAX)?, |_, row| Ok(Some(learnt(row, form))))
        }
        Form::Prompts => {
            write(out, prompt_rows_of(path, layout)?, |_, row| Ok(Some(json!({"prompt": messages(&row.messages)}))))
        }
    }?;
    let mut lost = unread(path, layout)?;
    lost.extend(match (form, layout) {
        (Form::Messages | Form::PromptCompletion, Layout::Comparisons) => Some("the rejected responses".to_owned()),
        (Form::Prompts, Layout::Comparisons | Layout::Conversations) => Some("the responses".to_owned()),
        _ => None,
    });
    if store::is_table(path) && layout == Layout::Comparisons && !is_table {
        lost.push("strength, annotator, source and time of comparisons".to_owned());
    }
    if rows < kept {
        lost.push(format!("{} ties", kept - rows));
    }
    Ok(Converted { form, rows, dropped, lost })
}

struct Written {
    /// Rows of the source that are not dropped.
    kept: usize,
    /// Rows that were written.
    rows: usize,
    dropped: BTreeMap<Dropped, Vec<u64>>,
}

/// Writes rows as a table or, where the name says so, each as JSON, if it has such a form.
fn write<T: store::Table>(
    out: &Path,
    rows: Rows<'_, T>,
    json: impl Fn(u64, &T) -> Result<Option<Value>, Error>,
) -> Result<Written, Error> {
    let (mut kept, mut dropped) = (Vec::new(), BTreeMap::<_, Vec<u64>>::new());
    for row in rows {
        let Row { number, content } = row?;
        match content {
            Ok(content) => kept.push((number, content)),
            Err(reason) => dropped.entry(reason).or_default().push(number),
        }
    }
    if store::is_table(out) {
        let kept = kept.into_iter().map(|(_, row)| row).collect::<Vec<_>>();
        store::create(out, &kept)?;
        return Ok(Written { kept: kept.len(), rows: kept.len(), dropped });
    }
    let mut rows = 0;
    create_atomically(out, |file| {
        let failed = |source| Error::Write { path: out.into(), source };
        let mut lines = |sink: &mut dyn Write| -> Result<(), Error> {
            for (number, row) in &kept {
                if let Some(value) = json(*number, row)? {
                    writeln!(sink, "{value}").map_err(failed)?;
                    rows += 1;
                }
            }
            Ok(())
        };
        let mut sink = BufWriter::new(file);
        if out.extension().is_some_and(|ending| ending == "gz") {
            let mut packed = GzEncoder::new(&mut sink, Compression::default());
            lines(&mut packed)?;
            packed.finish().map_err(failed)?;
        } else {
            lines(&mut sink)?;
        }
        sink.flush().map_err(failed)
    })?;
    Ok(Written { kept: kept.len(), rows, dropped })
}

/// A comparison; of a tie none.
fn pair(path: &Path, number: u64, row: &LabelledComparison, form: Form) -> Result<Option<Value>, Error> {
    let Some(sides) = row.chosen_and_rejected().map(|(chosen, rejected)| [chosen, rejected]) else { return Ok(None) };
    let answers = sides.map(Message::assistant);
    if form == Form::Transcripts {
        let [chosen, rejected] = answers.map(|answer| transcript(path, number, &row.prompt().with(answer)));
        return Ok(Some(json!({"chosen": chosen?, "rejected": rejected?})));
    }
    let [chosen, rejected] = answers.map(|answer| messages(&[answer]));
    Ok(Some(json!({"prompt": messages(&row.prompt().messages), "chosen": chosen, "rejected": rejected})))
}

/// The text of a conversation that reads as the same one.
fn transcript(path: &Path, number: u64, dialogue: &Dialogue) -> Result<String, Error> {
    let refused = |why| Error::NotTranscribable { path: path.into(), number, why };
    if dialogue.messages.iter().any(|message| matches!(message.role, Role::System | Role::Tool)) {
        return Err(refused("it has no place for what the system or a tool says"));
    }
    let text = render(dialogue);
    match parse(&text).is_ok_and(|read| read == *dialogue) {
        true => Ok(text),
        false => Err(refused("one of its turns holds a marker such as \"\\n\\nHuman:\"")),
    }
}

/// A conversation or a text.
fn learnt(row: &Example, form: Form) -> Value {
    match row {
        Example::Text(text) => json!({"text": text}),
        Example::Conversation(Dialogue { messages: all }) if form == Form::PromptCompletion => {
            let (prompt, completion) = all.split_at(all.len().saturating_sub(1));
            json!({"prompt": messages(prompt), "completion": messages(completion)})
        }
        Example::Conversation(dialogue) => json!({"messages": messages(&dialogue.messages)}),
    }
}

fn messages(messages: &[Message]) -> Value {
    messages.iter().map(|message| json!({"role": role_name(message.role), "content": message.text})).collect()
}

/// What the rows of a JSONL file of comparisons, conversations or prompts hold that no reader takes; rows that are broken are passed over.
pub(crate) fn unread(path: &Path, layout: Layout) -> Result<Vec<String>, Error> {
    if !is_jsonl(path) || Form::of(layout).is_empty() {
        return Ok(Vec::new());
    }
    let (mut fields, mut cut) = (BTreeSet::new(), 0);
    for row in jsonl::rows(path, "")?.flatten() {
        let taken = taken(&row, layout);
        for (name, value) in row.fields() {
            if !taken.contains(&name.as_str()) {
                fields.insert(name.clone());
                continue;
            }
            let keys = value.as_array().into_iter().flatten().filter_map(Value::as_object).flat_map(Map::keys);
            let others = keys.filter(|key| !["role", "content", "from", "value"].contains(&key.as_str()));
            fields.extend(others.map(|key| format!("{name}[].{key}")));
        }
        if layout == Layout::Conversations {
            let last = conversation(&row).ok().and_then(|mut dialogue| dialogue.messages.pop());
            cut += usize::from(last.is_some_and(|message| message.role != Role::Assistant));
        }
    }
    let mut unread = Vec::new();
    if !fields.is_empty() {
        let names = fields.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        unread.push(format!("the fields {}", names.join(", ")));
    }
    if cut > 0 {
        unread.push(format!("what follows the assistant's last turn, in {cut} rows"));
    }
    Ok(unread)
}

/// The fields of a row that are read.
fn taken(row: &Record, layout: Layout) -> &'static [&'static str] {
    match layout {
        Layout::Comparisons => &["prompt", "chosen", "rejected"],
        Layout::Conversations if row.has("messages") => &["messages"],
        Layout::Conversations if row.has("conversations") => &["conversations", "system"],
        Layout::Conversations if row.has("instruction") => &["instruction", "input", "output"],
        Layout::Conversations => &["prompt", "completion"],
        Layout::Prompts => &["prompt"],
        Layout::Threads | Layout::Text | Layout::HhhTask => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::conversations;
    use crate::file::tests::file_of;

    const TRANSCRIPTS: &str = r#"{"chosen": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: bad"}"#;

    fn beside(path: &Path, name: &str) -> PathBuf {
        path.parent().unwrap().join(name)
    }

    fn text_of(path: &Path) -> String {
        String::from_utf8(crate::file::read(path, 1 << 20).unwrap()).unwrap()
    }

    #[test]
    fn comparisons_go_through_every_form_and_back() {
        let (_dir, path) = file_of("x.jsonl", TRANSCRIPTS.as_bytes());
        let (wanted, _) = comparisons::read(&path, "x.jsonl").unwrap();
        let mut from = path.clone();
        for (index, (form, ending)) in [
            (Form::ChosenRejected, "jsonl"),
            (Form::Transcripts, "jsonl.gz"),
            (Form::ChosenRejected, "parquet"),
            (Form::Transcripts, "jsonl"),
        ]
        .into_iter()
        .enumerate()
        {
            let out = beside(&path, &format!("{index}.{ending}"));
            let converted = convert(&from, &out, Some(form)).unwrap();
            assert_eq!((converted.rows, converted.form), (1, form));
            let (mut read, _) = comparisons::read(&out, "x.jsonl").unwrap();
            read[0].source = "x.jsonl".to_owned();
            assert_eq!(read, wanted, "{form:?}");
            from = out;
        }
        // The transcripts are those of the file, but for the white space of its JSON.
        let compact = serde_json::from_str::<Value>(TRANSCRIPTS).unwrap().to_string();
        assert_eq!(text_of(&from).trim_end(), compact);
        assert_eq!(text_of(&beside(&path, "1.jsonl.gz")).trim_end(), compact);
    }

    #[test]
    fn conversations_go_through_every_form_and_back() {
        let row = r#"{"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}"#;
        let (_dir, path) = file_of("x.jsonl", row.as_bytes());
        let wanted = conversations::read(&path, 100).unwrap();
        let mut from = path.clone();
        for (name, form) in
            [("a.jsonl", Form::PromptCompletion), ("b.parquet", Form::Messages), ("c.jsonl.gz", Form::Messages)]
        {
            let out = beside(&path, name);
            let converted = convert(&from, &out, Some(form)).unwrap();
            assert_eq!(converted.lost, Vec::<String>::new());
            assert_eq!(conversations::read(&out, 100).unwrap(), wanted, "{name}");
            from = out;
        }
        let expected = r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}"#;
        assert_eq!(
            serde_json::from_str::<Value>(&text_of(&from)).unwrap(),
            serde_json::from_str::<Value>(expected).unwrap()
        );
    }

    #[test]
    fn prompts_come_out_of_comparisons_and_through_a_table() {
        let (_dir, path) = file_of("x.jsonl", TRANSCRIPTS.as_bytes());
        let wanted = conversations::prompts(&path).unwrap();
        let [table, rows] = ["p.parquet", "p.jsonl"].map(|name| beside(&path, name));
        assert_eq!(convert(&path, &table, Some(Form::Prompts)).unwrap().lost, ["the responses"]);
        assert_eq!(convert(&table, &rows, None).unwrap().lost, Vec::<String>::new());
        assert_eq!(conversations::prompts(&table).unwrap(), wanted);
        assert_eq!(conversations::prompts(&rows).unwrap(), wanted);
    }

    #[test]
    fn what_is_lost_is_told() {
        let rows = [
            r#"{"id": 1, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]}"#,
            r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}]}"#,
            r#"{"messages": [{"role": "user", "content": "q"}]}"#,
        ];
        let (_dir, path) = file_of("x.jsonl", rows.join("\n").as_bytes());
        let converted = convert(&path, &beside(&path, "y.jsonl"), None).unwrap();
        assert_eq!(converted.dropped, BTreeMap::from([(Dropped::EmptyResponse, vec![3])]));
        assert_eq!(
            converted.lost,
            ["the fields `id`, `messages[].weight`", "what follows the assistant's last turn, in 2 rows"]
        );
        let (_dir, path) = file_of("x.jsonl", TRANSCRIPTS.as_bytes());
        let converted = convert(&path, &beside(&path, "y.jsonl"), Some(Form::Messages)).unwrap();
        assert_eq!(converted.lost, ["the rejected responses"]);
    }

    #[test]
    fn a_transcript_that_would_read_as_another_conversation_is_refused() {
        let row = |prompt: &str| serde_json::json!({"prompt": prompt, "chosen": "a", "rejected": "b"}).to_string();
        let (_dir, path) = file_of("x.jsonl", [row("q"), row("Say\n\nHuman: x")].join("\n").as_bytes());
        let out = beside(&path, "y.jsonl");
        let message = convert(&path, &out, Some(Form::Transcripts)).unwrap_err().to_string();
        assert!(
            message.contains("x.jsonl, line 2: as a transcript it would read as another conversation"),
            "{message}"
        );
        assert!(!out.exists(), "nothing is half written");
        convert(&path, &out, Some(Form::ChosenRejected)).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_refused_and_nothing_is_overwritten() {
        let (_dir, path) = file_of("x.jsonl", TRANSCRIPTS.as_bytes());
        let message = |name: &str, form| convert(&path, &beside(&path, name), form).unwrap_err().to_string();
        assert!(
            message("x.jsonl", None).ends_with("x.jsonl: it is there already; name another file, or remove it first")
        );
        assert!(message("y.csv", None).contains("expected a name that ends in .jsonl"));
        let table = message("y.parquet", Some(Form::Transcripts));
        let expected = "it holds comparisons, which cannot be written as transcripts; choose one of chosen-rejected, messages, prompts, \
                        or a name that ends in .jsonl";
        assert!(table.contains(expected), "{table}");
        let (_dir, text) = file_of("x.jsonl", br#"{"text": "t"}"#);
        let message = convert(&text, &beside(&text, "y.jsonl"), None).unwrap_err().to_string();
        assert!(
            message.contains("it holds text, which cannot be written as anything else; give comparisons"),
            "{message}"
        );
        assert_eq!(fs::read(&path).unwrap(), TRANSCRIPTS.as_bytes());
    }
}
