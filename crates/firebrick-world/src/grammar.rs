//! Sentences from templates, and back.
//!
//! A template is a sentence some words of which are slots: `The {relation} of {place} is {value}`. The same templates
//! make the language and read it, so that what was said is always recovered.

/// The words that stand in the slots of a template.
pub(crate) struct Slots<'text>(Vec<(&'static str, &'text str)>);

impl<'text> Slots<'text> {
    /// The word in the slot of this name.
    ///
    /// # Panics
    /// If the template has no such slot.
    pub(crate) fn word(&self, name: &str) -> &'text str {
        self.find(name).unwrap_or_else(|| panic!("the template has no slot `{name}`"))
    }

    /// The word in the slot of this name, if the template has it.
    pub(crate) fn find(&self, name: &str) -> Option<&'text str> {
        self.0.iter().find(|(slot, _)| *slot == name).map(|(_, word)| *word)
    }
}

/// The template with its slots filled.
pub(crate) fn fill(template: &str, slots: &[(&str, &str)]) -> String {
    slots.iter().fold(template.to_owned(), |text, (name, word)| text.replace(&format!("{{{name}}}"), word))
}

/// The words in the slots if `text` is an instance of `template`; a slot takes one word of letters.
pub(crate) fn unify<'text>(template: &'static str, text: &'text str) -> Option<Slots<'text>> {
    let mut slots = Vec::new();
    let mut words = text.split_whitespace();
    for expected in template.split(' ') {
        let word = words.next()?;
        match expected.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            None if word == expected => {}
            None => return None,
            Some((name, punctuation)) => {
                let word = word.strip_suffix(punctuation)?;
                if word.is_empty() || !word.chars().all(char::is_alphabetic) {
                    return None;
                }
                slots.push((name, word));
            }
        }
    }
    words.next().is_none().then_some(Slots(slots))
}

/// The first of the templates that `text` is an instance of.
pub(crate) fn unify_any<'text>(templates: &[&'static str], text: &'text str) -> Option<Slots<'text>> {
    templates.iter().find_map(|template| unify(template, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "Which {relation} does {place} have?";

    #[test]
    fn unify_undoes_fill() {
        let text = fill(TEMPLATE, &[("relation", "river"), ("place", "Tarvik")]);
        assert_eq!(text, "Which river does Tarvik have?");
        let slots = unify(TEMPLATE, &text).expect("an instance");
        assert_eq!((slots.word("relation"), slots.word("place")), ("river", "Tarvik"));
        assert_eq!(slots.find("value"), None);
    }

    #[test]
    fn only_instances_unify() {
        for text in
            ["", "Which river does Tarvik", "Which river does Tarvik have? Now", "which river does Tarvik have?"]
        {
            assert!(unify(TEMPLATE, text).is_none(), "{text}");
        }
        assert!(unify("of {place}?", "of ?").is_none());
        assert!(unify("of {place}?", "of Tarvik").is_none());
        assert!(unify("of {place}?", "of Tar-vik?").is_none());
    }
}
