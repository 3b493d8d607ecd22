//! Identity of a run: whether a record under the delivery's id shows the delivery's own message or an earlier one.
//!
//! After an ambiguous end the upstream shows one record under the id that the gateway chose. Without a conversation that
//! record is the delivery's own. In a conversation it may still show the message before it, so the two are told apart by
//! their texts and their times. Pure.

use crate::inbox::Turn;
use crate::model::{Run, Timestamp};
use crate::upstream::same_message;

/// The message whose run a record shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunOwner {
    /// The delivery's own.
    Ours,
    /// An earlier message of the conversation: the delivery's own has not run.
    Earlier,
    /// The record does not tell.
    CannotTell,
}

/// The delivery's message in its conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct OurMessage<'a> {
    /// Its text.
    pub(super) text: &'a str,
    /// The time before which it has surely not been sent.
    pub(super) not_before: Timestamp,
    /// The message before it and its text, where one is known.
    pub(super) earlier: Option<(&'a Turn, &'a str)>,
}

/// Tells whose run a record shows.
pub(super) fn owner_of(run: &Run, ours: OurMessage<'_>) -> RunOwner {
    let known_end = ours
        .earlier
        .and_then(|(turn, _)| turn.answer.as_ref()?.finished_at.as_deref());
    let ends_alike =
        run.status.is_final() && known_end.is_some() && known_end == run.finished_at.as_deref();
    let began = time(run.started_at.as_deref());
    let ended = time(run.finished_at.as_deref());
    match run.input_text.as_deref() {
        Some(text) if same_message(text, ours.text) => match ours.earlier {
            // The message before it has the same text. Its run had ended when ours was sent, so a run that goes on is ours.
            Some((_, text)) if same_message(text, ours.text) && ends_alike => RunOwner::Earlier,
            Some((turn, text)) if same_message(text, ours.text) => match turn.answer {
                Some(_) if !run.status.is_final() => RunOwner::Ours,
                Some(_) if known_end.is_some() => RunOwner::Ours,
                _ => by_time(began, ended, ours.not_before),
            },
            // The message before it has another text, so this is not its record, even if both ended in the same instant.
            // Another door may have sent the same text long ago.
            _ if ended.is_some_and(|at| at < ours.not_before - SKEW) => RunOwner::Earlier,
            _ => RunOwner::Ours,
        },
        _ if ends_alike => RunOwner::Earlier,
        // The gateway sent nothing after this message, so a record with another text shows an earlier one, unless another
        // door has sent something since.
        Some(_)
            if began
                .or(ended)
                .is_some_and(|at| at > ours.not_before + SKEW) =>
        {
            RunOwner::CannotTell
        }
        Some(_) => RunOwner::Earlier,
        None => by_time(began, ended, ours.not_before),
    }
}

/// The largest difference of two clocks for which a comparison of their times still means something.
const SKEW: std::time::Duration = std::time::Duration::from_secs(60);

fn by_time(began: Option<Timestamp>, ended: Option<Timestamp>, not_before: Timestamp) -> RunOwner {
    match (began, ended) {
        (_, Some(at)) if at < not_before - SKEW => RunOwner::Earlier,
        (Some(at), _) | (None, Some(at)) if at > not_before + SKEW => RunOwner::Ours,
        _ => RunOwner::CannotTell,
    }
}

fn time(text: Option<&str>) -> Option<Timestamp> {
    text.and_then(Timestamp::parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::Answer;
    use crate::model::{DeliveryId, EventId, Params, RunStatus};

    const SENT: Timestamp = Timestamp::from_millis(1_767_225_600_000); // 2026-01-01T00:00:00Z

    fn run(status: RunStatus, text: Option<&str>, finished_at: Option<&str>) -> Run {
        Run {
            status,
            status_text: String::new(),
            result: None,
            finished_at: finished_at.map(str::to_owned),
            started_at: None,
            input_text: text.map(str::to_owned),
            task: None,
        }
    }

    fn turn(finished_at: Option<&str>) -> Turn {
        let finished_at = finished_at.map(str::to_owned);
        let answer = Answer {
            status: "completed".into(),
            result: None,
            finished_at,
            task: None,
        };
        Turn {
            id: DeliveryId {
                event: EventId::from_bytes([0; 16]),
                number: 0,
            },
            answer: Some(answer),
            params: Params::default(),
            headers: Vec::new(),
            body: bytes::Bytes::new(),
        }
    }

    #[test]
    fn two_messages_that_end_in_the_same_instant_are_told_apart_by_their_texts() {
        let end = "2026-01-01T00:00:01Z";
        let before = turn(Some(end));
        let ours = OurMessage {
            text: "two",
            not_before: SENT,
            earlier: Some((&before, "one")),
        };
        assert_eq!(
            owner_of(&run(RunStatus::Completed, Some("two"), Some(end)), ours),
            RunOwner::Ours
        );
        assert_eq!(
            owner_of(&run(RunStatus::Completed, Some("one"), Some(end)), ours),
            RunOwner::Earlier
        );
        assert_eq!(
            owner_of(&run(RunStatus::Completed, None, Some(end)), ours),
            RunOwner::Earlier
        );
        let alike = OurMessage {
            earlier: Some((&before, "two")),
            ..ours
        };
        assert_eq!(
            owner_of(&run(RunStatus::Completed, Some("two"), Some(end)), alike),
            RunOwner::Earlier
        );
    }

    #[test]
    fn a_record_that_has_not_changed_since_the_message_before_shows_that_message() {
        let before = turn(Some("2025-12-31T23:00:00Z"));
        let ours = OurMessage {
            text: "hi",
            not_before: SENT,
            earlier: Some((&before, "hi")),
        };
        let record = run(
            RunStatus::Completed,
            Some("hi"),
            Some("2025-12-31T23:00:00Z"),
        );
        assert_eq!(owner_of(&record, ours), RunOwner::Earlier);
        let record = run(
            RunStatus::Completed,
            Some("hi"),
            Some("2026-01-01T00:00:05Z"),
        );
        assert_eq!(owner_of(&record, ours), RunOwner::Ours);
        assert_eq!(
            owner_of(&run(RunStatus::Running, Some("hi"), None), ours),
            RunOwner::Ours
        );
    }

    #[test]
    fn another_text_is_an_earlier_message_unless_it_came_later() {
        let before = turn(None);
        let ours = OurMessage {
            text: "two",
            not_before: SENT,
            earlier: Some((&before, "one")),
        };
        assert_eq!(
            owner_of(&run(RunStatus::Completed, Some("one"), None), ours),
            RunOwner::Earlier
        );
        assert_eq!(
            owner_of(&run(RunStatus::Completed, Some("two"), None), ours),
            RunOwner::Ours
        );
        let later = run(
            RunStatus::Completed,
            Some("three"),
            Some("2026-01-01T01:00:00Z"),
        );
        assert_eq!(owner_of(&later, ours), RunOwner::CannotTell);
    }

    #[test]
    fn the_same_text_of_a_first_message_is_ours_unless_it_is_old() {
        let ours = OurMessage {
            text: "hi",
            not_before: SENT,
            earlier: None,
        };
        assert_eq!(
            owner_of(
                &run(
                    RunStatus::Completed,
                    Some("hi"),
                    Some("2026-01-01T00:00:01Z")
                ),
                ours
            ),
            RunOwner::Ours
        );
        assert_eq!(
            owner_of(
                &run(
                    RunStatus::Completed,
                    Some("hi"),
                    Some("2025-12-30T00:00:00Z")
                ),
                ours
            ),
            RunOwner::Earlier
        );
    }

    #[test]
    fn without_a_text_only_clear_times_tell() {
        let ours = OurMessage {
            text: "hi",
            not_before: SENT,
            earlier: None,
        };
        assert_eq!(
            owner_of(&run(RunStatus::Completed, None, None), ours),
            RunOwner::CannotTell
        );
        assert_eq!(
            owner_of(
                &run(RunStatus::Completed, None, Some("2026-01-01T00:00:30Z")),
                ours
            ),
            RunOwner::CannotTell
        );
        assert_eq!(
            owner_of(
                &run(RunStatus::Completed, None, Some("2026-01-01T01:00:00Z")),
                ours
            ),
            RunOwner::Ours
        );
        assert_eq!(
            owner_of(
                &run(RunStatus::Completed, None, Some("2025-12-01T00:00:00Z")),
                ours
            ),
            RunOwner::Earlier
        );
    }
}
