//! A provider's log: the list of its events, newest first, and each event as the provider sent it. A list that is too
//! long keeps its oldest events.

use std::collections::{HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method};

use super::ReconcileRequest;
use super::api::{Fetched, Unread};
use super::deadline::Deadline;
use super::stop::Stop;
use crate::model::{Clock, Received, RequestId, Timestamp};
use crate::source::Source;

/// The log of one kind of provider.
#[async_trait]
pub(super) trait EventLog: Send + Sync + std::fmt::Debug {
    /// Lists the events that were sent or made in the requested time.
    async fn list(&self, query: &LogQuery<'_>) -> Result<LogEvents, Stop>;

    /// Fetches one event of the list as it was sent.
    async fn fetch(&self, query: &LogQuery<'_>, listed: &Listed) -> Result<Sent, FetchError>;

    /// Time after its first delivery in which an event may be listed again.
    fn again(&self) -> Duration;
}

/// Query for a log, with what reading it needs.
#[derive(Debug)]
pub(super) struct LogQuery<'r> {
    pub(super) source: &'r Source,
    pub(super) asked: ReconcileRequest,
    pub(super) deadline: &'r Deadline,
    pub(super) clock: &'r Clock,
    pub(super) public_url: &'r str,
    /// Most deliveries to look at.
    pub(super) most: usize,
}

/// An event in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// Id that fetches the event.
    pub(super) id: String,
    /// Name that all deliveries of one event share.
    pub(super) name: String,
    /// Dedup key, where the list alone is enough to make it.
    pub(super) dedup: Option<String>,
    /// The provider's word for what happened.
    pub(super) event_type: Option<String>,
    /// Time at which the event was sent or made.
    pub(super) at: Timestamp,
}

/// An event as it was sent. The proof says which API it was read from.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) proof: Fetched,
}

/// Reason why an event was not fetched.
#[derive(Debug)]
pub(super) enum FetchError {
    /// This event cannot be fetched; others can.
    One(String),
    /// No event can be fetched any more.
    Stop(Stop),
}

/// A list while it is read, newest first. Of too many events the oldest are kept.
#[derive(Debug)]
pub(super) struct Listing {
    most: usize,
    kept: VecDeque<Listed>,
    cut: Option<Timestamp>,
    back_to: Option<Timestamp>,
}

/// Events of a list, oldest first, each event once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogEvents {
    pub(super) events: Vec<Listed>,
    /// Time from which on events were left out, where there were too many.
    pub(super) cut: Option<Timestamp>,
}

impl From<Unread> for FetchError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::NotThere => {
                Self::One("gone: the provider's log does not have it any more".into())
            }
            Unread::TooLarge(most) => {
                Self::One(format!("too_large: it is larger than {most} bytes"))
            }
            Unread::Stop(stop) => Self::Stop(stop),
        }
    }
}

impl LogQuery<'_> {
    /// True if a time lies in the requested time.
    pub(super) fn wants(&self, at: Timestamp) -> bool {
        self.asked.since <= at && at < self.asked.until
    }

    /// The request that the provider would have sent to the source.
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
            certificate: None,
        }
    }

    /// Dedup key of such a request.
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

    /// Notes how far back the list was read.
    pub(super) const fn back_to(&mut self, at: Timestamp) {
        self.back_to = Some(at);
    }

    /// Time that the list was read back to.
    pub(super) const fn reached(&self) -> Option<Timestamp> {
        self.back_to
    }

    /// Adds the next older event.
    pub(super) fn push(&mut self, listed: Listed) {
        self.kept.push_back(listed);
        if self.kept.len() > self.most
            && let Some(newest) = self.kept.pop_front()
        {
            self.cut = Some(self.cut.map_or(newest.at, |cut| cut.min(newest.at)));
        }
    }

    /// Sorts the events by time. An event that was sent several times keeps its first place.
    pub(super) fn oldest_first(self) -> LogEvents {
        let mut events: Vec<Listed> = self.kept.into_iter().rev().collect();
        // A log may be a little out of order. The time that a report has reached must hold all the same.
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
        // The fifth event was left out, so no event from its time on counts as done.
        assert_eq!(cut, Some(Timestamp::from_seconds(45)));
        assert_eq!(ids, ["1", "2", "3"]);
    }
}
