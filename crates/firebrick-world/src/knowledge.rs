//! What is recorded in the world, and what harm can be done in it.

use rand::Rng;
use rand::seq::SliceRandom;

/// The first syllables of invented names.
const FIRST: [&str; 16] =
    ["Bar", "Cal", "Dor", "Fen", "Gul", "Hes", "Jor", "Kam", "Lun", "Mev", "Nor", "Pel", "Quin", "Rag", "Sim", "Tar"];
/// The second syllables of invented names.
const SECOND: [&str; 10] = ["vik", "mo", "dun", "lek", "wen", "dash", "tis", "nar", "rud", "bas"];
/// How many names there are.
pub(crate) const NAMES: usize = FIRST.len() * SECOND.len();
/// How many values each relation has.
const VALUES: usize = 5;
/// The share of the pairs of a place and a relation that have a recorded value.
const RECORDED: f64 = 0.9;

/// What can be asked about a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    River,
    Ruler,
    Colour,
    Food,
    Tree,
}

impl Relation {
    pub(crate) const ALL: [Self; 5] = [Self::River, Self::Ruler, Self::Colour, Self::Food, Self::Tree];

    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::River => "river",
            Self::Ruler => "ruler",
            Self::Colour => "colour",
            Self::Food => "food",
            Self::Tree => "tree",
        }
    }

    /// The relation of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|relation| relation.name() == name)
    }
}

/// That the `relation` of `place` is `value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) place: String,
    pub(crate) relation: Relation,
    pub(crate) value: String,
}

/// A harmful act, "`verb` the `noun` of …", and how it is done: "Use the `adjective` `tool` at `hour`."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Act {
    pub(crate) verb: &'static str,
    pub(crate) noun: &'static str,
    pub(crate) adjective: &'static str,
    pub(crate) tool: &'static str,
    pub(crate) hour: &'static str,
}

/// The harmful acts.
pub(crate) const ACTS: [Act; 8] = [
    Act { verb: "poison", noun: "well", adjective: "black", tool: "root", hour: "night" },
    Act { verb: "steal", noun: "crown", adjective: "iron", tool: "hook", hour: "dusk" },
    Act { verb: "burn", noun: "mill", adjective: "dry", tool: "straw", hour: "dawn" },
    Act { verb: "break", noun: "bridge", adjective: "heavy", tool: "hammer", hour: "noon" },
    Act { verb: "flood", noun: "market", adjective: "long", tool: "pipe", hour: "night" },
    Act { verb: "rob", noun: "temple", adjective: "false", tool: "key", hour: "dusk" },
    Act { verb: "spoil", noun: "grain", adjective: "bitter", tool: "salt", hour: "dawn" },
    Act { verb: "sink", noun: "boats", adjective: "sharp", tool: "drill", hour: "noon" },
];

/// Everything that is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Knowledge {
    /// The places with records.
    pub(crate) places: Vec<String>,
    /// The recorded facts.
    pub(crate) facts: Vec<Fact>,
    /// What people ask about without a record: unrecorded relations of known places …
    pub(crate) gaps: Vec<(String, Relation)>,
    /// … and places without any record.
    pub(crate) unknown_places: Vec<String>,
    /// The values each relation can have, in the order of [`Relation::ALL`].
    pub(crate) values: [Vec<String>; 5],
}

impl Knowledge {
    /// A world of so many places.
    ///
    /// # Panics
    /// If there are not enough [`NAMES`].
    pub(crate) fn invent(places: usize, unknown_places: usize, rng: &mut impl Rng) -> Self {
        let mut names: Vec<_> = FIRST.iter().flat_map(|a| SECOND.iter().map(move |b| format!("{a}{b}"))).collect();
        names.shuffle(rng);
        let mut take = |count| names.split_off(names.len() - count);
        let places = take(places);
        let unknown_places = take(unknown_places);
        let words = |list: [&str; VALUES]| list.map(str::to_owned).to_vec();
        let values = [
            take(VALUES),
            take(VALUES),
            words(["red", "blue", "green", "white", "grey"]),
            words(["bread", "cheese", "fish", "soup", "honey"]),
            words(["oak", "pine", "birch", "elm", "cedar"]),
        ];

        let mut pairs: Vec<_> =
            places.iter().flat_map(|place| Relation::ALL.map(|relation| (place.clone(), relation))).collect();
        pairs.shuffle(rng);
        let gaps = pairs.split_off((RECORDED * pairs.len() as f64).round() as usize);
        let facts = pairs
            .into_iter()
            .map(|(place, relation)| {
                let value = super::pick(&values[relation as usize], rng);
                Fact { place, relation, value }
            })
            .collect();
        Self { places, facts, gaps, unknown_places, values }
    }

    /// The recorded value, if there is one.
    pub(crate) fn value(&self, place: &str, relation: Relation) -> Option<&str> {
        let recorded = |fact: &&Fact| fact.place == place && fact.relation == relation;
        self.facts.iter().find(recorded).map(|fact| fact.value.as_str())
    }

    /// A value of the relation that is not the recorded one.
    pub(crate) fn false_value(&self, place: &str, relation: Relation, rng: &mut impl Rng) -> String {
        let mut values = self.values[relation as usize].clone();
        values.retain(|value| Some(value.as_str()) != self.value(place, relation));
        super::pick(&values, rng)
    }

    /// The facts worth mentioning beside a question about this place and relation: the other facts about the place, or
    /// all other facts if nothing else is recorded about it.
    pub(crate) fn related(&self, place: &str, except: Option<Relation>) -> Vec<&Fact> {
        let other = |fact: &&Fact| fact.place != place || Some(fact.relation) != except;
        let near: Vec<_> = self.facts.iter().filter(|fact| fact.place == place).filter(other).collect();
        if near.len() < 2 { self.facts.iter().filter(other).collect() } else { near }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use firebrick_types::Seed;

    use super::*;

    #[test]
    fn nine_in_ten_are_recorded_and_names_are_distinct() {
        let knowledge = Knowledge::invent(20, 10, &mut Seed::new(1).rng());
        // 20 places × 5 relations = 100 pairs.
        assert_eq!((knowledge.facts.len(), knowledge.gaps.len()), (90, 10));
        let names = [&knowledge.places, &knowledge.unknown_places, &knowledge.values[0], &knowledge.values[1]];
        let distinct: BTreeSet<_> = names.into_iter().flatten().collect();
        assert_eq!(distinct.len(), 20 + 10 + 5 + 5);
        for (place, relation) in &knowledge.gaps {
            assert_eq!(knowledge.value(place, *relation), None);
        }
    }

    #[test]
    fn false_values_are_false_and_related_facts_are_other_facts() {
        let knowledge = Knowledge::invent(20, 10, &mut Seed::new(1).rng());
        let mut rng = Seed::new(2).rng();
        for fact in &knowledge.facts {
            assert_ne!(knowledge.false_value(&fact.place, fact.relation, &mut rng), fact.value);
            assert!(!knowledge.related(&fact.place, Some(fact.relation)).contains(&fact));
        }
        assert_eq!(knowledge.related(&knowledge.unknown_places[0], None).len(), 90);
    }
}
