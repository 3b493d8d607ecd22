//! Kept events, mapped again by what their sources are configured to now.

use std::net::Ipv4Addr;
use std::sync::Arc;

use http::Method;

use super::Trust;
use crate::dispatch::replay::Remap;
use crate::inbox::{Anew, EventDetail};
use crate::model::{Received, RequestId};
use crate::source::Sources;

/// Maps kept events again.
#[derive(Debug)]
pub struct Remapper(pub Arc<Sources>);

impl Remap for Remapper {
    fn anew(&self, event: &EventDetail) -> Result<Anew, String> {
        let name = &event.summary.source;
        let source = self
            .0
            .get(name)
            .ok_or_else(|| format!("no source is called {name} any more"))?;
        // The request was proved before it was kept.
        let verified = Trust::Operator
            .vouch_for(request_of(event))
            .map_err(|refusal| refusal.cause())?;
        let mapped = source
            .apply(&verified, !event.attachments.is_empty())
            .map_err(|refusal| refusal.cause())?;
        Ok(Anew {
            // A type that was read from a part of the request that is not kept stays.
            event_type: mapped
                .event_type
                .or_else(|| event.summary.event_type.clone()),
            thread: mapped.thread,
            filtered: mapped.filtered,
            request_line: event.request_line.clone(),
            params: mapped.params,
            headers: event.headers.clone(),
        })
    }
}

/// The request that an event came by, as far as it was kept.
pub fn request_of(event: &EventDetail) -> Received {
    let (method, target) = event
        .request_line
        .split_once(' ')
        .unwrap_or(("POST", event.request_line.as_str()));
    let headers = event
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
    Received {
        id: RequestId::new(),
        at: event.summary.received_at,
        method: method.parse().unwrap_or(Method::POST),
        target: target.to_owned(),
        url: String::new(),
        headers: headers.collect(),
        body: event.body.clone(),
        peer: Ipv4Addr::UNSPECIFIED.into(),
        certificate: None,
    }
}
