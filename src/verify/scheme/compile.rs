//! Compiler of the `[verify]` table of a source and the handshakes beside it.

use super::Scheme;
use super::secret_strength::weigh;
use crate::config::{Problems, Provider, Section, SourceConfig, Table};
use crate::verify::challenge::Challenge;
use crate::verify::inputs::SchemeInputs;
use crate::verify::lint;

/// Compiles the scheme of a source, and its challenges.
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
    // A missing table is reported already.
    let Some((table, name)) = inline.or(shipped) else {
        return (None, None);
    };
    let given = SchemeInputs {
        secrets: &source.secrets,
        client_certs: &source.client_certs,
        values: &source.values,
        has_public_url,
        // A misspelt key is reported already.
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
