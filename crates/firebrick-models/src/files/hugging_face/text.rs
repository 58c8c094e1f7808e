//! The tokenizer, template and generation settings of a folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use firebrick_text::{ChatTemplate, Renderer, Source, Tokenizer, TurnEnds};
use firebrick_types::TokenId;
use serde_json::{Value, json};

use crate::Error;
use crate::checkpoint::{GenerationConfig, Text};
use crate::files::json::{self as files, Settings};

pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const SETTINGS: &str = "tokenizer_config.json";
pub(crate) const TEMPLATE: &str = "chat_template.jinja";
pub(crate) const GENERATION: &str = "generation_config.json";
const NAMES: &str = "special_tokens_map.json";
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";

/// Special tokens that templates name.
const SPECIAL: [&str; 4] = ["bos_token", "eos_token", "unk_token", "pad_token"];

/// What a folder holds beside its weights, or none where it has no tokenizer. That of a pipeline's stage is what the run began with.
///
/// # Errors
/// If a file is damaged, of a kind that is not built here, or a key holds something else than it should.
pub(crate) fn text(dir: &Path) -> Result<Option<Text>, Error> {
    let paths = [SETTINGS, NAMES, GENERATION, "config.json"].map(|name| dir.join(name));
    let [settings, names, generation, config] = &paths;
    let (settings, names) = (files::json(settings)?, files::json(names)?);
    let mut tokens = BTreeMap::new();
    for key in SPECIAL {
        let name = match settings.token(key)? {
            Some(name) => Some(name),
            None => names.token(key)?,
        };
        tokens.extend(name.map(|name| (key.to_owned(), name)));
    }
    let eos = tokens.get("eos_token").cloned();
    let (generation, config) = (files::json(generation)?, files::json(config)?);
    let renderer = match tokenizer(dir, &settings, eos.as_deref())? {
        None => of_run(dir).map(|dir| Renderer::open(&dir)).transpose()?,
        Some(tokenizer) => {
            let tokenizer = beginning(tokenizer, &settings, &tokens)?;
            let template = template(dir, &settings, tokens)?;
            let keys = ends(&generation, &config, eos.as_deref(), &tokenizer)?;
            let turn_ends = TurnEnds::find(&keys, &tokenizer, &template);
            Some(Renderer::new(tokenizer, template, turn_ends))
        }
    };
    let Some(renderer) = renderer else { return Ok(None) };
    Ok(Some(Text { renderer, generation: GenerationConfig::of(&generation)? }))
}

fn tokenizer(dir: &Path, settings: &Settings<'_>, eos: Option<&str>) -> Result<Option<Tokenizer>, Error> {
    let whole = dir.join(TOKENIZER);
    if whole.exists() {
        return Ok(Some(Tokenizer::open_or_ending(&whole, eos)?));
    }
    if dir.join(VOCABULARY).exists() && dir.join(MERGES).exists() {
        return vocabulary_and_merges(dir, settings, eos).map(Some);
    }
    Ok(None)
}

/// The tokenizer as its class has it: those of Llama's kind put `bos_token` before a text as `add_bos_token` says, whatever the
/// post-processor of their file does.
fn beginning(
    tokenizer: Tokenizer,
    settings: &Settings<'_>,
    tokens: &BTreeMap<String, String>,
) -> Result<Tokenizer, Error> {
    const CLASSES: [&str; 4] = ["Llama", "CodeLlama", "Gemma", "Cohere"];
    let class = settings.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    match settings.flag("add_bos_token")?.filter(|_| CLASSES.iter().any(|known| class.starts_with(known))) {
        Some(adds) => {
            let bos = tokens.get("bos_token").and_then(|name| tokenizer.token(name)).filter(|_| adds);
            Ok(tokenizer.with_beginning(bos.as_slice()))
        }
        None => Ok(tokenizer),
    }
}

/// What the keys of a folder say of the ends of turns, in the order in which they are believed.
///
/// # Errors
/// If something else than ids of the tokenizer stands there.
fn ends(
    generation: &Settings<'_>,
    config: &Settings<'_>,
    eos: Option<&str>,
    tokenizer: &Tokenizer,
) -> Result<Vec<(TokenId, Source)>, Error> {
    let named = eos.and_then(|name| tokenizer.token(name));
    let mut keys = named.map(|id| (id, Source::Key("eos_token"))).into_iter().collect::<Vec<_>>();
    let listed = ids(generation, tokenizer)?;
    keys.extend(listed.iter().map(|&id| (id, Source::Key("eos_token_id of generation_config.json"))));
    // Numbers of `config.json` are often left over from another model, and nobody reads them where the other file is.
    let others = if listed.is_empty() { ids(config, tokenizer)? } else { ids(config, tokenizer).unwrap_or_default() };
    keys.extend(others.into_iter().map(|id| (id, Source::Key("eos_token_id of config.json"))));
    Ok(keys)
}

/// The tokens of `eos_token_id`, one or several.
fn ids(settings: &Settings<'_>, tokenizer: &Tokenizer) -> Result<Vec<TokenId>, Error> {
    const KEY: &str = "eos_token_id";
    let size = tokenizer.vocab_size();
    let wrong = || settings.wrong(KEY, format!("the id of a token, below {size}, or a list of such ids"));
    let id = |value: &Value| {
        let id = value.as_u64().filter(|&id| id < size as u64).ok_or_else(wrong)?;
        Ok(id as TokenId)
    };
    match settings.get(KEY) {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(id).collect(),
        Some(value) => Ok(vec![id(value)?]),
    }
}

/// The folder of the tokenizer of the run that a stage's artifact belongs to, `NN-tokenizer/artifact` beside its stage.
fn of_run(dir: &Path) -> Option<PathBuf> {
    let dir = fs::canonicalize(dir).ok()?;
    let run = dir.parent()?.parent().filter(|_| dir.ends_with("artifact"))?;
    let stages = fs::read_dir(run).ok()?.flatten().map(|entry| entry.path());
    let mut found = stages.filter_map(|stage| {
        let name = stage.file_name()?.to_str()?;
        let folder = stage.join("artifact");
        (name.ends_with("-tokenizer") && folder.join(TOKENIZER).exists()).then_some(folder)
    });
    found.next()
}

/// A byte-level tokenizer as GPT-2's was published: the ids, and what is merged, best first.
fn vocabulary_and_merges(dir: &Path, settings: &Settings<'_>, eos: Option<&str>) -> Result<Tokenizer, Error> {
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    if let Some(class) = settings.get("tokenizer_class")
        && !["GPT2Tokenizer", "GPT2TokenizerFast"].iter().any(|known| class == known)
    {
        return Err(
            settings.wrong("tokenizer_class", format!("GPT2Tokenizer beside `{VOCABULARY}`, or a `{TOKENIZER}`"))
        );
    }
    let path = dir.join(VOCABULARY);
    let vocabulary = files::json(&path)?;
    let ids = vocabulary.value.as_object().expect("it was held to be an object");
    if let Some(name) = ids.keys().find(|name| !ids[*name].is_u64()) {
        return Err(vocabulary.wrong(name, "the id of a token"));
    }
    let path = dir.join(MERGES);
    let text = files::text(&path)?.unwrap_or_default();
    let mut merges = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with("#version") && !line.is_empty())
    {
        let halves = line.split_once(' ').filter(|(left, right)| {
            let known = |name: &str| ids.contains_key(name);
            known(left) && known(right) && known(&format!("{left}{right}"))
        });
        let Some(halves) = halves else {
            let reason = format!("line {}: {line:?} is not two tokens of `{VOCABULARY}` that make a third", index + 1);
            return Err(Error::Tokenizer { path, reason });
        };
        merges.push(json!(halves));
    }
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(settings, ids)?,
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": null,
        "decoder": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": false, "byte_fallback": false, "vocab": ids, "merges": merges,
        },
    });
    Ok(Tokenizer::parse(&json.to_string(), &dir.join(VOCABULARY), eos)?)
}

/// The tokens of `added_tokens_decoder`, or else GPT-2's only special one.
fn added(settings: &Settings<'_>, ids: &serde_json::Map<String, Value>) -> Result<Vec<Value>, Error> {
    const KEY: &str = "added_tokens_decoder";
    let token = |id: u64, content: &str, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": !special, "special": special})
    };
    let Some(listed) = settings.get(KEY) else {
        let end = "<|endoftext|>";
        return Ok(ids.get(end).and_then(Value::as_u64).map(|id| token(id, end, true)).into_iter().collect());
    };
    let listed = listed.as_object().ok_or_else(|| settings.wrong(KEY, "an object of tokens by their ids"))?;
    let mut tokens = Vec::new();
    for (id, described) in listed {
        let content = described["content"].as_str();
        let (Ok(id), Some(content)) = (id.parse::<u64>(), content) else {
            return Err(settings.wrong(KEY, "an object of tokens by their ids, each with `content`"));
        };
        tokens.push((id, token(id, content, described["special"] == true)));
    }
    tokens.sort_by_key(|(id, _)| *id);
    Ok(tokens.into_iter().map(|(_, token)| token).collect())
}

fn template(dir: &Path, settings: &Settings<'_>, tokens: BTreeMap<String, String>) -> Result<ChatTemplate, Error> {
    const KEY: &str = "chat_template";
    let path = dir.join(TEMPLATE);
    if let Some(source) = files::text(&path)? {
        return Ok(ChatTemplate::jinja(conversation(&source), path.display().to_string(), tokens)?);
    }
    let source = match settings.get(KEY) {
        None => return Ok(ChatTemplate::dialogue().with_tokens(tokens)),
        Some(Value::String(source)) => source,
        Some(Value::Array(several)) => {
            let standard = several.iter().find(|template| template["name"] == "default");
            let source = standard.and_then(|template| template["template"].as_str());
            source.ok_or_else(|| settings.wrong(KEY, "a template, or a list of them with one named `default`"))?
        }
        Some(_) => return Err(settings.wrong(KEY, "a template, or a list of them with one named `default`")),
    };
    Ok(ChatTemplate::jinja(conversation(source), format!("{}, `{KEY}`", settings.path.display()), tokens)?)
}

/// Where the template of a conversation begins and ends inside the one of a reward model.
const SCORED: [&str; 2] =
    ["{% set messages = messages[:-1] %}{% set add_generation_prompt = true %}\n", "{{ firebrick_scored }}"];

/// The template of a reward model: the conversation up to its last answer by the template that prompts are rendered with, then that
/// answer and the token at which the score is read, and nothing behind.
///
/// So `apply_chat_template` gives the tokens that the model was trained on, whatever the template writes behind an answer. Jinja drops
/// the line break behind a tag, so the template within begins as it does by itself.
pub(crate) fn scoring_template(renderer: &Renderer) -> String {
    let (tokenizer, template) = (renderer.tokenizer(), renderer.template());
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"));
    let start = match template.is_dialogue() {
        true => renderer.start().into_iter().map(|id| tokenizer.token_text(id)).collect::<String>(),
        false => String::new(),
    };
    let space = if template.is_dialogue() { " " } else { "" };
    format!(
        "{{% if messages[-1]['role'] != 'assistant' %}}{{{{ raise_exception('scores the last answer of a conversation, but its last \
         message is of the role ' + messages[-1]['role']) }}}}{{% endif %}}{{% set firebrick_scored = {} + (messages[-1]['content'] | \
         trim) + {} %}}{{{{ {} }}}}{}{}{}",
        quoted(space),
        quoted(&tokenizer.token_text(renderer.end())),
        quoted(&start),
        SCORED[0],
        // Jinja drops the last line break of a template, which is not the last one here.
        template.source().strip_suffix('\n').unwrap_or(template.source()),
        SCORED[1],
    )
}

/// The template of conversations inside one of a [reward model](scoring_template); another one as it is.
fn conversation(source: &str) -> &str {
    let [begin, end] = SCORED;
    let within = source.strip_suffix(end).and_then(|source| source.split_once(begin));
    within.filter(|(before, _)| before.contains("firebrick_scored")).map_or(source, |(_, within)| within)
}
