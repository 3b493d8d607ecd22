//! Proof of use: when each secret of a source and each key of the gateway's own was used first and last since the start,
//! and how often. There are as many as the configuration names, and none more.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::model::Timestamp;

/// The most that are kept, whatever the configuration names over time.
const MOST: usize = 10_000;

/// The uses of this process. It outlives each configuration.
#[derive(Debug, Default)]
pub struct Uses(Mutex<HashMap<Used, Use>>);

/// Thing that was used: its kind, its owner, and its name there.
type Used = (&'static str, String, String);

/// Record of its uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// First since the process was started.
    pub first: Timestamp,
    /// Last.
    pub last: Timestamp,
    /// Number of uses.
    pub count: u64,
}

impl Uses {
    /// A secret of a source has proved a request. True for the first time on a day.
    pub fn secret(&self, source: &str, secret: &str, at: Timestamp) -> bool {
        self.note(("secret", source.to_owned(), secret.to_owned()), at)
    }

    /// A key of this name was presented.
    pub fn key(&self, name: &str, key: &str, at: Timestamp) -> bool {
        self.note(("key", name.to_owned(), key.to_owned()), at)
    }

    /// Uses of a secret of a source.
    pub fn of_secret(&self, source: &str, secret: &str) -> Option<Use> {
        self.find(&("secret", source.to_owned(), secret.to_owned()))
    }

    /// Uses of a key of this name.
    pub fn of_key(&self, name: &str, key: &str) -> Option<Use> {
        self.find(&("key", name.to_owned(), key.to_owned()))
    }

    fn find(&self, used: &Used) -> Option<Use> {
        self.0.lock().get(used).copied()
    }

    fn note(&self, used: Used, at: Timestamp) -> bool {
        let mut all = self.0.lock();
        if let Some(known) = all.get_mut(&used) {
            let is_new_day = at.day() != known.last.day();
            known.last = known.last.max(at);
            known.count = known.count.saturating_add(1);
            return is_new_day;
        }
        if all.len() < MOST {
            all.insert(
                used,
                Use {
                    first: at,
                    last: at,
                    count: 1,
                },
            );
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_last_and_count_are_kept_for_each() {
        let (uses, day) = (Uses::default(), |n: i64| {
            Timestamp::from_seconds(n * 86_400 + 60)
        });
        assert!(
            uses.secret("a", "new", day(1))
                && !uses.secret("a", "new", day(1))
                && uses.secret("a", "new", day(2))
        );
        assert_eq!(
            uses.of_secret("a", "new"),
            Some(Use {
                first: day(1),
                last: day(2),
                count: 3
            })
        );
        assert_eq!(
            (uses.of_secret("b", "new"), uses.of_key("a", "new")),
            (None, None)
        );
    }
}
