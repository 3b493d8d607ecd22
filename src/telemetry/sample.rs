//! The last refused requests with their reason, so that "why is my webhook not arriving" has an answer. Bounded, in
//! memory only, and without bodies or header values.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::model::Timestamp;

/// How many are kept for each source, and for requests that found none.
const EACH: usize = 32;

/// How many are kept in all.
const ALL: usize = 1024;

/// One refused request.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RefusedSample {
    /// When it came.
    pub at: Timestamp,
    /// The id that its answer carried.
    pub request_id: String,
    /// The source; none where none was found.
    pub source: Option<String>,
    /// The method.
    pub method: String,
    /// The path without the query, cut.
    pub path: String,
    /// Who called.
    pub peer: IpAddr,
    /// The names of its headers.
    pub headers: Vec<String>,
    /// How many bytes its body had, as far as it was read.
    pub body_bytes: u64,
    /// The code that the caller saw.
    pub code: &'static str,
    /// The finer reason.
    pub reason: &'static str,
    /// A sentence for the operator.
    pub cause: String,
}

/// The last of them.
#[derive(Debug, Default)]
pub struct RefusedSamples(Mutex<VecDeque<RefusedSample>>);

impl RefusedSamples {
    /// Keeps one; the oldest of its source goes when there are too many.
    pub fn keep(&self, sample: RefusedSample) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.iter().filter(|kept| kept.source == sample.source).count() >= EACH
            && let Some(at) = list.iter().position(|kept| kept.source == sample.source)
        {
            list.remove(at);
        }
        if list.len() >= ALL {
            list.pop_front();
        }
        list.push_back(sample);
    }

    /// The newest first; only of one source where one is named.
    pub fn list(&self, source: Option<&str>) -> Vec<RefusedSample> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().rev().filter(|s| source.is_none_or(|name| s.source.as_deref() == Some(name))).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(source: Option<&str>, number: i64) -> RefusedSample {
        RefusedSample {
            at: Timestamp::from_millis(number),
            request_id: String::new(),
            source: source.map(str::to_owned),
            method: "POST".into(),
            path: "/hooks/a".into(),
            peer: [127, 0, 0, 1].into(),
            headers: Vec::new(),
            body_bytes: 0,
            code: "bad_signature",
            reason: "stale",
            cause: String::new(),
        }
    }

    #[test]
    fn one_source_cannot_push_out_another() {
        let samples = RefusedSamples::default();
        samples.keep(sample(Some("quiet"), 1));
        for number in 0..5_000 {
            samples.keep(sample(Some("loud"), number));
        }
        assert_eq!(samples.list(Some("quiet")).len(), 1);
        let loud = samples.list(Some("loud"));
        assert_eq!((loud.len(), loud[0].at.millis()), (EACH, 4_999));
    }
}
