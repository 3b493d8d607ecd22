//! Pauses that a channel asks for: in seconds, as a date, or by headers of its own.

use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName};
use jiff::fmt::rfc2822::DateTimeParser;

use crate::model::Timestamp;

/// The longest pause. Answers are not posted later than a day after their event in any case.
const LONGEST: f64 = 24.0 * 3600.0;

/// A number of seconds as a pause; nothing for one that is no time to wait.
pub(super) fn seconds(number: f64) -> Option<Duration> {
    (number >= 0.0).then(|| Duration::from_secs_f64(number.min(LONGEST)))
}

/// `Retry-After`, in seconds or as a date. The channel's own clock counts, where it sends its time.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(number) = text.parse::<f64>() {
        return seconds(number);
    }
    let own = headers.get(DATE).and_then(|date| date.to_str().ok());
    let now = own.and_then(date).unwrap_or(now);
    seconds(date(text)?.since(now).as_secs_f64())
}

/// A header that holds a number of seconds.
pub(super) fn header_seconds(headers: &HeaderMap, name: &HeaderName) -> Option<Duration> {
    let text = headers.get(name)?.to_str().ok()?;
    seconds(text.trim().parse().ok()?)
}

fn date(text: &str) -> Option<Timestamp> {
    let parsed = DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(Timestamp::from_millis(parsed.as_millisecond()))
}
