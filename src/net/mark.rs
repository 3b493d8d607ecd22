//! Our mark on requests that we send (`CDN-Loop`, RFC 8586), so that one of them which comes back is told from others:
//! a base address that leads to the gateway itself would otherwise send it round for ever.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The header.
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// A gateway's mark: the same in all its processes, another in every gateway.
#[derive(Clone, Debug)]
pub struct Mark(HeaderValue);

impl Mark {
    /// The mark of the gateway with this name. A name that cannot stand in a header is left out.
    pub fn new(name: &str) -> Self {
        let value = HeaderValue::try_from(format!("sluicegate-{name}"));
        Self(value.unwrap_or(HeaderValue::from_static("sluicegate")))
    }

    /// Puts it on a request, beside the marks of others.
    pub fn put_on(&self, headers: &mut HeaderMap) {
        headers.append(CDN_LOOP, self.0.clone());
    }

    /// Whether a request has it.
    pub fn is_on(&self, headers: &HeaderMap) -> bool {
        let lines = headers.get_all(CDN_LOOP).into_iter();
        let marks = lines.flat_map(|line| line.as_bytes().split(|b| *b == b','));
        // Parameters may follow a mark.
        marks.filter_map(|mark| mark.split(|b| *b == b';').next()).any(|mark| mark.trim_ascii() == self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_mark_is_told_from_those_of_others() {
        let (ours, theirs) = (Mark::new("0011"), Mark::new("0012"));
        let mut headers = HeaderMap::new();
        assert!(!ours.is_on(&headers));
        headers.insert(CDN_LOOP, HeaderValue::from_static("example.test; v=1, other"));
        theirs.put_on(&mut headers);
        assert!(theirs.is_on(&headers) && !ours.is_on(&headers), "{headers:?}");
        for line in ["sluicegate-0011", "x,sluicegate-0011;a=b", "y ; q , sluicegate-0011 "] {
            let headers = HeaderMap::from_iter([(CDN_LOOP, HeaderValue::from_static(line))]);
            assert!(ours.is_on(&headers), "{line}");
        }
        for line in ["sluicegate-00112", "sluicegate", "x;sluicegate-0011", ""] {
            let headers = HeaderMap::from_iter([(CDN_LOOP, HeaderValue::from_static(line))]);
            assert!(!ours.is_on(&headers), "{line}");
        }
    }
}
