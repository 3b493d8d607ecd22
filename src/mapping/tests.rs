//! Whole mappings over whole requests.

use http::{HeaderName, Method};

use super::*;
use crate::model::{Proof, Received, RequestId, Strength, Timestamp, Verify};

/// A request as a sender would make it.
pub(super) fn request(target: &str, headers: &[(&str, &str)], body: &[u8]) -> Received {
    Received {
        id: RequestId::new(),
        at: Timestamp::default(),
        method: Method::POST,
        target: target.into(),
        url: format!("https://gateway.test{target}"),
        headers: headers.iter().map(|(k, v)| (k.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect(),
        body: body.to_vec().into(),
        peer: [127, 0, 0, 1].into(),
    }
}
