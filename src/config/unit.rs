//! Amounts with a unit: `30s`, `10MiB`, `100/min`.

use std::time::Duration;

use crate::model::Timestamp;

/// A rate: a count in a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The count.
    pub count: u32,
    /// In what time.
    pub per: Duration,
}

/// Reads a span of time: a number and `ms`, `s`, `min` (or `m`), `h`, `d`.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let millis: f64 = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" | "min" => 60e3,
        "h" => 3_600e3,
        "d" => 86_400e3,
        _ => return None,
    };
    let total = number * millis;
    (total <= 1e15).then(|| Duration::from_millis(total.round() as u64))
}

/// Reads a size: a number and `B`, `KB`, `KiB`, `MB`, `MiB`, `GB`, `GiB`; a bare number is bytes.
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let each: f64 = match unit {
        "" | "B" => 1.0,
        "KB" => 1e3,
        "KiB" => 1024.0,
        "MB" => 1e6,
        "MiB" => 1_048_576.0,
        "GB" => 1e9,
        "GiB" => 1_073_741_824.0,
        _ => return None,
    };
    let total = number * each;
    (total <= 1e15).then(|| total.round() as u64)
}

/// Reads a rate: a count, `/`, and `s`, `min`, `h` or `d`.
pub fn rate(text: &str) -> Option<Rate> {
    let (count, unit) = text.split_once('/')?;
    let count = count.trim().parse().ok().filter(|count| *count > 0)?;
    let per = match unit.trim() {
        "s" => Duration::from_secs(1),
        "m" | "min" => Duration::from_secs(60),
        "h" => Duration::from_secs(3_600),
        "d" => Duration::from_secs(86_400),
        _ => return None,
    };
    Some(Rate { count, per })
}

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    number.is_finite().then(|| (number, text[end..].trim()))
}

/// A moment: a date, which is its beginning in UTC, or a date with a time, in UTC where nothing else is said.
pub fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim().replace(' ', "T");
    [
        text.clone(),
        format!("{text}Z"),
        format!("{text}:00Z"),
        format!("{text}T00:00:00Z"),
    ]
    .iter()
    .find_map(|text| Timestamp::parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_amounts_and_nothing_else() {
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1_500)));
        assert_eq!(duration("2 min"), Some(Duration::from_secs(120)));
        assert_eq!(bytes("10MiB"), Some(10 * 1024 * 1024));
        assert_eq!(bytes("512"), Some(512));
        assert_eq!(
            rate("100/min"),
            Some(Rate {
                count: 100,
                per: Duration::from_secs(60)
            })
        );
        for wrong in ["", "s", "-1s", "1 parsec", "1e9d", "NaNs", "infs"] {
            assert_eq!(duration(wrong), None, "{wrong}");
            assert_eq!(bytes(wrong), None, "{wrong}");
            assert_eq!(rate(wrong), None, "{wrong}");
        }
        assert_eq!(rate("0/s"), None);
    }
}
