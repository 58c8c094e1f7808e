//! In which order samples are taken, pass after pass.

use std::ops::Range;

use firebrick_types::Seed;
use rand::seq::SliceRandom;

/// Samples taken again and again, each pass over all of them in an order of its own.
///
/// The order of a pass depends on its seed alone, so a loop that goes on somewhere takes what it would have taken.
pub struct Order<S> {
    seed_of: S,
    pass: Option<u64>,
    order: Vec<usize>,
}

impl<S: Fn(u64) -> Option<Seed>> Order<S> {
    /// Of so many samples; `seed_of` gives the seed of each pass, or none for a pass in the order of their numbers.
    pub fn new(count: usize, seed_of: S) -> Self {
        Self { seed_of, pass: None, order: (0..count).collect() }
    }

    /// The passes and samples at these places of the endless order.
    ///
    /// # Panics
    /// If there is no sample.
    pub fn take(&mut self, places: Range<u64>) -> Vec<(u64, usize)> {
        let count = self.order.len() as u64;
        assert!(count > 0, "there is no sample to take");
        let sample = |place| {
            let pass = place / count;
            if self.pass != Some(pass) {
                self.pass = Some(pass);
                self.order = (0..count as usize).collect();
                if let Some(seed) = (self.seed_of)(pass) {
                    self.order.shuffle(&mut seed.rng());
                }
            }
            (pass, self.order[(place % count) as usize])
        };
        places.map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_takes_every_sample_once_in_an_order_of_its_own() {
        let mut order = Order::new(10, |pass| (pass > 0).then(|| Seed::new(1).at(&[pass])));
        let passes = [0, 1, 2].map(|pass| order.take(10 * pass..10 * (pass + 1)));
        assert_eq!(passes[0], (0..10).map(|index| (0, index)).collect::<Vec<_>>());
        for (pass, taken) in passes.iter().enumerate() {
            let mut indices = taken.iter().map(|&(_, index)| index).collect::<Vec<_>>();
            indices.sort_unstable();
            assert_eq!(indices, (0..10).collect::<Vec<_>>());
            assert!(taken.iter().all(|&(of, _)| of == pass as u64));
        }
        assert!(passes[1].iter().map(|(_, index)| index).ne(passes[2].iter().map(|(_, index)| index)));
    }

    #[test]
    fn where_it_goes_on_changes_nothing() {
        let order = || Order::new(7, |pass| Some(Seed::new(1).at(&[pass])));
        let whole = order().take(0..30);
        assert_eq!(order().take(11..25), whole[11..25]);
    }
}
