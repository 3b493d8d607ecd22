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
use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::admin::{self, AdminState};
use crate::attachment::{DRAWERS, Files, Folder, Links, Remote, Store};
use crate::config::{Config, LinkKind, Problems, Secret, StorePlace};
use crate::dispatch::Dispatcher;
use crate::inbox::Inbox;
use crate::inbox::seal::Sealer;
use crate::inbox::sqlite::{SqliteInbox, SqliteOptions};
use crate::inbox::sweep::{sweep, sweep_drawer, sweep_files};
use crate::ingress::{self, Bounds, Dropin, Ingress, Proxies};
use crate::limit::Limits;
use crate::model::{Clock, Timestamp};
use crate::net::{Client, Door, ListenOptions, Swap, listen};
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
    kept: Kept,
    parts: Parts,
    stop_all: watch::Sender<bool>,
}

/// What a new configuration leaves as it is.
#[derive(Debug)]
struct Kept {
    inbox: Arc<dyn Inbox>,
    metrics: Arc<Metrics>,
    samples: Arc<RefusedSamples>,
    sealer: Arc<Sealer>,
    files: Option<Arc<Files>>,
    token: Secret,
    stopping: watch::Receiver<bool>,
    serving: Arc<AtomicBool>,
    clock: Clock,
}

/// What a configuration is made into.
#[derive(Debug)]
struct Parts {
    ingress: Arc<Ingress>,
    dispatcher: Arc<Dispatcher>,
    admin: Arc<AdminState>,
}

/// How often what is too old is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How much older than an upload may take a file must be to be taken for one that nothing refers to.
const SLACK: Duration = Duration::from_secs(3600);

/// How far ahead of ours the clock of a file system may be.
const LATER: Duration = Duration::from_secs(24 * 3600);

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
    /// Opens the inbox and builds the parts.
    pub async fn build(config: Config, sources: Sources, clock: Clock) -> anyhow::Result<Self> {
        let token = admin_token(&config)?;
        let options = SqliteOptions { batch: config.inbox.batch, queue: config.inbox.queue };
        let inbox: Arc<dyn Inbox> = Arc::new(
            SqliteInbox::open(&config.inbox.path, options)
                .await
                .with_context(|| format!("cannot open the inbox {}", config.inbox.path.display()))?,
        );
        // After the inbox, whose lock keeps a second process from making a key of its own.
        let sealer = Arc::new(sealer(&config)?);
        let files = files(&config, &sealer)?.map(Arc::new);
        if let Some(files) = &files {
            sweep_left(&*inbox, files, clock.now()).await;
        }
        let (stop_all, stopping) = watch::channel(false);
        let kept = Kept {
            inbox,
            metrics: Arc::new(Metrics::new()),
            samples: Arc::new(RefusedSamples::default()),
            sealer,
            files,
            token,
            stopping,
            serving: Arc::new(AtomicBool::new(false)),
            clock,
        };
        let parts = Parts::new(&config, sources, &kept)?;
        Ok(Self { config, kept, parts, stop_all })
    }

    /// Serves until `stop` resolves, then drains: no new connection, no new claim; requests in flight are answered,
    /// leases given back, the inbox closed. An error when the inbox stopped by itself. A configuration that comes by
    /// `reloads` takes the place of the one before, whole.
    pub async fn serve(
        self,
        listeners: Listeners,
        mut reloads: mpsc::Receiver<(Config, Sources)>,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let Self { mut config, kept, parts, stop_all } = self;
        let drain = config.server.drain_timeout;
        let options = listen_options(&config);
        let (public_address, admin_address) = (listeners.public.local_addr()?, listeners.admin.local_addr()?);
        let (hurry_all, hurry) = watch::channel(false);
        let told = |mut stopping: watch::Receiver<bool>| async move {
            // A sender that is gone has stopped as well.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let door = parts.ingress.door();
        let front = Swap::new(ingress::front(parts.ingress));
        let routes = Swap::new(admin::router(parts.admin));
        let dispatcher = Arc::new(ArcSwap::new(parts.dispatcher));
        let public =
            tokio::spawn(listen::serve(listeners.public, front.clone(), options, door, told(kept.stopping.clone())));
        // The admin listener stays until the end, so that a stop can be watched.
        let (close_admin, admin_closing) = watch::channel(false);
        let admin_options = ListenOptions { drain: Duration::from_millis(500), ..options };
        let admin = tokio::spawn(listen::serve(
            listeners.admin,
            routes.clone(),
            admin_options,
            Arc::new(Unwatched),
            told(admin_closing),
        ));
        let dispatch = tokio::spawn(Dispatcher::run(dispatcher.clone(), kept.stopping.clone(), hurry));
        let sweep = tokio::spawn(sweep_often(
            kept.inbox.clone(),
            kept.files.clone(),
            config.inbox.keep,
            config.attachments.upload_timeout,
            kept.clock.clone(),
        ));
        kept.serving.store(true, Ordering::Release);
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            public = %public_address,
            admin = %admin_address,
            sources = config.sources.len(),
            inbox = %config.inbox.path.display(),
            upstream = %config.upstream.base_url,
            "serving"
        );

        let mut stop = std::pin::pin!(stop);
        let failed = loop {
            tokio::select! {
                () = stop.as_mut() => break None,
                cause = kept.inbox.failed() => break Some(cause),
                Some((next, sources)) = reloads.recv() => match Parts::new(&next, sources, &kept) {
                    Ok(parts) => {
                        front.exchange(ingress::front(parts.ingress));
                        routes.exchange(admin::router(parts.admin));
                        dispatcher.store(parts.dispatcher);
                        warn_of_what_stays(&config, &next);
                        config = next;
                        tracing::info!(sources = config.sources.len(), "configuration reloaded");
                    }
                    Err(error) => tracing::error!(%error, "configuration not reloaded, the old one stays"),
                },
            }
        };
        kept.serving.store(false, Ordering::Release);
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
        kept.inbox.close().await;
        match failed {
            None => {
                tracing::info!("stopped");
                Ok(())
            }
            Some(cause) => Err(anyhow::anyhow!("the inbox stopped: {cause}")),
        }
    }
}

impl Parts {
    fn new(config: &Config, sources: Sources, kept: &Kept) -> anyhow::Result<Self> {
        let client = Client::new(config.upstream.connect_timeout, config.upstream.ca_file.as_deref())?;
        let upstream = Upstream::new(&config.upstream, client.clone());
        let sources = Arc::new(sources);
        let enrolments = sources.enrolments();
        let ingress = Arc::new(Ingress {
            fetch: Arc::new(Web(client.clone())),
            sources: sources.clone(),
            limits: Limits::new(config),
            inbox: kept.inbox.clone(),
            upstream: upstream.clone(),
            files: kept.files.clone(),
            intake: config.attachments.intake.clone(),
            keep_files: config.attachments.keep,
            sealer: kept.sealer.clone(),
            stopping: kept.stopping.clone(),
            metrics: kept.metrics.clone(),
            samples: kept.samples.clone(),
            clock: kept.clock.clone(),
            public_url: config.server.public_url.clone(),
            bounds: Bounds::new(config),
            proxies: Proxies::new(config, client),
            dropin: Dropin::new(config, upstream.clone()),
        });
        let dispatcher = Dispatcher::new(
            config,
            kept.inbox.clone(),
            upstream,
            kept.sealer.clone(),
            kept.files.clone(),
            kept.metrics.clone(),
            kept.clock.clone(),
        );
        let admin = AdminState::new(
            config,
            sources,
            kept.inbox.clone(),
            kept.metrics.clone(),
            kept.samples.clone(),
            config.admin.token.clone().unwrap_or_else(|| kept.token.clone()),
            kept.clock.clone(),
            kept.serving.clone(),
        );
        let admin = Arc::new(admin.with_enrolments(enrolments).with_files(kept.files.clone()));
        Ok(Self { ingress, dispatcher, admin })
    }
}

/// What is read at the start only, and has changed all the same.
fn warn_of_what_stays(old: &Config, new: &Config) {
    let changed = [
        ("server.listen", old.server.listen != new.server.listen),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("inbox", format!("{:?}", old.inbox) != format!("{:?}", new.inbox)),
        ("attachments", format!("{:?}", old.attachments) != format!("{:?}", new.attachments)),
        ("dispatch.concurrency", old.dispatch.concurrency != new.dispatch.concurrency),
        ("log", format!("{:?}", old.log) != format!("{:?}", new.log)),
    ];
    for (setting, _) in changed.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(setting, "this has changed and holds after a restart only");
    }
}

fn listen_options(config: &Config) -> ListenOptions {
    ListenOptions {
        max_connections: config.server.max_connections,
        max_head: config.server.max_head,
        head_timeout: config.server.head_timeout,
        drain: config.server.drain_timeout,
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

/// Where files are kept, and how they are handed out; none where nobody takes any. A folder that nobody asked for and
/// that cannot be used is no reason not to start.
fn files(config: &Config, sealer: &Sealer) -> anyhow::Result<Option<Files>> {
    let attachments = &config.attachments;
    let store: Arc<dyn Store> = match &attachments.store.value {
        StorePlace::None => return Ok(None),
        StorePlace::Folder(folder) => match Folder::open(folder) {
            Ok(store) => Arc::new(store),
            Err(error) if config.sources.iter().all(|source| source.files.is_none()) => {
                tracing::warn!(folder = %folder.display(), %error, "the attachment store cannot be used; files are refused");
                return Ok(None);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot use the attachment store {}", folder.display()));
            }
        },
        StorePlace::Bucket(url) => {
            let client = Client::new(config.upstream.connect_timeout, attachments.ca_file.as_deref())?;
            let settings: Vec<(String, String)> = attachments
                .settings
                .iter()
                .map(|(key, value)| (key.clone(), String::from_utf8_lossy(value.expose()).into_owned()))
                .collect();
            Arc::new(Remote::open(url, &settings, client).context("the attachment store cannot be used")?)
        }
    };
    let old = attachments.old_keys.iter().map(|key| Sealer::new(&key.value).map(|sealer| sealer.file_key()));
    let keys = std::iter::once(Ok(sealer.file_key())).chain(old).collect::<Result<Vec<_>, _>>()?;
    let public_url = &config.server.public_url;
    let links = (attachments.links != LinkKind::Store && !public_url.is_empty()).then(|| Links::new(public_url, keys));
    let presigned = attachments.links != LinkKind::Gateway && matches!(attachments.store.value, StorePlace::Bucket(_));
    Ok(Some(Files::new(store, links, presigned, attachments.link_lifetime, attachments.uploads)))
}

/// Removes what a crash left in a store that is ours alone: nobody else could be at it.
async fn sweep_left(inbox: &dyn Inbox, files: &Files, now: Timestamp) {
    if !files.store().is_ours_alone() {
        return;
    }
    let mut gone = 0;
    for drawer in 0..DRAWERS {
        match sweep_drawer(inbox, files, drawer, now + LATER).await {
            Ok(removed) => gone += removed,
            Err(error) => return tracing::error!(%error, "cannot look for files that a crash left"),
        }
    }
    if gone > 0 {
        tracing::info!(files = gone, "files removed that a crash left");
    }
}

async fn sweep_often(inbox: Arc<dyn Inbox>, files: Option<Arc<Files>>, keep: Duration, upload: Duration, clock: Clock) {
    let mut drawer = 0;
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        match sweep(&*inbox, keep, clock.now()).await {
            Ok(0) => {}
            Ok(events) => tracing::info!(events, "old events removed"),
            Err(error) => tracing::error!(%error, "cannot remove old events"),
        }
        if let Some(files) = &files {
            // One that is being kept just now must not go.
            let before = clock.now() - upload - SLACK;
            match sweep_drawer(&*inbox, files, drawer, before).await {
                Ok(0) => {}
                Ok(files) => tracing::info!(files, "files removed that nothing refers to"),
                Err(error) => tracing::error!(%error, "cannot look for files that nothing refers to"),
            }
            drawer = (drawer + 1) % DRAWERS;
            match sweep_files(&*inbox, files, clock.now()).await {
                Ok(0) => {}
                Ok(files) => tracing::info!(files, "old files removed"),
                Err(error) => tracing::error!(%error, "cannot remove old files"),
            }
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

/// Where the key is kept when nobody configured one: beside the inbox.
pub fn seal_key_file(config: &Config) -> PathBuf {
    config.inbox.path.with_file_name("sluicegate.key")
}

/// A sealer with the configured key, or with one made beside the inbox.
fn sealer(config: &Config) -> anyhow::Result<Sealer> {
    if let Some(key) = &config.inbox.key {
        return Ok(Sealer::new(key)?);
    }
    let file = seal_key_file(config);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = Sealer::fresh_key()?;
            // A key that is half there would be worse than none.
            let new = file.with_extension("key.new");
            write_private(&new, &key).with_context(|| format!("cannot write {}", new.display()))?;
            std::fs::rename(&new, &file).with_context(|| format!("cannot write {}", file.display()))?;
            tracing::warn!(file = %file.display(), "inbox.key is not set, made one and kept it here");
            key
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    Sealer::new(&Secret::new(file.display().to_string(), text.trim()))
        .context("mend the file, or remove it: then calls and status links made with the old key are lost")
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
