//! Stripe's list of an account's events: `GET /v1/events`, newest first. The event object is the body of a request.
//!
//! The list has the events whole, but only their names are kept while it is read: thousands of them would not fit. It
//! goes back thirty days.

use std::time::Duration;

use async_trait::async_trait;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::{Api, Fetched, Unread, strange};
use super::log::{EventLog, FetchError, Listed, Listing, LogEvents, LogQuery, Sent};
use super::report::{Stop, cut};
use crate::model::Timestamp;

const ACCOUNT: HeaderName = HeaderName::from_static("stripe-account");

/// The largest page of the list, and the largest event.
const PAGE: u64 = 4 << 20;
const ONE: u64 = 4 << 20;

/// How many events a page has. Where they are so large that a page would be too large, fewer.
const EVENTS: usize = 100;

/// The events of one account.
#[derive(Debug)]
pub(super) struct AccountEvents {
    api: Api,
    types: Vec<String>,
}

/// A page of the list. The events stay text.
#[derive(Deserialize)]
struct StripePage<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    #[serde(default)]
    has_more: bool,
}

/// What is read of an event.
#[derive(Deserialize)]
struct Event {
    id: String,
    object: String,
    created: i64,
    r#type: String,
}

#[async_trait]
impl EventLog for AccountEvents {
    async fn list(&self, reading: &LogQuery<'_>) -> Result<LogEvents, Stop> {
        let mut listing = Listing::new(reading.most);
        match self.read(reading, &mut listing).await {
            Ok(()) => Ok(listing.oldest_first()),
            Err(stop) => Err(stop.listing(listing.reached())),
        }
    }

    async fn fetch(&self, reading: &LogQuery<'_>, listed: &Listed) -> Result<Sent, FetchError> {
        let proof = self
            .api
            .get(&format!("/v1/events/{}", listed.id), ONE, reading.patience)
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

    /// Each event is listed once, when it was made.
    fn again(&self) -> Duration {
        Duration::ZERO
    }
}

impl AccountEvents {
    pub(super) fn new(api: Api, types: Vec<String>, account: Option<String>) -> Self {
        // What cannot stand in a header is a problem of the configuration.
        let account = account.and_then(|account| HeaderValue::try_from(account).ok());
        let api = account
            .into_iter()
            .fold(api, |api, account| api.with(ACCOUNT, account));
        Self { api, types }
    }

    /// Page by page, back to the beginning of the time that is asked for.
    async fn read(&self, reading: &LogQuery<'_>, listing: &mut Listing) -> Result<(), Stop> {
        let mut after: Option<String> = None;
        loop {
            let answer = self.page(reading, after.as_deref()).await?;
            let page: StripePage<'_> = answer.json()?;
            let mut last = None;
            for text in page.data {
                let event: Event = serde_json::from_str(text.get())
                    .map_err(|_| strange("the list has no events"))?;
                if !is_id(&event.id) {
                    return Err(strange("an event's id is none"));
                }
                let at = Timestamp::from_seconds(event.created);
                listing.back_to(at);
                last = Some(event.id.clone());
                // The time is in whole seconds, which have begun a little before.
                if at.seconds() >= reading.asked.since.seconds() && at < reading.asked.until {
                    let dedup =
                        reading.dedup(headers(), answer.body().slice_ref(text.get().as_bytes()));
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

    /// A page of the list: as large a one as may be.
    async fn page(&self, reading: &LogQuery<'_>, after: Option<&str>) -> Result<Fetched, Stop> {
        let mut limit = EVENTS;
        loop {
            match self
                .api
                .get(&self.path(reading, after, limit), PAGE, reading.patience)
                .await
            {
                Err(Unread::TooLarge(_)) if limit > 1 => limit = (limit / 5).max(1),
                answer => return answer.map_err(|unread| unread.stop("list of events")),
            }
        }
    }

    fn path(&self, reading: &LogQuery<'_>, after: Option<&str>, limit: usize) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &limit.to_string());
        query.append_pair("created[gte]", &reading.asked.since.seconds().to_string());
        query.append_pair(
            "created[lt]",
            &reading.asked.until.seconds().saturating_add(1).to_string(),
        );
        match self.types.as_slice() {
            // Alone it may have a star.
            [name] => drop(query.append_pair("type", name)),
            names => drop(query.extend_pairs(names.iter().map(|name| ("types[]", name)))),
        }
        if let Some(after) = after {
            query.append_pair("starting_after", after);
        }
        format!("/v1/events?{}", query.finish())
    }
}

/// What comes with every event.
fn headers() -> HeaderMap {
    HeaderMap::from_iter([(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    )])
}

/// An id that is one segment of a path.
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
