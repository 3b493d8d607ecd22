//! Backoff: the wait before the next attempt. Pure: the random number is an argument.

use std::time::Duration;

/// The growth of waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The longest wait before the second try.
    pub(super) first: Duration,
    /// The longest wait ever.
    pub(super) longest: Duration,
}

impl Backoff {
    /// The wait after try number `attempt` (from 1), with full jitter: anything from nothing to the doubled bound.
    /// `chance` is from 0 to 1. What the upstream asked for is waited in full, with a tenth more at most.
    pub(super) fn wait(
        &self,
        attempt: u32,
        retry_after: Option<Duration>,
        chance: f64,
    ) -> Duration {
        let chance = chance.clamp(0.0, 1.0);
        match retry_after {
            Some(asked) => asked + asked.mul_f64(chance / 10.0),
            None => {
                let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1).min(20));
                self.first
                    .saturating_mul(doubled)
                    .min(self.longest)
                    .mul_f64(chance)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_never_overflow() {
        let backoff = Backoff {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(600),
        };
        let seconds = |attempt| backoff.wait(attempt, None, 1.0).as_secs();
        assert_eq!(
            [1, 2, 3, 10, 11, u32::MAX].map(seconds),
            [1, 2, 4, 512, 600, 600]
        );
        assert_eq!(backoff.wait(5, None, 0.0), Duration::ZERO);
    }

    #[test]
    fn what_the_upstream_asked_for_is_waited_in_full() {
        let backoff = Backoff {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(2),
        };
        let asked = Some(Duration::from_secs(60));
        assert_eq!(backoff.wait(1, asked, 0.0).as_secs(), 60);
        assert_eq!(backoff.wait(1, asked, 1.0).as_secs(), 66);
    }
}
