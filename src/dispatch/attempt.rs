//! One attempt of a delivery, as a list of steps: settle what is in doubt, call, follow to the end.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::breaker::Sign;
use super::run_identity::{OurMessage, RunOwner, owner_of};
use super::verdict::{Facts, KEY_REFUSED, RestRequest, Verdict, judge};
use super::{Dispatcher, Policy, file};
use crate::config::{OnUnknown, Respond, RunMode, Secret, SourceConfig};
use crate::inbox::seal::SealError;
use crate::inbox::{BudgetError, Claimed, CountedRun, InboxError, Next, Turn};
use crate::model::{Account, AttemptResult, Name, Run, Timestamp};
use crate::upstream::{Call, Draw, Expected, Lookup, Upstream, text_of_turn};

/// How long a call takes at most to be written, where nothing is wrong with the network.
const WRITTEN: Duration = Duration::from_millis(50);

/// How soon after a doubtful send a "never heard of it" of the upstream is believed: what we wrote may still be on
/// its way through proxies.
const HEARSAY: Duration = Duration::from_secs(2);

/// Waits between two looks at a run that goes on.
const FIRST_LOOK: Duration = Duration::from_secs(2);
const LONGEST_LOOK: Duration = Duration::from_secs(15);

/// How often an upstream may have never heard of a run that it has taken, before it is believed.
const MOST_UNHEARD: u32 = 3;

/// What an upstream knows of a delivery that may have been sent before.
enum Doubt {
    /// It ran, or runs.
    Ran(Run),
    /// It did not.
    Never,
    /// Nobody can tell; a sentence.
    CannotTell(String),
    /// The upstream did not say.
    NotAnswered {
        /// A sentence.
        detail: String,
        /// How it stands with the upstream.
        sign: Sign,
        /// For how long it asked to be left alone.
        asked: Option<RestRequest>,
        /// It refused the key, with this status.
        refused: Option<u16>,
    },
    /// The program stops.
    Interrupted,
}

/// Tries a delivery once. `expected` is the request that was promised to the upstream's budget.
pub(super) async fn attempt(
    dispatcher: &Dispatcher,
    claimed: &Claimed,
    expected: Expected,
    tries_key: bool,
    hurry: watch::Receiver<bool>,
) -> Verdict {
    // A caller's own call needs no source: what is to be sent is all in it.
    let source = dispatcher.sources.get(&claimed.source);
    let fetched = tokio::select! {
        fetched = file::fetch(dispatcher, claimed) => fetched,
        () = told(hurry.clone()) => return interrupted(dispatcher, claimed.doubt),
    };
    let (fetched, missing) = match fetched {
        Ok(fetched) => fetched,
        Err(why) => return without_files(dispatcher, claimed, claimed.doubt, source, why),
    };
    let claimed = fetched.as_ref();
    let call = match (&claimed.sealed, source) {
        (Some(sealed), _) => {
            match Call::from_sealed(sealed, &dispatcher.sealer, claimed.id.event) {
                Ok(call) => with_own_key(dispatcher, claimed, call),
                Err(error) => return closed(dispatcher, &error),
            }
        }
        (None, Some(source)) => {
            Call::with_missing_files(claimed, source, dispatcher.sealer.marks(), &missing)
        }
        (None, None) => return source_gone(&claimed.source),
    };
    let foreign = claimed.account.is_foreign();
    if !tries_key
        && !foreign
        && dispatcher
            .throttle
            .refuses_key(&claimed.route(), &dispatcher.rules)
    {
        return key_held(claimed.doubt);
    }
    let own_key = call.key.is_some();
    let (doubt, run) = match settle_doubt(dispatcher, claimed, source, &call, hurry.clone()).await {
        Ok(Some(run)) => (claimed.doubt, Some(run)),
        Ok(None) => (None, None),
        Err(verdict) => return of_account(verdict, own_key),
    };
    if !dispatcher.inbox.replica_status().good {
        return broken_off(dispatcher, claimed.doubt);
    }
    let call = match run {
        Some(_) => call,
        None => match file::attach(dispatcher, claimed, call).await {
            Ok(call) => call,
            Err(why) => return without_files(dispatcher, claimed, doubt, source, why),
        },
    };
    // From here on a hold waits for it.
    let setting_out = match run {
        Some(_) => None,
        None => match dispatcher.throttle.set_out(&claimed.route()) {
            Some(setting_out) => Some(setting_out),
            None => return held(doubt),
        },
    };
    let sent_at = dispatcher.clock.now();
    let counted = match run {
        Some(_) => None,
        None => match spend(dispatcher, claimed, sent_at).await {
            Ok(counted) => Some(counted),
            Err(why) => return uncounted(dispatcher, claimed, doubt, source, why),
        },
    };
    drop(expected);
    let caller = upstream(dispatcher, claimed);
    let begun = Instant::now();
    let result = match run {
        Some(run) => AttemptResult::Ran(run),
        None => tokio::select! {
            result = sent(caller.invoke(&call), setting_out) => result,
            () = told(hurry.clone()) => return interrupted(dispatcher, Some(sent_at)),
        },
    };
    if let Some(counted) = counted.filter(|_| result.did_not_run()) {
        counted.give_back(&*dispatcher.inbox).await;
    }
    // A run that takes longer than a call may is no sign that nobody is there: the question for it tells.
    let is_long = call.run != RunMode::Async
        && begun.elapsed()
            >= call
                .timeout
                .unwrap_or_else(|| dispatcher.upstream.run_timeout())
        && matches!(result, AttemptResult::Ambiguous(_));
    let result = match result {
        AttemptResult::Ran(run) if !run.status.is_final() => {
            let since = doubt.unwrap_or(sent_at);
            match follow(dispatcher, claimed, source, &call, run, since, hurry).await {
                Some(run) => AttemptResult::Ran(run),
                None => return interrupted(dispatcher, Some(since)),
            }
        }
        result => result,
    };
    let result = match result {
        // Where nobody will be shown it, the inbox need not hold it.
        AttemptResult::Ran(run) if !is_shown(claimed, source) => {
            AttemptResult::Ran(Run { task: None, ..run })
        }
        result => result,
    };
    if let AttemptResult::Refused {
        status: status @ (401 | 403),
        detail,
        ..
    } = &result
        && !foreign
    {
        return key_refused(*status, detail, doubt);
    }
    let verdict = judge(
        result,
        facts(dispatcher, claimed, doubt, sent_at),
        &policy(dispatcher, source),
    );
    let sign = if is_long { Sign::Nothing } else { verdict.sign };
    of_account(Verdict { sign, ..verdict }, own_key)
}

/// The upstream, with this delivery's place among those that share its budget.
fn upstream(dispatcher: &Dispatcher, claimed: &Claimed) -> Upstream {
    dispatcher.upstream.of(Draw {
        account: claimed.account.clone(),
        class: claimed.class,
        claimed: true,
    })
}

/// The end of a call. A hold need not wait for it longer than it takes to be written.
async fn sent<T>(call: impl Future<Output = T>, setting_out: Option<watch::Receiver<()>>) -> T {
    let mut call = std::pin::pin!(call);
    if let Ok(ended) = tokio::time::timeout(WRITTEN, call.as_mut()).await {
        return ended;
    }
    drop(setting_out);
    call.await
}

/// An operator holds it since it was claimed.
fn held(doubt: Option<Timestamp>) -> Verdict {
    Verdict {
        next: Next::Released { doubt },
        result: "paused",
        status: None,
        detail: "an operator paused it before it was sent".to_owned(),
        sign: Sign::Nothing,
        asked: None,
    }
}

/// The upstream refused a key of the gateway's own: nothing ran, and nothing is wrong with the delivery.
fn key_refused(status: u16, detail: &str, doubt: Option<Timestamp>) -> Verdict {
    Verdict {
        next: Next::Released { doubt },
        result: KEY_REFUSED,
        status: Some(status),
        detail: detail.to_owned(),
        sign: Sign::Alive,
        asked: None,
    }
}

/// Its key is refused since it was claimed.
fn key_held(doubt: Option<Timestamp>) -> Verdict {
    Verdict {
        next: Next::Released { doubt },
        result: "key_held",
        status: None,
        detail: "the upstream refuses the gateway's own key; it was not sent".to_owned(),
        sign: Sign::Nothing,
        asked: None,
    }
}

/// A call that was made with one of the gateway's keys goes with the upstream key that is configured for it now: the one
/// it was sealed with may have been replaced since. A caller's own key stays.
fn with_own_key(dispatcher: &Dispatcher, claimed: &Claimed, call: Call) -> Call {
    match &claimed.account {
        Account::Key(name) => match dispatcher.keys.get(name) {
            Some(key) => Call {
                key: key.clone(),
                ..call
            },
            None => call,
        },
        Account::Operator | Account::Foreign => call,
    }
}

/// What is asked of a caller's own account is not asked of ours.
fn of_account(verdict: Verdict, own_key: bool) -> Verdict {
    Verdict {
        asked: verdict.asked.map(|asked| RestRequest {
            whole: asked.whole && !own_key,
            ..asked
        }),
        ..verdict
    }
}

/// Counts the run that is about to begin.
async fn spend(
    dispatcher: &Dispatcher,
    claimed: &Claimed,
    now: Timestamp,
) -> Result<CountedRun, BudgetError> {
    dispatcher
        .budgets
        .spend(&*dispatcher.inbox, &claimed.route(), &claimed.params, now)
        .await
}

/// A budget is spent: what waits for it goes on tomorrow, or when a new configuration allows more. A user's budget
/// keeps only its own conversations waiting.
fn uncounted(
    dispatcher: &Dispatcher,
    claimed: &Claimed,
    doubt: Option<Timestamp>,
    source: Option<&SourceConfig>,
    why: BudgetError,
) -> Verdict {
    let now = dispatcher.clock.now();
    let budget = match why {
        BudgetError::Spent(budget) => budget,
        BudgetError::Inbox(error) => {
            let result = AttemptResult::NotSent(format!("the run cannot be counted: {error}"));
            let facts = facts(dispatcher, claimed, doubt, now);
            return Verdict {
                sign: Sign::Nothing,
                ..judge(result, facts, &policy(dispatcher, source))
            };
        }
    };
    let detail = format!("the budget {budget} of runs per day is spent");
    let next = if budget.starts_with("user/") {
        Next::Retry {
            at: now.tomorrow(),
            doubt,
            counted: false,
        }
    } else {
        let until = Instant::now() + now.tomorrow().since(now);
        if dispatcher.throttle.spent(budget, until.into_std()) {
            tracing::warn!(detail, until = %now.tomorrow(), "what waits for it is held; limits.runs_per_day says how many");
        }
        Next::Released { doubt }
    };
    Verdict {
        next,
        result: "budget_spent",
        status: None,
        detail,
        sign: Sign::Nothing,
        asked: None,
    }
}

/// The files are not to be had: an attempt like any other, and no fault of the upstream's.
fn without_files(
    dispatcher: &Dispatcher,
    claimed: &Claimed,
    doubt: Option<Timestamp>,
    source: Option<&SourceConfig>,
    why: String,
) -> Verdict {
    let facts = facts(dispatcher, claimed, doubt, dispatcher.clock.now());
    Verdict {
        sign: Sign::Nothing,
        ..judge(
            AttemptResult::NotSent(why),
            facts,
            &policy(dispatcher, source),
        )
    }
}

/// Whether a caller may ask for the run's end.
fn is_shown(claimed: &Claimed, source: Option<&SourceConfig>) -> bool {
    claimed.sealed.is_some() || source.is_none_or(|source| source.respond != Respond::Ack)
}

fn source_gone(name: &str) -> Verdict {
    Verdict {
        next: Next::Dead(None),
        result: "source_gone",
        status: None,
        detail: format!("no source is called {name} any more; configure it and replay the event"),
        sign: Sign::Nothing,
        asked: None,
    }
}

/// A sealed call that does not open.
fn closed(dispatcher: &Dispatcher, error: &SealError) -> Verdict {
    Verdict {
        next: Next::Dead(None),
        result: "cannot_open",
        status: None,
        detail: format!(
            "the caller's call cannot be opened with the key {}: {error}; the caller has to send it again",
            dispatcher.sealer.name()
        ),
        sign: Sign::Nothing,
        asked: None,
    }
}

/// Finds out what became of an earlier try that may have been received. A run is adopted, nothing is run twice.
async fn settle_doubt(
    dispatcher: &Dispatcher,
    claimed: &Claimed,
    source: Option<&SourceConfig>,
    call: &Call,
    hurry: watch::Receiver<bool>,
) -> Result<Option<Run>, Verdict> {
    let Some(since) = claimed.doubt else {
        return Ok(None);
    };
    let now = dispatcher.clock.now();
    let facts = |doubt| facts(dispatcher, claimed, doubt, now);
    let policy = policy(dispatcher, source);
    match ask(dispatcher, claimed, source, call, since, hurry).await {
        Doubt::Ran(run) => Ok(Some(run)),
        Doubt::Never => Ok(None),
        Doubt::CannotTell(detail) => {
            match source.map_or(OnUnknown::Hold, |source| source.on_unknown) {
                OnUnknown::Retry => Ok(None),
                OnUnknown::Hold => Err(Verdict {
                    next: Next::Unknown,
                    result: "cannot_tell",
                    status: None,
                    detail,
                    sign: Sign::Alive,
                    asked: None,
                }),
            }
        }
        Doubt::NotAnswered {
            detail,
            refused: Some(status),
            ..
        } if !claimed.account.is_foreign() => Err(key_refused(status, &detail, Some(since))),
        Doubt::NotAnswered {
            detail,
            sign,
            asked,
            ..
        } => {
            let mut verdict = judge(AttemptResult::NotSent(detail), facts(Some(since)), &policy);
            if let (Next::Retry { at, .. }, Some(asked)) = (&mut verdict.next, asked) {
                *at = (*at).max(now + asked.wait);
            }
            Err(Verdict {
                result: "not_answered",
                sign,
                asked,
                ..verdict
            })
        }
        Doubt::Interrupted => Err(interrupted(dispatcher, Some(since))),
    }
}

async fn ask(
    dispatcher: &Dispatcher,
    claimed: &Claimed,
    source: Option<&SourceConfig>,
    call: &Call,
    since: Timestamp,
    hurry: watch::Receiver<bool>,
) -> Doubt {
    let heard = HEARSAY.saturating_sub(dispatcher.clock.now().since(since));
    tokio::select! {
        () = tokio::time::sleep(heard) => {}
        () = told(hurry.clone()) => return Doubt::Interrupted,
    }
    if !dispatcher.inbox.replica_status().good {
        return Doubt::Interrupted;
    }
    let caller = upstream(dispatcher, claimed);
    let lookup = tokio::select! {
        lookup = caller.task(&claimed.upstream_id, call.key.as_ref()) => lookup,
        () = told(hurry) => return Doubt::Interrupted,
    };
    let run = match lookup {
        Lookup::Found(run) => run,
        Lookup::NotFound => return Doubt::Never,
        Lookup::Failed {
            status,
            detail,
            retry_after,
        } => {
            let sign = if retry_after.is_some() {
                Sign::Nothing
            } else {
                Sign::Failing
            };
            // 403 may be said of the record alone.
            let refused = status.filter(|status| *status == 401);
            return Doubt::NotAnswered {
                detail,
                sign,
                asked: RestRequest::by(status, retry_after),
                refused,
            };
        }
    };
    if claimed.thread.is_none() && !source.is_some_and(|source| source.retry_failed_runs) {
        return Doubt::Ran(run);
    }
    let earlier = match EarlierMessage::find(dispatcher, claimed, source).await {
        Ok(earlier) => earlier,
        Err(error) => {
            return Doubt::NotAnswered {
                detail: unread(&error),
                sign: Sign::Nothing,
                asked: None,
                refused: None,
            };
        }
    };
    match owner_of(&run, earlier.beside(call, since)) {
        RunOwner::Ours => Doubt::Ran(run),
        RunOwner::Earlier => Doubt::Never,
        RunOwner::CannotTell => Doubt::CannotTell(
            "the upstream's record of this conversation does not show whether this turn has run"
                .to_owned(),
        ),
    }
}

/// The turn of the conversation before this one, and what it said.
struct EarlierMessage {
    turn: Option<Turn>,
    said: String,
}

impl EarlierMessage {
    async fn find(
        dispatcher: &Dispatcher,
        claimed: &Claimed,
        source: Option<&SourceConfig>,
    ) -> Result<Self, InboxError> {
        let turn = dispatcher.inbox.earlier_turn(claimed).await?;
        let said = turn.as_ref().map(|turn| match source {
            Some(source) => text_of_turn(turn, source, dispatcher.sealer.marks()),
            // A caller's own call is erased by now; of what it said its prompt is known.
            None => turn.params.get(Name::Prompt).unwrap_or_default().to_owned(),
        });
        Ok(Self {
            turn,
            said: said.unwrap_or_default(),
        })
    }

    fn beside<'a>(&'a self, call: &'a Call, not_before: Timestamp) -> OurMessage<'a> {
        let earlier = self.turn.as_ref().map(|turn| (turn, self.said.as_str()));
        OurMessage {
            text: call.text(),
            not_before,
            earlier,
        }
    }
}

fn unread(error: &InboxError) -> String {
    format!("the turn before cannot be read: {error}")
}

/// Watches a run until it ends or may be watched no longer. None: the program stops.
async fn follow(
    dispatcher: &Dispatcher,
    claimed: &Claimed,
    source: Option<&SourceConfig>,
    call: &Call,
    mut run: Run,
    since: Timestamp,
    hurry: watch::Receiver<bool>,
) -> Option<Run> {
    let key: Option<&Secret> = call.key.as_ref();
    let mut wait = FIRST_LOOK;
    let mut unheard = 0_u32;
    // One that was only started may not show yet in a conversation's record.
    let earlier = match (call.run, &claimed.thread) {
        (RunMode::Async, Some(_)) => EarlierMessage::find(dispatcher, claimed, source).await.ok(),
        _ => None,
    };
    while !run.status.is_final()
        && dispatcher.clock.now().since(since) < dispatcher.config.follow_timeout
    {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = told(hurry.clone()) => return None,
        }
        wait = (wait * 3 / 2).min(LONGEST_LOOK);
        if !dispatcher.inbox.replica_status().good {
            return None;
        }
        let caller = upstream(dispatcher, claimed);
        let lookup = tokio::select! {
            lookup = caller.task(&claimed.upstream_id, key) => lookup,
            () = told(hurry.clone()) => return None,
        };
        match lookup {
            Lookup::Found(now) => {
                let ours = earlier
                    .as_ref()
                    .map(|earlier| owner_of(&now, earlier.beside(call, since)));
                if ours != Some(RunOwner::Earlier) {
                    run = now;
                }
            }
            Lookup::NotFound => {
                unheard += 1;
                if unheard >= MOST_UNHEARD {
                    break;
                }
            }
            Lookup::Failed {
                status,
                retry_after,
                ..
            } => {
                wait = wait.max(retry_after.unwrap_or_default());
                if let Some(asked) = RestRequest::by(status, retry_after) {
                    dispatcher.rest(
                        &claimed.route(),
                        RestRequest {
                            whole: asked.whole && key.is_none(),
                            ..asked
                        },
                    );
                }
            }
        }
    }
    Some(run)
}

/// The program stops: given back, due at once, with what is known of its being sent.
fn interrupted(dispatcher: &Dispatcher, sent_at: Option<Timestamp>) -> Verdict {
    Verdict {
        next: Next::Retry {
            at: dispatcher.clock.now(),
            doubt: sent_at,
            counted: false,
        },
        result: "interrupted",
        status: None,
        detail: "the gateway stopped while the run went on".to_owned(),
        sign: Sign::Nothing,
        asked: None,
    }
}

/// The lease may have passed to another process: whatever was sent is not waited for here. Settled all the same, since
/// a lease that is still ours would be nobody else's to take; one that has passed on is not changed by it.
pub(super) fn broken_off(dispatcher: &Dispatcher, doubt: Option<Timestamp>) -> Verdict {
    Verdict {
        next: Next::Retry {
            at: dispatcher.clock.now(),
            doubt,
            counted: false,
        },
        result: "broken_off",
        status: None,
        detail: "this process could not keep its leases; another may have taken the delivery over"
            .to_owned(),
        sign: Sign::Nothing,
        asked: None,
    }
}

/// Resolves when the time for finishing work is over.
async fn told(mut hurry: watch::Receiver<bool>) {
    // A sender that is gone never tells.
    if hurry.wait_for(|now| *now).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn facts(
    dispatcher: &Dispatcher,
    claimed: &Claimed,
    doubt: Option<Timestamp>,
    sent_at: Timestamp,
) -> Facts {
    Facts {
        strikes: claimed.strikes,
        received_at: claimed.received_at,
        now: dispatcher.clock.now(),
        doubt,
        sent_at,
        chance: fastrand::f64(),
    }
}

fn policy(dispatcher: &Dispatcher, source: Option<&SourceConfig>) -> Policy {
    Policy {
        retry_failed_runs: source.is_some_and(|source| source.retry_failed_runs),
        ..dispatcher.policy
    }
}

/// A text cut at a character's edge.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    format!("{}…", &text[..end])
}
