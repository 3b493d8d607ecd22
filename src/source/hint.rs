//! Hint at the probable cause of a refusal, for small requests and seldom.

use std::time::Duration;

use super::Source;
use crate::model::{Received, Timestamp, Verify as _};
use crate::verify::DryRun;

/// Time between two explanations at a source, and the largest body that is explained: it takes as long as judging some
/// dozens of requests.
const EXPLAIN_EVERY: Duration = Duration::from_secs(5);
const EXPLAIN_BYTES: usize = 64 * 1024;

impl Source {
    /// The probable cause of a refusal. None for large requests, and within a few seconds of the last hint.
    pub fn hint(&self, received: &Received, now: Timestamp) -> Option<String> {
        if received.body.len() > EXPLAIN_BYTES {
            return None;
        }
        {
            let mut explained = self.explained.lock();
            if explained.is_some_and(|at| at <= now && now.since(at) < EXPLAIN_EVERY) {
                return None;
            }
            *explained = Some(now);
        }
        // With the secrets that have ended it may be right.
        let proving = self
            .scheme
            .judge(received, now)
            .ok()
            .and_then(|proof| proof.secret);
        if let Some(secret) = proving
            && let Some(until) = self.ends(&secret)
        {
            return Some(format!(
                "it was made with the secret {secret}, which ended at {until}"
            ));
        }
        DryRun::compile(self.written.clone()?)
            .ok()?
            .hint(received, now)
    }
}
