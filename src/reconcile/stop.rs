//! The reason why a reconcile ended early, as a stable code and a sentence for the operator.

use crate::model::Timestamp;

/// Longest text of a third party in a report, in characters.
const LONGEST: usize = 512;

/// Reason why a reconcile ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Stable code.
    pub code: &'static str,
    /// Sentence for the operator.
    pub detail: String,
}

impl Stop {
    pub(super) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }

    /// The inbox takes no events. The cause goes to the log only, because it may name the operator's systems.
    pub(super) fn inbox(cause: &str) -> Self {
        tracing::error!(cause, "the inbox stops a reconcile");
        Self::new(
            "inbox",
            "The inbox cannot keep events now; the log says why.",
        )
    }

    /// The log has more deliveries than one reconcile reads; those from `cut` on were left out.
    pub(super) fn too_many(most: usize, cut: Timestamp) -> Self {
        Self::new(
            "too_many",
            format!(
                "There are more than {most} deliveries; those from {cut} on are left for the next."
            ),
        )
    }

    /// Adds to the sentence how far the list was read, for a stop that came before any event was fetched.
    pub(super) fn while_listing(self, back_to: Option<Timestamp>) -> Self {
        let far = back_to.map_or_else(String::new, |at| {
            format!(" The list was read back to {at}.")
        });
        Self {
            detail: format!("{}{far} Nothing was pulled in.", self.detail),
            ..self
        }
    }
}

/// Cuts a text of a third party to the length that a report shows.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_while_listing_says_how_far_the_list_was_read() {
        let at = Timestamp::from_seconds(1_800_000_000);
        let stop = || Stop::new("time", "The time for one reconcile is over.");
        assert_eq!(
            stop().while_listing(Some(at)).detail,
            format!(
                "The time for one reconcile is over. The list was read back to {at}. Nothing was pulled in."
            )
        );
        assert_eq!(
            stop().while_listing(None).detail,
            "The time for one reconcile is over. Nothing was pulled in."
        );
        assert_eq!(stop().while_listing(None).code, "time");
    }

    #[test]
    fn a_stop_of_the_inbox_does_not_repeat_the_cause() {
        let stop = Stop::inbox("password of the database");
        assert!(!stop.detail.contains("password"), "{}", stop.detail);
    }

    #[test]
    fn a_text_of_a_third_party_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"é".repeat(LONGEST + 1)), "é".repeat(LONGEST));
    }
}
