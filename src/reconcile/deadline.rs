//! The time limit of one reconcile: for a single answer, for a pause that an API asks for, and for the whole. A gateway
//! that shuts down ends every wait at once.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::stop::Stop;
use tokio_util::sync::CancellationToken;

/// Longest pause that a reconcile waits for. A longer pause ends the reconcile.
const LONGEST: Duration = Duration::from_secs(60);

/// End of the time, together with the signal that the gateway shuts down.
#[derive(Debug)]
pub(super) struct Deadline {
    end: Instant,
    stopping: CancellationToken,
}

impl Deadline {
    /// Time limit that begins now.
    pub(super) fn new(time: Duration, stopping: CancellationToken) -> Self {
        Self {
            end: Instant::now() + time,
            stopping,
        }
    }

    /// Waits for some work, and drops it when the time is over or the gateway shuts down.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            // A dropped sender means a shutdown as well.
            () = self.stopping.cancelled() => Err(Stop::new("stopping", "The gateway stops.")),
            () = tokio::time::sleep_until(self.end) => Err(Stop::new("time", "The time for one reconcile is over.")),
            done = work => Ok(done),
        }
    }

    /// Waits for a pause, unless the pause is too long.
    pub(super) async fn pause(&self, wait: Duration) -> Result<(), Stop> {
        if self.bears(wait) {
            self.within(tokio::time::sleep(wait)).await
        } else {
            Err(Stop::new("time", "There is no time left to wait."))
        }
    }

    /// True if a pause is short enough to wait for.
    pub(super) fn bears(&self, wait: Duration) -> bool {
        wait <= LONGEST && wait < self.end.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_the_time_or_with_a_shutdown() {
        let stopping = CancellationToken::new();
        let deadline = Deadline::new(Duration::from_millis(50), stopping.clone());
        assert_eq!(deadline.within(async { 7 }).await, Ok(7));
        let slow = deadline.within(std::future::pending::<()>()).await;
        assert_eq!(slow.expect_err("the time is over").code, "time");
        assert!(!deadline.bears(Duration::from_millis(1)));

        let deadline = Deadline::new(Duration::from_secs(300), stopping.clone());
        assert!(
            deadline.bears(Duration::from_secs(60)) && !deadline.bears(Duration::from_secs(61))
        );
        assert_eq!(
            deadline
                .pause(Duration::from_secs(61))
                .await
                .expect_err("too long")
                .code,
            "time"
        );
        assert_eq!(deadline.pause(Duration::from_millis(1)).await, Ok(()));
        stopping.cancel();
        assert_eq!(
            deadline
                .pause(Duration::from_secs(60))
                .await
                .expect_err("it stops")
                .code,
            "stopping"
        );
    }
}
