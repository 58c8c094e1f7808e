//! Rounds of both sides, one after the other, and which of them count.

use anyhow::Result;

use crate::protocol::{Request, Side, Times};
use crate::quiet::Account;
use crate::spread::Spread;

/// A round is quiet if others take no more of the cores than this share.
const QUIET: f64 = 0.05;

/// So many times the rounds are run to find as many that are quiet.
const PATIENCE: usize = 4;

/// What a round of one side took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// The median step, in seconds.
    pub seconds: f64,
    /// The mean step, in seconds of work of all threads.
    pub worked: f64,
    /// The share of the cores that others took.
    pub taken: f64,
}

impl Round {
    /// Runs so many steps of a side that is bound to so many cores.
    ///
    /// # Errors
    /// If the side fails.
    pub fn run(side: &mut Side, threads: usize, steps: usize) -> Result<Self> {
        let before = Account::now(threads, side.process());
        let times: Times = side.ask(&Request::Run { steps })?;
        let accounts = before.zip(Account::now(threads, side.process()));
        let of =
            |value: fn(&Account, &Account) -> f64| accounts.map_or(f64::NAN, |(before, after)| value(&after, &before));
        Ok(Self {
            seconds: Spread::of(&times.seconds).median,
            worked: of(Account::worked_since) / steps as f64,
            taken: of(Account::taken_since).max(0.0),
        })
    }
}

/// Pairs of neighbouring rounds: ours, theirs.
#[derive(Clone, Debug, PartialEq)]
pub struct Turns(Vec<[Round; 2]>);

impl Turns {
    /// So many pairs of rounds by `pair`, run until as many are quiet or patience ends; the quietest count.
    ///
    /// # Errors
    /// If a round fails.
    ///
    /// # Panics
    /// If no round is wanted.
    pub fn take(rounds: usize, mut pair: impl FnMut() -> Result<[Round; 2]>) -> Result<Self> {
        assert!(rounds > 0, "nothing is measured in no round");
        let mut pairs = Vec::new();
        let quiet = |pairs: &[[Round; 2]]| pairs.iter().filter(|pair| taken(pair) <= QUIET).count();
        while quiet(&pairs) < rounds && pairs.len() < PATIENCE * rounds {
            pairs.push(pair()?);
        }
        pairs.sort_by(|a, b| taken(a).total_cmp(&taken(b)));
        pairs.truncate(rounds);
        Ok(Self(pairs))
    }

    /// Our seconds a step.
    pub fn ours(&self) -> Spread {
        self.spread(|[ours, _]| ours.seconds)
    }

    /// Their seconds a step.
    pub fn theirs(&self) -> Spread {
        self.spread(|[_, theirs]| theirs.seconds)
    }

    /// Their time over ours, pair by pair: what slows the machine slows both.
    pub fn ratio(&self) -> Spread {
        self.spread(|[ours, theirs]| theirs.seconds / ours.seconds)
    }

    /// Their work over ours, pair by pair: time that others took is left out, waiting for each other is not.
    pub fn work_ratio(&self) -> Spread {
        self.spread(|[ours, theirs]| theirs.worked / ours.worked)
    }

    /// The share of the cores that others took, at the most.
    pub fn taken(&self) -> f64 {
        self.0.iter().map(taken).fold(0.0, f64::max)
    }

    fn spread(&self, value: impl Fn(&[Round; 2]) -> f64) -> Spread {
        Spread::of(&self.0.iter().map(value).collect::<Vec<_>>())
    }
}

/// The larger share that others took in a pair of rounds.
fn taken(pair: &[Round; 2]) -> f64 {
    pair[0].taken.max(pair[1].taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of these seconds and shares that others took; each works as long as it lasts, less what was taken.
    fn pair([ours, theirs]: [[f64; 2]; 2]) -> [Round; 2] {
        [ours, theirs].map(|[seconds, taken]| Round { seconds, worked: seconds * (1.0 - taken), taken })
    }

    fn turns(rounds: usize, pairs: &[[[f64; 2]; 2]]) -> Turns {
        let mut pairs = pairs.iter().cycle();
        Turns::take(rounds, || Ok(pair(*pairs.next().unwrap()))).unwrap()
    }

    #[test]
    fn rounds_go_on_until_enough_are_quiet() {
        let found = turns(2, &[[[9.0, 0.5], [9.0, 0.0]], [[1.0, 0.01], [2.0, 0.0]], [[9.0, 0.0], [9.0, 0.9]]]);
        assert_eq!((found.ratio().median, found.taken()), (2.0, 0.01));
    }

    #[test]
    fn without_quiet_the_quietest_count_and_their_share_is_told() {
        let found = turns(1, &[[[4.0, 0.5], [4.0, 0.5]], [[2.0, 0.2], [3.0, 0.1]]]);
        assert_eq!((found.ours().median, found.theirs().median, found.taken()), (2.0, 3.0, 0.2));
    }

    /// 2 s of which half was taken: 1 s of work; 3 s undisturbed.
    #[test]
    fn work_leaves_out_what_others_took() {
        let found = turns(1, &[[[2.0, 0.5], [3.0, 0.0]]]);
        assert_eq!((found.ratio().median, found.work_ratio().median), (1.5, 3.0));
    }
}
