//! Calls that are sent upstream at once, from memory.
//!
//! Promises: each is one request, never repeated here. A call whose key is not proved leaves nothing behind, whatever its
//! result; its run is counted when the upstream has taken it.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::Instant;

use super::caller::{Caller, KeyStanding};
use super::kept::DurableEnd;
use super::once::Once;
use super::{Dropin, NAME};
use crate::config::{RunMode, Secret};
use crate::ingress::request_log::{Answered, RequestLog};
use crate::ingress::staged::PlacedFiles;
use crate::ingress::{Ingress, event_stream};
use crate::limit::LimitReport;
use crate::model::{
    Class, Destination, DestinationKind, EventId, HostedCall, Name, Outcome, Refusal, Route,
};
use crate::net::SendError;
use crate::run::{PreparedRun, RunOrder, Taken};
use crate::upstream::hosted;

/// Bounds within which an error is read in place of a stream.
const MAX_ERROR: usize = 64 * 1024;
const ERROR_TIME: Duration = Duration::from_secs(10);

/// Time that the upstream may take to confirm the start of a run.
const START_TIME: Duration = Duration::from_secs(30);

/// A call that was read and is to be made.
pub(super) struct Calling<'c> {
    pub(super) ingress: &'c Ingress,
    pub(super) dropin: &'c Dropin,
    pub(super) call: &'c HostedCall,
    pub(super) caller: Caller,
    /// Its idempotency key, where its caller gave one.
    pub(super) once: Option<Once>,
    pub(super) peer: IpAddr,
}

impl Calling<'_> {
    /// Calls the upstream and waits for the whole of its answer.
    pub(super) async fn run(&self, files: PlacedFiles) -> Result<Bytes, Refusal> {
        self.made(RunMode::Call, None, files).await
    }

    /// Has the upstream start a run, for a caller whose key is not proved. A call that the upstream takes is the upstream's
    /// from then on; of one that it refuses nothing is kept.
    pub(super) async fn start(&self, files: PlacedFiles) -> Result<(), Refusal> {
        self.ingress.runs.may_begin()?;
        self.made(RunMode::Async, Some(START_TIME), files)
            .await
            .map(drop)
    }

    /// Makes the call of a message in a conversation: by way of the inbox where the key is proved, else at once, one message
    /// of the conversation at a time.
    pub(super) async fn in_turn(
        mut self,
        thread: &str,
        files: PlacedFiles,
        log: &RequestLog,
    ) -> Result<(Option<DurableEnd>, Bytes), Refusal> {
        let (known, waits) = (&self.dropin.known, self.dropin.config.waits_for_its_turn);
        let mut turn = None;
        if self.caller.standing == KeyStanding::Unproved {
            turn = Some(
                known
                    .turn(&self.call.agent_id, thread, waits)
                    .await
                    .ok_or(Refusal::Busy)?,
            );
            // The turn before this one may have settled it.
            if known.is_proved(self.caller.key.expose(), &self.call.agent_id) {
                self.caller.standing = KeyStanding::Foreign;
                turn = None;
            }
        }
        if turn.is_some() {
            return Ok((None, self.run(files).await?));
        }
        let end = self.durable(files, log, true).await?;
        let task = end.task.clone().unwrap_or_default();
        Ok((Some(end), task))
    }

    async fn made(
        &self,
        manner: RunMode,
        timeout: Option<Duration>,
        files: PlacedFiles,
    ) -> Result<Bytes, Refusal> {
        let at = Instant::now();
        let run = self.prepare(files).await?;
        let (path, body) = (hosted::path(self.call, manner), self.body(run.links()));
        let upstream = run.upstream().clone();
        let taken = run.sent();
        match upstream
            .call_raw(&path, body, &self.caller.key, timeout)
            .await
        {
            Ok(answer) if answer.status().is_success() => {
                self.taken().await;
                Ok(answer.into_body())
            }
            Ok(answer) => Err(self.refused(taken, &answer).await),
            Err(error) => Err(self.unanswered(taken, at, &error).await),
        }
    }

    /// Calls the upstream and passes its events on as they come.
    pub(super) async fn events(&self, files: PlacedFiles) -> Result<Answered, Refusal> {
        let at = Instant::now();
        let run = self.prepare(files).await?;
        let path = hosted::path(self.call, RunMode::Stream);
        let body = self.body(run.links());
        let upstream = run.upstream().clone();
        let taken = run.sent();
        let answer = match upstream.open_raw(&path, body, &self.caller.key).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.unanswered(taken, at, &error).await),
        };
        if !answer.status().is_success() {
            let (head, body) = answer.into_parts();
            let body =
                tokio::time::timeout(ERROR_TIME, Limited::new(body, MAX_ERROR).collect()).await;
            let body = body
                .ok()
                .and_then(Result::ok)
                .map(|body| body.to_bytes())
                .unwrap_or_default();
            return Err(self.refused(taken, &Response::from_parts(head, body)).await);
        }
        self.taken().await;
        if !event_stream::is_events(answer.headers()) {
            return Err(Refusal::UpstreamFailed(
                "the answer is no stream of events".into(),
            ));
        }
        Ok(Answered {
            outcome: Outcome::Proxied,
            event: None,
            answer: event_stream::relay(answer),
        })
    }

    /// The route by which the call is counted and takes its share. Its caller waits, so it is interactive.
    fn route(&self) -> Route {
        let (account, destination) = (self.caller.account.clone(), self.destination());
        Route {
            source: NAME.to_owned(),
            destination,
            account,
            class: Class::Interactive,
        }
    }

    /// The body of a call that goes at once. It is no event: the marks of its fences are of an id that it alone has.
    fn body(&self, links: &[String]) -> Bytes {
        hosted::body(
            self.call,
            &self.dropin.config,
            None,
            EventId::new(),
            self.ingress.sealer.marks(),
        )
        .with_files(links)
        .to_json()
    }

    /// Takes the call's share of the disk that callers with foreign keys may use.
    pub(super) async fn take_disk(&self, files: &PlacedFiles) -> Result<(), Refusal> {
        if self.caller.standing == KeyStanding::Own {
            return Ok(());
        }
        let texts = self.call.extra.as_ref().map_or(0, String::len)
            + self
                .call
                .params
                .iter()
                .map(|param| param.value.len())
                .sum::<usize>();
        self.dropin
            .disk
            .take(&*self.ingress.intake.inbox, texts as u64 + files.bytes())
            .await
    }

    pub(super) fn destination(&self) -> Destination {
        Destination {
            kind: DestinationKind::Agent,
            id: self.call.agent_id.clone(),
        }
    }

    /// Counts the run and makes links to its files.
    async fn prepare(&self, files: PlacedFiles) -> Result<PreparedRun, Refusal> {
        let (runs, route) = (&self.ingress.runs, self.route());
        if files.bytes() > 0 {
            // A call that is refused takes no disk.
            runs.upstream_for(&route.account, route.class)?;
            self.take_disk(&files).await?;
        }
        let order = RunOrder {
            route: &route,
            params: &self.call.params,
            proof: None,
            files: files.into_files(),
            // The run of a key that is not proved is counted when the upstream has taken it.
            is_counted: self.caller.standing != KeyStanding::Unproved,
        };
        let run = PreparedRun::new(runs, order).await?;
        run.ok_or_else(|| Refusal::Internal("a call without a proof was made before".into()))
    }

    /// The upstream has taken the call, and so its key.
    async fn taken(&self) {
        let KeyStanding::Unproved = self.caller.standing else {
            return;
        };
        self.dropin
            .known
            .proved(self.caller.key.expose(), Some(&self.call.agent_id));
        // It runs whatever limits and budgets say; the next one is counted before it is begun.
        let limits = &self.ingress.limits;
        let _over = limits
            .whole(true)
            .and_then(|()| limits.dropin_foreign(&mut LimitReport::default()));
        if let Err(refusal) = self
            .ingress
            .runs
            .count(&self.route(), &self.call.params)
            .await
            .map(drop)
        {
            tracing::debug!(
                cause = refusal.cause(),
                "a run that was begun is not counted"
            );
        }
    }

    /// The refusal of a call that the upstream did not take.
    async fn refused(&self, taken: Taken, answer: &Response<Bytes>) -> Refusal {
        if answer.status().is_client_error() {
            taken.give_back().await;
        }
        let status = answer.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.bad_key(status.as_u16());
        }
        let shared = self.dropin.upstream_key.as_ref().map(Secret::expose);
        let goes_with_shared = shared == Some(self.caller.key.expose());
        if self.caller.standing == KeyStanding::Own
            && goes_with_shared
            && status == StatusCode::UNAUTHORIZED
        {
            // The caller's key was good: what was refused is the gateway's.
            return Refusal::UpstreamFailed("it refused upstream.api_key (401)".to_owned());
        }
        hosted::refusal(answer, self.ingress.intake.clock.now())
    }

    fn bad_key(&self, status: u16) {
        let (known, key, agent) = (
            &self.dropin.known,
            self.caller.key.expose(),
            self.call.agent_id.as_str(),
        );
        match self.caller.standing {
            KeyStanding::Own => {}
            KeyStanding::Foreign => known.forget(key, agent),
            KeyStanding::Unproved => {
                known.failed(self.peer);
                if self.call.asynchronous || self.call.params.get(Name::TaskId).is_some() {
                    known.refused(key, agent, status);
                }
            }
        }
    }

    async fn unanswered(&self, taken: Taken, at: Instant, error: &SendError) -> Refusal {
        let cause = error.to_string();
        let was_long = at.elapsed() >= self.dropin.upstream.run_timeout();
        if matches!(error, SendError::NotSent(_)) {
            taken.give_back().await;
        }
        match error {
            SendError::Ambiguous(_) if was_long => Refusal::UpstreamSilent(cause),
            _ => Refusal::UpstreamFailed(cause),
        }
    }
}
