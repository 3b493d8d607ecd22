//! Tolerance of a time stamp: its largest age, and its largest lead over our clock.
//!
//! It is judged after the signature: before that, anybody may have written the time.

use std::time::Duration;

use crate::config::Section;
use crate::model::{OriginFault, Timestamp};

/// Notation of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Millis,
    /// Seconds or milliseconds: what has more than eleven digits is milliseconds.
    Either,
    Rfc3339,
    /// As in the header `Date`.
    HttpDate,
}

/// Tolerance of time stamps.
#[derive(Clone, Debug)]
pub(crate) struct Tolerance {
    unit: Unit,
    /// Back and ahead; none where the time is signed but not checked.
    bounds: Option<(Duration, Duration)>,
}

/// Largest lead of a sender's clock over ours, unless its file says more.
const AHEAD: Duration = Duration::from_secs(60);

impl Tolerance {
    /// Reads `unit`, `tolerance` and `future`, the last two in seconds.
    pub(crate) fn read(section: &Section<'_>) -> Self {
        let unit = section
            .one_of(
                "unit",
                &[
                    ("s", Unit::Seconds),
                    ("ms", Unit::Millis),
                    ("s-or-ms", Unit::Either),
                    ("rfc3339", Unit::Rfc3339),
                    ("http-date", Unit::HttpDate),
                ],
            )
            .map_or(Unit::Seconds, |unit| unit.value);
        let back = section
            .integer("tolerance")
            .map(|seconds| Duration::from_secs(seconds.value));
        let ahead = section.integer("future");
        if let (None, Some(ahead)) = (back, &ahead) {
            section.problems().error_hint(
                &ahead.place,
                format!(
                    "{} says nothing without a tolerance",
                    section.path("future")
                ),
                "set tolerance to how old a time stamp may be, in seconds",
            );
        }
        let ahead = ahead.map(|seconds| Duration::from_secs(seconds.value));
        Self {
            unit,
            bounds: back.map(|back| (back, ahead.unwrap_or(back.min(AHEAD)))),
        }
    }

    /// True if times are checked.
    pub(crate) const fn is_checked(&self) -> bool {
        self.bounds.is_some()
    }

    /// Judges a time as it was received.
    pub(crate) fn judge(
        &self,
        written: &[u8],
        now: Timestamp,
    ) -> Result<(), (OriginFault, String)> {
        let Some((back, ahead)) = self.bounds else {
            return Ok(());
        };
        let Some(at) = self.parse(written) else {
            return Err((
                OriginFault::BadTimestamp,
                "the time stamp is not a time".into(),
            ));
        };
        if now.since(at) > back {
            let age = now.since(at).as_secs();
            return Err((
                OriginFault::Stale,
                format!("signed {age} s ago, {} s are allowed", back.as_secs()),
            ));
        }
        if at.since(now) > ahead {
            let lead = at.since(now).as_secs();
            let cause = format!(
                "signed {lead} s ahead of our clock, {} s are allowed",
                ahead.as_secs()
            );
            return Err((OriginFault::Future, cause));
        }
        Ok(())
    }

    /// Writes a time the way the sender would.
    pub(crate) fn write(&self, at: Timestamp) -> String {
        match self.unit {
            Unit::Seconds | Unit::Either => at.seconds().to_string(),
            Unit::Millis => at.millis().to_string(),
            Unit::Rfc3339 => at.to_string(),
            Unit::HttpDate => jiff::Timestamp::from_millisecond(at.millis())
                .and_then(|at| {
                    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at)
                })
                .unwrap_or_default(),
        }
    }

    /// Digits only, without a sign, a fraction, a blank or a leading zero: no sender writes those.
    pub(crate) fn parse(&self, written: &[u8]) -> Option<Timestamp> {
        let text = std::str::from_utf8(written).ok()?;
        match self.unit {
            // A time without an offset is one of UTC with senders that leave it out.
            Unit::Rfc3339 => {
                return Timestamp::parse(text).or_else(|| Timestamp::parse(&format!("{text}Z")));
            }
            Unit::HttpDate => {
                let at = jiff::fmt::rfc2822::DateTimeParser::new()
                    .parse_timestamp(text)
                    .ok()?;
                return Some(Timestamp::from_millis(at.as_millisecond()));
            }
            Unit::Seconds | Unit::Millis | Unit::Either => {}
        }
        if text.is_empty()
            || !text.bytes().all(|b| b.is_ascii_digit())
            || (text.len() > 1 && text.starts_with('0'))
        {
            return None;
        }
        let number: i64 = text.parse().ok()?;
        match self.unit {
            Unit::Either if text.len() > 11 => Some(Timestamp::from_millis(number)),
            Unit::Seconds | Unit::Either => number.checked_mul(1000).map(Timestamp::from_millis),
            Unit::Millis | Unit::Rfc3339 | Unit::HttpDate => Some(Timestamp::from_millis(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Problems, Table};

    fn window(text: &str) -> Tolerance {
        let problems = Problems::default();
        let table = Table::parse("t", text, &problems);
        let window = Tolerance::read(&Section::new(&table, "", &problems));
        assert!(!problems.any_error());
        window
    }

    #[test]
    fn a_time_without_an_offset_is_one_of_utc() {
        let window = window("unit = 'rfc3339'\ntolerance = 300");
        let at = Timestamp::parse("2023-11-14T22:13:20.123Z");
        assert!(at.is_some());
        assert_eq!(window.parse(b"2023-11-14T22:13:20.123"), at);
        assert_eq!(window.parse(b"2023-11-14T23:13:20.123+01:00"), at);
        for wrong in [
            "2023-11-14",
            "2023-11-14T22:13:20ZZ",
            "2023-11-14T22:13:20 ",
            "",
        ] {
            assert_eq!(window.parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn t47_both_edges_are_let_in_and_one_second_more_is_not() {
        let window = window("tolerance = 300");
        let now = Timestamp::from_seconds(1_700_000_000);
        for (seconds, expected) in [
            (1_700_000_000 - 300, Ok(())),
            (1_700_000_000 - 301, Err(OriginFault::Stale)),
            (1_700_000_060, Ok(())),
            (1_700_000_061, Err(OriginFault::Future)),
        ] {
            let text = i64::to_string(&seconds);
            assert_eq!(
                window.judge(text.as_bytes(), now).map_err(|e| e.0),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_short_tolerance_shortens_both_sides_and_the_file_may_say_more() {
        let now = Timestamp::from_seconds(1000);
        assert!(window("tolerance = 30").judge(b"1031", now).is_err());
        assert!(
            window("tolerance = 30\nfuture = 120")
                .judge(b"1120", now)
                .is_ok()
        );
        assert!(
            window("unit = 's'").judge(b"whatever", now).is_ok(),
            "without a tolerance it is not checked"
        );
    }

    #[test]
    fn t47_what_is_no_time_is_refused_without_harm() {
        let now = Timestamp::from_seconds(1_700_000_000);
        let window = window("tolerance = 300");
        for wrong in [
            "",
            "-1",
            "+1700000000",
            " 1700000000",
            "1700000000.5",
            "01700000000",
            "1e9",
            "99999999999999999999",
            "9223372036854775807",
            "١٢",
            "0x10",
        ] {
            assert!(window.judge(wrong.as_bytes(), now).is_err(), "{wrong}");
        }
        assert!(window.judge(&[0xff, 0xfe], now).is_err());
    }

    #[test]
    fn other_units_are_read() {
        let now = Timestamp::parse("2024-01-01T00:00:00Z").unwrap();
        assert!(
            window("unit = 'ms'\ntolerance = 5")
                .judge(now.millis().to_string().as_bytes(), now)
                .is_ok()
        );
        let text = window("unit = 'rfc3339'\ntolerance = 5");
        assert!(
            text.judge(b"2024-01-01T01:00:00.123456789+01:00", now)
                .is_ok()
        );
        assert!(text.judge(b"2023-12-31T23:59:00Z", now).is_err());
        let date = window("unit = 'http-date'\ntolerance = 5");
        assert!(date.judge(b"Mon, 01 Jan 2024 00:00:03 GMT", now).is_ok());
        assert!(date.judge(b"Sun, 31 Dec 2023 23:00:00 GMT", now).is_err());
        assert!(date.judge(b"2024-01-01", now).is_err());
        let either = window("unit = 's-or-ms'\ntolerance = 5");
        for at in [now.millis(), now.seconds()] {
            assert!(either.judge(at.to_string().as_bytes(), now).is_ok());
            assert!(
                either
                    .judge((at - at / 1000).to_string().as_bytes(), now)
                    .is_err()
            );
        }
    }
}
