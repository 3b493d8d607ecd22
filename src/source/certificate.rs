//! Certificates that a request names: fetched only from the host that the provider's file pins, only for a request
//! that is right in everything else, and kept.
//!
//! The fetch itself is somebody else's ([`Fetch`]); what may be fetched is decided here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use regex::Regex;

use super::content::Context;
use super::field::Field;
use super::key::{Notation, PublicKey};
use super::signature::Fault;
use crate::config::{Located, Section};
use crate::model::{OriginFault, Timestamp};

/// Something that can fetch over HTTPS.
#[async_trait::async_trait]
pub trait Fetch: Send + Sync + std::fmt::Debug {
    /// GETs an address: within a few seconds, at most 64 KiB, following no redirect. Anything but a 200 is an error, in
    /// words for the operator.
    async fn get(&self, address: &str) -> Result<Bytes, String>;
}

/// How many certificates are kept for a source.
const MOST: usize = 16;

/// How many are fetched a minute: a stranger who knows a source's path must not make it call out all the time.
const MOST_A_MINUTE: usize = 12;

/// The longest address.
const LONGEST: usize = 512;

/// A pinned place on the web, named by a request.
#[derive(Debug)]
pub(super) struct Pinned {
    from: Field,
    host: Regex,
    suffix: String,
}

impl Pinned {
    /// Reads `from`, `host` and `suffix`.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let problems = section.problems();
        let from = section
            .required_text("from", "name the field that holds the address, for example \"json:SigningCertURL\"")
            .and_then(|text| Field::parse(&text, problems));
        let host = section
            .required_text("host", "write a regular expression that the whole name of the host has to match")
            .and_then(|text| whole(&text, section));
        let suffix = section.text("suffix").map_or_else(String::new, |text| text.value);
        Some(Self { from: from?, host: host?, suffix })
    }

    /// The address that a request names, if it is one that may be asked: https, at the pinned host, at the usual port.
    pub(super) fn address(&self, context: &Context<'_, '_>) -> Result<String, Fault> {
        let wrong = |what: &str| (OriginFault::UnknownKey, format!("{} {what}", self.from));
        let text = context.text(&self.from).map_err(|what| (OriginFault::MissingPart, what))?;
        let text = text.ok_or_else(|| (OriginFault::MissingPart, format!("{} is missing", self.from)))?;
        let text = std::str::from_utf8(&text).map_err(|_| wrong("is no address"))?;
        if text.len() > LONGEST || text.contains(['#', '\\', '@', '%']) || text.bytes().any(|b| b <= b' ') {
            return Err(wrong("is no plain address"));
        }
        let uri: Uri = text.parse().map_err(|_| wrong("is no address"))?;
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong("is no https address"));
        };
        let host = authority.host().to_ascii_lowercase();
        if !matches!(authority.port_u16(), None | Some(443)) || !self.host.is_match(&host) {
            return Err(wrong("is at a host that this provider does not use"));
        }
        if !uri.path().ends_with(&self.suffix) || uri.path().split('/').any(|step| step == "..") {
            return Err(wrong("is at a path that this provider does not use"));
        }
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        Ok(format!("https://{host}{}{query}", uri.path()))
    }
}

/// The expression, for the whole of a text.
fn whole(text: &Located<String>, section: &Section<'_>) -> Option<Regex> {
    match Regex::new(&format!("^(?:{})$", text.value)) {
        Ok(regex) => Some(regex),
        Err(_) => {
            let what = format!("{} is no regular expression", section.path("host"));
            section.problems().error_hint(&text.place, what, "for example 'sns\\.[a-z0-9-]+\\.example\\.com'");
            None
        }
    }
}

/// The certificates of a source whose requests name them.
#[derive(Debug)]
pub(super) struct Certificates {
    pinned: Pinned,
    kept: Mutex<BTreeMap<String, Arc<PublicKey>>>,
    /// When the last ones were fetched. Held while fetching, so that one address is fetched once.
    fetched: tokio::sync::Mutex<VecDeque<Timestamp>>,
}

impl Certificates {
    /// Reads `cert_url`.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        Some(Self { pinned: Pinned::read(section)?, kept: Mutex::default(), fetched: tokio::sync::Mutex::default() })
    }

    /// The address that a request names, if it may be asked.
    pub(super) fn address(&self, context: &Context<'_, '_>) -> Result<String, Fault> {
        self.pinned.address(context)
    }

    /// The key of a certificate that was fetched and still holds.
    pub(super) fn at_hand(&self, address: &str, now: Timestamp) -> Option<Arc<PublicKey>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(address).filter(|key| key.holds_at(now)).cloned()
    }

    /// Fetches and keeps one.
    pub(super) async fn fetch(&self, address: &str, fetch: &dyn Fetch, now: Timestamp) -> Result<(), String> {
        let mut fetched = self.fetched.lock().await;
        if self.at_hand(address, now).is_some() {
            return Ok(());
        }
        fetched.retain(|at| *at <= now && now.since(*at) < Duration::from_secs(60));
        if fetched.len() >= MOST_A_MINUTE {
            return Err("too many certificates were fetched in the last minute".into());
        }
        fetched.push_back(now);
        let bytes = fetch.get(address).await?;
        let key = PublicKey::of_certificate(address, &bytes)
            .or_else(|| PublicKey::read(address, Notation::X509, &bytes)?.pop())
            .ok_or("what is at the address is no certificate")?;
        if !key.holds_at(now) {
            return Err("the certificate at the address does not hold now".into());
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST {
            kept.pop_first();
        }
        kept.insert(address.to_owned(), Arc::new(key));
        Ok(())
    }
}
