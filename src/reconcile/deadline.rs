//! How long is waited: for one answer, for a pause that an API asks for, and in all. A gateway that stops waits no
//! longer.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::report::Stop;

/// The longest pause that is waited for; an API that wants a longer one is left alone.
const LONGEST: Duration = Duration::from_secs(60);

/// The end of the time, and the order to stop.
#[derive(Debug)]
pub(super) struct Deadline {
    end: Instant,
    stopping: watch::Receiver<bool>,
}

impl Deadline {
    /// From now on, so long.
    pub(super) fn new(time: Duration, stopping: watch::Receiver<bool>) -> Self {
        Self {
            end: Instant::now() + time,
            stopping,
        }
    }

    /// Waits for something as long as there is time. What is not done by then is given up.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            biased;
            // A sender that is gone has stopped as well.
            _ = stopping.wait_for(|stop| *stop) => Err(Stop::new("stopping", "The gateway stops.")),
            () = tokio::time::sleep_until(self.end) => Err(Stop::new("time", "The time for one reconcile is over.")),
            done = work => Ok(done),
        }
    }

    /// Waits so long, where that is not too long.
    pub(super) async fn pause(&self, wait: Duration) -> Result<(), Stop> {
        if self.bears(wait) {
            self.within(tokio::time::sleep(wait)).await
        } else {
            Err(Stop::new("time", "There is no time left to wait."))
        }
    }

    /// Whether a pause is short enough to be waited for.
    pub(super) fn bears(&self, wait: Duration) -> bool {
        wait <= LONGEST && wait < self.end.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_waited_for_beyond_the_end_or_the_order_to_stop() {
        let (stop, stopping) = watch::channel(false);
        let patience = Deadline::new(Duration::from_millis(50), stopping.clone());
        assert_eq!(patience.within(async { 7 }).await, Ok(7));
        let slow = patience.within(std::future::pending::<()>()).await;
        assert_eq!(slow.expect_err("the time is over").code, "time");
        assert!(!patience.bears(Duration::from_millis(1)));

        let patience = Deadline::new(Duration::from_secs(300), stopping);
        assert!(
            patience.bears(Duration::from_secs(60)) && !patience.bears(Duration::from_secs(61))
        );
        assert_eq!(
            patience
                .pause(Duration::from_secs(61))
                .await
                .expect_err("too long")
                .code,
            "time"
        );
        assert_eq!(patience.pause(Duration::from_millis(1)).await, Ok(()));
        stop.send(true).expect("somebody listens");
        assert_eq!(
            patience
                .pause(Duration::from_secs(60))
                .await
                .expect_err("it stops")
                .code,
            "stopping"
        );
    }
}
