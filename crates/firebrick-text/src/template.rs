//! A conversation to the text that a checkpoint was trained on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use firebrick_types::{Message, Role};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};

use crate::{Error, dialogue};

/// The longest template, in bytes.
const LONGEST_TEMPLATE: usize = 256 << 10;

/// The longest text that a template may write, in bytes, beside what the messages hold.
const LONGEST_TEXT: usize = 4 << 20;

/// Steps that a template may take, whatever the messages are, and for each of them.
const STEPS: (u64, u64) = (100_000, 10_000);

const TOO_MUCH: &str = "writes too much";

/// Calls within calls.
const DEPTH: usize = 100;

/// Firebrick's dialogue form (D-04) as a template, so that a saved checkpoint keeps it for other programs.
const DIALOGUE: &str = "{%- for message in messages -%}
    {%- if message['role'] == 'system' and loop.first -%}
        {{ message['content'] | trim }}
    {%- elif message['role'] in ['user', 'human'] -%}
        {{ '\\n\\nHuman: ' + message['content'] | trim }}
    {%- elif message['role'] == 'assistant' -%}
        {{ '\\n\\nAssistant: ' + message['content'] | trim }}
    {%- else -%}
        {{ raise_exception('knows the roles user and assistant, and system at the beginning, not ' + message['role']) }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '\\n\\nAssistant:' }}
{%- endif -%}";

/// A message as templates read it.
#[derive(Serialize)]
struct Turn<'a> {
    role: &'static str,
    content: &'a str,
}

impl<'a> From<&'a Message> for Turn<'a> {
    fn from(message: &'a Message) -> Self {
        let role = match message.role {
            Role::System => "system",
            Role::Human => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        Self { role, content: &message.text }
    }
}

/// A conversation to the text that a checkpoint was trained on, by a Jinja template as `transformers` renders it.
///
/// Templates come from outside: their steps, their depth and what they write are limited. They see no clock, so `strftime_now` is not
/// defined, and templates that ask whether it is take the date that they state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatTemplate {
    source: String,
    origin: String,
    /// `bos_token` and the like.
    tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Firebrick's dialogue form, `\n\nHuman: …\n\nAssistant: …` (D-04); a system message stands before it as it is.
    pub fn dialogue() -> Self {
        Self { source: DIALOGUE.to_owned(), origin: "dialogue form".to_owned(), tokens: BTreeMap::new() }
    }

    /// A template in Jinja, the file that errors name, and the names of special tokens by their key, for instance `bos_token`.
    ///
    /// # Errors
    /// If the template is too long, or not Jinja.
    pub fn jinja(
        source: impl Into<String>,
        origin: impl Into<String>,
        tokens: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let template = Self { source: source.into(), origin: origin.into(), tokens };
        if template.source.len() > LONGEST_TEMPLATE {
            return Err(template.error(format!("is longer than {LONGEST_TEMPLATE} bytes")));
        }
        let source = without_generation_marks(&template.source);
        environment().template_from_str(&source).map_err(|error| template.error(format!("cannot be read: {error}")))?;
        Ok(template)
    }

    /// The same template with other names of special tokens.
    pub fn with_tokens(self, tokens: BTreeMap<String, String>) -> Self {
        Self { tokens, ..self }
    }

    /// The template in Jinja.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether this is Firebrick's dialogue form.
    pub fn is_dialogue(&self) -> bool {
        self.source == DIALOGUE
    }

    /// Texts at which an answer ends, beside the tokens of [`TurnEnds`](crate::TurnEnds).
    pub fn stops(&self) -> &'static [&'static str] {
        if self.is_dialogue() { &[dialogue::STOP, dialogue::SEPARATOR] } else { &[] }
    }

    /// The text of a conversation, with the beginning of an answer if asked for.
    ///
    /// Templates know the person as `user`, and the others as `system`, `assistant` and `tool`.
    ///
    /// Special tokens stand in it by their names: [`Tokenizer::encode_with_special`](crate::Tokenizer::encode_with_special)
    /// reads them.
    ///
    /// # Errors
    /// If the template refuses the conversation, fails, or does not keep to its limits.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, Error> {
        let mut environment = environment();
        environment.set_fuel(Some(STEPS.0.saturating_add(STEPS.1.saturating_mul(messages.len() as u64))));
        let given = messages.iter().map(|message| message.text.len() + 16).sum::<usize>();
        let limit = given.saturating_mul(4).saturating_add(LONGEST_TEXT);
        let written = Arc::new(AtomicUsize::new(0));
        environment.set_formatter(move |out, state, value| {
            let size = value.as_str().map_or(16, str::len);
            if written.fetch_add(size, Ordering::Relaxed) + size > limit {
                return Err(minijinja::Error::new(ErrorKind::InvalidOperation, TOO_MUCH));
            }
            // As Python writes them.
            match value.kind() {
                ValueKind::None => Ok(out.write_str("None")?),
                ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
                _ => minijinja::escape_formatter(out, state, value),
            }
        });
        let source = without_generation_marks(&self.source);
        let failed = |error: minijinja::Error| match error.kind() {
            ErrorKind::OutOfFuel => self.error("takes too many steps".to_owned()),
            _ => self.error(format!("fails: {error}")),
        };
        let tokens = Value::from(Serde(&self.tokens));
        let turns = messages.iter().map(Turn::from).collect::<Vec<_>>();
        let messages = Serde(&turns);
        let conversation = context! {
            messages, add_generation_prompt, tools => Value::from(()), documents => Value::from(()), ..tokens
        };
        let template = environment.template_from_str(&source).map_err(failed)?;
        let mut text = Bounded { bytes: Vec::new(), limit, exceeded: false };
        let rendered = template.render_captured_to(conversation, &mut text).map(drop);
        rendered.map_err(|error| if text.exceeded { self.error(TOO_MUCH.to_owned()) } else { failed(error) })?;
        Ok(String::from_utf8(text.bytes).expect("a template writes text"))
    }

    /// The names of special tokens by their keys, for instance `bos_token`.
    pub fn tokens(&self) -> &BTreeMap<String, String> {
        &self.tokens
    }

    fn error(&self, reason: String) -> Error {
        Error::Template { origin: self.origin.clone(), reason }
    }
}

/// What refuses to grow beyond a limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.exceeded |= self.bytes.len() + bytes.len() > self.limit;
        if self.exceeded {
            return Err(std::io::Error::other(TOO_MUCH));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Jinja as `transformers` sets it up.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("Jinja's own delimiters are distinct"));
    environment.set_recursion_limit(DEPTH);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |reason: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason))
    });
    environment.add_filter("tojson", to_json);
    environment
}

/// JSON as Python writes it.
fn to_json(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent = indent.or(options.get::<Option<usize>>("indent")?);
    // What else Python takes changes nothing here: text is never escaped to ASCII, and keys keep their order.
    let _ = (options.get::<Option<bool>>("ensure_ascii")?, options.get::<Option<Value>>("separators")?);
    options.assert_all_used()?;
    let mut bytes = Vec::new();
    let written = match indent {
        Some(indent) => {
            let indent = " ".repeat(indent.min(16));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, pretty))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Spaced)),
    };
    let failed =
        |error| minijinja::Error::new(ErrorKind::BadSerialization, "cannot be written as JSON").with_source(error);
    written.map_err(failed)?;
    Ok(Value::from(String::from_utf8(bytes).expect("JSON is text")))
}

/// A space after commas and colons.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// The template with `{% generation %} … {% endgeneration %}`, which marks answers for training and writes nothing of its own, as a
/// condition that always holds.
fn without_generation_marks(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let (before, tag) = (&rest[..start], &rest[start..start + length + 2]);
        text.push_str(before);
        match tag.trim_matches(['{', '}', '%', '-', '+', ' ', '\n', '\t']) {
            "generation" => text.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => text.push_str(&tag.replace("endgeneration", "endif")),
            _ => text.push_str(tag),
        }
        rest = &rest[start + length + 2..];
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use firebrick_types::Dialogue;
    use proptest::prelude::*;

    use super::*;

    fn render(source: &str, messages: &[Message]) -> Result<String, String> {
        let template = ChatTemplate::jinja(source, "x.jinja", BTreeMap::new()).map_err(|error| error.to_string())?;
        template.render(messages, false).map_err(|error| error.to_string())
    }

    #[test]
    fn the_dialogue_form_is_that_of_the_data() {
        let messages = [Message::human("Hi "), Message::assistant("Hello."), Message::human("Bye")];
        let template = ChatTemplate::dialogue();
        let text = template.render(&messages, true).unwrap();
        assert_eq!(text, "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Bye\n\nAssistant:");
        let with_system = [&[Message::system("Be brief.")], &messages[..1]].concat();
        assert_eq!(template.render(&with_system, false).unwrap(), "Be brief.\n\nHuman: Hi");
        for messages in
            [vec![Message { role: Role::Tool, text: "x".to_owned() }], [&messages[..1], &with_system].concat()]
        {
            let message = template.render(&messages, true).unwrap_err().to_string();
            assert!(
                message.contains("knows the roles user and assistant, and system at the beginning, not "),
                "{message}"
            );
        }
        assert_eq!(template.stops(), ["\n\nHuman:", "\n\n-----"]);
    }

    proptest! {
        #[test]
        fn the_dialogue_form_is_rendered_as_the_data_is(said in proptest::collection::vec("[a-z{%}é]{1,8}", 1..6)) {
            let dialogue = Dialogue::new(said.iter().enumerate().map(|(index, said)| match index % 2 {
                0 => Message::human(said),
                _ => Message::assistant(said),
            }).collect());
            let text = ChatTemplate::dialogue().render(&dialogue.messages, false).unwrap();
            prop_assert_eq!(text, dialogue::render(&dialogue));
        }
    }

    #[test]
    fn what_a_message_says_is_never_a_template() {
        let messages = [Message::human("{{ 1 + 1 }}{% raw %}<b>&amp;")];
        assert_eq!(render("{{ messages[0].content }}", &messages).unwrap(), messages[0].text);
    }

    #[test]
    fn hostile_templates_end() {
        let bound = "writes too much";
        for (source, expected) in [
            ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "takes too many steps"),
            ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails: "),
            ("{% macro f(n) %}{{ f(n + 1) ~ f(n + 1) }}{% endmacro %}{{ f(0) }}", "fails: "),
            ("{{ 'x' * 99999999 }}", "takes too many steps"),
            ("{% for a in range(9999) %}{{ 'x' * 999 }}{% endfor %}", bound),
            ("{% for a in range(9999) %}TEXT{% endfor %}", bound),
            ("{{ range(99999999999) }}", "fails: "),
            ("{% include 'secret' %}", "fails: "),
            ("{{ open('secret') }}", "fails: "),
            ("{{ raise_exception('only users') }}", "only users"),
        ] {
            let found = render(&source.replace("TEXT", &"x".repeat(2_000)), &[]).unwrap_err();
            assert!(found.contains("x.jinja: the chat template ") && found.contains(expected), "{source}: {found}");
        }
    }

    #[test]
    fn templates_that_cannot_be_read_are_refused_when_opened() {
        for (source, expected) in
            [("{% if %}".to_owned(), "cannot be read: "), ("x".repeat(300 << 10), "is longer than 262144 bytes")]
        {
            let found = render(&source, &[]).unwrap_err();
            assert!(found.contains(expected), "{found}");
        }
        let nested = "{% if true %}".repeat(5_000);
        assert!(render(&nested, &[]).is_err());
        let nested = format!("{{{{ {}1{} }}}}", "(".repeat(5_000), ")".repeat(5_000));
        assert!(render(&nested, &[]).is_err());
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let messages = [Message::human("<a> 'b' \"c\" é")];
        let expected = r#"{"role": "user", "content": "<a> 'b' \"c\" é"}"#;
        assert_eq!(render("{{ messages[0] | tojson }}", &messages).unwrap(), expected);
        assert_eq!(
            render("{{ [1, 2.5, none, true] | tojson(ensure_ascii=False) }}", &[]).unwrap(),
            "[1, 2.5, null, true]"
        );
        assert_eq!(render("{{ [] | tojson }} {{ [1] | tojson(indent=2) }}", &[]).unwrap(), "[] [\n  1\n]");
    }
}
