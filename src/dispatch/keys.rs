//! Keys of the gateway's own that the upstream refuses: nothing is sent with such a key, except one call now and then that
//! tries it. Pure: the time is an argument.
//!
//! Promises: no delivery dies of it, and no attempt counts; a refused `upstream.api_key` holds all that goes
//! with it, and goes on by itself when the upstream takes the key; a key that is good for others and not for one
//! destination holds that destination alone.

use std::time::{Duration, Instant};

use crate::model::{Account, Destination, Timestamp};

/// The first and the longest wait before a refused key is tried again. Each wait is twice the one before.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// The time that a destination waits longer than the key itself, so that another destination, for which the key may be
/// good, is tried first.
pub(super) const LATER: Duration = Duration::from_millis(250);

/// The longest text of the upstream's that is repeated, in characters.
const MAX_DETAIL: usize = 200;

/// The sign that an attempt gives about its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeySign {
    /// No sign: the key was not shown, or there was no answer.
    Nothing,
    /// The upstream took it.
    Good,
    /// The upstream refused it with this status: 401 speaks of the key, 403 of the key at this destination.
    Refused(u16),
}

/// The change that such a sign brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyChange {
    /// No change that an operator sees.
    None,
    /// Everything that is sent with the key is held from now on.
    Held,
    /// Everything that is sent to this destination is held from now on.
    HeldTo,
    /// The key is taken again.
    Good,
}

/// The refusal of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyRefusal {
    pub(super) since: Instant,
    until: Instant,
    wait: Duration,
    /// True while a call that tries it is in flight.
    trying: bool,
    pub(super) status: u16,
    pub(super) detail: String,
}

impl KeyRefusal {
    /// The number of calls that may try it now; otherwise the end of the wait, if it is known.
    pub(super) fn room(&self, now: Instant) -> Result<usize, Option<Instant>> {
        match (self.trying, now < self.until) {
            (true, _) => Err(None),
            (false, true) => Err(Some(self.until)),
            (false, false) => Ok(1),
        }
    }

    /// The time of the next try, where only time is needed.
    pub(super) fn next(&self) -> Option<Instant> {
        (!self.trying).then_some(self.until)
    }

    /// Notes that a call begins. True if it is the one that tries the key.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let tries = self.room(now).is_ok();
        self.trying |= tries;
        tries
    }

    /// Notes that the call which tried it ended without a sign.
    pub(super) fn abandon(&mut self, now: Instant) {
        (self.trying, self.until) = (false, now + FIRST);
    }

    /// Has it tried at once: something may have changed.
    pub(super) fn hurry(&mut self, now: Instant) {
        (self.wait, self.until) = (FIRST, now);
    }
}

/// Notes a refusal; `tried` is true for the call that tried the key. True if it was not refused before.
pub(super) fn refuse(
    held: &mut Option<KeyRefusal>,
    tried: bool,
    (status, detail): (u16, &str),
    later: Duration,
    now: Instant,
) -> bool {
    let detail = || detail.chars().take(MAX_DETAIL).collect();
    match held {
        None => {
            let until = now + FIRST + later;
            *held = Some(KeyRefusal {
                since: now,
                until,
                wait: FIRST,
                trying: false,
                status,
                detail: detail(),
            });
            true
        }
        Some(refused) => {
            if tried {
                refused.wait = (refused.wait * 2).min(LONGEST);
                (refused.until, refused.trying) = (now + refused.wait + later, false);
                (refused.status, refused.detail) = (status, detail());
            }
            false
        }
    }
}

/// The refusal of a key, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedKey {
    /// The setting that holds it.
    pub setting: String,
    /// The destination that it is refused for; `None`: for all.
    pub destination: Option<Destination>,
    /// The account whose calls to that destination are held.
    pub account: Account,
    /// The time since when it is refused.
    pub since: Timestamp,
    /// The time of the next try; `None` while a call tries it.
    pub next_try: Option<Timestamp>,
    /// The HTTP status of the refusal.
    pub status: u16,
    /// The upstream's text.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_at_a_time_tries_a_refused_key_at_waits_that_double() {
        let mut now = Instant::now();
        let mut held = None;
        assert!(refuse(&mut held, false, (401, "no"), Duration::ZERO, now));
        assert!(
            !refuse(&mut held, false, (401, "no"), Duration::ZERO, now),
            "others in flight change nothing"
        );
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let refused = held.as_mut().unwrap();
            let until = now + Duration::from_secs(seconds);
            assert_eq!(
                (refused.room(now), refused.next()),
                (Err(Some(until)), Some(until))
            );
            assert!(!refused.begin(now), "it is not time yet");
            now = until;
            assert!(refused.begin(now) && !refused.begin(now), "one at a time");
            assert_eq!((refused.room(now), refused.next()), (Err(None), None));
            refuse(&mut held, true, (401, "still no"), Duration::ZERO, now);
        }
        let refused = held.as_mut().unwrap();
        refused.hurry(now);
        assert!(refused.begin(now));
        refused.abandon(now);
        assert_eq!(refused.room(now), Err(Some(now + FIRST)));
        assert_eq!(refused.detail, "still no");
    }
}
