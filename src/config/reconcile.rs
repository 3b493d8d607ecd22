//! Settings for reading a provider's own log, as written: `[reconcile]` in a provider file names the kind of log,
//! `[sources.NAME.reconcile]` names the log and the token.

use std::path::Path;

use http::{HeaderValue, Uri};

use super::problem::{Located, Place};
use super::secret::Secret;
use super::section::Section;

/// A provider's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// A hook has a log of its deliveries; each is fetched for itself.
    Deliveries,
    /// An account has a list of its events.
    Events,
}

/// The `[reconcile]` section of a provider file.
#[derive(Clone, Debug)]
pub struct ProviderLog {
    /// Kind of log.
    pub kind: LogKind,
    /// Address of the provider's API.
    pub api: Uri,
}

/// The `reconcile` table of a source.
#[derive(Clone, Debug)]
pub struct ReconcileConfig {
    /// Place of the table.
    pub place: Place,
    /// Address of the API, if it differs from the provider's file; a path in it goes before the path of every call.
    pub api: Option<Uri>,
    /// Token for the API; absent only if that was reported as a problem.
    pub token: Option<Secret>,
    /// The hook, by its path in the API.
    pub hook: Option<Located<String>>,
    /// The types of events that are read; empty: all.
    pub types: Vec<Located<String>>,
    /// The account whose log it is, where that is not the token's own.
    pub account: Option<Located<String>>,
}

/// The most types that can be named.
const TYPES: usize = 20;

impl ProviderLog {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let kinds = [
            ("github-deliveries", LogKind::Deliveries),
            ("stripe-events", LogKind::Events),
        ];
        let kind = section.one_of("kind", &kinds);
        let missing = |key: &str, hint: &str| {
            if !section.has(key) {
                section.problems().error_hint(
                    section.place(),
                    format!("{} is missing", section.path(key)),
                    hint.to_owned(),
                );
            }
        };
        missing("kind", "one of \"github-deliveries\", \"stripe-events\"");
        missing(
            "api",
            "where the provider's API is, for example \"https://api.example.com\"",
        );
        let api = section.api("api");
        Some(Self {
            kind: kind?.value,
            api: api?,
        })
    }
}

impl ReconcileConfig {
    pub(super) fn read(section: &Section<'_>, base: &Path) -> Self {
        let types = section.texts("types").unwrap_or_default();
        if let Some(over) = types.get(TYPES) {
            section.problems().error_hint(
                &over.place,
                format!("{} names more than {TYPES} types", section.path("types")),
                "leave some out here, and name all of them as events of the source",
            );
        }
        if types.len() > 1
            && let Some(star) = types.iter().find(|word| word.contains('*'))
        {
            section.problems().error_hint(
                &star.place,
                format!("in {} a star stands only alone", section.path("types")),
                "name each type, or one group alone, like types = [\"invoice.*\"]",
            );
        }
        for wrong in types.iter().filter(|word| !is_word(word, "._*-")) {
            section.problems().error_hint(
                &wrong.place,
                format!("\"{}\" is no type of event", wrong.value.escape_debug()),
                "write it as the provider names it, without blanks",
            );
        }
        let account = section.text("account");
        if let Some(account) = account.as_ref().filter(|account| !is_word(account, "_-")) {
            section.problems().error_hint(
                &account.place,
                format!("{} is no id of an account", section.path("account")),
                "copy it from the provider's own pages; it has no blanks",
            );
        }
        Self {
            place: section.place().clone(),
            api: section.api("api"),
            token: token(section, base),
            hook: hook(section),
            types,
            account,
        }
    }
}

fn token(section: &Section<'_>, base: &Path) -> Option<Secret> {
    if !section.has("token") {
        section.problems().error_hint(
            section.place(),
            format!("{} is missing", section.path("token")),
            "token = \"env:NAME\" is what the provider's API wants to be shown",
        );
    }
    let token = section.secret("token", base)?;
    let fits = |secret: &Secret| {
        HeaderValue::from_bytes(secret.expose()).is_ok() && secret.expose_text().is_some()
    };
    if !fits(&token) {
        section.problems().error_hint(
            section.place(),
            format!("{} cannot stand in a header", section.path("token")),
            "it has a line break or a control character in it; copy it again",
        );
        return None;
    }
    Some(token)
}

/// A hook's path: nothing that leads anywhere else.
fn hook(section: &Section<'_>) -> Option<Located<String>> {
    let hook = section.text("hook")?;
    let parts: Vec<&str> = hook.split('/').collect();
    let named = |part: &str| is_word(part, "._-") && !part.starts_with('.');
    let numbered = |part: &str| {
        !part.is_empty() && part.len() <= 20 && part.bytes().all(|b| b.is_ascii_digit())
    };
    let good = match parts.as_slice() {
        ["repos", owner, repository, "hooks", id] => {
            named(owner) && named(repository) && numbered(id)
        }
        ["orgs", name, "hooks", id] => named(name) && numbered(id),
        ["app", "hook"] => true,
        _ => false,
    };
    if !good {
        section.problems().error_hint(
            &hook.place,
            format!("{} is no hook", section.path("hook")),
            "write repos/OWNER/REPO/hooks/ID, orgs/ORG/hooks/ID or app/hook, without a slash at the ends",
        );
    }
    Some(hook)
}

/// Letters, digits and a few signs.
fn is_word(text: &str, signs: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || signs.contains(c))
}
