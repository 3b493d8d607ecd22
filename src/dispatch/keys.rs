//! Keys of the gateway's own that the upstream refuses: nothing is sent with one, but for one call now and then that
//! tries it. Pure: time comes in.
//!
//! What is promised: no delivery dies of it and none is counted against; a refused `upstream.api_key` holds all that goes
//! with it, and goes on by itself when the upstream takes the key; a key that is good for others and not for one
//! destination holds that destination alone.

use std::time::{Duration, Instant};

use crate::model::{Account, Destination, Timestamp};

/// How long the first wait is before a refused key is tried again, and how long the longest. Each is twice the one
/// before.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// By how much a destination waits longer than the key itself: so that another destination, for which the key may be
/// good, is tried first.
pub(super) const LATER: Duration = Duration::from_millis(250);

/// How much of the upstream's words is repeated, in characters.
const MAX_DETAIL: usize = 200;

/// What an attempt says of the key that it was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeySign {
    /// Nothing: it was not shown, or nobody answered.
    Nothing,
    /// The upstream took it.
    Good,
    /// The upstream refused it with this status: 401 speaks of the key, 403 of the key at this destination.
    Refused(u16),
}

/// What that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyChange {
    /// Nothing that shows.
    None,
    /// All that goes with the key is held from now on.
    Held,
    /// What goes to this destination is held from now on.
    HeldTo,
    /// The key is taken again.
    Good,
}

/// A key that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyRefusal {
    pub(super) since: Instant,
    until: Instant,
    wait: Duration,
    /// A call that tries it is in flight.
    trying: bool,
    pub(super) status: u16,
    pub(super) detail: String,
}

impl KeyRefusal {
    /// How many calls may try it now; none, and until when where that is known.
    pub(super) fn room(&self, now: Instant) -> Result<usize, Option<Instant>> {
        match (self.trying, now < self.until) {
            (true, _) => Err(None),
            (false, true) => Err(Some(self.until)),
            (false, false) => Ok(1),
        }
    }

    /// When it is tried next, where that is a matter of time.
    pub(super) fn next(&self) -> Option<Instant> {
        (!self.trying).then_some(self.until)
    }

    /// A call begins. True: it is the one that tries the key.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let tries = self.room(now).is_ok();
        self.trying |= tries;
        tries
    }

    /// The call that tried it has said nothing.
    pub(super) fn abandon(&mut self, now: Instant) {
        (self.trying, self.until) = (false, now + FIRST);
    }

    /// It is tried at once: something may have changed.
    pub(super) fn hurry(&mut self, now: Instant) {
        (self.wait, self.until) = (FIRST, now);
    }
}

/// Notes a refusal. `tried`: by the call that tried the key. True: it was not refused before.
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

/// A key that is refused, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedKey {
    /// The setting that holds it.
    pub setting: String,
    /// The only destination that it is refused for; none: for all.
    pub destination: Option<Destination>,
    /// Whose calls are held to that destination.
    pub account: Account,
    /// Since when.
    pub since: Timestamp,
    /// When it is tried again; none while a call tries it.
    pub next_try: Option<Timestamp>,
    /// What the upstream answered.
    pub status: u16,
    /// And in its own words.
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
