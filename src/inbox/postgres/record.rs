//! New events with their lists written out, before a writer has them.

use bytes::Bytes;

use crate::inbox::InboxError;
use crate::model::EventId;
use crate::model::NewEvent;

/// Bytes that rows and their places in indexes need beside what is in them, about.
const OVERHEAD: usize = 1024;

/// An event with its lists written out, which is done before a writer has it.
#[derive(Debug)]
pub(super) struct Record {
    /// The event.
    pub(super) event: NewEvent,
    /// Its parameters, as JSON.
    pub(super) params: Vec<u8>,
    /// Its headers, as JSON.
    pub(super) headers: Vec<u8>,
}

impl Record {
    /// Writes the lists out.
    pub(super) fn new(event: NewEvent) -> Result<Self, InboxError> {
        let unwritable = |error: serde_json::Error| InboxError::Record(error.to_string());
        let params = serde_json::to_vec(&event.params).map_err(unwritable)?;
        let headers = serde_json::to_vec(&event.headers).map_err(unwritable)?;
        Ok(Self {
            event,
            params,
            headers,
        })
    }

    /// About how much of the disk it needs.
    pub(super) fn bytes(&self) -> usize {
        let sealed = self
            .event
            .deliveries
            .iter()
            .filter_map(|delivery| delivery.sealed.as_ref().map(Bytes::len));
        self.event.body.len()
            + self.params.len()
            + self.headers.len()
            + self.event.request_line.len()
            + sealed.sum::<usize>()
            + OVERHEAD
    }
}

/// The events of one request: all of them are kept, or none.
#[derive(Debug)]
pub(super) struct RequestRecords(pub(super) Vec<Record>);

impl RequestRecords {
    /// Writes the lists out.
    pub(super) fn new(events: Vec<NewEvent>) -> Result<Self, InboxError> {
        events
            .into_iter()
            .map(Record::new)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// About how much of the disk they need.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(Record::bytes).sum()
    }

    /// The names of the events.
    pub(super) fn ids(&self) -> impl Iterator<Item = EventId> + '_ {
        self.0.iter().map(|record| record.event.id)
    }
}
