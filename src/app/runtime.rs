//! The runtime, which outlives a configuration: the inbox, the counts, the stop signal, and all that a reload does not replace.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use arc_swap::{ArcSwap, ArcSwapOption};
use axum::Router;
use tokio_util::sync::CancellationToken;

use super::secret::{admin_token, sealer};
use super::sweep::Swept;
use super::{engine, files, share};
use crate::admin::{self, AdminState, Loaded, Stopper};
use crate::attachment::Files;
use crate::config::{Config, Secret};
use crate::dispatch::Throttle;
use crate::inbox::Inbox;
use crate::inbox::codec::{self, Codec};
use crate::inbox::seal::Sealer;
use crate::ingress::{ForeignKeys, LoadShed, MemoryLimit, UploadLimit};
use crate::intake::CommitQueue;
use crate::limit::{RateLimits, Share};
use crate::model::{Clock, Roles, UpstreamIds};
use crate::reconcile::ActiveReconciles;
use crate::telemetry::{Metrics, RefusedSamples, SparseLines, Uses};
use crate::upstream::Budget;

/// Parts that a new configuration does not replace.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) inbox: Arc<dyn Inbox>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) samples: Arc<RefusedSamples>,
    pub(super) sealer: Arc<Sealer>,
    pub(super) ids: Arc<UpstreamIds>,
    pub(super) load: Arc<LoadShed>,
    pub(super) queue: Arc<CommitQueue>,
    pub(super) held: Arc<MemoryLimit>,
    pub(super) places: Arc<UploadLimit>,
    pub(super) lines: Arc<SparseLines>,
    pub(super) uses: Arc<Uses>,
    pub(super) foreign: Arc<ForeignKeys>,
    pub(super) roles: Roles,
    pub(super) share: Share,
    pub(super) budget: Budget,
    pub(super) throttle: Arc<Throttle>,
    pub(super) files: Option<Arc<Files>>,
    pub(super) limits: ArcSwapOption<RateLimits>,
    pub(super) swept: Arc<ArcSwap<Swept>>,
    pub(super) stopper: Stopper,
    pub(super) loaded: Arc<Loaded>,
    pub(super) token: Secret,
    pub(super) stopping: CancellationToken,
    pub(super) serving: Arc<AtomicBool>,
    pub(super) reconciling: ActiveReconciles,
    pub(super) clock: Clock,
}

impl Runtime {
    /// Opens the inbox and all that goes with it. `digest` is that of the settings that hold.
    pub(super) async fn open(
        config: &Config,
        digest: String,
        roles: Roles,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let token = admin_token(config)?;
        let place = engine::take_place(config, roles).await?;
        // After the inbox's place was taken: its lock keeps a second process from making a key of its own.
        let sealer = Arc::new(sealer(config)?);
        let codec = Codec::new(sealer.clone(), config.inbox.encrypt);
        let inbox = engine::open(config, place, roles, codec).await?;
        codec::check(&*inbox)
            .await
            .context("the inbox cannot be read")?;
        let ids = Arc::new(
            inbox
                .upstream_ids()
                .await
                .context("the names of conversations cannot be read")?,
        );
        let share = Share::default();
        let (budget, metrics) = (Budget::default(), Arc::new(Metrics::new()));
        share::take(&share, &budget, &*inbox);
        let files = files::open(config, &sealer)?.map(Arc::new);
        if let Some(files) = &files {
            files::sweep_left(&*inbox, files, clock.now()).await;
        }
        let queue = CommitQueue::new();
        Ok(Self {
            inbox,
            throttle: Throttle::new(budget.clone(), metrics.clone()),
            budget,
            metrics,
            samples: Arc::new(RefusedSamples::default()),
            sealer,
            ids,
            load: LoadShed::new(config.server.max_requests, queue.clone()),
            queue,
            held: MemoryLimit::new(config.server.max_held.value),
            places: UploadLimit::new(config.attachments.uploads),
            lines: SparseLines::new("requests that were refused or prove nothing"),
            uses: Arc::new(Uses::default()),
            foreign: ForeignKeys::new(),
            roles,
            share,
            files,
            limits: ArcSwapOption::empty(),
            swept: Arc::new(ArcSwap::from_pointee(Swept::new(config))),
            stopper: Stopper::default(),
            loaded: Arc::new(Loaded::new(clock.now(), digest)),
            token,
            stopping: CancellationToken::new(),
            serving: Arc::new(AtomicBool::new(false)),
            reconciling: ActiveReconciles::default(),
            clock,
        })
    }

    /// Router of the admin listener in this process.
    pub(super) fn admin_routes(&self, state: Arc<AdminState>) -> Router {
        if self.roles.admin {
            admin::router(state)
        } else {
            admin::probes(state)
        }
    }
}
