//! The configuration, read and compiled: every problem at once.

use std::path::Path;

use crate::channel::Channels;
use crate::config::{Config, Place, Problems, TlsFiles, sense};
use crate::ingress::largest_held;
use crate::net::ServerTls;
use crate::reconcile;
use crate::source::Sources;

/// Reads and compiles a configuration, as `check` and `serve` both do. None when something stands in the way; every
/// problem is in `problems`.
pub fn compile(file: &Path, problems: &Problems) -> Option<(Config, Sources)> {
    let (config, sources) = compiled(Config::load(file, problems)?, problems);
    if let Some(files) = &config.server.tls
        && let Err(error) = ServerTls::load(files)
    {
        let (place, hint) = tls_file(files, &error.file);
        problems.error_hint(place, error.to_string(), hint);
    }
    sense::check(&config, problems);
    reconcile::check(&config, &sources, problems);
    check_held(&config, &sources, problems);
    (!problems.any_error()).then_some((config, sources))
}

/// Where a TLS file is named, and what has to stand in it.
fn tls_file<'f>(files: &'f TlsFiles, file: &Path) -> (&'f Place, &'static str) {
    let pair = "write the certificate with its chain, and its key, as PEM";
    let clients = files.clients.as_ref();
    let crl = clients.and_then(|clients| clients.crl.as_ref());
    if files.key.value == file {
        (&files.key.place, pair)
    } else if let Some(clients) = clients.filter(|clients| clients.ca.value == file) {
        let hint = "write the certificates of the CAs that sign client certificates, as PEM";
        (&clients.ca.place, hint)
    } else if let Some(crl) = crl.filter(|crl| crl.value == file) {
        (
            &crl.place,
            "write the revocation lists of these CAs, as PEM",
        )
    } else {
        (&files.cert.place, pair)
    }
}

/// The same for one source alone: what others, the upstream and callers need is not asked for.
pub fn compile_source(file: &Path, source: &str, problems: &Problems) -> Option<(Config, Sources)> {
    let (config, sources) = compiled(Config::load_for(file, Some(source), problems)?, problems);
    (!problems.any_error()).then_some((config, sources))
}

fn compiled(config: Config, problems: &Problems) -> (Config, Sources) {
    let sources = Sources::compile(&config, problems);
    // For the mistakes in them; the channels themselves belong to what sends to them.
    Channels::of(&config, problems);
    (config, sources)
}

/// Checks that each body that is held in memory may have its configured size.
fn check_held(config: &Config, sources: &Sources, problems: &Problems) {
    let (max_held, own) = (&config.server.max_held, config.server.max_body);
    let of_sources = sources.iter().map(|source| source.max_body.unwrap_or(own));
    let largest = of_sources
        .chain([own, config.dropin.max_body.unwrap_or(own)])
        .max()
        .unwrap_or(own);
    if largest > largest_held(max_held.value) {
        problems.error_hint(
            &max_held.place,
            format!("server.max_held is too small for the largest body that is taken, {largest} bytes"),
            "one body may have seven sixteenths of it: write at least two and a half times the largest max_body",
        );
    }
}
