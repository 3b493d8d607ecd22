//! The `reconcile` tables of the configuration, each checked against the kind of log that its provider has. Every mistake
//! is reported when the configuration is read, and not on the day when the log is needed.

use http::Uri;

use crate::config::{
    Config, Located, LogKind, Place, Problems, Provider, ProviderLog, ReconcileConfig, Respond,
    Secret, SourceConfig,
};
use crate::source::Sources;

/// Settings for reading the log of one source.
#[derive(Debug)]
pub struct LogSetup {
    pub(super) source: String,
    pub(super) api: Uri,
    pub(super) token: Secret,
    pub(super) way: LogTarget,
}

/// Kind of log, with what identifies the log at the provider.
#[derive(Debug)]
pub(super) enum LogTarget {
    /// The deliveries of one hook.
    Deliveries { hook: String },
    /// The events of one account.
    Events {
        types: Vec<String>,
        account: Option<String>,
    },
}

/// Makes the setups of a configuration. Mistakes are reported to `problems`.
pub fn check(config: &Config, sources: &Sources, problems: &Problems) -> Vec<LogSetup> {
    let mut setups = Vec::new();
    for source in &config.sources {
        if let Some(written) = &source.reconcile {
            let table = TableCheck {
                source,
                written,
                problems,
            };
            setups.extend(table.compile(config, sources));
        }
    }
    setups
}

/// The `reconcile` table of one source while it is compiled.
struct TableCheck<'c> {
    source: &'c SourceConfig,
    written: &'c ReconcileConfig,
    problems: &'c Problems,
}

impl TableCheck<'_> {
    fn compile(&self, config: &Config, sources: &Sources) -> Option<LogSetup> {
        self.check_source(sources);
        let log = self.provider_log(config)?;
        let way = match log.kind {
            LogKind::Deliveries => self.deliveries()?,
            LogKind::Events => self.events(),
        };
        Some(LogSetup {
            source: self.source.name.clone(),
            api: self.written.api.clone().unwrap_or_else(|| log.api.clone()),
            token: self.written.token.clone()?,
            way,
        })
    }

    fn wrong(&self, place: &Place, what: String, hint: &str) {
        self.problems.error_hint(place, what, hint);
    }

    /// Checks that the source keeps events, and that its events have a dedup key.
    fn check_source(&self, sources: &Sources) {
        let name = &self.source.name;
        if matches!(self.source.respond, Respond::Proxy | Respond::Stream) {
            self.wrong(
                &self.written.place,
                format!("sources.{name} keeps no events, so nobody can tell which have arrived"),
                "remove the reconcile table, or set respond = \"ack\" or \"wait\"",
            );
        }
        // A source that does not compile was reported already.
        if sources
            .get(name)
            .is_some_and(|source| source.scheme.event_id.is_empty())
        {
            self.wrong(
                &self.written.place,
                format!(
                    "sources.{name} has no dedup key, so nobody can tell which events have arrived"
                ),
                "name the provider's own id of an event as event_id in the verify table",
            );
        }
    }

    /// The log that the source's provider keeps.
    fn provider_log<'c>(&self, config: &'c Config) -> Option<&'c ProviderLog> {
        let provider = config.providers.get(&self.source.provider.value);
        let log = provider.and_then(|provider| provider.reconcile.as_ref());
        // An unknown provider was reported already.
        if log.is_none() && (provider.is_some() || self.source.provider.value == "custom") {
            let with: Vec<&str> = config
                .providers
                .values()
                .filter(|provider| provider.reconcile.is_some())
                .map(|provider| title(provider))
                .collect();
            self.wrong(
                &self.written.place,
                format!(
                    "the provider of sources.{} keeps no log that can be read",
                    self.source.name
                ),
                &format!(
                    "remove the reconcile table; providers with a log: {}",
                    with.join(", ")
                ),
            );
        }
        log
    }

    /// Reports a key that this kind of log does not use.
    fn out_of_place(&self, key: &str, value: Option<&Located<String>>, has: &str) {
        if let Some(value) = value {
            let name = &self.source.name;
            self.wrong(
                &value.place,
                format!("sources.{name}.reconcile.{key} means nothing to this provider"),
                &format!("remove it; its log is read by {has}"),
            );
        }
    }

    fn deliveries(&self) -> Option<LogTarget> {
        let has = "api, token and hook";
        self.out_of_place("types", self.written.types.first(), has);
        self.out_of_place("account", self.written.account.as_ref(), has);
        if self.written.hook.is_none() {
            self.wrong(
                &self.written.place,
                format!("sources.{}.reconcile.hook is missing", self.source.name),
                "write repos/OWNER/REPO/hooks/ID, orgs/ORG/hooks/ID or app/hook",
            );
        }
        Some(LogTarget::Deliveries {
            hook: self.written.hook.as_ref()?.value.clone(),
        })
    }

    fn events(&self) -> LogTarget {
        let written = self.written;
        self.out_of_place(
            "hook",
            written.hook.as_ref(),
            "api, token, types and account",
        );
        if written.types.is_empty() && self.source.events.is_empty() {
            self.problems.warn(
                &written.place,
                format!(
                    "sources.{} would pull in every event of the account, also those its endpoint is not sent",
                    self.source.name
                ),
                "name the types that the endpoint is sent, as types here or as events of the source",
            );
        }
        LogTarget::Events {
            types: written
                .types
                .iter()
                .map(|name| name.value.clone())
                .collect(),
            account: written
                .account
                .as_ref()
                .map(|account| account.value.clone()),
        }
    }
}

fn title(provider: &Provider) -> &str {
    &provider.name
}
