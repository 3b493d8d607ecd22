//! A provider's log as the walk sees it: a list, newest first, of which the oldest are kept; and each event of it,
//! fetched as it was sent.

use std::collections::{HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method};

use super::ReconcileRequest;
use super::api::Fetched;
use super::deadline::Deadline;
use super::report::Stop;
use crate::model::{Clock, Received, RequestId, Timestamp};
use crate::source::Source;

/// One kind of log.
#[async_trait]
pub(super) trait EventLog: Send + Sync + std::fmt::Debug {
    /// The events that were sent or made in the time that is asked for.
    async fn list(&self, reading: &LogQuery<'_>) -> Result<LogEvents, Stop>;

    /// One event of the list, as it was sent.
    async fn fetch(&self, reading: &LogQuery<'_>, listed: &Listed) -> Result<Sent, FetchError>;

    /// How long after its first delivery an event may be listed once more.
    fn again(&self) -> Duration;
}

/// For what a log is read.
#[derive(Debug)]
pub(super) struct LogQuery<'r> {
    pub(super) source: &'r Source,
    pub(super) asked: ReconcileRequest,
    pub(super) patience: &'r Deadline,
    pub(super) clock: &'r Clock,
    pub(super) public_url: &'r str,
    /// How many deliveries are looked at.
    pub(super) most: usize,
}

/// An event in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// What it is fetched by.
    pub(super) id: String,
    /// What all deliveries of one event have in common.
    pub(super) name: String,
    /// Its dedup key, where the list is enough to tell.
    pub(super) dedup: Option<String>,
    /// The provider's word for what happened.
    pub(super) event_type: Option<String>,
    /// When it was sent or made.
    pub(super) at: Timestamp,
}

/// An event as it was sent. The proof says where it was read.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) proof: Fetched,
}

/// Why an event was not had.
#[derive(Debug)]
pub(super) enum FetchError {
    /// This one cannot be had; others can.
    One(String),
    /// None can be had any more.
    Stop(Stop),
}

/// A list that is being read, newest first. Of too many the oldest are kept.
#[derive(Debug)]
pub(super) struct Listing {
    most: usize,
    kept: VecDeque<Listed>,
    cut: Option<Timestamp>,
    back_to: Option<Timestamp>,
}

/// What a list holds, oldest first, each event once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogEvents {
    pub(super) events: Vec<Listed>,
    /// From when on events were left out, where there were too many.
    pub(super) cut: Option<Timestamp>,
}

impl LogQuery<'_> {
    /// Whether a time is within what is asked for.
    pub(super) fn wants(&self, at: Timestamp) -> bool {
        self.asked.since <= at && at < self.asked.until
    }

    /// The request that the provider would have made.
    pub(super) fn request(&self, headers: HeaderMap, body: Bytes) -> Received {
        let target = format!("/hooks/{}", self.source.config.name);
        Received {
            id: RequestId::new(),
            at: self.clock.now(),
            method: Method::POST,
            url: format!("{}{target}", self.public_url),
            target,
            headers,
            body,
            peer: Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    /// The dedup key that such a request would have.
    pub(super) fn dedup(&self, headers: HeaderMap, body: Bytes) -> Option<String> {
        self.source
            .mapping
            .dedup(&self.request(headers, body))
            .ok()
            .flatten()
    }
}

impl Listing {
    pub(super) const fn new(most: usize) -> Self {
        Self {
            most,
            kept: VecDeque::new(),
            cut: None,
            back_to: None,
        }
    }

    /// The list goes back to here.
    pub(super) const fn back_to(&mut self, at: Timestamp) {
        self.back_to = Some(at);
    }

    /// How far back the list was read.
    pub(super) const fn reached(&self) -> Option<Timestamp> {
        self.back_to
    }

    /// The next older one.
    pub(super) fn push(&mut self, listed: Listed) {
        self.kept.push_back(listed);
        if self.kept.len() > self.most
            && let Some(newest) = self.kept.pop_front()
        {
            self.cut = Some(self.cut.map_or(newest.at, |cut| cut.min(newest.at)));
        }
    }

    /// An event that was sent several times stands where it was sent first.
    pub(super) fn oldest_first(self) -> LogEvents {
        let mut events: Vec<Listed> = self.kept.into_iter().rev().collect();
        // A log may be a little out of order; what is told of how far it got must hold.
        events.sort_by_key(|listed| listed.at);
        let mut seen = HashSet::new();
        events.retain(|listed| {
            self.cut.is_none_or(|cut| listed.at < cut) && seen.insert(listed.name.clone())
        });
        LogEvents {
            events,
            cut: self.cut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: u32, name: &str, at: i64) -> Listed {
        let at = Timestamp::from_seconds(at);
        Listed {
            id: id.to_string(),
            name: name.to_owned(),
            dedup: None,
            event_type: None,
            at,
        }
    }

    fn read(most: usize, newest_first: &[(u32, &str, i64)]) -> (Vec<String>, Option<Timestamp>) {
        let mut listing = Listing::new(most);
        for (id, name, at) in newest_first {
            listing.push(listed(*id, name, *at));
        }
        let list = listing.oldest_first();
        (
            list.events.into_iter().map(|listed| listed.id).collect(),
            list.cut,
        )
    }

    #[test]
    fn the_oldest_delivery_of_an_event_stands_for_it() {
        let (ids, cut) = read(
            9,
            &[
                (5, "a", 50),
                (4, "b", 40),
                (3, "c", 30),
                (2, "b", 20),
                (1, "a", 10),
            ],
        );
        assert_eq!((ids, cut), (vec!["1".into(), "2".into(), "3".into()], None));
    }

    #[test]
    fn of_too_many_the_oldest_are_kept_and_nothing_after_a_gap() {
        let log = [
            (6, "f", 60),
            (5, "e", 45),
            (4, "d", 50),
            (3, "c", 30),
            (2, "b", 20),
            (1, "a", 10),
        ];
        let (ids, cut) = read(4, &log);
        // The fifth was left out, and so nothing that is as late as it may be told to be done.
        assert_eq!(cut, Some(Timestamp::from_seconds(45)));
        assert_eq!(ids, ["1", "2", "3"]);
    }
}
