//! The report of a reconcile: counts, one line for each event, and the reason for an early end.

use super::ReconcileRequest;
use super::log::Listed;
use super::stop::{Stop, cut};
use crate::model::{EventId, NewEvent, Refusal, Timestamp};

/// Most events that a report names.
const LINES: usize = 1_000;

/// Result of a reconcile.
#[derive(Clone, Debug)]
pub struct Report {
    /// Name of the source.
    pub source: String,
    /// The operator's request.
    pub asked: ReconcileRequest,
    /// Events in the provider's log. An event that was sent several times counts once.
    pub listed: usize,
    /// Events that were in the inbox before.
    pub already_here: usize,
    /// Events that are missing in the inbox, after a dry run.
    pub missing: usize,
    /// Events that were put into the inbox and are owed to their destinations.
    pub pulled_in: usize,
    /// Events that a rule of the source filters out.
    pub filtered: usize,
    /// Events that could not be fetched or kept.
    pub failed: usize,
    /// Time before which every event is done; absent when no event was done.
    pub reached: Option<Timestamp>,
    /// Reason for an early end.
    pub stopped: Option<Stop>,
    /// The events in the order of the log. In a long report, events that were in the inbox before are left out first.
    pub lines: Vec<ReportLine>,
    /// Number of events that `lines` leaves out.
    pub unnamed: usize,
}

/// One event of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportLine {
    /// Name of the event in the provider's log.
    pub id: String,
    /// Dedup key, where it is known.
    pub dedup: Option<String>,
    /// The provider's word for what happened.
    pub event_type: Option<String>,
    /// Time at which the provider sent or made the event.
    pub at: Timestamp,
    /// Outcome.
    pub became: Became,
    /// The event's id in the inbox.
    pub event: Option<EventId>,
    /// Reason for the outcome, where the outcome alone does not say it.
    pub why: Option<String>,
}

/// Outcome of one event of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// The event was in the inbox before.
    AlreadyHere,
    /// The event is missing in the inbox; a dry run does not pull it in.
    Missing,
    /// The event is in the inbox now and owed to its destination.
    PulledIn,
    /// A rule of the source filters the event out.
    Filtered,
    /// The event could not be fetched or kept.
    Failed,
}

impl Became {
    /// Stable word for counters and display.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyHere => "already_here",
            Self::Missing => "missing",
            Self::PulledIn => "pulled_in",
            Self::Filtered => "filtered",
            Self::Failed => "failed",
        }
    }
}

impl Report {
    pub(super) fn new(source: &str, asked: ReconcileRequest) -> Self {
        Self {
            source: source.to_owned(),
            asked,
            listed: 0,
            already_here: 0,
            missing: 0,
            pulled_in: 0,
            filtered: 0,
            failed: 0,
            reached: None,
            stopped: None,
            lines: Vec::new(),
            unnamed: 0,
        }
    }

    /// Adds the line of one more event.
    pub(super) fn note(&mut self, line: ReportLine) {
        match line.became {
            Became::AlreadyHere => self.already_here += 1,
            Became::Missing => self.missing += 1,
            Became::PulledIn => self.pulled_in += 1,
            Became::Filtered => self.filtered += 1,
            Became::Failed => self.failed += 1,
        }
        self.reached = Some(line.at);
        if self.lines.len() < LINES {
            self.lines.push(line);
            return;
        }
        self.unnamed += 1;
        let is_known = |line: &ReportLine| line.became == Became::AlreadyHere;
        if !is_known(&line)
            && let Some(place) = self.lines.iter().position(is_known)
        {
            self.lines.remove(place);
            self.lines.push(line);
        }
    }

    /// Writes one log line about the whole reconcile.
    pub(super) fn log(&self) {
        let Self {
            source,
            listed,
            already_here,
            missing,
            pulled_in,
            filtered,
            failed,
            ..
        } = self;
        let (since, until, dry_run) = (self.asked.since, self.asked.until, self.asked.dry_run);
        match &self.stopped {
            None => tracing::info!(
                source, %since, %until, dry_run, listed, already_here, missing, pulled_in, filtered, failed, "reconciled"
            ),
            Some(Stop { code, detail }) => {
                let reached = self.reached.map(|at| at.to_string());
                tracing::warn!(
                    source, %since, %until, dry_run, listed, already_here, missing, pulled_in, filtered, failed,
                    reached, code, cause = detail, "reconciled in part"
                );
            }
        }
    }
}

impl ReportLine {
    /// The line of an event that the log lists, before its outcome is known.
    pub(super) fn of(listed: &Listed) -> Self {
        Self {
            id: listed.id.clone(),
            dedup: listed.dedup.clone(),
            event_type: listed.event_type.clone(),
            at: listed.at,
            became: Became::Failed,
            event: None,
            why: None,
        }
    }

    /// Takes dedup key, type and filter from the event that the source's mapping made.
    pub(super) fn named(self, event: &NewEvent) -> Self {
        let event_type = event.event_type.clone().or(self.event_type);
        let why = event.filtered.as_deref().map(cut);
        Self {
            dedup: event.dedup.clone(),
            event_type,
            why,
            ..self
        }
    }

    pub(super) fn became(self, became: Became, event: Option<EventId>) -> Self {
        let why = self.why.filter(|_| became == Became::Filtered);
        Self {
            became,
            event,
            why,
            ..self
        }
    }

    pub(super) fn failed(self, why: String) -> Self {
        Self {
            became: Became::Failed,
            why: Some(cut(&why)),
            ..self
        }
    }

    pub(super) fn refused(self, refusal: &Refusal) -> Self {
        self.failed(format!("{}: {}", refusal.code(), refusal.cause()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_were_here_already_are_left_out_of_a_long_report_first() {
        let at = Timestamp::from_seconds(1_800_000_000);
        let mut report = Report::new(
            "a",
            ReconcileRequest {
                since: at,
                until: at,
                dry_run: false,
            },
        );
        let line = |number: usize, became| ReportLine {
            id: number.to_string(),
            dedup: None,
            event_type: None,
            at,
            became,
            event: None,
            why: None,
        };
        for number in 0..LINES {
            report.note(line(number, Became::AlreadyHere));
        }
        report.note(line(LINES, Became::Failed));
        report.note(line(LINES + 1, Became::AlreadyHere));
        assert_eq!((report.lines.len(), report.unnamed), (LINES, 2));
        assert_eq!((report.already_here, report.failed), (LINES + 1, 1));
        assert_eq!(report.lines[0].id, "1");
        assert_eq!(report.lines[LINES - 1].became, Became::Failed);
    }

    fn listed() -> Listed {
        Listed {
            id: "7".into(),
            name: "guid".into(),
            dedup: None,
            event_type: Some("push".into()),
            at: Timestamp::from_seconds(1_800_000_000),
        }
    }

    #[test]
    fn a_line_has_a_reason_only_where_its_outcome_needs_one() {
        let failed = ReportLine::of(&listed()).failed("gone".repeat(1_000));
        assert_eq!(failed.became, Became::Failed);
        assert_eq!(failed.why.as_deref().map(str::len), Some(512));
        let mut line = ReportLine::of(&listed());
        line.why = Some("events: \"push\" is not wanted".into());
        assert!(line.clone().became(Became::Filtered, None).why.is_some());
        assert_eq!(line.became(Became::PulledIn, None).why, None);
        let refused = ReportLine::of(&listed()).refused(&Refusal::TooLarge(9));
        let why = refused.why.expect("a reason");
        assert!(why.starts_with(Refusal::TooLarge(9).code()), "{why}");
    }

    #[test]
    fn each_outcome_is_counted_once_and_the_report_reaches_its_last_line() {
        let at = Timestamp::from_seconds(1_800_000_000);
        let request = ReconcileRequest {
            since: at,
            until: at,
            dry_run: true,
        };
        let mut report = Report::new("a", request);
        for became in [
            Became::AlreadyHere,
            Became::Missing,
            Became::PulledIn,
            Became::Filtered,
            Became::Failed,
        ] {
            report.note(ReportLine::of(&listed()).became(became, None));
        }
        let counts = [
            report.already_here,
            report.missing,
            report.pulled_in,
            report.filtered,
            report.failed,
        ];
        assert_eq!(counts, [1; 5]);
        assert_eq!(report.reached, Some(at));
        assert_eq!((report.lines.len(), report.unnamed), (5, 0));
    }
}
