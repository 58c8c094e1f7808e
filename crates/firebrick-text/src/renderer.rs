//! Conversations to tokens, and which of them are whose.

use std::fs;
use std::path::Path;

use firebrick_types::{Dialogue, LabelledComparison, Message, TokenId};
use serde::{Deserialize, Serialize};

use crate::{ChatTemplate, Error, ResponseFormat, StopStrings, Tokenizer, TurnEnds, dialogue};

/// Conversations to tokens, the same for training, scoring, sampling and serving.
///
/// With a template of a checkpoint, conversations are rendered by it; without one they are dialogues (D-04), which begin with what the
/// tokenizer begins texts with, or else with the end of what came before.
///
/// ```
/// use firebrick_text::{Renderer, Tokenizer};
/// use firebrick_types::{Dialogue, LabelledComparison, Message};
///
/// let tokenizer = Tokenizer::train(["\n\nHuman: What is it?\n\nAssistant: An oak."], 300)?;
/// let renderer = Renderer::dialogues(tokenizer);
/// let prompt = Dialogue::new(vec![Message::human("What is it?")]);
/// let comparison = LabelledComparison::of_chosen(prompt.clone(), "An oak.", "No.", "mine");
/// let tokens = renderer.comparison(&comparison)?.expect("it is no tie");
/// assert_eq!(tokens.prompt, renderer.prompt(&prompt)?);
/// assert_eq!(renderer.tokenizer().decode(&tokens.chosen), " An oak.");
/// assert_eq!(tokens.chosen.last(), Some(&renderer.end()));
/// # Ok::<(), firebrick_text::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Renderer {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    turn_ends: TurnEnds,
    vocab: usize,
}

/// A comparison in tokens: each response is read after the prompt, and ends with [`Renderer::end`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparisonTokens {
    /// The conversation so far, with the beginning of a response.
    pub prompt: Vec<TokenId>,
    /// The response that was preferred.
    pub chosen: Vec<TokenId>,
    /// The other.
    pub rejected: Vec<TokenId>,
}

/// What a folder keeps of a renderer beside its tokenizer.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// None, where conversations are dialogues.
    template: Option<ChatTemplate>,
    end: TokenId,
    ends: Vec<TokenId>,
    /// The name of the token that ends a context, which the tokenizer's file need not tell.
    eoc: String,
    vocab: usize,
}

const TOKENIZER: &str = "tokenizer.json";
const CHAT: &str = "chat.json";

impl Renderer {
    /// Conversations as a template renders them.
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate, turn_ends: TurnEnds) -> Self {
        let vocab = tokenizer.vocab_size();
        Self { tokenizer, template, turn_ends, vocab }
    }

    /// Conversations as dialogues (D-04), whose turns end as texts do.
    pub fn dialogues(tokenizer: Tokenizer) -> Self {
        let turn_ends = TurnEnds::of(&tokenizer);
        Self::new(tokenizer, ChatTemplate::dialogue(), turn_ends)
    }

    /// The same for a network of so many tokens: a text that holds another is refused.
    #[must_use]
    pub fn within(self, vocab: usize) -> Self {
        Self { vocab, ..self }
    }

    /// Writes it into a folder that exists: `tokenizer.json`, and `chat.json` with the rest.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        self.tokenizer.save(&dir.join(TOKENIZER))?;
        let kept = Kept {
            template: (!self.template.is_dialogue()).then(|| self.template.clone()),
            end: self.end(),
            ends: self.turn_ends.tokens(),
            eoc: self.tokenizer.token_text(self.tokenizer.eoc()),
            vocab: self.vocab,
        };
        let path = dir.join(CHAT);
        let json = serde_json::to_vec_pretty(&kept).expect("text and numbers can be written as JSON");
        fs::write(&path, json).map_err(|source| Error::Write { path, source })
    }

    /// What [`save`](Self::save) wrote; a tokenizer alone renders [dialogues](Self::dialogues).
    ///
    /// # Errors
    /// If a file cannot be read, or is not as it was written.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(CHAT);
        if !path.exists() {
            return Ok(Self::dialogues(Tokenizer::open(&dir.join(TOKENIZER))?));
        }
        let bytes = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|source| Error::Json { path, source })?;
        let tokenizer = Tokenizer::open_or_ending(&dir.join(TOKENIZER), Some(&kept.eoc))?;
        let others = kept.ends.iter().copied().filter(|&end| end != kept.end);
        let ends = std::iter::once(kept.end).chain(others).collect::<Vec<_>>();
        let template = kept.template.unwrap_or_else(ChatTemplate::dialogue);
        Ok(Self::new(tokenizer, template, TurnEnds::listed(&ends, "chat.json of the run")).within(kept.vocab))
    }

    /// Whether another one gives the same tokens: the same tokenizer and end, and conversations rendered alike.
    pub fn reads_as(&self, other: &Self) -> bool {
        let turns = ["a", "b", "c"].map(|text| [Message::human(text), Message::assistant(text)]).concat();
        let alike = |turns: &[Message]| {
            let dialogue = Dialogue::new(turns.to_vec());
            self.prompt(&dialogue).ok() == other.prompt(&dialogue).ok()
        };
        self.tokenizer == other.tokenizer && self.end() == other.end() && [1, 3, 5].iter().all(|&n| alike(&turns[..n]))
    }

    /// Text to token ids and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// A conversation to text.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Which tokens end an answer.
    pub fn turn_ends(&self) -> &TurnEnds {
        &self.turn_ends
    }

    /// What stands behind a response that is learnt from, and where a preference model reads its score (A-34).
    pub fn end(&self) -> TokenId {
        self.turn_ends.written()
    }

    /// How a response ends.
    pub fn response_format(&self) -> ResponseFormat {
        let stops = StopStrings::new(self.tokenizer.clone(), self.template.stops().iter().copied());
        ResponseFormat::new(self.end(), self.turn_ends.tokens(), stops)
    }

    /// The tokens of a text to continue, with what the tokenizer begins texts with before it, unless it begins so itself; names of special
    /// tokens in it count as these.
    ///
    /// # Errors
    /// If a token was added to the tokenizer, and not to the network.
    pub fn text(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        let tokens = self.known(self.tokenizer.encode_with_special(text))?;
        let beginning = self.tokenizer.beginning();
        Ok(if tokens.starts_with(beginning) { tokens } else { [beginning, &tokens].concat() })
    }

    /// The tokens of a document, without a beginning or an end.
    ///
    /// # Errors
    /// If a token was added to the tokenizer, and not to the network.
    pub fn document(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        self.known(self.tokenizer.encode(text))
    }

    /// A conversation as a policy reads it that is to answer.
    ///
    /// # Errors
    /// If the template refuses the conversation or fails, or a token was added to the tokenizer, and not to the network.
    pub fn prompt(&self, prompt: &Dialogue) -> Result<Vec<TokenId>, Error> {
        let tokens = self.rendered(prompt, true)?;
        Ok(if self.template.is_dialogue() { [self.start(), tokens].concat() } else { tokens })
    }

    /// A response as it stands after a prompt, without its end.
    ///
    /// # Errors
    /// If a token was added to the tokenizer, and not to the network.
    pub fn response(&self, response: &str) -> Result<Vec<TokenId>, Error> {
        // In a dialogue a space stands before it; some tokenizers put it there themselves.
        match self.template.is_dialogue() && !self.tokenizer.begins_with_space() {
            true => self.document(&format!(" {}", response.trim())),
            false => self.document(response.trim()),
        }
    }

    /// A comparison as a preference model reads it; of a tie none.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt).
    pub fn comparison(&self, comparison: &LabelledComparison) -> Result<Option<ComparisonTokens>, Error> {
        let Some((chosen, rejected)) = comparison.chosen_and_rejected() else { return Ok(None) };
        let response = |response: &str| {
            let mut tokens = self.response(response)?;
            tokens.push(self.end());
            Ok(tokens)
        };
        let prompt = self.prompt(comparison.prompt())?;
        Ok(Some(ComparisonTokens { prompt, chosen: response(chosen)?, rejected: response(rejected)? }))
    }

    /// A text as a preference model reads it: between a beginning and an end, the score on the latter (A-34).
    ///
    /// # Errors
    /// If a token was added to the tokenizer, and not to the network.
    pub fn scored_text(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        Ok([self.start(), self.document(text)?, vec![self.end()]].concat())
    }

    /// Conversations as text, the way a policy reads them; another text as it is.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt).
    pub fn passage(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        match dialogue::parse(text) {
            Ok(dialogue) if !self.template.is_dialogue() => self.rendered(&dialogue, false),
            _ => self.document(text),
        }
    }

    /// A prompt after a passage of other conversations.
    pub fn after(&self, passage: &[TokenId], prompt: &[TokenId]) -> Vec<TokenId> {
        let start = if self.template.is_dialogue() { self.start() } else { self.tokenizer.beginning().to_vec() };
        match prompt.strip_prefix(start.as_slice()) {
            Some(rest) => [&start, passage.strip_prefix(start.as_slice()).unwrap_or(passage), rest].concat(),
            None => [passage, prompt].concat(),
        }
    }

    /// Where a response begins that nobody asked for, after a passage.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt).
    pub fn unasked(&self, passage: &[TokenId]) -> Result<Vec<TokenId>, Error> {
        if self.template.is_dialogue() {
            return Ok([&self.start(), passage, &self.document(dialogue::ASSISTANT)?].concat());
        }
        let dialogue = Dialogue::new(vec![Message::human("")]);
        let (with, without) = (self.rendered(&dialogue, true)?, self.rendered(&dialogue, false)?);
        let opening = with.strip_prefix(without.as_slice()).unwrap_or(&with);
        Ok([passage, opening].concat())
    }

    /// What a text begins with: as the tokenizer says, or else the end of what came before it.
    pub fn start(&self) -> Vec<TokenId> {
        match self.tokenizer.beginning() {
            [] => vec![self.end()],
            beginning => beginning.to_vec(),
        }
    }

    /// The tokens of a conversation, in which a template's names of special tokens count as these; dialogues have none.
    fn rendered(&self, dialogue: &Dialogue, add_generation_prompt: bool) -> Result<Vec<TokenId>, Error> {
        let text = self.template.render(&dialogue.messages, add_generation_prompt)?;
        match self.template.is_dialogue() {
            true => self.document(&text),
            false => self.known(self.tokenizer.encode_with_special(&text)),
        }
    }

    /// These tokens, if the network has all of them.
    fn known(&self, tokens: Vec<TokenId>) -> Result<Vec<TokenId>, Error> {
        match tokens.iter().find(|&&id| id as usize >= self.vocab) {
            None => Ok(tokens),
            Some(&id) => Err(Error::NoEmbedding { token: self.tokenizer.token_text(id), id, vocab: self.vocab }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn tokenizer() -> Tokenizer {
        let text = "Hi there. It is an oak. It is an oak. What is it?";
        Tokenizer::train([text, text], 300).unwrap()
    }

    fn chat() -> Renderer {
        let source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|eoc|>{% endfor %}{% if add_generation_prompt %}\
                      [assistant]{% endif %}";
        let template = ChatTemplate::jinja(source, "test", BTreeMap::new()).unwrap();
        let tokenizer = tokenizer();
        let ends = [tokenizer.eoc(), tokenizer.encode("!")[0]];
        Renderer::new(tokenizer, template, TurnEnds::listed(&ends, "test"))
    }

    fn question() -> Dialogue {
        Dialogue::new(vec![Message::human("What is it?")])
    }

    fn comparison() -> LabelledComparison {
        LabelledComparison::of_chosen(question(), "It is an oak.", "Hi there.", "test")
    }

    #[test]
    fn renderers_that_give_the_same_tokens_are_alike() {
        let (dialogues, other) = (Renderer::dialogues(tokenizer()), chat());
        assert!(dialogues.reads_as(&Renderer::dialogues(tokenizer())) && other.reads_as(&other.clone()));
        assert!(!dialogues.reads_as(&other), "another template");
        let text = "Another text, another vocabulary.";
        assert!(!dialogues.reads_as(&Renderer::dialogues(Tokenizer::train([text], 270).unwrap())));
    }

    #[test]
    fn t11_what_was_sampled_is_what_is_scored() {
        let text = "It is an oak. It is an oak.";
        let renderer = Renderer::dialogues(tokenizer());
        let tokenizer = renderer.tokenizer();
        let prompt = tokenizer.encode("What?");
        // Letter by letter, as a policy may sample it and the tokenizer would not write it.
        let sampled = text.bytes().flat_map(|byte| tokenizer.encode(&char::from(byte).to_string())).collect::<Vec<_>>();
        assert_eq!(tokenizer.decode(&sampled), text);
        assert_ne!(tokenizer.encode(text), sampled);
        let scored = renderer.response_format().scored_sequence(&prompt, &sampled);
        assert_eq!(scored, [&prompt[..], &sampled, &[tokenizer.eoc()]].concat());
    }

    #[test]
    fn a_template_renders_prompts_comparisons_and_openings() {
        let renderer = chat();
        let encode = |text: &str| renderer.tokenizer().encode_with_special(text);
        let prompt = renderer.prompt(&question()).unwrap();
        assert_eq!(prompt, encode("[user]What is it?<|eoc|>[assistant]"));
        let tokens = renderer.comparison(&comparison()).unwrap().unwrap();
        let response = renderer.response("It is an oak.").unwrap();
        assert_eq!((&tokens.prompt, &tokens.chosen), (&prompt, &[&response[..], &[renderer.end()]].concat()));
        // What is scored of a sample is what is learnt from a comparison.
        let scored = renderer.response_format().scored_sequence(&prompt, &response);
        assert_eq!(scored, [tokens.prompt, tokens.chosen].concat());
        assert_eq!(renderer.unasked(&[7]).unwrap(), [&[7][..], &encode("[assistant]")].concat());
        assert_eq!(renderer.passage("\n\nHuman: Hi").unwrap(), encode("[user]Hi<|eoc|>"));
        assert_eq!(renderer.after(&[7], &[8, 9]), [7, 8, 9]);
    }

    /// As a whole text would be: the tokenizer cuts between a marker and the space after it.
    #[test]
    fn a_dialogue_is_the_text_of_its_turns_between_two_ends() {
        let renderer = Renderer::dialogues(tokenizer());
        let tokens = renderer.comparison(&comparison()).unwrap().unwrap();
        for (response, tokens) in [("It is an oak.", &tokens.chosen), ("Hi there.", &tokens.rejected)] {
            let whole = format!("\n\nHuman: What is it?\n\nAssistant: {response}");
            let joined = [renderer.prompt(&question()).unwrap(), tokens.clone()].concat();
            assert_eq!(joined, renderer.scored_text(&whole).unwrap());
        }
        assert_eq!(renderer.after(&[7], &[0, 9]), [0, 7, 9]);
        let opening = renderer.document("\n\nAssistant:").unwrap();
        assert_eq!(renderer.unasked(&[7]).unwrap(), [&[0, 7], &opening[..]].concat());
        let system = Dialogue::new(vec![Message::system("Be brief."), Message::human("Hi")]);
        let expected = renderer.document("Be brief.\n\nHuman: Hi\n\nAssistant:").unwrap();
        assert_eq!(renderer.prompt(&system).unwrap(), [&[0], &expected[..]].concat());
    }

    #[test]
    fn of_a_tie_nothing_is_preferred() {
        let tie = LabelledComparison { label: firebrick_types::Label::Tie, ..comparison() };
        assert_eq!(chat().comparison(&tie).unwrap(), None);
        let swapped = comparison().swapped();
        assert_eq!(chat().comparison(&swapped).unwrap(), chat().comparison(&comparison()).unwrap());
    }

    #[test]
    fn a_response_ends_with_any_of_the_tokens_and_is_scored_with_one() {
        let renderer = chat();
        let format = renderer.response_format();
        let response = renderer.response("It is an oak.").unwrap();
        let scored = [&[7], &response[..], &[renderer.end()]].concat();
        assert_eq!(format.ends().len(), 2);
        for end in format.ends().iter().map(|&end| vec![end]).chain([vec![]]) {
            let whole = [&response[..], &end].concat();
            let found = (format.content(&whole), format.scored_sequence(&[7], &whole));
            assert_eq!(found, (&response[..], scored.clone()), "{end:?}");
            assert_eq!(format.text(&whole), "It is an oak.");
        }
        let dialogues = Renderer::dialogues(tokenizer());
        let whole = dialogues.document(" An oak.\n\nHuman:").unwrap();
        assert_eq!(dialogues.response_format().text(&whole), " An oak.");
    }

    #[test]
    fn a_special_token_in_what_people_write_is_text() {
        for renderer in [chat(), Renderer::dialogues(tokenizer())] {
            assert!(!renderer.response("<|eoc|>").unwrap().contains(&renderer.end()));
            assert!(!renderer.document("<|eoc|>").unwrap().contains(&renderer.end()));
        }
        let prompt = Renderer::dialogues(tokenizer()).prompt(&Dialogue::new(vec![Message::human("<|eoc|>")])).unwrap();
        assert_eq!(prompt.iter().filter(|&&token| token == 0).count(), 1);
    }

    #[test]
    fn what_is_saved_is_what_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        for renderer in [chat().within(1000), Renderer::dialogues(tokenizer())] {
            renderer.save(dir.path()).unwrap();
            let again = Renderer::open(dir.path()).unwrap();
            assert_eq!(again.prompt(&question()).unwrap(), renderer.prompt(&question()).unwrap());
            assert_eq!(again.template(), renderer.template());
            assert_eq!((again.turn_ends().tokens(), again.vocab), (renderer.turn_ends().tokens(), renderer.vocab));
        }
        fs::write(dir.path().join(CHAT), "{").unwrap();
        let message = Renderer::open(dir.path()).map(drop).unwrap_err().to_string();
        assert!(message.contains("chat.json: not as it was written"), "{message}");
    }

    /// Llama 3's tokenizer has none of the names by which the end of a context is known.
    #[test]
    fn a_tokenizer_that_was_taken_ends_contexts_with_the_token_that_its_checkpoint_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(TOKENIZER);
        tokenizer().save(&path).unwrap();
        let named = fs::read_to_string(&path).unwrap().replace("<|eoc|>", "<|eot_id|>");
        fs::write(&path, named).unwrap();
        let message = Renderer::open(dir.path()).map(drop).unwrap_err().to_string();
        assert!(message.contains("no end-of-context token"), "{message}");
        Renderer::dialogues(Tokenizer::open_or_ending(&path, Some("<|eot_id|>")).unwrap()).save(dir.path()).unwrap();
        assert_eq!(Renderer::open(dir.path()).unwrap().tokenizer().eoc(), 0);
    }

    #[test]
    fn a_token_that_the_network_does_not_have_is_refused_where_a_text_holds_it() {
        let renderer = Renderer::dialogues(tokenizer()).within(200);
        let message = renderer.document("a space").map(drop).unwrap_err().to_string();
        assert!(message.contains("but the network's vocabulary has 200"), "{message}");
        assert!(renderer.text("<|eoc|>").is_ok());
    }
}
