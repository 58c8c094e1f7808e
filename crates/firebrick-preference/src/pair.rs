//! Two responses to one prompt as tokens.

use firebrick_types::TokenId;

/// Two responses to one prompt as tokens, of which the first was preferred.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// What both responses stand behind; it may be empty.
    pub prompt: Vec<TokenId>,
    /// The preferred response, with the token that ends it.
    pub chosen: Vec<TokenId>,
    /// The other one.
    pub rejected: Vec<TokenId>,
    /// Whether neither was preferred.
    pub tie: bool,
    /// How strongly the first was preferred, on the scale of its annotators, if they were asked.
    pub strength: Option<f64>,
}

impl Pair {
    /// A pair of which the first response was preferred, nobody says how strongly.
    pub fn new(prompt: Vec<TokenId>, chosen: Vec<TokenId>, rejected: Vec<TokenId>) -> Self {
        Self { prompt, chosen, rejected, tie: false, strength: None }
    }

    /// Both whole sequences, chosen first, each cut to a context from the left, so that the last turn and the token that is read stay
    /// (T-12).
    pub fn sequences(&self, context: usize) -> [Vec<TokenId>; 2] {
        [&self.chosen, &self.rejected].map(|response| {
            let length = self.prompt.len() + response.len();
            let cut = length.saturating_sub(context);
            let from_prompt = cut.min(self.prompt.len());
            [&self.prompt[from_prompt..], &response[cut - from_prompt..]].concat()
        })
    }

    /// Tokens of both sequences.
    pub(crate) fn tokens(&self) -> u64 {
        (2 * self.prompt.len() + self.chosen.len() + self.rejected.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t12_each_sequence_is_cut_from_the_left_by_itself() {
        let pair = Pair::new(vec![1, 2, 3], vec![4, 5], vec![6, 7, 8, 9, 10, 11]);
        assert_eq!(pair.sequences(9), [vec![1, 2, 3, 4, 5], vec![1, 2, 3, 6, 7, 8, 9, 10, 11]]);
        assert_eq!(pair.sequences(4), [vec![2, 3, 4, 5], vec![8, 9, 10, 11]]);
        assert_eq!(pair.sequences(1), [vec![5], vec![11]]);
    }
}
