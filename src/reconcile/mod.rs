//! Events that never arrived: a reconcile reads the provider's own log through its API, fetches each event that the inbox
//! does not have, and takes it in as if it had been received.
//!
//! Promises: an event counts as arrived if the inbox has one with the same source and dedup key, and on no other
//! evidence. A fetched event is filtered, mapped, put into its thread and kept by the same functions as a request, oldest
//! first, so that a race with the provider's own sender makes a duplicate and never a second run. The token goes to the
//! API's own host only. Everything is bounded. Events that were pulled in before a stop stay, and the report says up to
//! which time the log is done.
//!
//! Not promised: the order within a thread, where later events of that thread have already arrived.

mod api;
mod deadline;
mod github;
mod log;
mod report;
mod setup;
mod stop;
mod stripe;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use self::api::Api;
use self::deadline::Deadline;
use self::log::{EventLog, FetchError, Listed, LogQuery, Sent};
pub use self::report::{Became, Report, ReportLine};
use self::setup::LogTarget;
pub use self::setup::{LogSetup, check};
pub use self::stop::Stop;
use crate::config::{Config, Problems};
use crate::inbox::Keep;
use crate::intake::{Intake, Receipt, event};
use crate::model::{Class, Clock, EventId, NewEvent, Outcome, Refusal, Timestamp};
use crate::net::Client;
use crate::source::Source;
use tokio_util::sync::CancellationToken;

/// Time limit of one reconcile, and the most deliveries it looks at.
const TIME: Duration = Duration::from_secs(5 * 60);
const MOST: usize = 10_000;

/// Difference that the provider's clock and ours may have.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// Most tries to keep one event while the inbox is full.
const TRIES: usize = 5;

/// Reader of the providers' logs, for all sources that have a log.
#[derive(Debug)]
pub struct Reconciler {
    logs: BTreeMap<String, Box<dyn EventLog>>,
    intake: Arc<Intake>,
    stopping: CancellationToken,
    running: ActiveReconciles,
    public_url: String,
    /// Largest body of a source that has no bound of its own.
    max_body: u64,
    /// Times for which the inbox keeps events that have ended.
    keep: Keep,
}

/// Order for one reconcile.
#[derive(Clone, Copy, Debug)]
pub struct ReconcileRequest {
    /// Begin of the time to look at.
    pub since: Timestamp,
    /// End of the time to look at; events at this very time are left out.
    pub until: Timestamp,
    /// True if the reconcile only reports, and pulls no event in.
    pub dry_run: bool,
}

/// Reason why a reconcile does not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileRefusal {
    /// No source has this name.
    #[error("there is no such source")]
    NoSuchSource,
    /// The source has no `reconcile` table.
    #[error("the source does not say where its provider's log is")]
    NoLog,
    /// A reconcile of this source is running.
    #[error("the log of this source is being read already")]
    Running,
    /// The inbox may have removed events that arrived then. The duration says how far back a reconcile can go.
    #[error("the inbox may have forgotten what arrived so long ago")]
    Forgotten(Duration),
}

/// Names of the sources whose log is being read. A reload of the configuration does not change them.
#[derive(Clone, Debug, Default)]
pub struct ActiveReconciles(Arc<Mutex<BTreeSet<String>>>);

/// Entry of one source in [`ActiveReconciles`], removed on drop.
struct ReconcileGuard {
    running: ActiveReconciles,
    name: String,
}

impl Reconciler {
    /// Reader for a configuration that passed [`check`].
    pub fn new(
        config: &Config,
        intake: Arc<Intake>,
        client: &Client,
        stopping: CancellationToken,
        running: ActiveReconciles,
    ) -> Self {
        let setups = check(config, &intake.sources, &Problems::default());
        Self {
            logs: setups
                .into_iter()
                .map(|setup| (setup.source.clone(), log(setup, client, &intake.clock)))
                .collect(),
            intake,
            stopping,
            running,
            public_url: config.server.public_url.clone(),
            max_body: config.server.max_body,
            keep: Keep::new(config),
        }
    }

    /// Reads a source's log and pulls in the events that never arrived.
    pub async fn reconcile(
        &self,
        name: &str,
        asked: ReconcileRequest,
    ) -> Result<Report, ReconcileRefusal> {
        let (source, log) = self.find(name)?;
        self.remembers(&source.config.name, log, asked.since)?;
        let _guard = self.running.enter(name)?;
        let deadline = Deadline::new(TIME, self.stopping.clone());
        let (clock, public_url) = (&self.intake.clock, self.public_url.as_str());
        let query = LogQuery {
            source,
            asked,
            deadline: &deadline,
            clock,
            public_url,
            most: MOST,
        };
        let mut report = Report::new(name, asked);
        report.stopped = self.walk(log, &query, &mut report).await.err();
        report.log();
        Ok(report)
    }

    /// Reads the list and takes its events one after the other, oldest first.
    async fn walk(
        &self,
        log: &dyn EventLog,
        query: &LogQuery<'_>,
        report: &mut Report,
    ) -> Result<(), Stop> {
        let list = log.list(query).await?;
        report.listed = list.events.len();
        for listed in &list.events {
            let line = self.one(log, query, listed).await?;
            if !query.asked.dry_run {
                self.intake
                    .metrics
                    .reconciled(&report.source, line.became.as_str());
            }
            report.note(line);
        }
        report.reached = Some(list.cut.unwrap_or(query.asked.until));
        list.cut
            .map_or(Ok(()), |cut| Err(Stop::too_many(query.most, cut)))
    }

    /// Handles one event: it is known already, or it is fetched, proved, mapped and kept.
    async fn one(
        &self,
        log: &dyn EventLog,
        query: &LogQuery<'_>,
        listed: &Listed,
    ) -> Result<ReportLine, Stop> {
        let line = ReportLine::of(listed);
        if let Some(event) = self.known(query, listed.dedup.as_deref()).await? {
            return Ok(line.became(Became::AlreadyHere, Some(event)));
        }
        let sent = match log.fetch(query, listed).await {
            Ok(sent) => sent,
            Err(FetchError::One(why)) => return Ok(line.failed(why)),
            Err(FetchError::Stop(stop)) => return Err(stop),
        };
        let event = match self.event(query, sent) {
            Ok(event) => event,
            Err(refusal) => return Ok(line.refused(&refusal)),
        };
        let line = line.named(&event);
        if query.asked.dry_run {
            self.look(query, line, &event).await
        } else {
            self.keep(query, line, event).await
        }
    }

    /// Makes the event that a request with this body would have become.
    fn event(&self, query: &LogQuery<'_>, sent: Sent) -> Result<NewEvent, Refusal> {
        let most = query.source.max_body.unwrap_or(self.max_body);
        if sent.body.len() as u64 > most {
            return Err(Refusal::TooLarge(most));
        }
        let request = query.request(sent.headers, sent.body);
        let verified = sent.proof.into_trust().vouch_for(request)?;
        let mapped = query.source.apply_or_keep(&verified, false)?;
        if mapped.dedup.is_none() {
            let why = "it has no dedup key, so nobody could tell whether it came already";
            return Err(Refusal::Unmappable(why.into()));
        }
        let mut missed = event(query.source, &verified, mapped);
        // No caller waits for an event that is hours old, and no sender would repeat it.
        missed
            .deliveries
            .iter_mut()
            .for_each(|delivery| delivery.class = Class::Bulk);
        Ok(NewEvent {
            backlog: None,
            ..missed
        })
    }

    /// Tells the outcome that an event would have, for a dry run.
    async fn look(
        &self,
        query: &LogQuery<'_>,
        line: ReportLine,
        event: &NewEvent,
    ) -> Result<ReportLine, Stop> {
        Ok(match self.known(query, event.dedup.as_deref()).await? {
            Some(first) => line.became(Became::AlreadyHere, Some(first)),
            None if event.filtered.is_some() => line.became(Became::Filtered, None),
            None => line.became(Became::Missing, None),
        })
    }

    /// Keeps an event. A commit that has begun is awaited even during a shutdown.
    async fn keep(
        &self,
        query: &LogQuery<'_>,
        line: ReportLine,
        event: NewEvent,
    ) -> Result<ReportLine, Stop> {
        for _ in 0..TRIES {
            match self.intake.accept_one(event.clone()).await {
                Ok(Receipt {
                    outcome: Outcome::Duplicate | Outcome::Replayed,
                    event: first,
                }) => return Ok(line.became(Became::AlreadyHere, Some(first))),
                Ok(Receipt {
                    outcome: Outcome::Filtered,
                    event: id,
                }) => return Ok(line.became(Became::Filtered, Some(id))),
                Ok(Receipt { event: id, .. }) => {
                    let thread = event.thread.as_deref();
                    tracing::info!(source = query.source.config.name, event = %id, thread, "pulled in");
                    return Ok(line.became(Became::PulledIn, Some(id)));
                }
                Err(Refusal::Overloaded(wait)) => query.deadline.pause(wait).await?,
                Err(refusal @ (Refusal::Inbox(_) | Refusal::NoSpace)) => {
                    return Err(Stop::inbox(&refusal.cause()));
                }
                Err(refusal) => return Ok(line.refused(&refusal)),
            }
        }
        Err(Stop::inbox("the writer's queue stays full"))
    }

    /// Looks up the event with a dedup key.
    async fn known(
        &self,
        query: &LogQuery<'_>,
        dedup: Option<&str>,
    ) -> Result<Option<EventId>, Stop> {
        let Some(dedup) = dedup else { return Ok(None) };
        let known = self
            .intake
            .inbox
            .known(&query.source.config.name, dedup)
            .await;
        known.map_err(|error| Stop::inbox(&error.to_string()))
    }

    fn find(&self, name: &str) -> Result<(&Source, &dyn EventLog), ReconcileRefusal> {
        let source = self
            .intake
            .sources
            .get(name)
            .ok_or(ReconcileRefusal::NoSuchSource)?;
        let log = self.logs.get(name).ok_or(ReconcileRefusal::NoLog)?;
        Ok((source, &**log))
    }

    /// Checks that the inbox still has every event that arrived since a time. A removed event would run twice.
    fn remembers(
        &self,
        source: &str,
        log: &dyn EventLog,
        since: Timestamp,
    ) -> Result<(), ReconcileRefusal> {
        let reach = self
            .keep
            .shortest(source)
            .saturating_sub(TIME + SKEW + log.again());
        if self.intake.clock.now().since(since) > reach {
            Err(ReconcileRefusal::Forgotten(reach))
        } else {
            Ok(())
        }
    }
}

/// Makes the log that a setup describes.
fn log(setup: LogSetup, client: &Client, clock: &Clock) -> Box<dyn EventLog> {
    let api = Api::new(client.clone(), &setup.api, setup.token, clock.clone());
    match setup.way {
        LogTarget::Deliveries { hook } => Box::new(github::Deliveries::new(api, hook)),
        LogTarget::Events { types, account } => {
            Box::new(stripe::AccountEvents::new(api, types, account))
        }
    }
}

impl ActiveReconciles {
    fn enter(&self, name: &str) -> Result<ReconcileGuard, ReconcileRefusal> {
        let mut names = self.0.lock();
        if names.insert(name.to_owned()) {
            Ok(ReconcileGuard {
                running: self.clone(),
                name: name.to_owned(),
            })
        } else {
            Err(ReconcileRefusal::Running)
        }
    }
}

impl Drop for ReconcileGuard {
    fn drop(&mut self) {
        self.running.0.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_has_one_reconcile_at_a_time_and_a_dropped_guard_frees_it() {
        let active = ActiveReconciles::default();
        let first = active.enter("a").ok();
        assert!(first.is_some());
        assert_eq!(active.enter("a").err(), Some(ReconcileRefusal::Running));
        assert!(active.enter("b").is_ok(), "another source is free");
        // A clone after a reload shares the entries.
        assert_eq!(
            active.clone().enter("a").err(),
            Some(ReconcileRefusal::Running)
        );
        drop(first);
        assert!(active.enter("a").is_ok());
    }
}
