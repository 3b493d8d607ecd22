//! What never arrived: the provider's own log is read through its API, what the inbox does not know is fetched from
//! there and goes the way of a received request.
//!
//! What is promised: an event counts as arrived when one of its source and dedup key is in the inbox, and nothing else
//! is believed. What is pulled in is filtered, mapped, put in its thread and kept by the same functions as a request,
//! oldest first, so that a race with the provider's own sender makes a duplicate and never a second run. The token
//! goes to the API's own host and nowhere else. Everything is bounded; what was pulled in before a stop stays, and the
//! report says until where it got.
//!
//! What is not: the order of a thread's events that are pulled in after later ones arrived.

mod api;
mod deadline;
mod github;
mod log;
mod report;
mod setup;
mod stripe;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use self::api::Api;
use self::deadline::Deadline;
use self::log::{EventLog, FetchError, Listed, LogQuery, Sent};
pub use self::report::{Became, Report, ReportLine, Stop};
use self::setup::LogTarget;
pub use self::setup::{LogSetup, check};
use crate::config::{Config, Problems};
use crate::inbox::Keep;
use crate::intake::{Intake, Receipt, event};
use crate::model::{Class, Clock, EventId, NewEvent, Outcome, Refusal, Timestamp};
use crate::net::Client;
use crate::source::Source;

/// How long one reconcile may take, and how many deliveries it looks at.
const TIME: Duration = Duration::from_secs(5 * 60);
const MOST: usize = 10_000;

/// How far the provider's clock and ours may be apart.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// How often a full inbox is asked again for one event.
const TRIES: usize = 5;

/// The sources whose log can be read, and what it takes to read them.
#[derive(Debug)]
pub struct Reconciler {
    logs: BTreeMap<String, Box<dyn EventLog>>,
    intake: Arc<Intake>,
    stopping: watch::Receiver<bool>,
    running: ActiveReconciles,
    public_url: String,
    /// The largest body where the source does not say.
    max_body: u64,
    /// How long the inbox knows what has ended.
    keep: Keep,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct ReconcileRequest {
    /// From when on.
    pub since: Timestamp,
    /// Until before when.
    pub until: Timestamp,
    /// Whether it is only looked, and nothing pulled in.
    pub dry_run: bool,
}

/// Why a log is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileRefusal {
    /// No source is called so.
    #[error("there is no such source")]
    NoSuchSource,
    /// The source has no `reconcile` table.
    #[error("the source does not say where its provider's log is")]
    NoLog,
    /// It is being done already.
    #[error("the log of this source is being read already")]
    Running,
    /// The inbox may have forgotten what arrived then; how far back can be asked for.
    #[error("the inbox may have forgotten what arrived so long ago")]
    Forgotten(Duration),
}

/// The sources whose log is being read, whatever configuration is in force.
#[derive(Clone, Debug, Default)]
pub struct ActiveReconciles(Arc<Mutex<BTreeSet<String>>>);

/// Held while a source's log is read.
struct ReconcileGuard {
    running: ActiveReconciles,
    name: String,
}

impl Reconciler {
    /// Those of a configuration that passed [`check`].
    pub fn new(
        config: &Config,
        intake: Arc<Intake>,
        client: &Client,
        stopping: watch::Receiver<bool>,
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

    /// Reads a source's log, and pulls in what never arrived.
    pub async fn reconcile(
        &self,
        name: &str,
        asked: ReconcileRequest,
    ) -> Result<Report, ReconcileRefusal> {
        let (source, log) = self.find(name)?;
        self.remembers(&source.config.name, log, asked.since)?;
        let _alone = self.running.enter(name)?;
        let patience = Deadline::new(TIME, self.stopping.clone());
        let (clock, public_url) = (&self.intake.clock, self.public_url.as_str());
        let reading = LogQuery {
            source,
            asked,
            patience: &patience,
            clock,
            public_url,
            most: MOST,
        };
        let mut report = Report::new(name, asked);
        report.stopped = self.walk(log, &reading, &mut report).await.err();
        report.log();
        Ok(report)
    }

    /// The whole way, oldest first.
    async fn walk(
        &self,
        log: &dyn EventLog,
        reading: &LogQuery<'_>,
        report: &mut Report,
    ) -> Result<(), Stop> {
        let list = log.list(reading).await?;
        report.listed = list.events.len();
        for listed in &list.events {
            let line = self.one(log, reading, listed).await?;
            if !reading.asked.dry_run {
                self.intake
                    .metrics
                    .reconciled(&report.source, line.became.as_str());
            }
            report.note(line);
        }
        report.reached = Some(list.cut.unwrap_or(reading.asked.until));
        list.cut
            .map_or(Ok(()), |cut| Err(Stop::too_many(reading.most, cut)))
    }

    /// The way of one event: known already, or fetched, proved, mapped and kept.
    async fn one(
        &self,
        log: &dyn EventLog,
        reading: &LogQuery<'_>,
        listed: &Listed,
    ) -> Result<ReportLine, Stop> {
        let line = ReportLine::of(listed);
        if let Some(event) = self.known(reading, listed.dedup.as_deref()).await? {
            return Ok(line.became(Became::AlreadyHere, Some(event)));
        }
        let sent = match log.fetch(reading, listed).await {
            Ok(sent) => sent,
            Err(FetchError::One(why)) => return Ok(line.failed(why)),
            Err(FetchError::Stop(stop)) => return Err(stop),
        };
        let event = match self.event(reading, sent) {
            Ok(event) => event,
            Err(refusal) => return Ok(line.refused(&refusal)),
        };
        let line = line.named(&event);
        if reading.asked.dry_run {
            self.look(reading, line, &event).await
        } else {
            self.keep(reading, line, event).await
        }
    }

    /// The event that was sent, as a request with it would have become one.
    fn event(&self, reading: &LogQuery<'_>, sent: Sent) -> Result<NewEvent, Refusal> {
        let most = reading.source.max_body.unwrap_or(self.max_body);
        if sent.body.len() as u64 > most {
            return Err(Refusal::TooLarge(most));
        }
        let request = reading.request(sent.headers, sent.body);
        let verified = sent.proof.into_trust().vouch_for(request)?;
        let mapped = reading.source.apply_or_keep(&verified, false)?;
        if mapped.dedup.is_none() {
            let why = "it has no dedup key, so nobody could tell whether it came already";
            return Err(Refusal::Unmappable(why.into()));
        }
        let mut missed = event(reading.source, &verified, mapped);
        // Nobody waits for what is hours old, and nobody would send it again.
        missed
            .deliveries
            .iter_mut()
            .for_each(|delivery| delivery.class = Class::Bulk);
        Ok(NewEvent {
            backlog: None,
            ..missed
        })
    }

    /// What would become of an event.
    async fn look(
        &self,
        reading: &LogQuery<'_>,
        line: ReportLine,
        event: &NewEvent,
    ) -> Result<ReportLine, Stop> {
        Ok(match self.known(reading, event.dedup.as_deref()).await? {
            Some(first) => line.became(Became::AlreadyHere, Some(first)),
            None if event.filtered.is_some() => line.became(Became::Filtered, None),
            None => line.became(Became::Missing, None),
        })
    }

    /// Keeps an event. A commit that has begun is waited for, whoever wants to stop.
    async fn keep(
        &self,
        reading: &LogQuery<'_>,
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
                    tracing::info!(source = reading.source.config.name, event = %id, thread, "pulled in");
                    return Ok(line.became(Became::PulledIn, Some(id)));
                }
                Err(Refusal::Overloaded(wait)) => reading.patience.pause(wait).await?,
                Err(refusal @ (Refusal::Inbox(_) | Refusal::NoSpace)) => {
                    return Err(Stop::inbox(&refusal.cause()));
                }
                Err(refusal) => return Ok(line.refused(&refusal)),
            }
        }
        Err(Stop::inbox("the writer's queue stays full"))
    }

    /// The event that has a dedup key.
    async fn known(
        &self,
        reading: &LogQuery<'_>,
        dedup: Option<&str>,
    ) -> Result<Option<EventId>, Stop> {
        let Some(dedup) = dedup else { return Ok(None) };
        let known = self
            .intake
            .inbox
            .known(&reading.source.config.name, dedup)
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

    /// Whether the inbox still knows everything that arrived since a time. What it has forgotten would run twice.
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

/// The log that a setup describes.
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
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.running
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.name);
    }
}
