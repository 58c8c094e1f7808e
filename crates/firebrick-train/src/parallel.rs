//! Independent pieces of work on the machine's cores.

use std::sync::Mutex;
use std::thread;

/// The results of `f` on every item, in the items' order, computed on as many threads as the machine has cores.
///
/// Each result depends on its item alone, so the number of threads changes no bit.
///
/// # Panics
/// If `f` does.
pub fn parallel_map<T: Send, R: Send>(items: Vec<T>, f: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    if threads <= 1 {
        return items.into_iter().map(f).collect();
    }
    let mut results = items.iter().map(|_| None).collect::<Vec<Option<R>>>();
    let queue = Mutex::new(items.into_iter().zip(&mut results));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no thread panics while it holds the queue").next();
                    let Some((item, result)) = next else { break };
                    *result = Some(f(item));
                }
            });
        }
    });
    drop(queue);
    results.into_iter().map(|result| result.expect("every item was taken")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_items() {
        let doubled = parallel_map((0..100).collect(), |x: i32| 2 * x);
        assert_eq!(doubled, (0..100).map(|x| 2 * x).collect::<Vec<_>>());
        assert!(parallel_map(Vec::<i32>::new(), |x| x).is_empty());
    }
}
