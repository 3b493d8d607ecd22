//! What a reconcile has found and done, and why it stopped where it did.

use super::ReconcileRequest;
use super::log::Listed;
use crate::model::{EventId, NewEvent, Refusal, Timestamp};

/// How many events a report names.
const LINES: usize = 1_000;

/// The longest text of a third party in a report, in characters.
const LONGEST: usize = 512;

/// What a reconcile has found and done.
#[derive(Clone, Debug)]
pub struct Report {
    /// The source.
    pub source: String,
    /// What was asked for.
    pub asked: ReconcileRequest,
    /// Events in the log; one that was sent several times is one.
    pub listed: usize,
    /// Those that the inbox knows.
    pub already_here: usize,
    /// Those that it does not know, where it was only looked.
    pub missing: usize,
    /// Those that are now in the inbox, and owed.
    pub pulled_in: usize,
    /// Those that a rule of the source keeps from going further.
    pub filtered: usize,
    /// Those that could not be had or kept.
    pub failed: usize,
    /// Everything before this time is done; none when nothing was.
    pub reached: Option<Timestamp>,
    /// Why it did not come to the end.
    pub stopped: Option<Stop>,
    /// The events, in order of the log. Where there are too many, those that were here already give way first.
    pub lines: Vec<ReportLine>,
    /// How many events `lines` does not name.
    pub unnamed: usize,
}

/// One event of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportLine {
    /// What the log calls it.
    pub id: String,
    /// Its dedup key, as far as it is known.
    pub dedup: Option<String>,
    /// The provider's word for what happened.
    pub event_type: Option<String>,
    /// When the provider sent or made it.
    pub at: Timestamp,
    /// What became of it.
    pub became: Became,
    /// The event in the inbox.
    pub event: Option<EventId>,
    /// Why, where that is not plain.
    pub why: Option<String>,
}

/// What became of an event of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It was in the inbox.
    AlreadyHere,
    /// It is not, and was not to be pulled in.
    Missing,
    /// It is now, and owed to its destination.
    PulledIn,
    /// A rule of the source keeps it from going further.
    Filtered,
    /// It could not be had or kept.
    Failed,
}

/// Why a reconcile did not come to the end: a stable code and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The code.
    pub code: &'static str,
    /// The sentence.
    pub detail: String,
}

impl Became {
    /// A stable word for counters and display.
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

    /// One more event is done.
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
        let dull = |line: &ReportLine| line.became == Became::AlreadyHere;
        if !dull(&line)
            && let Some(place) = self.lines.iter().position(dull)
        {
            self.lines.remove(place);
            self.lines.push(line);
        }
    }

    /// One log line for the whole.
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

    /// The same, by the names that the source's mapping gives the event.
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

impl Stop {
    pub(super) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }

    /// The engine's own words go to the log only.
    pub(super) fn inbox(cause: &str) -> Self {
        tracing::error!(cause, "the inbox stops a reconcile");
        Self::new(
            "inbox",
            "The inbox cannot keep events now; the log says why.",
        )
    }

    pub(super) fn too_many(most: usize, cut: Timestamp) -> Self {
        Self::new(
            "too_many",
            format!(
                "There are more than {most} deliveries; those from {cut} on are left for the next."
            ),
        )
    }

    /// The same, while the log was being listed.
    pub(super) fn listing(self, back_to: Option<Timestamp>) -> Self {
        let far = back_to.map_or_else(String::new, |at| {
            format!(" The list was read back to {at}.")
        });
        Self {
            detail: format!("{}{far} Nothing was pulled in.", self.detail),
            ..self
        }
    }
}

/// As much of a third party's text as a report shows.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_here_already_gives_way_in_a_long_report() {
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
}
