//! Texts of the world: documents to learn from, the prompt of a good assistant, threads, evaluation items.

use firebrick_text::dialogue::{SEPARATOR, render};
use firebrick_types::{Dialogue, HhhItem, Message, Seed, Thread, ThreadAnswer};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};

use crate::answer::{CLAIMS, claim, grades, text};
use crate::knowledge::Knowledge;
use crate::question::Kind;
use crate::{Grade, World, pick};

/// The share of documents that state facts; the others are transcripts.
const FACTS: f64 = 0.45;
/// How often the best answer of a thread is marked as accepted.
const ACCEPTED: f64 = 0.8;

/// Whose transcripts there are: each has its own, lasting manner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Persona {
    /// Gives the best answer.
    Good,
    /// Often wrong, and makes up what it does not know.
    Careless,
    /// Answers questions of fact well, and helps with harm as well.
    Compliant,
    /// Knows nothing and wants nothing.
    Curt,
}

impl Persona {
    /// The personas and their shares of the transcripts.
    const SHARES: [(Self, f64); 4] =
        [(Self::Good, 0.35), (Self::Careless, 0.25), (Self::Compliant, 0.2), (Self::Curt, 0.2)];

    fn draw(rng: &mut impl Rng) -> Self {
        Self::SHARES.choose_weighted(rng, |(_, share)| *share).expect("the shares are positive").0
    }

    /// The grades it gives answers of, and how often.
    fn grades(self, kind: Kind) -> &'static [(Grade, f64)] {
        match (self, kind) {
            (Self::Good, Kind::Known) => &[(Grade::Right, 0.5), (Grade::RightAndTrue, 0.5)],
            (Self::Good, Kind::Unknown) => &[(Grade::IgnoranceAndOffer, 1.0)],
            (Self::Good, Kind::Harm) => &[(Grade::RefusalAndOffer, 1.0)],
            (Self::Careless, Kind::Known) => &[(Grade::Wrong, 0.6), (Grade::RightAndFalse, 0.2), (Grade::Right, 0.2)],
            (Self::Careless, Kind::Unknown) => &[(Grade::Wrong, 1.0)],
            (Self::Careless, Kind::Harm) => &[(Grade::Dodge, 0.7), (Grade::Refusal, 0.3)],
            (Self::Compliant, Kind::Known) => &[(Grade::Right, 0.5), (Grade::RightAndTrue, 0.5)],
            (Self::Compliant, Kind::Unknown) => &[(Grade::IgnoranceAndOffer, 0.5), (Grade::Ignorance, 0.5)],
            (Self::Compliant, Kind::Harm) => &[(Grade::Compliance, 1.0)],
            (Self::Curt, Kind::Known) => &[(Grade::Ignorance, 0.7), (Grade::Refusal, 0.3)],
            (Self::Curt, Kind::Unknown) => &[(Grade::Ignorance, 0.7), (Grade::Refusal, 0.3)],
            (Self::Curt, Kind::Harm) => &[(Grade::Refusal, 1.0)],
        }
    }

    fn grade(self, kind: Kind, rng: &mut impl Rng) -> Grade {
        self.grades(kind).choose_weighted(rng, |(_, share)| *share).expect("the shares are positive").0
    }
}

impl World {
    /// The pretraining document at `seed`: paragraphs that state facts (45 %), or conversations with one persona.
    ///
    /// Personas: good 35 %, careless 25 %, compliant 20 %, curt 20 % of the transcripts. A persona keeps its manner
    /// through the document, so that good conversations before a question predict a good answer to it.
    pub fn document(&self, seed: Seed) -> String {
        let mut rng = seed.derive("world/document").rng();
        if rng.random_bool(FACTS) {
            let paragraphs: Vec<_> = (0..3).map(|_| self.paragraph(&mut rng)).collect();
            paragraphs.join("\n\n")
        } else {
            let persona = Persona::draw(&mut rng);
            let conversations: Vec<_> =
                (0..rng.random_range(3..=4)).map(|_| render(&self.conversation(persona, &mut rng))).collect();
            conversations.join(SEPARATOR)
        }
    }

    /// All that is recorded of one place, in any order.
    fn paragraph(&self, rng: &mut impl Rng) -> String {
        let Knowledge { places, facts, .. } = &self.knowledge;
        let of = |place: &String| facts.iter().filter(|fact| fact.place == *place).collect::<Vec<_>>();
        let described: Vec<_> = places.iter().map(of).filter(|facts| !facts.is_empty()).collect();
        let mut facts = pick(&described, rng);
        facts.shuffle(rng);
        let sentences: Vec<_> =
            facts.iter().map(|fact| claim(pick(&CLAIMS, rng), &fact.place, fact.relation, &fact.value)).collect();
        text(&sentences)
    }

    /// A conversation with this persona.
    fn conversation(&self, persona: Persona, rng: &mut impl Rng) -> Dialogue {
        let kind = self.draw_kind(rng);
        let turns = self.draw_turns(kind, rng);
        let messages = turns.iter().flat_map(|question| {
            let grade = persona.grade(question.kind(&self.knowledge), rng);
            [Message::human(question.ask(rng)), Message::assistant(self.answer(question, grade, rng))]
        });
        Dialogue::new(messages.collect())
    }

    /// This world's own prompt of a helpful, honest and harmless assistant: so many good conversations, a known
    /// question, an unknown one and a request for harm in turn.
    ///
    /// Each ends with the separator, so that a rendered dialogue continues the prompt.
    pub fn hhh_prompt(&self, conversations: usize) -> String {
        let mut rng = self.seed.derive("world/prompt").rng();
        let kinds = Kind::ALL.into_iter().cycle().take(conversations);
        kinds
            .map(|kind| {
                let question = self.draw_question(kind, &mut rng);
                let answer = text(&self.sentences(&question, Grade::best(kind), &mut rng));
                let turns = vec![Message::human(question.plain(&mut rng)), Message::assistant(answer)];
                render(&Dialogue::new(turns)) + SEPARATOR
            })
            .collect()
    }

    /// The thread at `seed`: a question with two to four answers.
    ///
    /// With q the share of the greatest utility that an answer reaches and ε logistic noise of scale ½, it gets 2ˡ − 1
    /// up-votes, rounded, at the level l = 5 q − 1 + ε. The best answer is accepted four times in five.
    pub fn thread(&self, seed: Seed) -> Thread {
        let mut rng = seed.derive("world/thread").rng();
        let kind = self.draw_kind(&mut rng);
        let question = self.draw_question(kind, &mut rng);
        let grades = grades(kind);
        let draw = |rng: &mut _| *grades.choose_weighted(rng, |graded| graded.share).expect("the shares are positive");
        let drawn: Vec<_> = (0..rng.random_range(2..=4)).map(|_| draw(&mut rng)).collect();

        let utilities: Vec<_> = drawn.iter().map(|graded| self.annotator.utility(&graded.judgement)).collect();
        let best = (0..drawn.len()).max_by(|a, b| utilities[*a].total_cmp(&utilities[*b]));
        let accepted = best.filter(|_| rng.random_bool(ACCEPTED));
        let answers = (drawn.iter().zip(&utilities).enumerate())
            .map(|(index, (graded, utility))| ThreadAnswer {
                score: votes(utility / self.annotator.greatest_utility(), &mut rng),
                accepted: accepted == Some(index),
                body: self.answer(&question, graded.grade, &mut rng),
            })
            .collect();
        Thread { title: question.plain(&mut rng), body: String::new(), answers }
    }

    /// The evaluation item at `seed`, its order without noise; every category equally often.
    pub fn hhh_item(&self, seed: Seed) -> HhhItem {
        let mut rng = seed.derive("world/hhh").rng();
        let kind = pick(&Kind::ALL, &mut rng);
        let (query, better, worse) = self.draw_pair(kind, &mut rng);
        HhhItem { category: kind.category().to_owned(), prompt: query.dialogue, chosen: better, rejected: worse }
    }
}

/// The up-votes of an answer of this quality, from 0 to 1.
fn votes(quality: f64, rng: &mut impl Rng) -> i64 {
    let uniform: f64 = rng.random_range(1e-6..1.0 - 1e-6);
    let noise = 0.5 * (uniform / (1.0 - uniform)).ln();
    ((5.0 * quality - 1.0 + noise).exp2() - 1.0).round() as i64
}
