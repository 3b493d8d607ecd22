//! GitHub's log of a hook's deliveries: `GET /{hook}/deliveries`, newest first, and each delivery with its request.
//!
//! A delivery that is made again has the same guid and another id. The log goes back three days.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, LINK,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, Uri};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::{Api, strange};
use super::log::{EventLog, FetchError, Listed, Listing, LogEvents, LogQuery, Sent};
use super::stop::{Stop, cut};
use crate::model::Timestamp;

const VERSION: HeaderName = HeaderName::from_static("x-github-api-version");
const DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");
const EVENT: HeaderName = HeaderName::from_static("x-github-event");

/// Largest page of the list, and largest delivery (the largest payload with room for the fields around it).
const PAGE: u64 = 4 << 20;
const ONE: u64 = 26 << 20;

/// Disorder that the list may have.
const DISORDER: Duration = Duration::from_secs(60);

/// Time in which a delivery can be repeated.
const AGAIN: Duration = Duration::from_secs(3 * 86_400);

/// Longest cursor, and most headers of a delivery.
const CURSOR: usize = 1024;
const HEADERS: usize = 100;

/// Headers of the connection, which are not part of the delivery itself.
const OF_THE_CONNECTION: [HeaderName; 5] =
    [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT];

/// The deliveries of one hook.
#[derive(Debug)]
pub(super) struct Deliveries {
    api: Api,
    hook: String,
}

/// A delivery in the list.
#[derive(Deserialize)]
struct ListedDelivery<'a> {
    /// The id as it is spelled.
    #[serde(borrow)]
    id: &'a RawValue,
    guid: String,
    delivered_at: String,
    event: String,
    action: Option<String>,
}

/// A delivery with its request.
#[derive(Deserialize)]
struct Delivery<'a> {
    guid: String,
    event: String,
    #[serde(borrow)]
    request: DeliveryRequest<'a>,
}

#[derive(Deserialize)]
struct DeliveryRequest<'a> {
    headers: Option<serde_json::Map<String, serde_json::Value>>,
    /// The payload's own text.
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[async_trait]
impl EventLog for Deliveries {
    async fn list(&self, query: &LogQuery<'_>) -> Result<LogEvents, Stop> {
        let mut listing = Listing::new(query.most);
        match self.read(query, &mut listing).await {
            Ok(()) => Ok(listing.oldest_first()),
            Err(stop) => Err(stop.while_listing(listing.reached())),
        }
    }

    async fn fetch(&self, query: &LogQuery<'_>, listed: &Listed) -> Result<Sent, FetchError> {
        let path = format!("/{}/deliveries/{}", self.hook, listed.id);
        let proof = self.api.get(&path, ONE, query.deadline).await?;
        let Delivery {
            guid,
            event,
            request,
        } = serde_json::from_slice(proof.body())
            .map_err(|error| FetchError::One(format!("strange: it cannot be read ({error})")))?;
        let payload = request.payload.ok_or_else(|| {
            FetchError::One("gone: the provider's log has it without its payload".into())
        })?;
        let mut headers = headers(request.headers);
        for (name, value) in [(DELIVERY, guid), (EVENT, event)] {
            headers.insert(
                name,
                HeaderValue::try_from(value)
                    .map_err(|_| FetchError::One("strange: it has an invalid id".into()))?,
            );
        }
        let body = body(&headers, payload, proof.body());
        Ok(Sent {
            headers,
            body,
            proof,
        })
    }

    fn again(&self) -> Duration {
        AGAIN
    }
}

impl Deliveries {
    pub(super) fn new(api: Api, hook: String) -> Self {
        let api = api
            .with(
                ACCEPT,
                HeaderValue::from_static("application/vnd.github+json"),
            )
            .with(VERSION, HeaderValue::from_static("2022-11-28"));
        Self { api, hook }
    }

    /// Reads page by page, back to the beginning of the requested time.
    async fn read(&self, query: &LogQuery<'_>, listing: &mut Listing) -> Result<(), Stop> {
        let mut cursor: Option<String> = None;
        loop {
            let page = self
                .api
                .get(&self.page(cursor.as_deref()), PAGE, query.deadline)
                .await;
            let page = page.map_err(|unread| unread.stop("hook of this path"))?;
            let mut last = None;
            for item in page.json::<Vec<ListedDelivery<'_>>>()? {
                let at = Timestamp::parse(&item.delivered_at)
                    .ok_or_else(|| strange("delivered_at is not a time"))?;
                last = Some(at);
                if query.wants(at) {
                    listing.push(listed(query, &item, at)?);
                }
            }
            let Some(last) = last else { return Ok(()) };
            listing.back_to(last);
            let next = self.next(page.headers())?;
            match next {
                Some(next) if last >= query.asked.since - DISORDER => {
                    if cursor.as_ref() == Some(&next) {
                        return Err(strange("a page of the list is its own next"));
                    }
                    cursor = Some(next);
                }
                _ => return Ok(()),
            }
        }
    }

    fn page(&self, cursor: Option<&str>) -> String {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        pairs.append_pair("per_page", "100");
        if let Some(cursor) = cursor {
            pairs.append_pair("cursor", cursor);
        }
        format!("/{}/deliveries?{}", self.hook, pairs.finish())
    }

    /// Cursor of the next page. Only the cursor is taken from the page's address; an address at another host ends the
    /// reconcile all the same.
    fn next(&self, headers: &HeaderMap) -> Result<Option<String>, Stop> {
        let Some(address) = headers
            .get_all(LINK)
            .iter()
            .find_map(|link| next_in(link.to_str().ok()?))
        else {
            return Ok(None);
        };
        let address: Uri = address
            .parse()
            .map_err(|_| strange("the address of the next page is invalid"))?;
        if !self.api.owns(&address) {
            let host = cut(address.host().unwrap_or("no host"));
            let detail = format!(
                "The next page of the list is said to be at {host}, which is not the API's; nothing was sent there."
            );
            return Err(Stop::new("strange_link", detail));
        }
        let query = address.query().unwrap_or_default();
        let cursor = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "cursor");
        match cursor.map(|(_, cursor)| cursor.into_owned()) {
            Some(cursor) if !cursor.is_empty() && cursor.len() <= CURSOR => Ok(Some(cursor)),
            _ => Err(strange("the next page's address has no cursor")),
        }
    }
}

/// A delivery as an entry of the list.
fn listed(query: &LogQuery<'_>, item: &ListedDelivery<'_>, at: Timestamp) -> Result<Listed, Stop> {
    let id = item.id.get();
    if id.is_empty() || id.len() > 32 || !id.bytes().all(|b| b.is_ascii_digit()) {
        return Err(strange("a delivery's id is not a number"));
    }
    // The event's name may stand in its body, and the list has no bodies.
    let dedup = if query.source.mapping.is_named_by_headers() {
        let named = [(DELIVERY, &item.guid), (EVENT, &item.event)];
        let headers = named
            .into_iter()
            .filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)));
        query.dedup(headers.collect(), Bytes::new())
    } else {
        None
    };
    let event_type = match &item.action {
        Some(action) => format!("{}.{action}", item.event),
        None => item.event.clone(),
    };
    Ok(Listed {
        id: id.to_owned(),
        name: cut(&item.guid),
        dedup,
        event_type: Some(cut(&event_type)),
        at,
    })
}

/// The headers of a delivery without those of its connection.
fn headers(written: Option<serde_json::Map<String, serde_json::Value>>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in written.into_iter().flatten().take(HEADERS) {
        if let (Ok(name), Some(Ok(value))) = (
            HeaderName::try_from(name),
            value.as_str().map(HeaderValue::from_str),
        ) && !OF_THE_CONNECTION.contains(&name)
        {
            headers.insert(name, value);
        }
    }
    headers
        .entry(CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/json"));
    headers
}

/// The body as it was sent: the text of the payload, or a form that contains it.
fn body(headers: &HeaderMap, payload: &RawValue, answer: &Bytes) -> Bytes {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("payload", payload.get());
        form.finish().into()
    } else {
        answer.slice_ref(payload.get().as_bytes())
    }
}

/// The address in a `Link` header whose relation is `next`.
fn next_in(link: &str) -> Option<&str> {
    let mut rest = link;
    loop {
        let (address, after) = rest.split_once('<')?.1.split_once('>')?;
        let end = after.find('<').unwrap_or(after.len());
        let is_next = after[..end].split([';', ',']).any(|part| {
            let relation = part
                .trim()
                .strip_prefix("rel=")
                .map(|relation| relation.trim_matches('"'));
            relation.is_some_and(|relation| relation.split(' ').any(|word| word == "next"))
        });
        if is_next {
            return Some(address);
        }
        rest = &after[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_the_links() {
        let (one, two) = (
            "<https://a.example/x?cursor=v1,2>; rel=\"next\"",
            "<https://a.example/y>; rel=\"prev\"",
        );
        assert_eq!(next_in(one), Some("https://a.example/x?cursor=v1,2"));
        assert_eq!(
            next_in(&format!("{two}, {one}")),
            Some("https://a.example/x?cursor=v1,2")
        );
        assert_eq!(
            next_in(&format!("{one},{two}")),
            Some("https://a.example/x?cursor=v1,2")
        );
        assert_eq!(
            next_in("<https://a.example/z>; title=\"n\"; rel=next"),
            Some("https://a.example/z")
        );
        for none in [
            two,
            "",
            "next",
            "<https://a.example",
            "<>; rel=\"nextish\"",
            "rel=\"next\"",
        ] {
            assert_eq!(next_in(none), None, "{none}");
        }
    }

    #[test]
    fn a_form_hooks_body_is_a_form_and_any_others_the_text_itself() {
        let answer = Bytes::from_static(br#"{"payload": {"n":12345678901234567890.10} }"#);
        #[derive(Deserialize)]
        struct Whole<'a> {
            #[serde(borrow)]
            payload: &'a RawValue,
        }
        let payload = serde_json::from_slice::<Whole<'_>>(&answer)
            .unwrap()
            .payload;
        let typed = |kind: &'static str| {
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))])
        };
        assert_eq!(
            body(&typed("application/json"), payload, &answer),
            r#"{"n":12345678901234567890.10}"#
        );
        let form = body(
            &typed("application/x-www-form-urlencoded; charset=utf-8"),
            payload,
            &answer,
        );
        assert_eq!(form, "payload=%7B%22n%22%3A12345678901234567890.10%7D");
    }

    #[test]
    fn headers_of_the_connection_are_left_out_and_a_type_is_always_there() {
        let written = serde_json::json!({
            "X-GitHub-Event": "push", "Host": "a.example", "content-length": "7", "X-Number": 7, "bad name": "x",
        });
        let headers = headers(written.as_object().cloned());
        assert_eq!(headers.len(), 2, "{headers:?}");
        assert_eq!(headers["x-github-event"], "push");
        assert_eq!(headers[CONTENT_TYPE], "application/json");
        assert_eq!(super::headers(None)[CONTENT_TYPE], "application/json");
    }

    fn deliveries() -> Deliveries {
        let client = crate::net::Client::new(Duration::from_secs(1), None).unwrap();
        let base = "https://api.example.com".parse().unwrap();
        let token = crate::config::Secret::new("t", "t");
        let clock = crate::model::Clock::system();
        Deliveries::new(
            Api::new(client, &base, token, clock),
            "repos/a/b/hooks/1".into(),
        )
    }

    #[test]
    fn only_the_cursor_of_a_next_page_is_used_and_only_at_the_apis_own_host() {
        let deliveries = deliveries();
        let next = |link: &'static str| {
            deliveries.next(&HeaderMap::from_iter([(
                LINK,
                HeaderValue::from_static(link),
            )]))
        };
        let own = next("<https://api.example.com/anything?per_page=1&cursor=v1_7>; rel=\"next\"");
        assert_eq!(own, Ok(Some("v1_7".into())));
        assert_eq!(
            deliveries.page(Some("a&b")),
            "/repos/a/b/hooks/1/deliveries?per_page=100&cursor=a%26b"
        );
        assert_eq!(next("<https://api.example.com/x>; rel=\"prev\""), Ok(None));
        for (link, code) in [
            (
                "<https://evil.example/x?cursor=1>; rel=\"next\"",
                "strange_link",
            ),
            (
                "<https://api.example.com/x>; rel=\"next\"",
                "strange_answer",
            ),
            (
                "<https://api.example.com/x?cursor=>; rel=\"next\"",
                "strange_answer",
            ),
            (
                "<https://api.example.com/ x>; rel=\"next\"",
                "strange_answer",
            ),
        ] {
            assert_eq!(next(link).expect_err(link).code, code, "{link}");
        }
    }
}
