//! What proves the callers of a source, compiled: the scheme of its `[verify]` table, and the handshakes beside it.

use super::challenge::Challenge;
use super::lint;
use super::scheme::{Scheme, SchemeInputs};
use crate::config::{Located, Problems, Provider, Secret, Section, SourceConfig, Table};

/// Compiles what proves a source's callers, and its challenges.
pub(crate) fn compile_source(
    source: &SourceConfig,
    provider: Option<&Provider>,
    has_public_url: bool,
    problems: &Problems,
) -> (Option<Scheme>, Option<Vec<Challenge>>) {
    for secret in &source.secrets {
        weigh(secret, problems);
    }
    let inline = source
        .verify
        .as_ref()
        .map(|table| (table, format!("sources.{}.verify", source.name)));
    let shipped = provider
        .and_then(|provider| provider.verify.as_ref())
        .map(|table| (table, "verify".to_owned()));
    // What is missing here is reported already.
    let Some((table, name)) = inline.or(shipped) else {
        return (None, None);
    };
    let given = SchemeInputs {
        secrets: &source.secrets,
        values: &source.values,
        has_public_url,
        // One that is misspelt is told of already.
        enrols: source.enrol_file.is_some() || source.misspelt_secrets,
        source: (&source.name, &source.place),
        problems,
    };
    let compiled = compile(
        table,
        &name,
        provider.map_or(&[][..], |provider| provider.challenges.as_slice()),
        &given,
    );
    if let (Some(scheme), true) = (&compiled.0, source.enforce) {
        lint::say_open(scheme, table, given.source, problems);
    }
    compiled
}

/// Compiles a `[verify]` section of this dotted name, and the handshakes beside it.
pub(crate) fn compile(
    verify: &Table,
    name: &str,
    challenges: &[Table],
    given: &SchemeInputs<'_>,
) -> (Option<Scheme>, Option<Vec<Challenge>>) {
    let scheme = Scheme::compile(verify, name, given);
    let challenges = compile_challenges(challenges, verify, given);
    let asked = challenges
        .iter()
        .flatten()
        .filter_map(Challenge::signs_for_strangers)
        .cloned()
        .collect();
    (
        scheme.and_then(|scheme| scheme.beside(asked, verify, given.problems)),
        challenges,
    )
}

fn compile_challenges(
    tables: &[Table],
    verify: &Table,
    given: &SchemeInputs<'_>,
) -> Option<Vec<Challenge>> {
    if tables.is_empty() {
        return Some(Vec::new());
    }
    // The values that templates may use are declared by the verify section, which has reported what is wrong with it.
    let quiet = Problems::default();
    let section = Section::new(verify, "verify", &quiet);
    let declared = section
        .texts("config")
        .unwrap_or_default()
        .into_iter()
        .map(|name| name.value)
        .collect();
    let setup = given.setup(declared);
    let compiled: Vec<Option<Challenge>> = tables
        .iter()
        .enumerate()
        .map(|(number, table)| {
            Challenge::compile(table, &format!("challenge[{number}]"), &setup, given)
        })
        .collect();
    compiled.into_iter().collect()
}

/// Secrets that stand in documentation, and so in everybody's hands.
const WELL_KNOWN: [&str; 14] = [
    "secret",
    "changeme",
    "change-me",
    "password",
    "your-secret",
    "your_secret",
    "yoursecret",
    "your-webhook-secret",
    "my-secret",
    "mysecret",
    "webhook-secret",
    "webhooksecret",
    "supersecret",
    "test-secret",
];

/// A secret that can be guessed is a problem; one that was written for trying out is only pointed at.
pub(crate) fn weigh(secret: &Located<Secret>, problems: &Problems) {
    let value = String::from_utf8_lossy(secret.expose()).to_ascii_lowercase();
    if secret.is_placeholder() {
        // Said where it is read.
        return;
    }
    let what = if WELL_KNOWN.contains(&value.as_str()) {
        format!("the secret {} is one that everybody knows", secret.name())
    } else if secret.expose().len() < 8 {
        format!("the secret {} is shorter than 8 characters", secret.name())
    } else {
        return;
    };
    let hint =
        "set a long random one here and with the provider, for example from: openssl rand -hex 32";
    if secret.name().starts_with("literal ") {
        problems.warn(&secret.place, what, hint);
    } else {
        problems.error_hint(&secret.place, what, hint);
    }
}
