//! What the end of an attempt means for its delivery. Pure: the time and the chance come in.

use std::time::Duration;

use super::backoff::Backoff;
use crate::inbox::{Answer, Next};
use crate::model::{AttemptResult, Run, RunStatus, Timestamp};
use crate::upstream::answer::speaks_of_plan;

/// What is known when an attempt has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// The tries that count so far, this one among them.
    pub(super) strikes: u32,
    /// When the event came.
    pub(super) received_at: Timestamp,
    /// The time now.
    pub(super) now: Timestamp,
    /// Since when it may have run without anybody knowing the end, apart from what this attempt says.
    pub(super) doubt: Option<Timestamp>,
    /// When this attempt sent it.
    pub(super) sent_at: Timestamp,
    /// From 0 to 1.
    pub(super) chance: f64,
}

/// What the operator decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// How waits grow.
    pub(super) backoff: Backoff,
    /// Tries that reached the upstream before a delivery is dead.
    pub(super) max_attempts: u32,
    /// How long an upstream that takes nothing is tried.
    pub(super) give_up_after: Duration,
    /// Whether a run that ended in failure is run again.
    pub(super) retry_failed_runs: bool,
}

/// What becomes of the delivery, and what to write down of the attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What becomes of it.
    pub(super) next: Next,
    /// A stable word for what came of the attempt.
    pub(super) result: &'static str,
    /// The HTTP status, where there was one.
    pub(super) status: Option<u16>,
    /// A sentence for the operator.
    pub(super) detail: String,
}

/// Judges the end of an attempt.
pub(super) fn judge(result: AttemptResult, facts: Facts, policy: &Policy) -> Verdict {
    let again = |retry_after, doubt, counted| Next::Retry {
        at: facts.now + policy.backoff.wait(facts.strikes.max(1), retry_after, facts.chance),
        doubt,
        counted,
    };
    let patience_is_over = facts.now.since(facts.received_at) >= policy.give_up_after;
    let last_try = facts.strikes >= policy.max_attempts;
    match result {
        AttemptResult::Ran(run) => ran(run, facts, policy, last_try),
        AttemptResult::NotSent(detail) => Verdict {
            next: match (patience_is_over, facts.doubt) {
                (false, doubt) => again(None, doubt, false),
                (true, None) => Next::Dead(None),
                (true, Some(_)) => Next::Unknown,
            },
            result: "not_sent",
            status: None,
            detail,
        },
        AttemptResult::Refused { status, detail, retry_after } => {
            let next = match status {
                // A plan that is used up does not come back by waiting.
                429 if speaks_of_plan(&detail) => Next::Dead(None),
                429 | 503 if !patience_is_over => again(retry_after, None, false),
                409 if !last_try => again(retry_after, None, true),
                _ => Next::Dead(None),
            };
            Verdict { next, result: "refused", status: Some(status), detail }
        }
        AttemptResult::Ambiguous(detail) => Verdict {
            next: if last_try { Next::Unknown } else { again(None, Some(facts.doubt.unwrap_or(facts.sent_at)), true) },
            result: "ambiguous",
            status: None,
            detail,
        },
    }
}

fn ran(run: Run, facts: Facts, policy: &Policy, last_try: bool) -> Verdict {
    let detail = match run.status {
        RunStatus::Failed => run.result.clone().unwrap_or_else(|| "the run ended in failure".to_owned()),
        _ => String::new(),
    };
    let result = match run.status {
        RunStatus::Completed => "completed",
        RunStatus::Failed => "failed",
        RunStatus::Stopped => "stopped",
        RunStatus::Paused => "paused",
        RunStatus::Running => "running",
    };
    let failed = run.status == RunStatus::Failed;
    let is_final = run.status.is_final();
    let answer = Answer { status: run.status_text, result: run.result, finished_at: run.finished_at, task: run.task };
    let next = if failed && policy.retry_failed_runs {
        if last_try {
            Next::Dead(Some(answer))
        } else {
            let at = facts.now + policy.backoff.wait(facts.strikes.max(1), None, facts.chance);
            Next::Retry { at, doubt: None, counted: true }
        }
    } else if is_final {
        Next::Delivered(answer)
    } else {
        // It was followed for as long as the operator allows and has not ended.
        Next::Unknown
    };
    Verdict { next, result, status: Some(200), detail: super::attempt::cut(&detail, 500) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn facts() -> Facts {
        Facts { strikes: 1, received_at: NOW, now: NOW, doubt: None, sent_at: NOW, chance: 1.0 }
    }

    fn policy() -> Policy {
        Policy {
            backoff: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) },
            max_attempts: 3,
            give_up_after: Duration::from_secs(3_600),
            retry_failed_runs: false,
        }
    }

    fn refused(status: u16, detail: &str, retry_after: Option<u64>) -> AttemptResult {
        AttemptResult::Refused { status, detail: detail.into(), retry_after: retry_after.map(Duration::from_secs) }
    }

    fn ended(status: RunStatus) -> AttemptResult {
        AttemptResult::Ran(Run {
            status,
            status_text: "x".into(),
            result: None,
            finished_at: None,
            started_at: None,
            input_text: None,
            task: None,
        })
    }

    #[test]
    fn what_surely_did_not_run_is_tried_again_without_doubt_and_without_counting() {
        for result in
            [AttemptResult::NotSent("refused".into()), refused(429, "slow down", None), refused(503, "", Some(9))]
        {
            let verdict = judge(result, Facts { strikes: 9, ..facts() }, &policy());
            assert!(matches!(verdict.next, Next::Retry { doubt: None, counted: false, .. }), "{verdict:?}");
        }
    }

    #[test]
    fn an_upstream_that_takes_nothing_is_given_up_in_the_end() {
        let late = Facts { now: NOW + Duration::from_secs(3_600), ..facts() };
        assert_eq!(judge(AttemptResult::NotSent(String::new()), late, &policy()).next, Next::Dead(None));
        let doubtful = Facts { doubt: Some(NOW), ..late };
        assert_eq!(judge(AttemptResult::NotSent(String::new()), doubtful, &policy()).next, Next::Unknown);
    }

    #[test]
    fn what_may_have_run_keeps_its_first_doubt_and_is_never_simply_dead() {
        let verdict = judge(AttemptResult::Ambiguous("cut".into()), facts(), &policy());
        assert!(matches!(verdict.next, Next::Retry { doubt: Some(NOW), counted: true, .. }), "{verdict:?}");
        let earlier = NOW - Duration::from_secs(5);
        let verdict =
            judge(AttemptResult::Ambiguous("cut".into()), Facts { doubt: Some(earlier), ..facts() }, &policy());
        assert!(matches!(verdict.next, Next::Retry { doubt: Some(at), .. } if at == earlier), "{verdict:?}");
        let last = Facts { strikes: 3, ..facts() };
        assert_eq!(judge(AttemptResult::Ambiguous("cut".into()), last, &policy()).next, Next::Unknown);
    }

    #[test]
    fn a_refusal_that_will_not_change_is_dead_at_once() {
        for status in [400, 401, 403, 404, 413, 422] {
            assert_eq!(judge(refused(status, "no", None), facts(), &policy()).next, Next::Dead(None), "{status}");
        }
        assert_eq!(judge(refused(429, "Your plan limit is reached", None), facts(), &policy()).next, Next::Dead(None));
        assert!(matches!(judge(refused(409, "busy", None), facts(), &policy()).next, Next::Retry { .. }));
    }

    #[test]
    fn a_failed_run_is_an_outcome_and_run_again_only_where_asked() {
        assert!(matches!(judge(ended(RunStatus::Failed), facts(), &policy()).next, Next::Delivered(_)));
        let again = Policy { retry_failed_runs: true, ..policy() };
        assert!(matches!(judge(ended(RunStatus::Failed), facts(), &again).next, Next::Retry { doubt: None, .. }));
        let last = Facts { strikes: 3, ..facts() };
        assert!(matches!(judge(ended(RunStatus::Failed), last, &again).next, Next::Dead(Some(_))));
        assert_eq!(judge(ended(RunStatus::Paused), facts(), &policy()).next, Next::Unknown);
    }
}
