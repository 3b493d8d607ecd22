//! Calls that may be made again and run once (`Idempotency-Key`).
//!
//! Promises: a caller, an agent and a key name one call. Whoever makes it again gets the answer of the first, also while
//! that one still runs, after a restart, and in every process that shares the inbox; for as long as its event is kept.
//! Another call under the same key is refused and runs nothing.

use http::header::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};

use super::caller::Caller;
use crate::model::{Account, Attachment, HostedCall, Refusal, UpstreamIds};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The header that says of an answer that it is the one of an earlier call.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Name under which the digest of a call is kept with its event.
const CALL: &str = "sluicegate-call";

/// Length of the longest key.
const LONGEST: usize = 255;

/// A call that has a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Once {
    key: String,
    /// The name that the inbox knows its event by.
    pub(super) dedup: String,
}

/// The key in a head, if there is one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let wrong = || {
        Refusal::Malformed(format!(
            "Idempotency-Key is one text of 1 to {LONGEST} visible characters"
        ))
    };
    let mut lines = headers.get_all(HEADER).into_iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    let text = line.to_str().map_err(|_| wrong())?.trim();
    // Some senders write it as the structured text that a draft of the header has.
    let text = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(text);
    let is_good = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if lines.next().is_some() || !is_good {
        Err(wrong())
    } else {
        Ok(Some(text.to_owned()))
    }
}

impl Once {
    /// The call of a caller under a key. All foreign keys are one account, so the key itself tells their callers apart.
    pub(super) fn new(key: &str, caller: &Caller, agent: &str, ids: &UpstreamIds) -> Self {
        let who = match &caller.account {
            Account::Key(name) => format!("key/{name}"),
            _ => format!(
                "foreign/{}",
                hex::encode(Sha256::digest(caller.key.expose()))
            ),
        };
        Self {
            key: key.to_owned(),
            dedup: format!("once:{}", ids.of_call(&who, agent, key).simple()),
        }
    }

    /// Facts that are kept with the event of a call, to tell it from another.
    pub(super) fn notes(&self, call: &HostedCall, files: &[Attachment]) -> Vec<(String, String)> {
        vec![
            (HEADER.as_str().to_owned(), self.key.clone()),
            (CALL.to_owned(), digest(call, files)),
        ]
    }

    /// True if an event is of the same call.
    pub(super) fn is_of(kept: &[(String, String)], notes: &[(String, String)]) -> bool {
        let call = |list: &[(String, String)]| {
            list.iter()
                .find(|(name, _)| name == CALL)
                .map(|(_, digest)| digest.clone())
        };
        call(kept).is_some() && call(kept) == call(notes)
    }
}

/// Digest of everything that the agent is told. Two calls with the same digest are the same call: the shape of the answer,
/// the caller's waiting and the tokens of its user, which run out and are made again, do not count.
fn digest(call: &HostedCall, files: &[Attachment]) -> String {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    for param in call.params.iter() {
        add(param.name.as_str().as_bytes());
        add(param.value.as_bytes());
    }
    add(b"extra");
    add(call.extra.as_deref().unwrap_or_default().as_bytes());
    add(&[
        u8::from(call.extra.is_some()),
        u8::from(call.disable_attachment_injection),
    ]);
    for file in files {
        add(file.name.as_bytes());
        add(file.content_type.as_bytes());
        add(&file.sha256);
    }
    format!("sha256:{}", hex::encode(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_key_is_one_visible_text() {
        let read = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(HEADER, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
            key(&headers)
        };
        assert_eq!(read(&[]), Ok(None));
        for (line, found) in [
            ("a-1", "a-1"),
            (" \"8e03978e-40d5\" ", "8e03978e-40d5"),
            ("\"", "\""),
            ("a\"b", "a\"b"),
        ] {
            assert_eq!(read(&[line]), Ok(Some(found.to_owned())), "{line}");
        }
        let long = "x".repeat(256);
        for lines in [
            &[""][..],
            &["\"\""],
            &["a b"],
            &["caf\u{e9}"],
            &["a", "a"],
            &[&long],
        ] {
            assert!(
                matches!(read(lines), Err(Refusal::Malformed(_))),
                "{lines:?}"
            );
        }
    }
}
