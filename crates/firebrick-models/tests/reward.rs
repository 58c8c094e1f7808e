//! Reward models as folders of transformers: round trips, tokens that end where the score is read, padding, and what is refused.
//!
//! `tests/transformers/check.py` holds the same folders against transformers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use firebrick_models::checkpoint::{Checkpoint, GenerationConfig, Text, save, save_reward_model};
use firebrick_models::{
    Architecture, Biases, DecoderConfig, FeedForward, Positions, RotaryConfig, RotaryScaling, ScoredDecoder,
    save_decoder, save_scored,
};
use firebrick_tensor::{CausalLm, Parameters, SequenceScorer, TokenBatch, log_softmax};
use firebrick_testkit::cpu;
use firebrick_text::{ChatTemplate, Renderer, Tokenizer};
use firebrick_types::{Dialogue, LabelledComparison, Message, Role, Seed, TokenId};
use proptest::prelude::*;
use serde_json::{Value, json};

const TEXT: &str = "The sky is blue and the sea is green. What is it? Hello there, how are you today?";

/// ChatML, which writes a line break behind the end of an answer.
const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
    {{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + \
    '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Lines of blocks, which Jinja takes away, white space that it keeps, and a line break at the end.
const LINES: &str = "
{%- set ns = namespace(last='') %}
  {% for message in messages %}
<|im_start|>{{ message.role }}
  {{ message.content }}
    {% if message.role == 'assistant' %}
<|im_end|>
    {% endif %}
  {% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
 {% endif %}
";

/// A tokenizer trained here with these special tokens behind its own.
fn tokenizer(special: &[&str]) -> Tokenizer {
    let mut json: Value = serde_json::from_str(&Tokenizer::train([TEXT], 300).unwrap().to_json()).unwrap();
    let first = json["model"]["vocab"].as_object().unwrap().len();
    let tokens = json["added_tokens"].as_array_mut().unwrap();
    tokens.extend(special.iter().zip(first..).map(|(name, id)| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true})
    }));
    Tokenizer::parse(&json.to_string(), Path::new("test"), None).unwrap()
}

fn chat(source: &str, special: &[&str]) -> Text {
    let tokenizer = tokenizer(special);
    let template = ChatTemplate::jinja(source, "test", BTreeMap::new()).unwrap();
    let turn_ends = firebrick_text::TurnEnds::find(&[], &tokenizer, &template);
    let vocab = tokenizer.vocab_size();
    Text {
        renderer: Renderer::new(tokenizer, template, turn_ends).within(vocab),
        generation: GenerationConfig::default(),
    }
}

fn dialogues() -> Text {
    Text { renderer: Renderer::dialogues(tokenizer(&[])), generation: GenerationConfig::default() }
}

fn chatml() -> Text {
    chat(CHATML, &["<|im_start|>", "<|im_end|>"])
}

/// A shape of two blocks for so many tokens.
fn shape(architecture: Architecture, vocab: usize) -> DecoderConfig {
    DecoderConfig { vocab, context: 128, n_layer: 2, d_model: 32, heads: 4, d_ff: 48, architecture }
}

/// Shapes of GPT-2, Llama, Qwen2 and GPT-NeoX.
fn architectures() -> [(&'static str, Architecture); 4] {
    let rotary = RotaryConfig { theta: 10_000.0, dims: 4, scaling: RotaryScaling::None };
    [
        ("gpt2", Architecture::gpt()),
        ("llama", Architecture { key_value_heads: Some(2), ..Architecture::llama(8) }),
        (
            "qwen2",
            Architecture {
                key_value_heads: Some(4),
                biases: Biases { qkv: true, attention: false, feed_forward: false },
                tied: true,
                ..Architecture::llama(8)
            },
        ),
        (
            "gpt_neox",
            Architecture { positions: Positions::Rotary(rotary), parallel_residual: true, ..Architecture::gpt() },
        ),
    ]
}

/// A model of which every number is its own, biases and norms too; the head has no bias.
fn model(config: &DecoderConfig, seed: u64) -> ScoredDecoder {
    let model = config.init_scored(Seed::new(seed), &cpu());
    let mut moved = Parameters::default();
    for (index, (name, shape, values)) in Parameters::of(&model).iter().enumerate() {
        let noise = Seed::new(seed).at(&[index as u64]).normals(values.len(), 0.2);
        let kept = if name == "head.bias" { 0.0 } else { 1.0 };
        let values = values.iter().zip(noise).map(|(value, noise)| value + kept * noise).collect();
        moved.insert(name, shape.to_vec(), values);
    }
    moved.load(model).unwrap()
}

fn score(model: &ScoredDecoder, tokens: &[TokenId]) -> f32 {
    model.scores(&TokenBatch::of(&[tokens], &cpu())).into_scalar()
}

fn conversations() -> Vec<Vec<Message>> {
    vec![
        vec![Message::human("What is it?"), Message::assistant("The sea.")],
        vec![
            Message::system("Hello there."),
            Message::human("How are you {{ today }}?"),
            Message::assistant("Green, thé ÿ."),
            Message::human("Why?"),
            Message::assistant("  The sky is blue, and the sea is green; they are what they are.\n"),
        ],
        vec![Message::human("Hello"), Message::assistant("")],
    ]
}

/// A conversation as preference models are trained on it.
fn scored(renderer: &Renderer, conversation: &[Message]) -> Vec<TokenId> {
    let (answer, before) = conversation.split_last().unwrap();
    let prompt = Dialogue::new(before.to_vec());
    let comparison = LabelledComparison::of_chosen(prompt, &answer.text, "other", "test");
    let tokens = renderer.comparison(&comparison).unwrap().unwrap();
    [tokens.prompt, tokens.chosen].concat()
}

fn at(dir: &Path) -> Checkpoint {
    Checkpoint::at(dir).unwrap()
}

fn read(dir: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap()
}

/// SmolLM2's tokenizer with ChatML, where it is at hand.
#[expect(clippy::print_stderr, reason = "a skipped case says so")]
fn smollm2() -> Option<Text> {
    let data = std::env::var_os("RLHF_DATA_DIR").map(PathBuf::from);
    let data = data.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    let path = data.join("models/smollm2-135m-instruct/tokenizer.json");
    if !path.exists() {
        eprintln!("skipped: {} not found; RLHF_DATA_DIR may name the folder", path.display());
        return None;
    }
    let tokenizer = Tokenizer::open(&path).unwrap();
    let names = [("pad_token", "<|im_end|>"), ("eos_token", "<|im_end|>"), ("bos_token", "<|im_start|>")];
    let names = names.map(|(key, name)| (key.to_owned(), name.to_owned()));
    let template = ChatTemplate::jinja(CHATML, "test", BTreeMap::from(names)).unwrap();
    let turn_ends = firebrick_text::TurnEnds::find(&[], &tokenizer, &template);
    Some(Text { renderer: Renderer::new(tokenizer, template, turn_ends), generation: GenerationConfig::default() })
}

/// Writes what `check.py` holds against transformers into `$FIREBRICK_FOLDERS`, or else a temporary folder.
#[test]
fn folders_are_read_back_to_the_same_bits() {
    let temporary = tempfile::tempdir().unwrap();
    let root = std::env::var_os("FIREBRICK_FOLDERS").map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let mut cases = Vec::new();
    for (name, architecture) in architectures() {
        cases.push((format!("{name}-dialogue"), architecture, dialogues()));
        cases.push((format!("{name}-chatml"), architecture, chatml()));
        cases.push((format!("{name}-lines"), architecture, chat(LINES, &["<|im_start|>", "<|im_end|>"])));
    }
    cases.extend(smollm2().map(|text| ("llama-smollm2".to_owned(), architectures()[1].1, text)));
    for (index, (name, architecture, text)) in cases.into_iter().enumerate() {
        let renderer = &text.renderer;
        let config = shape(architecture, renderer.tokenizer().vocab_size());
        let original = model(&config, index as u64);
        let dir = root.join(format!("{name}-reward"));
        save_reward_model(&original, &config, Some(&text), &dir).unwrap();

        let checkpoint = at(&dir);
        assert!(checkpoint.is_reward_model().unwrap(), "{name}");
        let (again, config_again) = checkpoint.reward_model(&cpu()).unwrap();
        let tied = DecoderConfig { architecture: Architecture { tied: true, ..architecture }, ..config };
        assert_eq!(config_again, tied, "{name}");
        let mut expected = Parameters::of(&original);
        expected.remove("body.lm_head.weight");
        assert_eq!(Parameters::of(&again), expected, "{name}");

        let read_again = checkpoint.text(config.vocab).unwrap().unwrap().renderer;
        assert_eq!(read_again.end(), renderer.end(), "{name}");
        let settings = read(&dir, "config.json");
        let pad = settings["pad_token_id"].as_u64().unwrap() as TokenId;
        let outer = fs::read_to_string(dir.join("chat_template.jinja")).unwrap();
        let outer = ChatTemplate::jinja(outer, "outer", read_again.template().tokens().clone()).unwrap();
        let (mut tokens, mut scores) = (Vec::new(), Vec::new());
        for conversation in conversations() {
            let sequence = scored(renderer, &conversation);
            assert_eq!(scored(&read_again, &conversation), sequence, "{name}");
            let prompt = Dialogue::new(conversation[..1].to_vec());
            assert_eq!(read_again.prompt(&prompt).unwrap(), renderer.prompt(&prompt).unwrap(), "{name}");
            let rendered = outer.render(&conversation, false).unwrap();
            assert_eq!(read_again.tokenizer().encode_with_special(&rendered), sequence, "{name}: {rendered:?}");
            assert_eq!(sequence.last(), Some(&renderer.end()));
            assert!(!sequence.contains(&pad), "{name}: {rendered:?}");
            let score_again = score(&again, &sequence);
            assert_eq!(score_again.to_bits(), score(&original, &sequence).to_bits(), "{name}");
            tokens.push(sequence);
            scores.push(score_again);
        }
        let conversations = conversations().iter().map(|turns| messages(turns)).collect::<Vec<_>>();
        let expected = json!({"conversations": conversations, "tokens": tokens, "scores": scores});
        fs::write(dir.join("expected.json"), expected.to_string()).unwrap();

        let dir = root.join(format!("{name}-language"));
        save(original.body(), &config, Some(&text), &dir).unwrap();
        assert!(!at(&dir).is_reward_model().unwrap(), "{name}");
        let log_probs = tokens.iter().map(|tokens| {
            let logits = original.body().logits(&TokenBatch::of(&[tokens], &cpu()));
            let all = log_softmax(logits).into_data().try_to_vec::<f32>().unwrap();
            (1..tokens.len()).map(|at| all[(at - 1) * config.vocab + tokens[at] as usize]).collect::<Vec<_>>()
        });
        let expected = json!({"tokens": tokens, "log_probs": log_probs.collect::<Vec<_>>()});
        fs::write(dir.join("expected.json"), expected.to_string()).unwrap();
    }
}

fn messages(turns: &[Message]) -> Value {
    let turn = |message: &Message| {
        let role = match message.role {
            Role::System => "system",
            Role::Human => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        json!({"role": role, "content": message.text})
    };
    turns.iter().map(turn).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is said, the template of the folder gives the tokens that the model was trained on.
    #[test]
    fn a_template_of_a_folder_renders_what_the_model_was_trained_on(
        said in proptest::collection::vec("[ \n]{0,2}[a-z{%}é'ÿ🙂\\\\]{1,6}[ \n]{0,2}", 1..4),
        answer in "[ \n]{0,2}([a-z{%}é'ÿ🙂\\\\ ]{1,9})?[ \n]{0,2}",
        form in 0..3_usize,
    ) {
        let text = match form {
            0 => dialogues(),
            1 => chatml(),
            _ => chat(LINES, &["<|im_start|>", "<|im_end|>"]),
        };
        let config = DecoderConfig { n_layer: 1, ..shape(Architecture::gpt(), text.renderer.tokenizer().vocab_size()) };
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("reward");
        save_reward_model(&config.init_scored(Seed::new(1), &cpu()), &config, Some(&text), &dir).unwrap();
        let mut conversation = said.iter().map(Message::human).collect::<Vec<_>>();
        conversation.push(Message::assistant(&answer));
        let outer = fs::read_to_string(dir.join("chat_template.jinja")).unwrap();
        let rendered = ChatTemplate::jinja(outer, "outer", BTreeMap::new()).unwrap().render(&conversation, false).unwrap();
        let tokenizer = Tokenizer::open(&dir.join("tokenizer.json")).unwrap();
        // Where an answer does not begin with a letter, the cut before it may be another one than between a prompt and an answer.
        let bytes = |tokens: &[TokenId]| tokens.iter().flat_map(|&id| tokenizer.token_bytes(id)).collect::<Vec<_>>();
        prop_assert_eq!(bytes(&tokenizer.encode_with_special(&rendered)), bytes(&scored(&text.renderer, &conversation)));
    }
}

#[test]
fn a_conversation_to_score_ends_with_an_answer() {
    let (text, dir) = (chatml(), tempfile::tempdir().unwrap());
    let config = shape(Architecture::gpt(), text.renderer.tokenizer().vocab_size());
    save_reward_model(&model(&config, 1), &config, Some(&text), dir.path()).unwrap();
    let outer = fs::read_to_string(dir.path().join("chat_template.jinja")).unwrap();
    let outer = ChatTemplate::jinja(outer, "outer", BTreeMap::new()).unwrap();
    let message = outer.render(&[Message::human("Hi")], false).unwrap_err().to_string();
    assert!(
        message.contains("scores the last answer of a conversation, but its last message is of the role user"),
        "{message}"
    );
}

#[test]
fn the_token_to_pad_with_stands_in_no_conversation() {
    let pad = |text: &Text, vocab: usize| {
        let dir = tempfile::tempdir().unwrap();
        let config = shape(Architecture::llama(8), vocab);
        save_reward_model(&model(&config, 1), &config, Some(text), dir.path()).unwrap();
        let (config, settings) = (read(dir.path(), "config.json"), read(dir.path(), "tokenizer_config.json"));
        assert_eq!(settings["padding_side"], "right");
        let name = settings["pad_token"].as_str().unwrap().to_owned();
        let id = config["pad_token_id"].as_u64().unwrap() as usize;
        let tokenizer = Tokenizer::open(&dir.path().join("tokenizer.json")).unwrap();
        assert_eq!(tokenizer.encode_with_special(&name), [id as TokenId]);
        (name, id)
    };
    let size = |text: &Text| text.renderer.tokenizer().vocab_size();
    // The tokenizer of a run has its end of context alone; the byte 0xff, which no text has, is the character ÿ there.
    let own = dialogues();
    let byte = own.renderer.tokenizer().token("ÿ").unwrap() as usize;
    assert_eq!(pad(&own, size(&own)), ("<|pad|>".to_owned(), byte));
    // A network with more tokens than its tokenizer has some to spare.
    assert_eq!(pad(&own, size(&own) + 3), ("<|pad|>".to_owned(), size(&own)));
    // What a text begins with is none, nor what the template writes; of others, one that is called after padding comes first.
    assert_eq!(pad(&chatml(), size(&chatml())), ("<|pad|>".to_owned(), byte));
    let other = chat(CHATML, &["<|im_start|>", "<|im_end|>", "<|other|>"]);
    assert_eq!(pad(&other, size(&other)), ("<|other|>".to_owned(), size(&other) - 1));
    let several = chat(CHATML, &["<|im_start|>", "<|im_end|>", "<|other|>", "[PAD]"]);
    assert_eq!(pad(&several, size(&several)), ("[PAD]".to_owned(), size(&several) - 1));
    // The tokenizer's own, unless the score is read at it.
    for (own, expected) in [("<|other|>", "<|other|>"), ("<|im_end|>", "[PAD]")] {
        let renderer = several.renderer.clone();
        let names = BTreeMap::from([("pad_token".to_owned(), own.to_owned())]);
        let template = renderer.template().clone().with_tokens(names);
        let ends = renderer.turn_ends().clone();
        let renderer = Renderer::new(renderer.tokenizer().clone(), template, ends);
        assert_eq!(pad(&Text { renderer, generation: GenerationConfig::default() }, size(&several)).0, expected);
    }
}

#[test]
fn a_model_without_a_tokenizer_has_no_padding() {
    let dir = tempfile::tempdir().unwrap();
    let config = shape(Architecture::gpt(), 20);
    save_reward_model(&model(&config, 1), &config, None, dir.path()).unwrap();
    assert_eq!(read(dir.path(), "config.json").get("pad_token_id"), None);
    assert!(at(dir.path()).text(20).unwrap().is_none());
    assert!(at(dir.path()).reward_model(&cpu()).is_ok());
}

#[test]
fn what_cannot_be_written_is_told_before_anything_is() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("reward");
    let text = dialogues();
    let config = shape(Architecture::gpt(), text.renderer.tokenizer().vocab_size());
    let with = |name: &str, value: f32| {
        let model = model(&config, 1);
        let mut parameters = Parameters::of(&model);
        let (shape, values) = parameters.get(name).unwrap();
        let (shape, values) = (shape.to_vec(), vec![value; values.len()]);
        parameters.insert(name, shape, values);
        parameters.load(model).unwrap()
    };
    let message = save_reward_model(&with("head.bias", 0.5), &config, Some(&text), &dir).unwrap_err().to_string();
    assert!(message.starts_with("`head.bias` is 0.5, but reward models of transformers have no bias"), "{message}");
    let (biased, plain) = (with("head.bias", 0.5), with("head.bias", 0.5).without_bias());
    assert!((score(&biased, &[1, 2, 3]) - score(&plain, &[1, 2, 3]) - 0.5).abs() < 1e-6);
    assert_eq!(Parameters::of(&plain), Parameters::of(&model(&config, 1)));
    let strange = Architecture { norm: firebrick_models::Norm::Rms, ..Architecture::gpt() };
    let strange = DecoderConfig { architecture: strange, ..config };
    let refused = save_reward_model(&strange.init_scored(Seed::new(1), &cpu()), &strange, Some(&text), &dir);
    assert!(refused.unwrap_err().to_string().contains("gpt2, gpt_neox, llama, mistral, qwen2"));
    assert!(!dir.exists());
    save_reward_model(&with("head.bias", -0.0), &config, Some(&text), &dir).unwrap();
    let message = save_reward_model(&model(&config, 1), &config, Some(&text), &dir).unwrap_err().to_string();
    assert!(message.ends_with("reward: not an empty folder; name another one, or remove it first"), "{message}");
}

/// A folder of somebody else's, whose `config.json` is changed and whose tensors are renamed or left out.
fn changed(config: impl Fn(&mut Value), tensor: impl Fn(&str) -> Option<String>) -> (tempfile::TempDir, ScoredDecoder) {
    let dir = tempfile::tempdir().unwrap();
    let shape = shape(Architecture::llama(8), 20);
    let model = model(&shape, 5);
    save_reward_model(&model, &shape, None, dir.path()).unwrap();
    let mut settings = read(dir.path(), "config.json");
    config(&mut settings);
    fs::write(dir.path().join("config.json"), settings.to_string()).unwrap();
    let path = dir.path().join("model.safetensors");
    let mut renamed = Parameters::default();
    for (name, shape, values) in Parameters::from_bytes(&fs::read(&path).unwrap()).unwrap().iter() {
        if let Some(name) = tensor(name) {
            renamed.insert(name, shape.to_vec(), values.to_vec());
        }
    }
    fs::write(path, renamed.to_bytes()).unwrap();
    (dir, model)
}

fn same(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[test]
fn folders_of_others_are_read() {
    let tokens = [3, 1, 4, 1, 5];
    for dir in [
        // Nothing tells the class but the head.
        changed(|config| _ = config.as_object_mut().unwrap().remove("architectures"), same),
        changed(|config| config["id2label"] = json!({"0": "LABEL_0"}), same),
        changed(|config| config["tie_word_embeddings"] = false.into(), same),
    ] {
        let (dir, original) = dir;
        assert!(at(dir.path()).is_reward_model().unwrap());
        let (found, config) = at(dir.path()).reward_model(&cpu()).unwrap();
        assert!(config.architecture.tied);
        assert_eq!(score(&found, &tokens).to_bits(), score(&original, &tokens).to_bits());
    }
    // A bias is added.
    let (dir, original) = changed(|_| (), same);
    let path = dir.path().join("model.safetensors");
    let mut parameters = Parameters::from_bytes(&fs::read(&path).unwrap()).unwrap();
    parameters.insert("score.bias", vec![1], vec![2.0]);
    fs::write(&path, parameters.to_bytes()).unwrap();
    let (found, _) = at(dir.path()).reward_model(&cpu()).unwrap();
    assert!((score(&found, &tokens) - score(&original, &tokens) - 2.0).abs() < 1e-5);
}

#[test]
fn damaged_and_mistaken_folders_are_named() {
    let wide = |config: &mut Value| config["id2label"] = json!({"0": "bad", "1": "good", "2": "better"});
    let silent = |config: &mut Value| _ = config.as_object_mut().unwrap().remove("id2label");
    let without = |lost: &'static str| move |name: &str| (name != lost).then(|| name.to_owned());
    for ((dir, _), expected) in [
        (changed(wide, same), "config.json: `id2label` tells 3 labels (2 where it is missing), expected 1"),
        (changed(silent, same), "config.json: `id2label` tells 2 labels"),
        (changed(|_| (), without("score.weight")), "missing tensors: score.weight"),
        (changed(|_| (), without("model.norm.weight")), "missing tensors: model.norm.weight"),
        (changed(|config| config["architectures"] = 3.into(), same), "`architectures` is 3, expected a list"),
        (changed(|config| config["hidden_size"] = 64.into(), same), "tensor `score.weight` has shape [1, 32]"),
        (changed(|config| config["model_type"] = "bert".into(), same), "`model_type` is `bert`; known are"),
    ] {
        let message = at(dir.path()).reward_model(&cpu()).map(drop).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\nexpected {expected}");
        assert!(message.contains(dir.path().to_str().unwrap()), "{message}");
    }

    let (dir, _) = changed(|_| (), same);
    let message = at(dir.path()).model(&cpu()).map(drop).unwrap_err().to_string();
    let name = dir.path().display();
    let expected = format!(
        "{name}: a reward model, whose head gives a score and no tokens; `firebrick model info` and `firebrick model convert` take it: \
         name a language model here"
    );
    assert_eq!(message, expected);
    let dir = tempfile::tempdir().unwrap();
    let config = shape(Architecture::gpt(), 20);
    save(model(&config, 1).body(), &config, None, dir.path()).unwrap();
    let message = at(dir.path()).reward_model(&cpu()).map(drop).unwrap_err().to_string();
    let name = dir.path().display();
    assert!(
        message.starts_with(&format!("{name}: a language model, which has no head that gives a score")),
        "{message}"
    );
}

#[test]
fn stages_that_learn_preferences_are_reward_models() {
    let config = shape(Architecture { feed_forward: FeedForward::GeluTanh, ..Architecture::gpt() }, 20);
    let (scored, language) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let original = model(&config, 3);
    save_scored(&original, &config, scored.path()).unwrap();
    save_decoder(original.body(), &config, language.path()).unwrap();
    assert!(at(scored.path()).is_reward_model().unwrap() && !at(language.path()).is_reward_model().unwrap());
    let (found, found_config) = at(scored.path()).reward_model(&cpu()).unwrap();
    assert_eq!((Parameters::of(&found), found_config), (Parameters::of(&original), config));
    assert!(at(language.path()).reward_model(&cpu()).is_err() && at(scored.path()).model(&cpu()).is_err());
    // Numbers that the tensors contradict are named before a network of that shape is made.
    let mut settings = read(scored.path(), "config.json");
    settings["d_ff"] = 1_000_000.into();
    fs::write(scored.path().join("config.json"), settings.to_string()).unwrap();
    let message = at(scored.path()).reward_model(&cpu()).map(drop).unwrap_err().to_string();
    assert!(message.contains("config.json: `d_ff` is 1000000, expected 48"), "{message}");
}
