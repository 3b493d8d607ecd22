//! Reconciliation on demand: reads the provider's log and accepts the events that are missing.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};

use super::AdminState;
use super::error::AdminError;
use super::json::JsonBytes;
use crate::api::reconcile::{LineView, ReconcileBody, ReportView, StopView};
use crate::config::unit;
use crate::model::Timestamp;
use crate::reconcile::{ReconcileRefusal, ReconcileRequest, Report, ReportLine};

/// Longest error message about a body, in characters.
const MAX_COMPLAINT: usize = 300;

/// `POST /sources/{name}/reconcile` with `{"since": "2h", "until": …, "dry_run": true}`: reads the log and answers
/// with a report.
pub(super) async fn run(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
    JsonBytes(body, _): JsonBytes<ReconcileBody>,
) -> Result<Json<ReportView>, AdminError> {
    let asked = ReconcileBody::read(&body)?.asked(state.clock.now())?;
    if !state
        .sources
        .iter()
        .any(|source| source.config.name == name)
    {
        return Err(AdminError::NotFound("source"));
    }
    let reconciler = state
        .reconciler
        .as_ref()
        .ok_or_else(|| refused(ReconcileRefusal::NoLog, &name))?;
    tracing::info!(source = name, since = %asked.since, until = %asked.until, dry_run = asked.dry_run, "an operator reconciles");
    let report = reconciler
        .reconcile(&name, asked)
        .await
        .map_err(|why| refused(why, &name))?;
    Ok(Json(report.into()))
}

impl ReconcileBody {
    fn read(body: &[u8]) -> Result<Self, AdminError> {
        serde_json::from_slice(body).map_err(|error| {
            let what = format!("Send JSON like {{\"since\": \"2h\", \"dry_run\": true}}: {error}.");
            AdminError::Body(what.chars().take(MAX_COMPLAINT).collect())
        })
    }

    fn asked(&self, now: Timestamp) -> Result<ReconcileRequest, AdminError> {
        let time = |key: &str, text: &str| {
            let complaint = || {
                AdminError::Body(format!(
                    "{key} must be a time like 2026-01-31T12:00:00Z, or how long ago, like 2h or 3d."
                ))
            };
            Timestamp::parse(text)
                .or_else(|| unit::duration(text).map(|ago| now - ago))
                .ok_or_else(complaint)
        };
        let since = time("since", &self.since)?;
        let until = self
            .until
            .as_deref()
            .map_or(Ok(now), |until| time("until", until))?;
        if since >= until {
            return Err(AdminError::Body(
                "since must be before until, and in the past.".into(),
            ));
        }
        Ok(ReconcileRequest {
            since,
            until,
            dry_run: self.dry_run,
        })
    }
}

fn refused(why: ReconcileRefusal, name: &str) -> AdminError {
    match why {
        ReconcileRefusal::NoSuchSource => AdminError::NotFound("source"),
        ReconcileRefusal::NoLog => AdminError::Conflict(
            "no_log",
            format!(
                "The source {name} does not say where its provider's log is: give it a reconcile table."
            ),
        ),
        ReconcileRefusal::Running => AdminError::Conflict(
            "reconciling",
            format!(
                "The log of {name} is being read already. Wait for its end, at most five minutes."
            ),
        ),
        ReconcileRefusal::Forgotten(reach) => AdminError::Conflict(
            "forgotten",
            format!(
                "since can be at most {} back here: what arrived before may be forgotten (inbox.keep) and would run twice.",
                whole(reach)
            ),
        ),
    }
}

/// Writes a duration in whole hours, or in minutes if it is shorter than two hours.
fn whole(span: Duration) -> String {
    match span.as_secs() / 60 {
        minutes if minutes >= 120 => format!("{}h", minutes / 60),
        minutes => format!("{minutes}min"),
    }
}

impl From<Report> for ReportView {
    fn from(report: Report) -> Self {
        Self {
            source: report.source,
            dry_run: report.asked.dry_run,
            since: report.asked.since,
            until: report.asked.until,
            listed: report.listed,
            already_here: report.already_here,
            missing: report.missing,
            pulled_in: report.pulled_in,
            filtered: report.filtered,
            failed: report.failed,
            reached: report.reached,
            stopped: report.stopped.map(|stop| StopView {
                code: stop.code.to_owned(),
                detail: stop.detail,
            }),
            lines: report.lines.into_iter().map(LineView::from).collect(),
            unnamed: report.unnamed,
        }
    }
}

impl From<ReportLine> for LineView {
    fn from(line: ReportLine) -> Self {
        Self {
            id: line.id,
            dedup: line.dedup,
            event_type: line.event_type,
            at: line.at,
            became: line.became.as_str().to_owned(),
            event: line.event,
            why: line.why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn asked(body: &str) -> Result<ReconcileRequest, AdminError> {
        ReconcileBody::read(body.as_bytes())?.asked(NOW)
    }

    #[test]
    fn times_are_points_or_how_long_ago() {
        let read = asked(r#"{"since":"2h","until":"30min","dry_run":true}"#).expect("it is good");
        assert_eq!(
            (read.since, read.until),
            (
                NOW - Duration::from_secs(7_200),
                NOW - Duration::from_secs(1_800)
            )
        );
        assert!(read.dry_run);
        let read = asked(r#"{"since":"2026-01-31T14:00:00+02:00"}"#).expect("it is good");
        assert_eq!(
            (Some(read.since), read.until),
            (Timestamp::parse("2026-01-31T12:00:00Z"), NOW)
        );
        assert!(!read.dry_run);
    }

    #[test]
    fn t102_what_a_body_says_wrongly_is_said() {
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"since":2}"#,
            r#"{"since":"yesterday"}"#,
            r#"{"since":"1h","until":"2h"}"#,
            r#"{"since":"2099-01-01T00:00:00Z"}"#,
            r#"{"since":"2h","dryrun":true}"#,
        ] {
            assert!(matches!(asked(wrong), Err(AdminError::Body(_))), "{wrong}");
        }
    }
}
