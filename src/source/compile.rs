//! Compiler of a configured source: its provider, its scheme for every time, its getter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::certificates::CertificateFetches;
use super::enrolment::{Enrolment, EnrolmentSlot};
use super::forward_auth::ServiceQuestions;
use super::{Source, Sources};
use crate::attachment::Fetcher;
use crate::config::{
    Config, Located, Problems, Provider, ReplayWindow, Secret, SourceConfig, near_provider,
};
use crate::mapping::getter::Getter;
use crate::mapping::{Mapping, better};
use crate::model::Timestamp;
use crate::verify::{Challenge, CheckConfig, Scheme, compile_source, same};

/// Longest time that the proof of a request that is passed on counts as used.
const KEPT_FOR: Duration = Duration::from_secs(90 * 24 * 3600);

/// Time that a caller waits where neither the source nor its provider gives one.
const WAIT: Duration = Duration::from_secs(9);

/// Part of a sender's own deadline that is left for the answer.
const WAY_BACK: Duration = Duration::from_secs(1);

impl Sources {
    /// Compiles every source. A source that cannot be compiled is a problem, and is left out.
    ///
    /// ```
    /// use std::path::Path;
    ///
    /// use sluicegate::config::{Config, Problems};
    /// use sluicegate::source::Sources;
    ///
    /// let text = r#"
    /// [sources.shop]
    /// provider = "custom"
    /// secrets = ["literal:5f1c7a5e0d9b4c3a8e6f2d1b"]
    /// agent = "order-desk"
    ///
    /// [sources.shop.verify]
    /// signature = "header:X-Signature"
    /// prefix = "sha256="
    /// signed_content = "{ts}.{body}"
    /// timestamp = { from = "header:X-Time", tolerance = 300 }
    /// "#;
    /// let problems = Problems::default();
    /// let config = Config::parse("example", text, Path::new("."), std::iter::empty(), &problems)
    ///     .expect("the example is right");
    /// let sources = Sources::compile(&config, &problems);
    /// assert!(sources.get("shop").is_some_and(|shop| shop.scheme.is_signed()));
    /// ```
    pub fn compile(config: &Config, problems: &Problems) -> Self {
        let mut all = BTreeMap::new();
        for source in config.sources.shared() {
            if let Some(compiled) = Source::compile(source, config, problems) {
                compiled.weigh(problems);
                all.insert(source.name.clone(), Arc::new(compiled));
            }
        }
        for source in all.values() {
            apart(source, &all, problems);
        }
        Self(all)
    }
}

impl Source {
    fn compile(source: &Arc<SourceConfig>, config: &Config, problems: &Problems) -> Option<Self> {
        let provider = provider(source, config, problems);
        let has_public_url = !config.server.public_url.is_empty();
        let (scheme, challenges) = compile_source(source, provider, has_public_url, problems);
        let (event_id, event_type) = match &scheme {
            Some(scheme) => (scheme.event_id.as_slice(), scheme.event_type.as_slice()),
            None => Default::default(),
        };
        let mapping = Mapping::compile(source, provider, event_id, event_type, problems);
        let getter = getter(source, problems);
        let brought = challenges
            .as_ref()
            .is_some_and(|all| all.iter().any(Challenge::brings_secret));
        let enrolment = match (&source.enrol_file, provider) {
            (Some(file), Some(provider)) if brought => Some(Enrolment {
                slot: EnrolmentSlot::new(file.clone()),
                provider: provider.clone(),
                has_public_url,
                now: ArcSwapOption::empty(),
            }),
            _ => None,
        };
        let replay_window = replay_window(source, provider, scheme.as_ref());
        let later = later(source, provider, has_public_url, problems);
        Some(Self {
            later,
            config: source.clone(),
            scheme: scheme?,
            mapping: mapping?,
            ack: provider
                .map(|provider| provider.ack.clone())
                .unwrap_or_default(),
            max_body: source
                .max_body
                .or(provider.and_then(|provider| provider.max_body)),
            replay_window,
            kept_for: source
                .keep
                .all
                .or(config.inbox.keep.all)
                .unwrap_or(KEPT_FOR)
                .min(KEPT_FOR),
            sender_retries: provider.and_then(|provider| provider.retries.as_deref())
                != Some("never"),
            getter: getter?,
            wait: source
                .wait_timeout
                .unwrap_or_else(|| within(provider.and_then(|provider| provider.deadline))),
            ids: Arc::default(),
            channel: provider.and_then(|provider| Fetcher::of(source, provider)),
            challenges: challenges?,
            enrolment,
            written: CheckConfig::of_source(source, provider),
            explained: Mutex::new(None),
            fetches: CertificateFetches::default(),
            questions: ServiceQuestions::default(),
        })
    }
}

/// Time that a proof counts as used at a source. A secret that callers show proves nothing of one request, so two equal
/// requests may both be meant, whatever their ids are.
fn replay_window(
    source: &SourceConfig,
    provider: Option<&Provider>,
    scheme: Option<&Scheme>,
) -> ReplayWindow {
    let said = source.replay_window;
    let unlike = || {
        let (provider, scheme) = (provider?, scheme?);
        let unlike = provider
            .repeats
            .map_or_else(|| scheme.names_or_times(), |repeats| !repeats);
        (unlike && scheme.is_signed()).then_some(ReplayWindow::Kept)
    };
    said.or_else(unlike).unwrap_or(ReplayWindow::USUAL)
}

/// Time that a caller waits where the sender gives up after `deadline`.
fn within(deadline: Option<Duration>) -> Duration {
    deadline.map_or(WAIT, |deadline| {
        deadline.saturating_sub(WAY_BACK).max(deadline / 2)
    })
}

/// The compiled getter of a source; the outer none where it cannot be compiled.
fn getter(source: &SourceConfig, problems: &Problems) -> Option<Option<Getter>> {
    let Some(written) = &source.getter else {
        return Some(None);
    };
    match Getter::parse(written) {
        Ok(getter) => {
            let right = better(written).unwrap_or_else(|| written.value.clone());
            let right = right.trim_start_matches("$.").replace("[*]", "");
            let is_dotted = !right.contains(['$', '[']);
            if right != written.value && is_dotted {
                problems.warn(
                    &written.place,
                    format!(
                        "getter {:?} is written as other programs write a path, and finds nothing here",
                        written.value
                    ),
                    format!("did you mean {right:?}?"),
                );
            }
            Some(Some(getter))
        }
        Err(what) => {
            let hint = match better(written) {
                Some(right) => format!("did you mean {right:?}?"),
                None => "write a dotted path into the task object, like \"result\" or \"result.summary\"".to_owned(),
            };
            problems.error_hint(
                &written.place,
                format!("getter {:?} is not a path: {what}", written.value),
                hint,
            );
            None
        }
    }
}

/// The provider of a source; none for a source with a table of its own.
pub(super) fn provider<'c>(
    source: &SourceConfig,
    config: &'c Config,
    problems: &Problems,
) -> Option<&'c Provider> {
    let name = source.provider.value.as_str();
    match (config.providers.get(name), name) {
        (Some(provider), _) => Some(provider),
        // A missing name is reported where the source is read.
        (None, "") => None,
        (None, "custom") => {
            if source.verify.is_none() {
                problems.error_hint(
                    &source.provider.place,
                    format!("source {} does not say how its callers are known", source.name),
                    "a custom source needs a verify table, for example verify = { signature = \"header:X-Signature\" }",
                );
            }
            None
        }
        (None, name) => {
            let hint = match near_provider(&config.providers, name) {
                Some(near) => format!("did you mean {near}?"),
                None => {
                    "`sluicegate provider list WORD` looks for one; custom takes a verify table of your own".to_owned()
                }
            };
            let what = format!("no provider is called \"{}\"", name.escape_debug());
            problems.error_hint(&source.provider.place, what, hint);
            None
        }
    }
}

/// Largest number of moments at which secrets of one source end.
const MOST_ENDS: usize = 16;

/// The schemes of a source for the time after each of its secrets has ended.
fn later(
    source: &SourceConfig,
    provider: Option<&Provider>,
    has_public_url: bool,
    problems: &Problems,
) -> Vec<(Timestamp, Scheme)> {
    let mut ends: Vec<Timestamp> = source
        .secrets
        .iter()
        .filter_map(|secret| secret.until())
        .collect();
    ends.sort_unstable();
    ends.dedup();
    if ends.len() > MOST_ENDS {
        let what = format!(
            "secrets of source {} end at more than {MOST_ENDS} moments",
            source.name
        );
        problems.error_hint(&source.place, what, "remove those that have ended");
        return Vec::new();
    }
    // Problems are reported by the compilation with all secrets.
    let quiet = Problems::default();
    let after = |end: Timestamp| {
        let mut config = source.clone();
        config
            .secrets
            .retain(|secret| secret.until().is_none_or(|until| until > end));
        Some((
            end,
            compile_source(&config, provider, has_public_url, &quiet).0?,
        ))
    };
    ends.into_iter().filter_map(after).collect()
}

/// Reports a secret that one source's handshake signs with for any caller, and that another kind of source has too.
fn apart(source: &Source, all: &BTreeMap<String, Arc<Source>>, problems: &Problems) {
    if !source
        .challenges
        .iter()
        .any(|challenge| challenge.signs_for_strangers().is_some())
    {
        return;
    }
    let others = all
        .values()
        .filter(|other| other.config.provider.value != source.config.provider.value);
    for other in others {
        let shares = |secret: &&Located<Secret>| {
            source
                .config
                .secrets
                .iter()
                .any(|known| same(known.expose(), secret.expose()))
        };
        if let Some(secret) = other.config.secrets.iter().find(shares) {
            let what = format!(
                "source {} has the secret of source {}, whose handshake signs with it for any caller",
                other.config.name, source.config.name
            );
            problems.error_hint(
                &secret.place,
                what,
                "give one of the two a secret of its own",
            );
        }
    }
}
