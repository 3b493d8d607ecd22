//! Stripe's list of an account's events: `GET /v1/events`, newest first. The event object is the body of a request.
//!
//! The list has whole events, but only their names are kept while it is read, because thousands of events would not fit
//! into memory. The list goes back thirty days.

use std::time::Duration;

use async_trait::async_trait;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::{Api, Fetched, Unread, strange};
use super::log::{EventLog, FetchError, Listed, Listing, LogEvents, LogQuery, Sent};
use super::stop::{Stop, cut};
use crate::model::Timestamp;

const ACCOUNT: HeaderName = HeaderName::from_static("stripe-account");

/// Largest page of the list, and largest event.
const PAGE: u64 = 4 << 20;
const ONE: u64 = 4 << 20;

/// Events of a page. A page of large events has fewer, so that it stays below the largest page.
const EVENTS: usize = 100;

/// The events of one account.
#[derive(Debug)]
pub(super) struct AccountEvents {
    api: Api,
    types: Vec<String>,
}

/// A page of the list, with its events as text.
#[derive(Deserialize)]
struct StripePage<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    #[serde(default)]
    has_more: bool,
}

/// The fields of an event that are read.
#[derive(Deserialize)]
struct Event {
    id: String,
    object: String,
    created: i64,
    r#type: String,
}

#[async_trait]
impl EventLog for AccountEvents {
    async fn list(&self, query: &LogQuery<'_>) -> Result<LogEvents, Stop> {
        let mut listing = Listing::new(query.most);
        match self.read(query, &mut listing).await {
            Ok(()) => Ok(listing.oldest_first()),
            Err(stop) => Err(stop.while_listing(listing.reached())),
        }
    }

    async fn fetch(&self, query: &LogQuery<'_>, listed: &Listed) -> Result<Sent, FetchError> {
        let proof = self
            .api
            .get(&format!("/v1/events/{}", listed.id), ONE, query.deadline)
            .await?;
        let event: Event = proof
            .json()
            .map_err(|stop| FetchError::One(format!("strange: {}", stop.detail)))?;
        if event.object != "event" || event.id != listed.id {
            return Err(FetchError::One(
                "strange: the provider's API answers with something else".into(),
            ));
        }
        Ok(Sent {
            headers: headers(),
            body: proof.body().clone(),
            proof,
        })
    }

    /// Zero: each event is listed once, at the time it was made.
    fn again(&self) -> Duration {
        Duration::ZERO
    }
}

impl AccountEvents {
    pub(super) fn new(api: Api, types: Vec<String>, account: Option<String>) -> Self {
        // An account that cannot stand in a header was reported when the configuration was read.
        let account = account.and_then(|account| HeaderValue::try_from(account).ok());
        let api = account
            .into_iter()
            .fold(api, |api, account| api.with(ACCOUNT, account));
        Self { api, types }
    }

    /// Reads page by page, back to the beginning of the requested time.
    async fn read(&self, query: &LogQuery<'_>, listing: &mut Listing) -> Result<(), Stop> {
        let mut after: Option<String> = None;
        loop {
            let answer = self.page(query, after.as_deref()).await?;
            let page: StripePage<'_> = answer.json()?;
            let mut last = None;
            for text in page.data {
                let event: Event = serde_json::from_str(text.get())
                    .map_err(|_| strange("the list has no events"))?;
                if !is_id(&event.id) {
                    return Err(strange("an event has an invalid id"));
                }
                let at = Timestamp::from_seconds(event.created);
                listing.back_to(at);
                last = Some(event.id.clone());
                // The provider's times are whole seconds, so the first second counts from its beginning.
                if at.seconds() >= query.asked.since.seconds() && at < query.asked.until {
                    let dedup =
                        query.dedup(headers(), answer.body().slice_ref(text.get().as_bytes()));
                    let event_type = Some(cut(&event.r#type));
                    listing.push(Listed {
                        name: event.id.clone(),
                        id: event.id,
                        dedup,
                        event_type,
                        at,
                    });
                }
            }
            match last {
                Some(_) if !page.has_more => return Ok(()),
                Some(_) if last == after => {
                    return Err(strange("a page of the list is its own next"));
                }
                Some(_) => after = last,
                None => return Ok(()),
            }
        }
    }

    /// Gets a page of the list, with as many events as fit.
    async fn page(&self, query: &LogQuery<'_>, after: Option<&str>) -> Result<Fetched, Stop> {
        let mut limit = EVENTS;
        loop {
            match self
                .api
                .get(&self.path(query, after, limit), PAGE, query.deadline)
                .await
            {
                Err(Unread::TooLarge(_)) if limit > 1 => limit = (limit / 5).max(1),
                answer => return answer.map_err(|unread| unread.stop("list of events")),
            }
        }
    }

    fn path(&self, query: &LogQuery<'_>, after: Option<&str>, limit: usize) -> String {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        pairs.append_pair("limit", &limit.to_string());
        pairs.append_pair("created[gte]", &query.asked.since.seconds().to_string());
        pairs.append_pair(
            "created[lt]",
            &query.asked.until.seconds().saturating_add(1).to_string(),
        );
        match self.types.as_slice() {
            // A single type may have a star.
            [name] => drop(pairs.append_pair("type", name)),
            names => drop(pairs.extend_pairs(names.iter().map(|name| ("types[]", name)))),
        }
        if let Some(after) = after {
            pairs.append_pair("starting_after", after);
        }
        format!("/v1/events?{}", pairs.finish())
    }
}

/// Headers of every event.
fn headers() -> HeaderMap {
    HeaderMap::from_iter([(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    )])
}

/// True if an id is one segment of a path.
fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_nowhere_else() {
        assert!(is_id("evt_1NG8Du2eZvKYlo2CUI79vXWy"));
        for wrong in ["", "..", "a/b", "a?b", "a%2fb", "é"] {
            assert!(!is_id(wrong), "{wrong}");
        }
    }
}
