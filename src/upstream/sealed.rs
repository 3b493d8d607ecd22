//! Calls that the inbox keeps for a caller, sealed: their text and their key are secrets.
//!
//! A sealed call is the length of a JSON head, the head, and the JSON body. The form is kept as it is, so that a call
//! sealed by one version of this program opens with another.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::call::Call;
use crate::config::{RunMode, Secret};
use crate::inbox::seal::{SealError, SealedPart, Sealer};
use crate::model::EventId;

/// The head of a sealed call. `text` repeats the text of the body for versions that read it here.
#[derive(Serialize, Deserialize)]
struct SealedHead<'a> {
    path: Cow<'a, str>,
    text: Cow<'a, str>,
    timeout_ms: Option<u64>,
    key_name: Option<Cow<'a, str>>,
    key: Option<String>,
    run: RunMode,
}

impl Call {
    /// Seals the call for the inbox. It opens only with the id of its event.
    pub fn to_sealed(&self, sealer: &Sealer, event: EventId) -> Result<Bytes, SealError> {
        let timeout_ms = self
            .timeout
            .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        let head = SealedHead {
            path: Cow::Borrowed(&self.path),
            text: Cow::Borrowed(self.text()),
            timeout_ms,
            key_name: self.key.as_ref().map(|key| Cow::Borrowed(key.name())),
            key: self.key.as_ref().map(|key| hex::encode(key.expose())),
            run: self.run,
        };
        // The head is made of text, numbers and words: JSON can be made of all of them.
        let head = serde_json::to_vec(&head).map_err(|_| SealError::Damaged)?;
        let length = u32::try_from(head.len()).map_err(|_| SealError::Damaged)?;
        let plain = [&length.to_be_bytes()[..], &head, &self.body.to_json()].concat();
        sealer.seal(&plain, SealedPart::Call(event))
    }

    /// Opens a call that was sealed for this event.
    pub fn from_sealed(sealed: &[u8], sealer: &Sealer, event: EventId) -> Result<Self, SealError> {
        let plain = sealer.open(sealed, SealedPart::Call(event))?;
        let (length, rest) = plain.split_first_chunk::<4>().ok_or(SealError::Damaged)?;
        let length =
            usize::try_from(u32::from_be_bytes(*length)).map_err(|_| SealError::Damaged)?;
        let (head, body) = rest.split_at_checked(length).ok_or(SealError::Damaged)?;
        let head: SealedHead<'_> = serde_json::from_slice(head).map_err(|_| SealError::Damaged)?;
        let key = match (head.key, head.key_name) {
            (Some(key), name) => {
                let name = name.unwrap_or(Cow::Borrowed("the caller's key"));
                let key = hex::decode(key).map_err(|_| SealError::Damaged)?;
                Some(Secret::new(name, key))
            }
            (None, _) => None,
        };
        Ok(Self {
            path: head.path.into_owned(),
            body: serde_json::from_slice(body).map_err(|_| SealError::Damaged)?,
            timeout: head.timeout_ms.map(Duration::from_millis),
            key,
            run: head.run,
        })
    }
}
