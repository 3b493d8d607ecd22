//! A thread for each core, on which connections live from their first byte to their last.
//!
//! Why: with one run queue for all, the two halves of a passage wake each other across threads, which costs more than
//! the passage itself. A connection here stays where it was put, and what it calls upstream goes over connections of
//! the same thread ([`here`]). What is put where is chosen when it comes in: where the fewest are.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The threads. They end when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct PerCore(Arc<Threads>);

#[derive(Debug)]
struct Threads {
    all: Vec<Core>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Core {
    handle: Handle,
    open: Arc<AtomicUsize>,
}

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// Number of values of [`here`]: one for each core, and one for all other threads.
pub fn slots() -> usize {
    count() + 1
}

/// Number of the calling thread: that of its core, or 0.
pub fn here() -> usize {
    HERE.get()
}

fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl PerCore {
    /// Starts one thread for each core.
    pub fn start() -> std::io::Result<Self> {
        let stop = CancellationToken::new();
        let mut all = Vec::new();
        for number in 1..=count() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let stopped = stop.clone();
            std::thread::Builder::new()
                .name(format!("core-{number}"))
                .spawn(move || {
                    HERE.set(number);
                    runtime.block_on(stopped.cancelled());
                })?;
            all.push(Core {
                handle,
                open: Arc::default(),
            });
        }
        Ok(Self(Arc::new(Threads { all, stop })))
    }

    /// Has a connection served by the thread that has the fewest.
    pub fn put(
        &self,
        connections: &mut JoinSet<()>,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        let Some(core) = self
            .0
            .all
            .iter()
            .min_by_key(|core| core.open.load(Ordering::Relaxed))
        else {
            return;
        };
        let place = OpenCount::take(&core.open);
        let served = async move {
            let _place = place;
            connection.await;
        };
        connections.spawn_on(served, &core.handle);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // A thread that does not wait yet sees it as soon as it does.
        self.stop.cancel();
    }
}

/// One of the open connections of a thread.
struct OpenCount(Arc<AtomicUsize>);

impl OpenCount {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open.clone())
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_spread_and_stay_where_they_are() {
        let cores = PerCore::start().unwrap();
        let mut connections = JoinSet::new();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..2 * count() {
            let tell = tell.clone();
            cores.put(&mut connections, async move {
                let before = here();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                assert_eq!(before, here());
                let _ = tell.send(before);
            });
        }
        drop(tell);
        let mut at = vec![0; slots()];
        while let Some(place) = told.recv().await {
            at[place] += 1;
        }
        assert_eq!(at[0], 0);
        assert!(at[1..].iter().all(|open| *open == 2), "{at:?}");
        assert_eq!(here(), 0);
    }
}
