//! The end of an attempt and what it means for its delivery. Pure: the time and the chance are arguments.

use std::time::Duration;

use bytes::Bytes;

use super::backoff::Backoff;
use super::breaker::Sign;
use super::keys::KeySign;
use super::target::Advance;
use crate::inbox::{Answer, Next, OwedDelivery};
use crate::model::{AttemptResult, Run, RunStatus, Timestamp};
use crate::upstream::answer::speaks_of_plan;

/// The longest text of a failed run that is kept with its attempt, in bytes.
const MAX_DETAIL: usize = 500;

/// Everything that is known when an attempt has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// The number of attempts that count so far, this one included.
    pub(super) strikes: u32,
    /// The time at which the event came.
    pub(super) received_at: Timestamp,
    /// The time now.
    pub(super) now: Timestamp,
    /// The time since when it may have run without a known end, apart from what this attempt says.
    pub(super) doubt: Option<Timestamp>,
    /// The time at which this attempt sent it.
    pub(super) sent_at: Timestamp,
    /// A random number from 0 to 1.
    pub(super) chance: f64,
}

/// The operator's rules for retries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// The growth of waits.
    pub(super) backoff: Backoff,
    /// The number of attempts that reached the upstream after which a delivery is dead.
    pub(super) max_attempts: u32,
    /// The longest wait after a call that surely did not arrive: the breaker keeps the destination from being called too
    /// often, and its deliveries are to go out soon after its return.
    pub(super) longest_unsent: Duration,
    /// The time for which an upstream that accepts nothing is tried.
    pub(super) give_up_after: Duration,
    /// True if a run that ended in failure is run again.
    pub(super) retry_failed_runs: bool,
}

/// The next state of a delivery, and what is written down of the attempt.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// The next state of the delivery.
    pub(super) next: Next,
    /// A stable word for the result of the attempt.
    pub(super) result: &'static str,
    /// The HTTP status, where there was an answer.
    pub(super) status: Option<u16>,
    /// A sentence for the operator.
    pub(super) detail: String,
    /// The sign that the attempt gives about the destination.
    pub(super) sign: Sign,
    /// The rest that the upstream asked for.
    pub(super) rest: Option<RestRequest>,
    /// The deliveries that are owed next.
    pub(super) owes: Vec<OwedDelivery>,
    /// The payload of the delivery from now on, where the attempt brought it further.
    pub(super) progress: Option<Bytes>,
}

/// The result of an attempt whose key the upstream refused, where the key is the gateway's own.
const KEY_REFUSED: &str = "key_refused";

impl Verdict {
    /// The verdict on a delivery that was not sent in this attempt, for a reason on this side.
    pub(super) const fn unsent(next: Next, result: &'static str, detail: String) -> Self {
        Self {
            next,
            result,
            status: None,
            detail,
            sign: Sign::Nothing,
            rest: None,
            owes: Vec::new(),
            progress: None,
        }
    }

    /// The verdict on one step of a delivery that takes several sends.
    pub(super) fn of_advance(advance: Advance) -> Self {
        let sign = match advance.result {
            "sent" | "refused" | "asked" => Sign::Alive,
            "not_sent" | "ambiguous" => Sign::Failing,
            _ => Sign::Nothing,
        };
        Self {
            status: advance.status,
            sign,
            rest: advance.rest.map(|wait| RestRequest { whole: false, wait }),
            progress: advance.progress,
            ..Self::unsent(advance.next, advance.result, advance.detail)
        }
    }

    /// The verdict on the result of a send.
    pub(super) fn of_result(result: AttemptResult, facts: Facts, policy: &Policy) -> Self {
        match result {
            AttemptResult::Ran(run) => ran(run, facts, policy),
            AttemptResult::NotSent(detail) => Self {
                sign: Sign::Failing,
                ..Self::unsent(next_of_unsent(facts, policy), "not_sent", detail)
            },
            AttemptResult::Refused {
                status,
                detail,
                retry_after,
            } => refused(status, detail, retry_after, facts, policy),
            AttemptResult::Ambiguous(detail) => {
                let next = if is_last_try(facts, policy) {
                    Next::Unknown
                } else {
                    let doubt = Some(facts.doubt.unwrap_or(facts.sent_at));
                    again(facts, policy, None, doubt, true)
                };
                Self {
                    sign: Sign::Failing,
                    ..Self::unsent(next, "ambiguous", detail)
                }
            }
        }
    }

    /// The same verdict for an attempt with or without a key of the caller's own: a rest that is asked of a caller's
    /// account is not asked of ours.
    pub(super) fn of_key(self, has_own_key: bool) -> Self {
        Self {
            rest: self.rest.map(|rest| rest.of_key(has_own_key)),
            ..self
        }
    }

    /// The sign that the attempt gives about the gateway's own key, where it was made with that.
    pub(super) fn key(&self) -> KeySign {
        match (self.result, self.status) {
            (KEY_REFUSED, Some(status)) => KeySign::Refused(status),
            ("completed" | "failed" | "stopped" | "paused" | "running", _) => KeySign::Good,
            // The upstream looked at the call, and so at the key before that.
            ("refused", Some(404 | 409 | 422)) => KeySign::Good,
            _ => KeySign::Nothing,
        }
    }
}

/// The verdict where the upstream refused a key of the gateway's own: nothing ran, and nothing is wrong with the delivery.
pub(super) fn key_refused(status: u16, detail: &str, doubt: Option<Timestamp>) -> Verdict {
    Verdict {
        status: Some(status),
        sign: Sign::Alive,
        ..Verdict::unsent(Next::Released { doubt }, KEY_REFUSED, detail.to_owned())
    }
}

/// A rest that the upstream asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RestRequest {
    /// True if the whole upstream is to be left alone, and not only the destination: rates are an account's.
    pub(super) whole: bool,
    /// The length of the rest.
    pub(super) wait: Duration,
}

impl RestRequest {
    /// The rest that an answer of this status asks for. An upstream that is over its rate and does not say for how long
    /// is left alone for a second.
    pub(super) fn of(status: Option<u16>, retry_after: Option<Duration>) -> Option<Self> {
        let whole = status == Some(429);
        let wait = retry_after.or_else(|| whole.then_some(Duration::from_secs(1)))?;
        Some(Self { whole, wait })
    }

    /// The same rest, as far as it is asked of the gateway's own account.
    pub(super) const fn of_key(self, has_own_key: bool) -> Self {
        Self {
            whole: self.whole && !has_own_key,
            ..self
        }
    }
}

fn again(
    facts: Facts,
    policy: &Policy,
    retry_after: Option<Duration>,
    doubt: Option<Timestamp>,
    counted: bool,
) -> Next {
    let wait = policy
        .backoff
        .wait(facts.strikes.max(1), retry_after, facts.chance);
    Next::Retry {
        at: facts.now + wait,
        doubt,
        counted,
    }
}

fn is_last_try(facts: Facts, policy: &Policy) -> bool {
    facts.strikes >= policy.max_attempts
}

fn is_given_up(facts: Facts, policy: &Policy) -> bool {
    facts.now.since(facts.received_at) >= policy.give_up_after
}

fn next_of_unsent(facts: Facts, policy: &Policy) -> Next {
    match (is_given_up(facts, policy), facts.doubt) {
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
    }
}

fn refused(
    status: u16,
    detail: String,
    retry_after: Option<Duration>,
    facts: Facts,
    policy: &Policy,
) -> Verdict {
    let next = match status {
        // A plan that is used up does not come back by waiting.
        429 if speaks_of_plan(&detail) => Next::Dead(None),
        429 | 503 if !is_given_up(facts, policy) => again(facts, policy, retry_after, None, false),
        409 if !is_last_try(facts, policy) => again(facts, policy, retry_after, None, true),
        _ => Next::Dead(None),
    };
    let (sign, rest) = match status {
        429 if speaks_of_plan(&detail) => (Sign::Alive, None),
        429 | 503 => {
            let sign = if retry_after.is_some() {
                Sign::Nothing
            } else {
                Sign::Failing
            };
            (sign, RestRequest::of(Some(status), retry_after))
        }
        _ => (Sign::Alive, None),
    };
    Verdict {
        status: Some(status),
        sign,
        rest,
        ..Verdict::unsent(next, "refused", detail)
    }
}

fn ran(run: Run, facts: Facts, policy: &Policy) -> Verdict {
    let detail = match run.status {
        RunStatus::Failed => run.result.as_deref().unwrap_or("the run ended in failure"),
        _ => "",
    };
    let detail = cut(detail, MAX_DETAIL);
    let result = match run.status {
        RunStatus::Completed => "completed",
        RunStatus::Failed => "failed",
        RunStatus::Stopped => "stopped",
        RunStatus::Paused => "paused",
        RunStatus::Running => "running",
    };
    let runs_again = run.status == RunStatus::Failed && policy.retry_failed_runs;
    let is_final = run.status.is_final();
    let answer = Answer {
        status: run.status_text,
        result: run.result,
        finished_at: run.finished_at,
        task: run.task,
    };
    let next = if runs_again && is_last_try(facts, policy) {
        Next::Dead(Some(answer))
    } else if runs_again {
        again(facts, policy, None, None, true)
    } else if is_final {
        Next::Delivered(answer)
    } else {
        // It was followed for as long as the operator allows and has not ended.
        Next::Unknown
    };
    Verdict {
        status: Some(200),
        sign: Sign::Alive,
        ..Verdict::unsent(next, result, detail)
    }
}

/// A text cut between two characters, with a mark where something is missing.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    format!("{}…", &text[..end])
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
            let verdict = Verdict::of_result(
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
            let verdict = Verdict::of_result(result, facts(), &policy());
            (verdict.sign, verdict.rest)
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
        let at = |result| match Verdict::of_result(result, late, &policy()).next {
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
            Verdict::of_result(AttemptResult::NotSent(String::new()), late, &policy()).next,
            Next::Dead(None)
        );
        let doubtful = Facts {
            doubt: Some(NOW),
            ..late
        };
        assert_eq!(
            Verdict::of_result(AttemptResult::NotSent(String::new()), doubtful, &policy()).next,
            Next::Unknown
        );
    }

    #[test]
    fn what_may_have_run_keeps_its_first_doubt_and_is_never_simply_dead() {
        let verdict =
            Verdict::of_result(AttemptResult::Ambiguous("cut".into()), facts(), &policy());
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
        let verdict = Verdict::of_result(
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
            Verdict::of_result(AttemptResult::Ambiguous("cut".into()), last, &policy()).next,
            Next::Unknown
        );
    }

    #[test]
    fn a_refusal_that_will_not_change_is_dead_at_once() {
        for status in [400, 401, 403, 404, 413, 422] {
            assert_eq!(
                Verdict::of_result(refused(status, "no", None), facts(), &policy()).next,
                Next::Dead(None),
                "{status}"
            );
        }
        assert_eq!(
            Verdict::of_result(
                refused(429, "Your plan limit is reached", None),
                facts(),
                &policy()
            )
            .next,
            Next::Dead(None)
        );
        assert!(matches!(
            Verdict::of_result(refused(409, "busy", None), facts(), &policy()).next,
            Next::Retry { .. }
        ));
    }

    #[test]
    fn a_failed_run_is_an_outcome_and_run_again_only_where_asked() {
        assert!(matches!(
            Verdict::of_result(ended(RunStatus::Failed), facts(), &policy()).next,
            Next::Delivered(_)
        ));
        let again = Policy {
            retry_failed_runs: true,
            ..policy()
        };
        assert!(matches!(
            Verdict::of_result(ended(RunStatus::Failed), facts(), &again).next,
            Next::Retry { doubt: None, .. }
        ));
        let last = Facts {
            strikes: 3,
            ..facts()
        };
        assert!(matches!(
            Verdict::of_result(ended(RunStatus::Failed), last, &again).next,
            Next::Dead(Some(_))
        ));
        assert_eq!(
            Verdict::of_result(ended(RunStatus::Paused), facts(), &policy()).next,
            Next::Unknown
        );
    }
}
