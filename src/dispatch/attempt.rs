//! One attempt of a delivery, as a list of steps: settle what is in doubt, call, follow to the end.

use std::time::Duration;

use tokio::sync::watch;

use super::turn::{OurTurn, Shows, shows};
use super::verdict::{Facts, Verdict, judge};
use super::{Dispatcher, Policy};
use crate::config::{OnUnknown, SourceConfig};
use crate::inbox::{Claimed, InboxError, Next};
use crate::model::{AttemptResult, Run, Timestamp};
use crate::upstream::{Call, Lookup, request};

/// How soon after a doubtful send a "never heard of it" of the upstream is believed: what we wrote may still be on
/// its way through proxies.
const HEARSAY: Duration = Duration::from_secs(2);

/// Waits between two looks at a run that goes on.
const FIRST_LOOK: Duration = Duration::from_secs(2);
const LONGEST_LOOK: Duration = Duration::from_secs(15);

/// What an upstream knows of a delivery that may have been sent before.
enum Before {
    /// It ran, or runs.
    Ran(Run),
    /// It did not.
    Never,
    /// Nobody can tell; a sentence.
    CannotTell(String),
    /// The upstream could not be asked; a sentence.
    NotAnswered(String, Option<Duration>),
    /// The program stops.
    Interrupted,
}

/// Tries a delivery once.
pub(super) async fn attempt(dispatcher: &Dispatcher, claimed: &Claimed, hurry: watch::Receiver<bool>) -> Verdict {
    let Some(source) = dispatcher.sources.get(&claimed.source) else {
        return Verdict {
            next: Next::Dead(None),
            result: "source_gone",
            status: None,
            detail: format!("no source is called {} any more; configure it and replay the event", claimed.source),
        };
    };
    let call = Call::new(claimed, source);
    let (doubt, run) = match settle_doubt(dispatcher, claimed, source, &call, hurry.clone()).await {
        Ok(Some(run)) => (claimed.doubt, Some(run)),
        Ok(None) => (None, None),
        Err(verdict) => return verdict,
    };
    let sent_at = dispatcher.clock.now();
    let result = match run {
        Some(run) => AttemptResult::Ran(run),
        None => tokio::select! {
            result = dispatcher.upstream.invoke(&call) => result,
            () = told(hurry.clone()) => return interrupted(dispatcher, Some(sent_at)),
        },
    };
    let result = match result {
        AttemptResult::Ran(run) if !run.status.is_final() => {
            let since = doubt.unwrap_or(sent_at);
            match follow(dispatcher, &claimed.upstream_id, run, since, hurry).await {
                Some(run) => AttemptResult::Ran(run),
                None => return interrupted(dispatcher, Some(since)),
            }
        }
        result => result,
    };
    judge(result, facts(dispatcher, claimed, doubt, sent_at), &policy(dispatcher, source))
}

/// Finds out what became of an earlier try that may have been received. A run is adopted, nothing is run twice.
async fn settle_doubt(
    dispatcher: &Dispatcher,
    claimed: &Claimed,
    source: &SourceConfig,
    call: &Call,
    hurry: watch::Receiver<bool>,
) -> Result<Option<Run>, Verdict> {
    let Some(since) = claimed.doubt else { return Ok(None) };
    let now = dispatcher.clock.now();
    let facts = |doubt| facts(dispatcher, claimed, doubt, now);
    let policy = policy(dispatcher, source);
    match ask(dispatcher, claimed, source, call, since, hurry).await {
        Before::Ran(run) => Ok(Some(run)),
        Before::Never => Ok(None),
        Before::CannotTell(detail) => match source.on_unknown {
            OnUnknown::Retry => Ok(None),
            OnUnknown::Hold => Err(Verdict { next: Next::Unknown, result: "cannot_tell", status: None, detail }),
        },
        Before::NotAnswered(detail, retry_after) => {
            let mut verdict = judge(AttemptResult::NotSent(detail), facts(Some(since)), &policy);
            if let (Next::Retry { at, .. }, Some(asked)) = (&mut verdict.next, retry_after) {
                *at = (*at).max(now + asked);
            }
            verdict.result = "not_answered";
            Err(verdict)
        }
        Before::Interrupted => Err(interrupted(dispatcher, Some(since))),
    }
}

async fn ask(
    dispatcher: &Dispatcher,
    claimed: &Claimed,
    source: &SourceConfig,
    call: &Call,
    since: Timestamp,
    hurry: watch::Receiver<bool>,
) -> Before {
    let heard = HEARSAY.saturating_sub(dispatcher.clock.now().since(since));
    tokio::select! {
        () = tokio::time::sleep(heard) => {}
        () = told(hurry.clone()) => return Before::Interrupted,
    }
    let lookup = tokio::select! {
        lookup = dispatcher.upstream.task(&claimed.upstream_id) => lookup,
        () = told(hurry) => return Before::Interrupted,
    };
    let run = match lookup {
        Lookup::Found(run) => run,
        Lookup::NotFound => return Before::Never,
        Lookup::Failed { detail, retry_after } => return Before::NotAnswered(detail, retry_after),
    };
    if claimed.thread.is_none() && !source.retry_failed_runs {
        return Before::Ran(run);
    }
    let earlier = match dispatcher.inbox.earlier_turn(claimed).await {
        Ok(earlier) => earlier,
        Err(error) => return Before::NotAnswered(unread(&error), None),
    };
    let said = earlier.as_ref().map(|turn| request::text(&turn.params, &turn.body, &[], source));
    let ours = OurTurn { text: &call.text, not_before: since, earlier: earlier.as_ref().zip(said.as_deref()) };
    match shows(&run, ours) {
        Shows::Ours => Before::Ran(run),
        Shows::Earlier => Before::Never,
        Shows::CannotTell => Before::CannotTell(
            "the upstream's record of this conversation does not show whether this turn has run".to_owned(),
        ),
    }
}

fn unread(error: &InboxError) -> String {
    format!("the turn before cannot be read: {error}")
}

/// Watches a run until it ends or may be watched no longer. None: the program stops.
async fn follow(
    dispatcher: &Dispatcher,
    upstream_id: &str,
    mut run: Run,
    since: Timestamp,
    hurry: watch::Receiver<bool>,
) -> Option<Run> {
    let mut wait = FIRST_LOOK;
    while !run.status.is_final() && dispatcher.clock.now().since(since) < dispatcher.config.follow_timeout {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = told(hurry.clone()) => return None,
        }
        wait = (wait * 3 / 2).min(LONGEST_LOOK);
        let lookup = tokio::select! {
            lookup = dispatcher.upstream.task(upstream_id) => lookup,
            () = told(hurry.clone()) => return None,
        };
        match lookup {
            Lookup::Found(now) => run = now,
            Lookup::NotFound => break,
            Lookup::Failed { retry_after, .. } => wait = wait.max(retry_after.unwrap_or_default()),
        }
    }
    Some(run)
}

/// The program stops: given back, due at once, with what is known of its being sent.
fn interrupted(dispatcher: &Dispatcher, sent_at: Option<Timestamp>) -> Verdict {
    Verdict {
        next: Next::Retry { at: dispatcher.clock.now(), doubt: sent_at, counted: false },
        result: "interrupted",
        status: None,
        detail: "the gateway stopped while the run went on".to_owned(),
    }
}

/// Resolves when the time for finishing work is over.
async fn told(mut hurry: watch::Receiver<bool>) {
    // A sender that is gone never tells.
    if hurry.wait_for(|now| *now).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn facts(dispatcher: &Dispatcher, claimed: &Claimed, doubt: Option<Timestamp>, sent_at: Timestamp) -> Facts {
    Facts {
        strikes: claimed.strikes,
        received_at: claimed.received_at,
        now: dispatcher.clock.now(),
        doubt,
        sent_at,
        chance: fastrand::f64(),
    }
}

fn policy(dispatcher: &Dispatcher, source: &SourceConfig) -> Policy {
    Policy { retry_failed_runs: source.retry_failed_runs, ..dispatcher.policy }
}

/// A text cut at a character's edge.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}
