//! The last refused requests with their reason, so that "why is my webhook not arriving" has an answer. Bounded, in
//! memory only, and without bodies or header values; where the operator asks for it, the last few whole, with the
//! values masked that are secrets.

use std::collections::VecDeque;
use std::net::IpAddr;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use crate::model::Timestamp;

/// Most samples for each source, and for requests that found no source.
const EACH: usize = 32;

/// Most samples in all.
const ALL: usize = 1024;

/// The largest body that is kept with a refused request, and how many bytes of them in all.
const BODY: usize = 1 << 20;
const BODIES: usize = 16 << 20;

/// One refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSample {
    /// Time of the request.
    pub at: Timestamp,
    /// The id that its answer carried.
    pub request_id: String,
    /// The source; none where none was found.
    pub source: Option<String>,
    /// The method.
    pub method: String,
    /// The path without the query, cut.
    pub path: String,
    /// Address of the caller.
    pub peer: IpAddr,
    /// The names of its headers.
    pub headers: Vec<String>,
    /// Size of its body, as far as it was read.
    pub body_bytes: u64,
    /// The code that the caller saw.
    pub code: &'static str,
    /// The finer reason.
    pub reason: &'static str,
    /// A sentence for the operator.
    pub cause: String,
    /// True if the request is kept whole.
    pub whole: bool,
}

/// A request that is kept whole. What proves by being known who somebody is, is masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeRequest {
    /// Method and target.
    pub request_line: String,
    /// In order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// As it came.
    pub body: Bytes,
}

/// The last of them.
#[derive(Debug, Default)]
pub struct RefusedSamples(Mutex<KeptRefusals>);

#[derive(Debug, Default)]
struct KeptRefusals {
    samples: VecDeque<RefusedSample>,
    whole: VecDeque<(String, WholeRequest)>,
}

impl RefusedSamples {
    /// Keeps one; the oldest of its source goes when there are too many. Of whole requests, the last `most` of all
    /// sources are kept.
    pub fn keep(&self, sample: RefusedSample, whole: Option<WholeRequest>, most: usize) {
        let mut kept = self.kept();
        if let Some(whole) = whole.filter(|whole| whole.body.len() <= BODY) {
            // A copy, so that no larger buffer of which it is a part is held.
            let whole = WholeRequest {
                body: Bytes::copy_from_slice(&whole.body),
                ..whole
            };
            kept.whole.push_back((sample.request_id.clone(), whole));
        }
        while kept.whole.len() > most
            || kept
                .whole
                .iter()
                .map(|(_, whole)| whole.body.len())
                .sum::<usize>()
                > BODIES
        {
            kept.whole.pop_front();
        }
        let list = &mut kept.samples;
        if list
            .iter()
            .filter(|kept| kept.source == sample.source)
            .count()
            >= EACH
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
        let kept = self.kept();
        let of_source =
            |s: &&RefusedSample| source.is_none_or(|name| s.source.as_deref() == Some(name));
        kept.samples
            .iter()
            .rev()
            .filter(of_source)
            .map(|sample| kept.told(sample))
            .collect()
    }

    /// Those whose ids begin with a text, and each whole where it is kept so.
    pub fn beginning(&self, text: &str) -> Vec<(RefusedSample, Option<WholeRequest>)> {
        let kept = self.kept();
        let found = kept
            .samples
            .iter()
            .filter(|sample| sample.request_id.starts_with(text));
        found
            .map(|sample| (kept.told(sample), kept.whole(&sample.request_id).cloned()))
            .collect()
    }

    fn kept(&self) -> MutexGuard<'_, KeptRefusals> {
        self.0.lock()
    }
}

impl KeptRefusals {
    fn whole(&self, id: &str) -> Option<&WholeRequest> {
        self.whole
            .iter()
            .find(|(whole, _)| whole == id)
            .map(|(_, whole)| whole)
    }

    fn told(&self, sample: &RefusedSample) -> RefusedSample {
        RefusedSample {
            whole: self.whole(&sample.request_id).is_some(),
            ..sample.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(source: Option<&str>, number: i64) -> RefusedSample {
        RefusedSample {
            at: Timestamp::from_millis(number),
            request_id: format!("req_{number:016x}"),
            source: source.map(str::to_owned),
            method: "POST".into(),
            path: "/hooks/a".into(),
            peer: [127, 0, 0, 1].into(),
            headers: Vec::new(),
            body_bytes: 0,
            code: "bad_signature",
            reason: "stale",
            cause: String::new(),
            whole: false,
        }
    }

    #[test]
    fn one_source_cannot_push_out_another() {
        let samples = RefusedSamples::default();
        samples.keep(sample(Some("quiet"), 1), None, 0);
        for number in 0..5_000 {
            samples.keep(sample(Some("loud"), number), None, 0);
        }
        assert_eq!(samples.list(Some("quiet")).len(), 1);
        let loud = samples.list(Some("loud"));
        assert_eq!((loud.len(), loud[0].at.millis()), (EACH, 4_999));
    }

    #[test]
    fn the_last_few_are_kept_whole_and_no_more_bytes_than_that() {
        let samples = RefusedSamples::default();
        let whole = |bytes: usize| {
            let body = Bytes::from(vec![0; bytes]);
            Some(WholeRequest {
                request_line: "POST /hooks/a".into(),
                headers: Vec::new(),
                body,
            })
        };
        for number in 0..10 {
            samples.keep(sample(Some("a"), number), whole(4), 3);
        }
        let list = samples.list(None);
        assert_eq!(
            list.iter().map(|sample| sample.whole).collect::<Vec<_>>()[..4],
            [true, true, true, false]
        );
        assert_eq!(samples.beginning(&list[0].request_id).len(), 1);
        assert_eq!(samples.beginning("req_").len(), 10);
        samples.keep(sample(Some("a"), 10), whole(BODY + 1), 3);
        assert!(
            !samples.list(None)[0].whole,
            "one that is too large is kept as ever"
        );
        for number in 11..40 {
            samples.keep(sample(None, number), whole(BODY), 100);
        }
        assert_eq!(
            samples
                .list(None)
                .iter()
                .filter(|sample| sample.whole)
                .count(),
            BODIES / BODY
        );
        samples.keep(sample(None, 40), None, 0);
        assert!(
            !samples.list(None).iter().any(|sample| sample.whole),
            "the setting was taken back"
        );
    }
}
