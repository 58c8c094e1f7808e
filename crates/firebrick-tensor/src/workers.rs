//! Who computes independent pieces of work.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// The threads of this process that compute independent pieces of work.
///
/// Each result depends on its piece alone, and results are taken in the order of their pieces: how many threads there are changes
/// no bit.
///
/// ```
/// use firebrick_tensor::Workers;
///
/// assert_eq!(Workers::new(3).map(vec![1, 2, 3, 4], |x| x * x), [1, 4, 9, 16]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    threads: NonZeroUsize,
}

/// As many as the machine has cores.
impl Default for Workers {
    fn default() -> Self {
        Self { threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN) }
    }
}

impl Workers {
    /// So many threads; 0 counts as 1.
    pub fn new(threads: usize) -> Self {
        Self { threads: NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.threads.get()
    }

    /// The results of `f` on every item, in the items' order.
    ///
    /// # Panics
    /// If `f` does.
    pub fn map<T: Send, R: Send>(&self, items: Vec<T>, f: impl Fn(T) -> R + Sync) -> Vec<R> {
        let results = Vec::with_capacity(items.len());
        self.fold(items, f, results, |mut results, result| {
            results.push(result);
            results
        })
    }

    /// The results of `f` on every item, folded in the items' order as they come, so that few of them are held at a time.
    ///
    /// # Panics
    /// If `f` or `fold` does.
    pub fn fold<T: Send, R: Send, A: Send>(
        &self,
        items: Vec<T>,
        f: impl Fn(T) -> R + Sync,
        start: A,
        mut fold: impl FnMut(A, R) -> A + Send,
    ) -> A {
        let threads = self.count().min(items.len());
        if threads <= 1 {
            return items.into_iter().map(f).fold(start, fold);
        }
        let queue = Mutex::new(items.into_iter().enumerate());
        // What was folded, how many results that are, and those that wait for an earlier one.
        let folded = Mutex::new((Some(start), 0, BTreeMap::new(), &mut fold));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((index, item)) = next else { break };
                        let result = f(item);
                        let mut guard = folded.lock().expect("no thread panics while it folds");
                        let (total, done, waiting, fold) = &mut *guard;
                        waiting.insert(index, result);
                        while let Some(result) = waiting.remove(done) {
                            *total = total.take().map(|total| fold(total, result));
                            *done += 1;
                        }
                    }
                });
            }
        });
        let (total, ..) = folded.into_inner().expect("no thread panicked");
        total.expect("it is put back after every fold")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_items() {
        let workers = Workers::new(3);
        let doubled = workers.map((0..100).collect(), |x: i32| 2 * x);
        assert_eq!(doubled, (0..100).map(|x| 2 * x).collect::<Vec<_>>());
        assert!(workers.map(Vec::<i32>::new(), |x| x).is_empty());
    }

    #[test]
    fn results_are_folded_in_order_whichever_comes_first() {
        let late = |x: u64| {
            // The first of each pair takes longer than the second.
            let work = if x.is_multiple_of(2) { 0 } else { 200_000_u64 };
            (0..work).for_each(|step| _ = std::hint::black_box(step));
            x
        };
        for threads in [0, 1, 2, 5] {
            let digits = Workers::new(threads).fold((1..=8).collect(), late, 0_u64, |total, x| 10 * total + x);
            assert_eq!(digits, 12_345_678, "{threads} threads");
        }
    }
}
