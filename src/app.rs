//! The parts, built from a `Config`, started and drained.
//!
//! The sockets and the order to stop come from outside, so that a test or the demo runs the same gateway as `serve`.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admin::{self, AdminState};
use crate::config::{Config, Problems, Secret};
use crate::dispatch::Dispatcher;
use crate::inbox::Inbox;
use crate::inbox::sqlite::{SqliteInbox, SqliteOptions};
use crate::inbox::sweep::sweep;
use crate::ingress::{self, Bounds, Ingress};
use crate::limit::Limits;
use crate::model::Clock;
use crate::net::{Client, Door, ListenOptions, listen};
use crate::source::{Fetch, Sources};
use crate::telemetry::{Metrics, RefusedSamples};
use crate::upstream::Upstream;

/// The sockets of a gateway.
#[derive(Debug)]
pub struct Listeners {
    /// Where third parties call.
    pub public: TcpListener,
    /// Where operators call.
    pub admin: TcpListener,
}

/// A gateway, built and not yet serving.
#[derive(Debug)]
pub struct App {
    config: Config,
    inbox: Arc<dyn Inbox>,
    ingress: Arc<Ingress>,
    dispatcher: Arc<Dispatcher>,
    admin: Arc<AdminState>,
    serving: Arc<AtomicBool>,
    clock: Clock,
}

/// How often what is too old is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How long a source may wait for a certificate, and how large it may be.
const FETCH_TIME: Duration = Duration::from_secs(5);
const FETCH_BYTES: u64 = 64 * 1024;

/// What a stop may take beyond the drain time, for the last settlements and the last commit.
const LAST_WORDS: Duration = Duration::from_millis(1_500);

impl Listeners {
    /// Binds both.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let bind = async |address: SocketAddr, key: &str| {
            TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address} ({key}); is another program there, or another sluicegate?")
            })
        };
        Ok(Self {
            public: bind(config.server.listen, "server.listen").await?,
            admin: bind(config.admin.listen, "admin.listen").await?,
        })
    }
}

impl App {
    /// Builds the parts. What the sources' sections say wrongly goes to `problems`; see [`compile`].
    pub async fn build(config: Config, sources: Sources, clock: Clock) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let samples = Arc::new(RefusedSamples::default());
        let token = admin_token(&config)?;
        let client = Client::new(config.upstream.connect_timeout, config.upstream.ca_file.as_deref())?;
        let fetch = Arc::new(Web(client.clone()));
        let upstream = Upstream::new(&config.upstream, client);
        let options = SqliteOptions { batch: config.inbox.batch, queue: config.inbox.queue };
        let inbox: Arc<dyn Inbox> = Arc::new(
            SqliteInbox::open(&config.inbox.path, options)
                .await
                .with_context(|| format!("cannot open the inbox {}", config.inbox.path.display()))?,
        );
        let serving = Arc::new(AtomicBool::new(false));
        let enrolments = sources.enrolments();
        let ingress = Arc::new(Ingress {
            sources,
            limits: Limits::new(&config),
            inbox: inbox.clone(),
            fetch,
            metrics: metrics.clone(),
            samples: samples.clone(),
            clock: clock.clone(),
            public_url: config.server.public_url.clone(),
            bounds: Bounds::new(&config),
        });
        let dispatcher = Dispatcher::new(&config, inbox.clone(), upstream, metrics.clone(), clock.clone());
        let admin = AdminState::new(&config, inbox.clone(), metrics, samples, token, clock.clone(), serving.clone());
        let admin = Arc::new(admin.with_enrolments(enrolments));
        Ok(Self { config, inbox, ingress, dispatcher, admin, serving, clock })
    }

    /// Serves until `stop` resolves, then drains: no new connection, no new claim; requests in flight are answered,
    /// leases given back, the inbox closed. An error when the inbox stopped by itself.
    pub async fn serve(self, listeners: Listeners, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let drain = self.config.server.drain_timeout;
        let (stop_all, stopping) = watch::channel(false);
        let (hurry_all, hurry) = watch::channel(false);
        let told = |mut stopping: watch::Receiver<bool>| async move {
            // A sender that is gone has stopped as well.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let public = tokio::spawn(listen::serve(
            listeners.public,
            ingress::router(self.ingress.clone()),
            self.listen_options(),
            self.ingress.door(),
            told(stopping.clone()),
        ));
        // The admin listener stays until the end, so that a stop can be watched.
        let (close_admin, admin_closing) = watch::channel(false);
        let admin = tokio::spawn(listen::serve(
            listeners.admin,
            admin::router(self.admin.clone()),
            ListenOptions { drain: Duration::from_millis(500), ..self.listen_options() },
            Arc::new(Unwatched),
            told(admin_closing),
        ));
        let dispatch = tokio::spawn(self.dispatcher.clone().run(stopping.clone(), hurry));
        let sweep = tokio::spawn(sweep_often(self.inbox.clone(), self.config.inbox.keep, self.clock.clone()));
        self.serving.store(true, Ordering::Release);

        let failed = tokio::select! {
            () = stop => None,
            cause = self.inbox.failed() => Some(cause),
        };
        self.serving.store(false, Ordering::Release);
        tracing::info!(drain_s = drain.as_secs_f64(), "stopping");
        sweep.abort();
        let _ = stop_all.send(true);
        let finish = async {
            let _ = public.await;
            let _ = dispatch.await;
        };
        let mut finish = std::pin::pin!(finish);
        if tokio::time::timeout(drain, finish.as_mut()).await.is_err() {
            let _ = hurry_all.send(true);
            if tokio::time::timeout(LAST_WORDS, finish).await.is_err() {
                tracing::warn!("some deliveries did not end in time; their leases are free at the next start");
            }
        }
        let _ = close_admin.send(true);
        let _ = admin.await;
        self.inbox.close().await;
        match failed {
            None => {
                tracing::info!("stopped");
                Ok(())
            }
            Some(cause) => Err(anyhow::anyhow!("the inbox stopped: {cause}")),
        }
    }

    fn listen_options(&self) -> ListenOptions {
        ListenOptions {
            max_connections: self.config.server.max_connections,
            max_head: self.config.server.max_head,
            head_timeout: self.config.server.head_timeout,
            drain: self.config.server.drain_timeout,
        }
    }
}

/// Reads and compiles a configuration, as `check` and `serve` both do. None when something stands in the way; every
/// problem is in `problems`.
pub fn compile(file: &Path, problems: &Problems) -> Option<(Config, Sources)> {
    let config = Config::load(file, problems)?;
    let sources = Sources::compile(&config, problems);
    (!problems.any_error()).then_some((config, sources))
}

/// The web, as far as sources may ask it.
#[derive(Debug)]
struct Web(Client);

#[async_trait::async_trait]
impl Fetch for Web {
    async fn get(&self, address: &str) -> Result<Bytes, String> {
        let request = http::Request::get(address).body(Bytes::new()).map_err(|error| error.to_string())?;
        let answer = self.0.send(request, FETCH_TIME, FETCH_BYTES).await.map_err(|error| error.to_string())?;
        if answer.status() == http::StatusCode::OK {
            Ok(answer.into_body())
        } else {
            Err(format!("it answered {}", answer.status()))
        }
    }
}

/// Connections at the admin listener are few and not counted.
struct Unwatched;

impl Door for Unwatched {
    fn opened(&self) {}
    fn closed(&self) {}
    fn full(&self) {}
}

async fn sweep_often(inbox: Arc<dyn Inbox>, keep: Duration, clock: Clock) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        match sweep(&*inbox, keep, clock.now()).await {
            Ok(0) => {}
            Ok(events) => tracing::info!(events, "old events removed"),
            Err(error) => tracing::error!(%error, "cannot remove old events"),
        }
    }
}

/// Where the token is kept when nobody configured one: beside the inbox.
pub fn admin_token_file(config: &Config) -> PathBuf {
    config.inbox.path.with_file_name("admin.token")
}

/// The configured token, or one made beside the inbox.
fn admin_token(config: &Config) -> anyhow::Result<Secret> {
    if let Some(token) = &config.admin.token {
        return Ok(token.clone());
    }
    let file = admin_token_file(config);
    if let Ok(text) = std::fs::read_to_string(&file)
        && text.trim().len() >= 32
    {
        return Ok(Secret::new("admin.token", text.trim()));
    }
    let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    write_private(&file, &token).with_context(|| format!("cannot write {}", file.display()))?;
    tracing::warn!(file = %file.display(), "admin.token is not set, made one and kept it here");
    Ok(Secret::new("admin.token", token))
}

/// Writes a file that only its owner reads.
pub(crate) fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(file)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}
