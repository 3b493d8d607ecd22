//! A request as a source's check and mapping see it.

use http::header::CONTENT_ENCODING;
use http::request::Parts;

use super::Ingress;
use super::memory_limit::MemoryPermit;
use super::request_log::RequestLog;
use crate::model::{Received, Refusal};
use crate::source::Source;
use crate::verify::most_inflated;

/// Makes a [`Received`] of a head and a body.
pub(super) fn received(
    ingress: &Ingress,
    head: Parts,
    body: bytes::Bytes,
    log: &RequestLog,
) -> Received {
    let target = head
        .uri
        .path_and_query()
        .map_or_else(|| "/".to_owned(), ToString::to_string);
    Received {
        id: log.id,
        at: log.at,
        method: head.method,
        url: format!("{}{target}", ingress.public_url),
        target,
        headers: head.headers,
        body,
        peer: log.peer.0,
        certificate: log.certificate.clone(),
    }
}

/// The request with the body that is signed: uncompressed where its source takes compressed ones. Memory for it is taken
/// from what all bodies share.
pub(super) fn opened(
    source: &Source,
    received: Received,
    memory: &MemoryPermit,
) -> Result<Received, Refusal> {
    if source.takes_compressed() && received.headers.contains_key(CONTENT_ENCODING) {
        let length = received.body.len() as u64;
        memory.grow(length + most_inflated(length))?;
    }
    source.opened(received)
}
