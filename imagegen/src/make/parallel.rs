//! Work on a list by all processors of this machine. What comes of it does not depend on how many there are.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Returns how many processors this program may use.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Does some work on each item and returns what comes of it, in the order of the items.
///
/// Each thread takes the next item until none is left; after a failure nothing new is begun. Of several failures the first in the items'
/// order is returned: all items before it have been begun, so it is the same one every time.
pub fn map<T, R, E>(items: Vec<T>, work: impl Fn(T) -> Result<R, E> + Sync) -> Result<Vec<R>, E>
where
    T: Send,
    R: Send,
    E: Send,
{
    map_on(processors(), items, work)
}

/// The same by so many threads, at least one: for work of which each thread takes much memory.
pub(crate) fn map_on<T, R, E>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E>
where
    T: Send,
    R: Send,
    E: Send,
{
    let count = items.len();
    let next = Mutex::new(items.into_iter().enumerate());
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    let stop = || {
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        next.by_ref().for_each(drop);
    };
    let worker = || {
        let mut done = Vec::new();
        while let Some((place, item)) = take() {
            let result = work(item);
            if result.is_err() {
                stop();
            }
            done.push((place, result));
        }
        done
    };
    let mut results: Vec<(usize, Result<R, E>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, count.max(1)))
            .map(|_| scope.spawn(worker))
            .collect();
        let join = |worker: thread::ScopedJoinHandle<'_, _>| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect()
    });
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..1000).collect();
        let doubled = map(items.clone(), |item| Ok::<_, ()>(2 * item)).unwrap();
        assert_eq!(
            doubled,
            items.iter().map(|item| 2 * item).collect::<Vec<_>>()
        );
        assert_eq!(map(Vec::<u32>::new(), Ok::<_, ()>), Ok(Vec::new()));
    }

    #[test]
    fn the_first_failure_in_the_order_of_the_items_is_told() {
        let fail = |item: u32| if item % 7 == 6 { Err(item) } else { Ok(()) };
        for _ in 0..50 {
            assert_eq!(map((0..1000).collect(), fail), Err(6));
        }
    }
}
