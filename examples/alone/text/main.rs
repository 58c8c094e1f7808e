//! A conversation to tokens, and a response without what ended it.

use firebrick_text::{Dialogue, Message, Renderer, Tokenizer};

fn main() -> Result<(), firebrick_text::Error> {
    let text = "\n\nHuman: What is it?\n\nAssistant: It is an oak.";
    let renderer = Renderer::dialogues(Tokenizer::train([text, text], 300)?);
    let prompt = renderer.prompt(&Dialogue::new(vec![Message::human("What is it?")]))?;
    assert_eq!(renderer.tokenizer().decode(&prompt[1..]), "\n\nHuman: What is it?\n\nAssistant:");

    // Whatever tokens a model writes the end of its turn with, the text before it is the response.
    let written = " It is an oak.\n\nHuman: And that?";
    let tokens = written.chars().flat_map(|letter| renderer.tokenizer().encode(&letter.to_string()));
    let format = renderer.response_format();
    assert_eq!(format.text(&tokens.collect::<Vec<_>>()), " It is an oak.");
    Ok(())
}
