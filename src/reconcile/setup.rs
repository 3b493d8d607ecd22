//! The `reconcile` tables of sources, each held against its provider's kind of log. Everything that is wrong comes out
//! when the configuration is read, so that nothing of it is left for the day when the log is needed.

use http::Uri;

use crate::config::{
    Config, Located, LogKind, Place, Problems, Provider, ReconcileConfig, Respond, Secret,
    SourceConfig,
};
use crate::source::Sources;

/// What it takes to read the log of a source.
#[derive(Debug)]
pub struct LogSetup {
    pub(super) source: String,
    pub(super) api: Uri,
    pub(super) token: Secret,
    pub(super) way: LogTarget,
}

/// By which kind of log.
#[derive(Debug)]
pub(super) enum LogTarget {
    /// A hook's deliveries.
    Deliveries { hook: String },
    /// An account's events.
    Events {
        types: Vec<String>,
        account: Option<String>,
    },
}

/// The setups of a configuration; what is wrong with one is a problem.
pub fn check(config: &Config, sources: &Sources, problems: &Problems) -> Vec<LogSetup> {
    let mut setups = Vec::new();
    for source in &config.sources {
        if let Some(written) = &source.reconcile {
            setups.extend(setup(source, written, config, sources, problems));
        }
    }
    setups
}

fn setup(
    source: &SourceConfig,
    written: &ReconcileConfig,
    config: &Config,
    sources: &Sources,
    problems: &Problems,
) -> Option<LogSetup> {
    let name = &source.name;
    let wrong = |place: &Place, what: String, hint: &str| problems.error_hint(place, what, hint);
    if matches!(source.respond, Respond::Proxy | Respond::Stream) {
        let what = format!("sources.{name} keeps no events, so nobody can tell which have arrived");
        wrong(
            &written.place,
            what,
            "remove the reconcile table, or set respond = \"ack\" or \"wait\"",
        );
    }
    // One that cannot be compiled is a problem already.
    if sources
        .get(name)
        .is_some_and(|source| source.scheme.event_id.is_empty())
    {
        let what = format!(
            "sources.{name} has no dedup key, so nobody can tell which events have arrived"
        );
        wrong(
            &written.place,
            what,
            "name the provider's own id of an event as event_id in the verify table",
        );
    }
    let provider = config.providers.get(&source.provider.value);
    let log = provider.and_then(|provider| provider.reconcile.as_ref());
    let Some(log) = log else {
        // A provider that nobody knows is a problem already.
        if provider.is_some() || source.provider.value == "custom" {
            let with: Vec<&str> = config
                .providers
                .values()
                .filter(|p| p.reconcile.is_some())
                .map(|p| title(p))
                .collect();
            let what = format!("the provider of sources.{name} keeps no log that can be read");
            wrong(
                &written.place,
                what,
                &format!(
                    "remove the reconcile table; providers with a log: {}",
                    with.join(", ")
                ),
            );
        }
        return None;
    };
    let out_of_place = |key: &str, value: Option<&Located<String>>, has: &str| {
        if let Some(value) = value {
            let what = format!("sources.{name}.reconcile.{key} means nothing to this provider");
            wrong(
                &value.place,
                what,
                &format!("remove it; its log is read by {has}"),
            );
        }
    };
    let way = match log.kind {
        LogKind::Deliveries => {
            out_of_place("types", written.types.first(), "api, token and hook");
            out_of_place("account", written.account.as_ref(), "api, token and hook");
            if written.hook.is_none() {
                let what = format!("sources.{name}.reconcile.hook is missing");
                wrong(
                    &written.place,
                    what,
                    "write repos/OWNER/REPO/hooks/ID, orgs/ORG/hooks/ID or app/hook",
                );
            }
            LogTarget::Deliveries {
                hook: written.hook.as_ref()?.value.clone(),
            }
        }
        LogKind::Events => {
            out_of_place(
                "hook",
                written.hook.as_ref(),
                "api, token, types and account",
            );
            if written.types.is_empty() && source.events.is_empty() {
                problems.warn(
                    &written.place,
                    format!(
                        "sources.{name} would pull in every event of the account, also those its endpoint is not sent"
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
    };
    let api = written.api.clone().unwrap_or_else(|| log.api.clone());
    Some(LogSetup {
        source: name.clone(),
        api,
        token: written.token.clone()?,
        way,
    })
}

fn title(provider: &Provider) -> &str {
    &provider.name
}
