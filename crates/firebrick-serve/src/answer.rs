//! Answers in OpenAI's form, whole or as a stream of pieces.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event, KeepAlive, Sse};
use firebrick_sampling::Finish;
use firebrick_text::Tokenizer;
use firebrick_types::TokenId;
use futures_util::stream::{Stream, unfold};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::choice::prompt_texts;
use crate::refusal::Refusal;
use crate::{Piece, Server, TextToken, Update, Updates};

/// What OpenAI gives for a token that is all but impossible; JSON has no infinity.
const LEAST: f32 = -9999.0;

/// A request that the engine works on.
pub(crate) struct Asked {
    pub(crate) updates: Updates,
    pub(crate) prompts: Vec<Vec<TokenId>>,
    /// Of each prompt.
    pub(crate) samples: usize,
    pub(crate) form: Form,
    /// Whether log-probabilities are told, and those of how many alternatives.
    pub(crate) log_probs: Option<usize>,
    pub(crate) stream: bool,
    pub(crate) stream_usage: bool,
}

/// What the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Text, with the prompt before it if that is to be echoed.
    Completion {
        /// Whether it is.
        echo: bool,
    },
    /// A message.
    Chat,
}

/// An answer in the making.
pub(crate) struct Answer {
    server: Arc<Server>,
    asked: Asked,
    head: Value,
    /// The prompts' texts where they are echoed.
    echoes: Vec<String>,
    drawn: Vec<usize>,
}

impl Answer {
    pub(crate) fn new(server: Arc<Server>, asked: Asked) -> Self {
        let head = match (asked.form, asked.stream) {
            (Form::Completion { .. }, _) => server.head("cmpl", "text_completion"),
            (Form::Chat, false) => server.head("chatcmpl", "chat.completion"),
            (Form::Chat, true) => server.head("chatcmpl", "chat.completion.chunk"),
        };
        let echoed = if asked.form == (Form::Completion { echo: true }) { asked.prompts.as_slice() } else { &[] };
        let echoes = echoed.iter().map(|prompt| prompt_texts(server.renderer.tokenizer(), prompt).0.concat()).collect();
        let drawn = vec![0; asked.prompts.len() * asked.samples];
        Self { server, asked, head, echoes, drawn }
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.asked.stream
    }

    /// The answer when all samples have ended.
    ///
    /// # Errors
    /// If the engine fails.
    pub(crate) async fn whole(mut self) -> Result<Value, Refusal> {
        let mut scored = vec![Vec::new(); self.asked.prompts.len()];
        let mut choices = vec![Piece::default(); self.drawn.len()];
        while let Some(update) = self.asked.updates.next().await {
            match update {
                Update::Prompt { prompt, tokens } => scored[prompt] = tokens,
                Update::Piece { choice, piece } => {
                    let whole = &mut choices[choice];
                    whole.text.push_str(&piece.text);
                    whole.tokens.extend(piece.tokens);
                    (whole.drawn, whole.end, whole.finish) = (piece.drawn, piece.end, piece.finish);
                }
            }
        }
        if self.asked.updates.failed() {
            return Err(unfinished());
        }
        self.drawn = choices.iter().map(|choice| choice.drawn).collect();
        let choices = choices.iter().enumerate().map(|(index, choice)| {
            let echo = self.echoes.get(index / self.asked.samples).map_or("", String::as_str);
            match self.asked.form {
                Form::Completion { .. } => {
                    let log_probs = self.completion_log_probs(&[
                        (&scored[index / self.asked.samples], 0),
                        (&choice.tokens, echo.chars().count()),
                        (choice.end.as_slice(), echo.chars().count()),
                    ]);
                    completion_choice(index, &format!("{echo}{}", choice.text), log_probs, choice.finish)
                }
                Form::Chat => json!({
                    "index": index,
                    "message": { "role": "assistant", "content": choice.text, "refusal": null },
                    "logprobs": self.chat_log_probs(&choice.tokens),
                    "finish_reason": choice.finish.map(reason),
                }),
            }
        });
        let choices = choices.collect::<Vec<_>>();
        Ok(self.with(json!({ "choices": choices, "usage": self.usage() })))
    }

    /// The answer as events, one for what each step adds, and `[DONE]` at the end.
    pub(crate) fn stream(self) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
        let mut pending = VecDeque::new();
        for choice in 0..self.drawn.len() {
            match self.asked.form {
                Form::Chat => pending.push_back(self.chat_chunk(
                    choice,
                    json!({ "role": "assistant", "content": "", "refusal": null }),
                    Value::Null,
                    None,
                )),
                Form::Completion { echo: true } if self.asked.log_probs.is_none() => {
                    let text = &self.echoes[choice / self.asked.samples];
                    pending.push_back(self.chunk(completion_choice(choice, text, Value::Null, None)));
                }
                Form::Completion { .. } => {}
            }
        }
        let pending = pending.into_iter().map(|chunk| chunk.to_string()).collect::<VecDeque<_>>();
        let events = unfold((Some(self), pending), async |(mut answer, mut pending)| {
            loop {
                if let Some(data) = pending.pop_front() {
                    return Some((Ok(Event::default().data(data)), (answer, pending)));
                }
                let mut going = answer.take()?;
                match going.asked.updates.next().await {
                    Some(update) => {
                        pending.extend(going.chunks(update).into_iter().map(|chunk| chunk.to_string()));
                        answer = Some(going);
                    }
                    None if going.asked.updates.failed() => pending.push_back(unfinished().body().to_string()),
                    None => {
                        if going.asked.stream_usage {
                            let last = going.with(json!({ "choices": [], "usage": going.usage() }));
                            pending.push_back(last.to_string());
                        }
                        pending.push_back("[DONE]".to_owned());
                    }
                }
            }
        });
        Sse::new(events).keep_alive(KeepAlive::default())
    }

    /// What is sent about an update.
    fn chunks(&mut self, update: Update) -> Vec<Value> {
        match update {
            Update::Prompt { prompt, tokens } => {
                let log_probs = self.completion_log_probs(&[(&tokens, 0)]);
                let choices = prompt * self.asked.samples..(prompt + 1) * self.asked.samples;
                let chunk =
                    |choice| self.chunk(completion_choice(choice, &self.echoes[prompt], log_probs.clone(), None));
                choices.map(chunk).collect()
            }
            Update::Piece { choice, piece: Piece { text, tokens, drawn, end, finish } } => {
                self.drawn[choice] = drawn;
                match self.asked.form {
                    Form::Completion { .. } => {
                        let echo = self.echoes.get(choice / self.asked.samples).map_or(0, |echo| echo.chars().count());
                        let log_probs = self.completion_log_probs(&[(&tokens, echo), (end.as_slice(), echo)]);
                        vec![self.chunk(completion_choice(choice, &text, log_probs, finish))]
                    }
                    Form::Chat => {
                        let mut chunks = Vec::new();
                        if !text.is_empty() || !tokens.is_empty() {
                            let log_probs = self.chat_log_probs(&tokens);
                            chunks.push(self.chat_chunk(choice, json!({ "content": text }), log_probs, None));
                        }
                        if finish.is_some() {
                            chunks.push(self.chat_chunk(choice, json!({}), Value::Null, finish));
                        }
                        chunks
                    }
                }
            }
        }
    }

    fn chat_chunk(&self, index: usize, delta: Value, log_probs: Value, finish: Option<Finish>) -> Value {
        let finish = finish.map(reason);
        self.chunk(json!({ "index": index, "delta": delta, "logprobs": log_probs, "finish_reason": finish }))
    }

    fn chunk(&self, choice: Value) -> Value {
        let mut chunk = self.with(json!({ "choices": [choice] }));
        if self.asked.stream_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The head of the answer with what follows it.
    fn with(&self, rest: Value) -> Value {
        let (mut whole, Value::Object(rest)) = (self.head.clone(), rest) else {
            unreachable!("an answer is an object")
        };
        whole.as_object_mut().expect("a head is an object").extend(rest);
        whole
    }

    fn usage(&self) -> Value {
        let prompts = self.asked.prompts.iter().map(Vec::len).sum::<usize>();
        let drawn = self.drawn.iter().sum::<usize>();
        json!({ "prompt_tokens": prompts, "completion_tokens": drawn, "total_tokens": prompts + drawn })
    }

    /// Of tokens, each list at so many characters from the beginning of the text.
    fn completion_log_probs(&self, parts: &[(&[TextToken], usize)]) -> Value {
        let Some(count) = self.asked.log_probs else { return Value::Null };
        let mut log_probs = LogProbs { top_logprobs: (count > 0).then(Vec::new), ..LogProbs::default() };
        for (tokens, shift) in parts {
            for token in *tokens {
                log_probs.push(token, *shift, self.server.renderer.tokenizer());
            }
        }
        serde_json::to_value(log_probs).expect("it is made of text and numbers")
    }

    fn chat_log_probs(&self, tokens: &[TextToken]) -> Value {
        if self.asked.log_probs.is_none() {
            return Value::Null;
        }
        let told = |id: TokenId, log_prob: f32| {
            let bytes = self.server.renderer.tokenizer().token_bytes(id);
            json!({ "token": String::from_utf8_lossy(&bytes), "logprob": log_prob.max(LEAST), "bytes": bytes })
        };
        let content = tokens.iter().map(|token| {
            let mut content = told(token.id, token.log_prob.unwrap_or(LEAST));
            content["top_logprobs"] = token.top.iter().map(|&(id, log_prob)| told(id, log_prob)).collect();
            content
        });
        json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
    }
}

/// Log-probabilities as completions have them.
#[derive(Default, Serialize)]
struct LogProbs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    /// The alternatives of each token, and the token itself where it is none of them.
    top_logprobs: Option<Vec<Option<Map<String, Value>>>>,
    text_offset: Vec<usize>,
}

impl LogProbs {
    fn push(&mut self, token: &TextToken, shift: usize, tokenizer: &Tokenizer) {
        let log_prob = token.log_prob.map(|log_prob| log_prob.max(LEAST));
        if let Some(listed) = &mut self.top_logprobs {
            let alternatives = log_prob.map(|log_prob| {
                let mut told = Map::new();
                // Several tokens may be written alike: the likeliest stands for them.
                for (id, log_prob) in token.top.iter().copied().chain([(token.id, log_prob)]) {
                    told.entry(token_name(tokenizer, id)).or_insert_with(|| log_prob.max(LEAST).into());
                }
                told
            });
            listed.push(alternatives);
        }
        self.tokens.push(token_name(tokenizer, token.id));
        self.token_logprobs.push(log_prob);
        self.text_offset.push(token.offset + shift);
    }
}

/// The text of a token; of one that is a part of a character, its bytes.
fn token_name(tokenizer: &Tokenizer, id: TokenId) -> String {
    match String::from_utf8(tokenizer.token_bytes(id)) {
        Ok(text) => text,
        Err(error) => error.as_bytes().iter().fold("bytes:".to_owned(), |name, byte| format!("{name}\\x{byte:02x}")),
    }
}

fn completion_choice(index: usize, text: &str, log_probs: Value, finish: Option<Finish>) -> Value {
    json!({ "text": text, "index": index, "logprobs": log_probs, "finish_reason": finish.map(reason) })
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

fn unfinished() -> Refusal {
    Refusal::failed("the model failed, or the server was ended, before the answer was whole; try again")
}
