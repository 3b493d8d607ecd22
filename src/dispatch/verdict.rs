//! What the end of an attempt means for its delivery. Pure: the time and the chance come in.

use std::time::Duration;

use super::backoff::Backoff;
use super::breaker::Sign;
use super::keys::KeySign;
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
    /// The longest wait after a call that surely did not arrive: the destination's breaker keeps it from being called
    /// too often, and whatever waits for it is to go out soon after its return.
    pub(super) longest_unsent: Duration,
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
    /// What it says of the destination.
    pub(super) sign: Sign,
    /// For how long the upstream asked to be left alone.
    pub(super) asked: Option<RestRequest>,
}

/// The result of an attempt whose key the upstream refused, where the key is the gateway's own.
pub(super) const KEY_REFUSED: &str = "key_refused";

impl Verdict {
    /// What the attempt says of the gateway's own key, where it was made with that.
    pub(super) fn key(&self) -> KeySign {
        match (self.result, self.status) {
            (KEY_REFUSED, Some(status)) => KeySign::Refused(status),
            ("completed" | "failed" | "stopped" | "paused" | "running", _) => KeySign::Good,
            // It looked at what was sent, and so at the key before that.
            ("refused", Some(404 | 409 | 422)) => KeySign::Good,
            _ => KeySign::Nothing,
        }
    }
}

/// A time for which the upstream asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RestRequest {
    /// By all of ours, and not only where it was said: its rates are an account's.
    pub(super) whole: bool,
    /// How long.
    pub(super) wait: Duration,
}

impl RestRequest {
    /// What an answer of this status asks for. One that is over a rate and does not say for how long is left alone for
    /// a second.
    pub(super) fn by(status: Option<u16>, retry_after: Option<Duration>) -> Option<Self> {
        let whole = status == Some(429);
        let wait = retry_after.or_else(|| whole.then_some(Duration::from_secs(1)))?;
        Some(Self { whole, wait })
    }
}

/// Judges the end of an attempt.
pub(super) fn judge(result: AttemptResult, facts: Facts, policy: &Policy) -> Verdict {
    let again = |retry_after, doubt, counted| Next::Retry {
        at: facts.now
            + policy
                .backoff
                .wait(facts.strikes.max(1), retry_after, facts.chance),
        doubt,
        counted,
    };
    let patience_is_over = facts.now.since(facts.received_at) >= policy.give_up_after;
    let last_try = facts.strikes >= policy.max_attempts;
    match result {
        AttemptResult::Ran(run) => ran(run, facts, policy, last_try),
        AttemptResult::NotSent(detail) => Verdict {
            next: match (patience_is_over, facts.doubt) {
                (false, doubt) => {
                    let wait = policy
                        .backoff
                        .wait(facts.strikes.max(1), None, facts.chance);
                    Next::Retry {
                        at: facts.now + wait.min(policy.longest_unsent),
                        doubt,
                        counted: false,
                    }
                }
                (true, None) => Next::Dead(None),
                (true, Some(_)) => Next::Unknown,
            },
            result: "not_sent",
            status: None,
            detail,
            sign: Sign::Failing,
            asked: None,
        },
        AttemptResult::Refused {
            status,
            detail,
            retry_after,
        } => {
            let next = match status {
                // A plan that is used up does not come back by waiting.
                429 if speaks_of_plan(&detail) => Next::Dead(None),
                429 | 503 if !patience_is_over => again(retry_after, None, false),
                409 if !last_try => again(retry_after, None, true),
                _ => Next::Dead(None),
            };
            let (sign, asked) = match status {
                429 if speaks_of_plan(&detail) => (Sign::Alive, None),
                429 | 503 => {
                    let sign = if retry_after.is_some() {
                        Sign::Nothing
                    } else {
                        Sign::Failing
                    };
                    (sign, RestRequest::by(Some(status), retry_after))
                }
                _ => (Sign::Alive, None),
            };
            Verdict {
                next,
                result: "refused",
                status: Some(status),
                detail,
                sign,
                asked,
            }
        }
        AttemptResult::Ambiguous(detail) => Verdict {
            next: if last_try {
                Next::Unknown
            } else {
                again(None, Some(facts.doubt.unwrap_or(facts.sent_at)), true)
            },
            result: "ambiguous",
            status: None,
            detail,
            sign: Sign::Failing,
            asked: None,
        },
    }
}

fn ran(run: Run, facts: Facts, policy: &Policy, last_try: bool) -> Verdict {
    let detail = match run.status {
        RunStatus::Failed => run
            .result
            .clone()
            .unwrap_or_else(|| "the run ended in failure".to_owned()),
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
    let answer = Answer {
        status: run.status_text,
        result: run.result,
        finished_at: run.finished_at,
        task: run.task,
    };
    let next = if failed && policy.retry_failed_runs {
        if last_try {
            Next::Dead(Some(answer))
        } else {
            let at = facts.now
                + policy
                    .backoff
                    .wait(facts.strikes.max(1), None, facts.chance);
            Next::Retry {
                at,
                doubt: None,
                counted: true,
            }
        }
    } else if is_final {
        Next::Delivered(answer)
    } else {
        // It was followed for as long as the operator allows and has not ended.
        Next::Unknown
    };
    let detail = super::attempt::cut(&detail, 500);
    Verdict {
        next,
        result,
        status: Some(200),
        detail,
        sign: Sign::Alive,
        asked: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn facts() -> Facts {
        Facts {
            strikes: 1,
            received_at: NOW,
            now: NOW,
            doubt: None,
            sent_at: NOW,
            chance: 1.0,
        }
    }

    fn policy() -> Policy {
        Policy {
            backoff: Backoff {
                first: Duration::from_secs(1),
                longest: Duration::from_secs(60),
            },
            max_attempts: 3,
            longest_unsent: Duration::from_secs(10),
            give_up_after: Duration::from_secs(3_600),
            retry_failed_runs: false,
        }
    }

    fn refused(status: u16, detail: &str, retry_after: Option<u64>) -> AttemptResult {
        AttemptResult::Refused {
            status,
            detail: detail.into(),
            retry_after: retry_after.map(Duration::from_secs),
        }
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
        for result in [
            AttemptResult::NotSent("refused".into()),
            refused(429, "slow down", None),
            refused(503, "", Some(9)),
        ] {
            let verdict = judge(
                result,
                Facts {
                    strikes: 9,
                    ..facts()
                },
                &policy(),
            );
            assert!(
                matches!(
                    verdict.next,
                    Next::Retry {
                        doubt: None,
                        counted: false,
                        ..
                    }
                ),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn an_end_says_how_the_destination_fares() {
        let sign = |result| {
            let verdict = judge(result, facts(), &policy());
            (verdict.sign, verdict.asked)
        };
        let asked = |whole, seconds| {
            Some(RestRequest {
                whole,
                wait: Duration::from_secs(seconds),
            })
        };
        assert_eq!(
            sign(AttemptResult::NotSent(String::new())),
            (Sign::Failing, None)
        );
        assert_eq!(
            sign(AttemptResult::Ambiguous(String::new())),
            (Sign::Failing, None)
        );
        assert_eq!(
            sign(refused(429, "slow", None)),
            (Sign::Failing, asked(true, 1))
        );
        assert_eq!(
            sign(refused(429, "slow", Some(7))),
            (Sign::Nothing, asked(true, 7))
        );
        assert_eq!(
            sign(refused(503, "", Some(9))),
            (Sign::Nothing, asked(false, 9))
        );
        for alive in [
            ended(RunStatus::Failed),
            refused(404, "no", None),
            refused(409, "busy", None),
        ] {
            assert_eq!(sign(alive), (Sign::Alive, None));
        }
        assert_eq!(
            sign(refused(429, "Your plan limit is reached", None)),
            (Sign::Alive, None)
        );
    }

    #[test]
    fn what_was_not_sent_does_not_wait_longer_than_a_destination_rests() {
        let late = Facts {
            strikes: 7,
            ..facts()
        };
        let at = |result| match judge(result, late, &policy()).next {
            Next::Retry { at, .. } => at.since(NOW).as_secs(),
            next => panic!("{next:?}"),
        };
        assert_eq!(at(AttemptResult::NotSent(String::new())), 10);
        assert_eq!(at(refused(503, "", Some(900))), 990);
    }

    #[test]
    fn an_upstream_that_takes_nothing_is_given_up_in_the_end() {
        let late = Facts {
            now: NOW + Duration::from_secs(3_600),
            ..facts()
        };
        assert_eq!(
            judge(AttemptResult::NotSent(String::new()), late, &policy()).next,
            Next::Dead(None)
        );
        let doubtful = Facts {
            doubt: Some(NOW),
            ..late
        };
        assert_eq!(
            judge(AttemptResult::NotSent(String::new()), doubtful, &policy()).next,
            Next::Unknown
        );
    }

    #[test]
    fn what_may_have_run_keeps_its_first_doubt_and_is_never_simply_dead() {
        let verdict = judge(AttemptResult::Ambiguous("cut".into()), facts(), &policy());
        assert!(
            matches!(
                verdict.next,
                Next::Retry {
                    doubt: Some(NOW),
                    counted: true,
                    ..
                }
            ),
            "{verdict:?}"
        );
        let earlier = NOW - Duration::from_secs(5);
        let verdict = judge(
            AttemptResult::Ambiguous("cut".into()),
            Facts {
                doubt: Some(earlier),
                ..facts()
            },
            &policy(),
        );
        assert!(
            matches!(verdict.next, Next::Retry { doubt: Some(at), .. } if at == earlier),
            "{verdict:?}"
        );
        let last = Facts {
            strikes: 3,
            ..facts()
        };
        assert_eq!(
            judge(AttemptResult::Ambiguous("cut".into()), last, &policy()).next,
            Next::Unknown
        );
    }

    #[test]
    fn a_refusal_that_will_not_change_is_dead_at_once() {
        for status in [400, 401, 403, 404, 413, 422] {
            assert_eq!(
                judge(refused(status, "no", None), facts(), &policy()).next,
                Next::Dead(None),
                "{status}"
            );
        }
        assert_eq!(
            judge(
                refused(429, "Your plan limit is reached", None),
                facts(),
                &policy()
            )
            .next,
            Next::Dead(None)
        );
        assert!(matches!(
            judge(refused(409, "busy", None), facts(), &policy()).next,
            Next::Retry { .. }
        ));
    }

    #[test]
    fn a_failed_run_is_an_outcome_and_run_again_only_where_asked() {
        assert!(matches!(
            judge(ended(RunStatus::Failed), facts(), &policy()).next,
            Next::Delivered(_)
        ));
        let again = Policy {
            retry_failed_runs: true,
            ..policy()
        };
        assert!(matches!(
            judge(ended(RunStatus::Failed), facts(), &again).next,
            Next::Retry { doubt: None, .. }
        ));
        let last = Facts {
            strikes: 3,
            ..facts()
        };
        assert!(matches!(
            judge(ended(RunStatus::Failed), last, &again).next,
            Next::Dead(Some(_))
        ));
        assert_eq!(
            judge(ended(RunStatus::Paused), facts(), &policy()).next,
            Next::Unknown
        );
    }
}
