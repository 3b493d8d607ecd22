//! Paths at which nothing answers, and advice to the operator on the source that such a path was probably meant for.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::request::Parts;
use http::{Request, Response};

use super::door;
use super::door_kind::Door;
use super::load_shed::Rank;
use super::request_log::{Answered, RequestLog};
use super::{Ingress, body};
use crate::config::section::nearest;
use crate::model::Refusal;
use crate::source::Sources;

/// Number of sources up to which a path is compared with similar names.
const MOST_NAMES: usize = 200;

/// Length of the longest path that is compared, in bytes.
const MOST_MEANT: usize = 256;

/// A request at a path that no other door answers.
pub(super) async fn at_any_path(
    State(ingress): State<Arc<Ingress>>,
    request: Request<Body>,
) -> Response<Body> {
    door::serve(ingress, Door::Source, request, refuse).await
}

async fn refuse(
    ingress: &Ingress,
    (head, incoming): (Parts, Body),
    log: &mut RequestLog,
) -> Result<Answered, Refusal> {
    let admitted = ingress
        .load
        .enter(Rank::Unknown, log.peer.0)
        .and_then(|_| ingress.limits.caller(log.peer.0, &mut log.limits))
        .and_then(|()| ingress.limits.whole(false));
    let refusal = admitted.err().unwrap_or(Refusal::NotFound);
    if matches!(refusal, Refusal::NotFound) {
        log.hint = hint(&ingress.intake.sources, head.uri.path());
    }
    log.drained = body::drain(&head.headers, incoming);
    Err(refusal)
}

/// Advice to the operator: the source that a path which leads nowhere was probably meant for.
pub(super) fn hint(sources: &Sources, path: &str) -> Option<String> {
    let path = path.get(..MOST_MEANT.min(path.len()))?;
    let decoded = percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .ok()?;
    let segments: Vec<&str> = decoded
        .split('/')
        .map(str::trim)
        .filter(|segment| !segment.is_empty())
        .collect();
    let (last, before) = segments.split_last()?;
    // A longer path is compared only if it speaks of hooks: the meaning of others cannot be guessed.
    let speaks = before.is_empty()
        || before
            .iter()
            .any(|part| part.to_ascii_lowercase().contains("hook"));
    if !speaks {
        return None;
    }
    let names = || sources.iter().map(|source| source.config.name.as_str());
    let found = names().find(|name| name.eq_ignore_ascii_case(last));
    let near = || {
        let is_small = names().nth(MOST_NAMES).is_none() && !before.is_empty() && last.len() <= 64;
        is_small.then(|| nearest(last, names())).flatten()
    };
    let name = found.or_else(near)?;
    Some(format!(
        "there is a source {name}: its path is /hooks/{name}, and nothing else"
    ))
}
