//! Certificates that a request names: fetched only from the host that the provider's file pins, only for a request
//! that is right in everything else, and kept.
//!
//! The fetch itself is somebody else's ([`WebClient`]); what may be fetched is decided here.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use regex::Regex;
use tokio::sync::Semaphore;

use super::public::{PublicKey, PublicKeyEncoding};
use crate::config::{Located, Section};
use crate::model::{OriginFault, Timestamp};
use crate::verify::content::Context;
use crate::verify::field::Field;
use crate::verify::signature::ProofError;

/// Something that can fetch over HTTPS.
#[async_trait::async_trait]
pub trait WebClient: Send + Sync + std::fmt::Debug {
    /// GETs an address: within a few seconds, at most 64 KiB, following no redirect. Anything but a 200 is an error, in
    /// words for the operator.
    async fn get(&self, address: &str) -> Result<Bytes, String>;

    /// Sends a request to an address that the operator wrote, and gives the status and the headers of the answer: in this
    /// time, following no redirect.
    async fn ask(&self, _: Request<Bytes>, _: Duration) -> Result<(StatusCode, HeaderMap), String> {
        Err("nobody can be asked here".into())
    }
}

/// How many certificates are kept for a source.
const MOST: usize = 16;

/// How many addresses that turned out to have no certificate a network may name in a minute before the ones it names wait
/// for each other.
const MOST_FAILURES: usize = 12;
const MINUTE: Duration = Duration::from_secs(60);

/// How many networks that named such addresses are remembered.
const MOST_NETWORKS: usize = 1024;

/// How many are fetched at a time, and how long a request waits for its turn.
const AT_ONCE: usize = 8;
const TURN: Duration = Duration::from_secs(5);

/// How long before its end a certificate is fetched again, and how often that is tried.
const AHEAD: Duration = Duration::from_secs(24 * 3600);
const AGAIN: Duration = Duration::from_secs(3600);

/// The longest address.
const LONGEST: usize = 512;

/// A pinned place on the web, named by a request.
#[derive(Debug)]
pub(crate) struct PinnedUrl {
    from: Field,
    host: Regex,
    path: Regex,
}

impl PinnedUrl {
    /// Reads `from`, `host` and `path`.
    pub(crate) fn read(section: &Section<'_>) -> Option<Self> {
        let problems = section.problems();
        let from = section
            .required_text(
                "from",
                "name the field that holds the address, for example \"json:SigningCertURL\"",
            )
            .and_then(|text| Field::parse(&text, problems));
        let host = section
            .required_text(
                "host",
                "write a regular expression that the whole name of the host has to match",
            )
            .and_then(|text| whole("host", &text, section));
        let path = section
            .required_text(
                "path",
                "write a regular expression that the whole path has to match, for example '/certs/[0-9a-f]{32}\\.pem'",
            )
            .and_then(|text| whole("path", &text, section));
        Some(Self {
            from: from?,
            host: host?,
            path: path?,
        })
    }

    /// The address that a request names, if it is one that may be asked: https, at the pinned host, at the usual port.
    pub(crate) fn address(&self, context: &Context<'_, '_>) -> Result<String, ProofError> {
        let wrong = |what: &str| (OriginFault::UnknownKey, format!("{} {what}", self.from));
        let text = context
            .text(&self.from)
            .map_err(|what| (OriginFault::MissingPart, what))?;
        let text = text.ok_or_else(|| {
            (
                OriginFault::MissingPart,
                format!("{} is missing", self.from),
            )
        })?;
        let text = std::str::from_utf8(&text).map_err(|_| wrong("is no address"))?;
        if text.len() > LONGEST
            || text.contains(['#', '\\', '@', '%'])
            || text.bytes().any(|b| b <= b' ')
        {
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
        if !self.path.is_match(uri.path()) || uri.path().split('/').any(|step| step == "..") {
            return Err(wrong("is at a path that this provider does not use"));
        }
        let query = uri
            .query()
            .map_or_else(String::new, |query| format!("?{query}"));
        Ok(format!("https://{host}{}{query}", uri.path()))
    }
}

/// The expression, for the whole of a text.
fn whole(key: &str, text: &Located<String>, section: &Section<'_>) -> Option<Regex> {
    match Regex::new(&format!("^(?:{})$", text.value)) {
        Ok(regex) => Some(regex),
        Err(_) => {
            let what = format!("{} is no regular expression", section.path(key));
            section.problems().error_hint(
                &text.place,
                what,
                "for example 'sns\\.[a-z0-9-]+\\.example\\.com'",
            );
            None
        }
    }
}

/// The certificates of a source whose requests name them.
#[derive(Debug)]
pub(crate) struct Certificates {
    pinned: PinnedUrl,
    kept: Mutex<BTreeMap<String, CachedCertificate>>,
    /// When each network last named addresses that have no certificate.
    failures: Mutex<BTreeMap<IpAddr, VecDeque<Timestamp>>>,
    /// The turns of networks that named few of them, and the one turn of all others.
    turns: Semaphore,
    last_turn: Semaphore,
}

/// A certificate that was fetched.
#[derive(Debug)]
struct CachedCertificate {
    key: Arc<PublicKey>,
    fetched: Timestamp,
    /// When it last proved a request. One that never did goes first when there are too many.
    proved: Option<Timestamp>,
}

/// Why a certificate is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Without it nothing can be judged.
    Missing,
    /// The one at hand ends soon.
    Ending,
}

impl Certificates {
    /// Reads `cert_url`.
    pub(crate) fn read(section: &Section<'_>) -> Option<Self> {
        Some(Self {
            pinned: PinnedUrl::read(section)?,
            kept: Mutex::default(),
            failures: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
            last_turn: Semaphore::new(1),
        })
    }

    /// The address that a request names, if it may be asked.
    pub(crate) fn address(&self, context: &Context<'_, '_>) -> Result<String, ProofError> {
        let address = self.pinned.address(context)?;
        // With a query one certificate would stand at any number of addresses.
        if address.contains('?') {
            return Err((
                OriginFault::UnknownKey,
                "the address of the certificate has a query".into(),
            ));
        }
        Ok(address)
    }

    /// The key of a certificate that was fetched and still holds.
    pub(crate) fn at_hand(&self, address: &str, now: Timestamp) -> Option<Arc<PublicKey>> {
        let kept = self.kept();
        kept.get(address)
            .filter(|kept| kept.key.holds_at(now))
            .map(|kept| kept.key.clone())
    }

    /// Whether the certificate at an address has to be fetched.
    pub(crate) fn need(&self, address: &str, now: Timestamp) -> Option<Need> {
        let kept = self.kept();
        let Some(kept) = kept.get(address).filter(|kept| kept.key.holds_at(now)) else {
            return Some(Need::Missing);
        };
        let ends = !kept.key.holds_at(now + AHEAD);
        (ends && kept.proved.is_some() && now.since(kept.fetched) > AGAIN).then_some(Need::Ending)
    }

    /// Notes that the certificate at an address proved a request: it keeps its place.
    pub(crate) fn proved(&self, address: &str, now: Timestamp) {
        if let Some(kept) = self.kept().get_mut(address) {
            kept.proved = Some(now);
        }
    }

    /// Fetches and keeps one, for a request of this peer.
    pub(crate) async fn fetch(
        &self,
        address: &str,
        peer: IpAddr,
        fetch: &dyn WebClient,
        now: Timestamp,
    ) -> Result<(), String> {
        let turns = if self.failed(peer, now) < MOST_FAILURES {
            &self.turns
        } else {
            &self.last_turn
        };
        let turn = tokio::time::timeout(TURN, turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err("too many other addresses are being asked for".into());
        };
        if self.need(address, now).is_none() {
            return Ok(());
        }
        if let Some(kept) = self.kept().get_mut(address) {
            kept.fetched = now;
        }
        match read(address, fetch, now).await {
            Ok(key) => {
                self.keep(address, key, now);
                Ok(())
            }
            Err(what) => {
                self.fail(peer, now);
                Err(what)
            }
        }
    }

    fn keep(&self, address: &str, key: PublicKey, now: Timestamp) {
        let mut kept = self.kept();
        let proved = kept.remove(address).and_then(|before| before.proved);
        if kept.len() >= MOST {
            let idlest = kept
                .iter()
                .min_by_key(|(_, kept)| (kept.proved, kept.fetched));
            if let Some(idlest) = idlest.map(|(address, _)| address.clone()) {
                kept.remove(&idlest);
            }
        }
        kept.insert(
            address.to_owned(),
            CachedCertificate {
                key: Arc::new(key),
                fetched: now,
                proved,
            },
        );
    }

    /// How many addresses without a certificate the network of a peer has named in the last minute.
    fn failed(&self, peer: IpAddr, now: Timestamp) -> usize {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(&network(peer)).map_or(0, |times| {
            times.iter().filter(|at| is_recent(**at, now)).count()
        })
    }

    fn fail(&self, peer: IpAddr, now: Timestamp) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let network = network(peer);
        if failures.len() >= MOST_NETWORKS && !failures.contains_key(&network) {
            failures.retain(|_, times| times.back().is_some_and(|at| is_recent(*at, now)));
            if failures.len() >= MOST_NETWORKS {
                // Whoever failed longest ago is forgiven.
                let oldest = failures
                    .iter()
                    .min_by_key(|(_, times)| times.back().copied());
                if let Some(oldest) = oldest.map(|(network, _)| *network) {
                    failures.remove(&oldest);
                }
            }
        }
        let times = failures.entry(network).or_default();
        times.push_back(now);
        if times.len() > MOST_FAILURES {
            times.pop_front();
        }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, CachedCertificate>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what stands at an address.
async fn read(address: &str, fetch: &dyn WebClient, now: Timestamp) -> Result<PublicKey, String> {
    let bytes = fetch.get(address).await?;
    let key = PublicKey::of_certificate(address, &bytes)
        .or_else(|| PublicKey::read(address, PublicKeyEncoding::X509, &bytes)?.pop())
        .ok_or("what is at the address is no certificate")?;
    if key.holds_at(now) {
        Ok(key)
    } else {
        Err("the certificate at the address does not hold now".into())
    }
}

fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    at <= now && now.since(at) < MINUTE
}

/// The network of an address: itself, or the /64 that one host of IPv6 has.
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V6(peer) => {
            let [a, b, c, d, ..] = peer.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Problems, Table};
    use crate::verify::field::{DocumentPlace, RequestView};
    use crate::verify::tests::requests::{post, shipped};

    /// Whether a shipped file lets an address be asked, by the key that pins it.
    fn allows(name: &str, key: &str, address: &str) -> bool {
        let verify = shipped(name).verify.unwrap();
        let problems = Problems::default();
        let section = Section::new(&verify, "verify", &problems)
            .section(key)
            .unwrap();
        let mut pinned = PinnedUrl::read(&section).unwrap();
        section.has("when");
        pinned.from = Field::Json(vec!["at".into()]);
        let received = post(&[], &serde_json::json!({ "at": address }).to_string());
        let request = RequestView::new(&received, &DocumentPlace::Body);
        let context = Context {
            request: &request,
            item: None,
            fields: &[],
            ts: None,
            key: None,
        };
        pinned.address(&context).is_ok()
    }

    #[test]
    fn security_f30_hosts_are_named_by_region_and_paths_are_pinned() {
        let pem = "SimpleNotificationService-0123456789abcdef0123456789abcdef.pem";
        for host in [
            "sns.us-west-2.amazonaws.com",
            "sns.us-gov-east-1.amazonaws.com",
            "sns.ap-southeast-3.amazonaws.com",
            "sns.il-central-1.amazonaws.com",
            "sns.cn-northwest-1.amazonaws.com.cn",
        ] {
            assert!(
                allows("aws-sns", "cert_url", &format!("https://{host}/{pem}")),
                "{host}"
            );
            assert!(
                allows(
                    "aws-sns",
                    "confirm",
                    &format!("https://{host}/?Action=ConfirmSubscription&Token=1")
                ),
                "{host}"
            );
        }
        for host in [
            "sns.s3-us-west-2.amazonaws.com",
            "sns.s3.us-west-2.amazonaws.com",
            "sns.s3-website-us-west-2.amazonaws.com",
            "sns.us-west-2.amazonaws.com.cn",
            "sns.us-west-2.amazonaws.com.evil.org",
            "sns-us-west-2.amazonaws.com",
            "bucket.s3-us-west-2.amazonaws.com",
        ] {
            assert!(
                !allows("aws-sns", "cert_url", &format!("https://{host}/{pem}")),
                "{host}"
            );
            assert!(
                !allows("aws-sns", "confirm", &format!("https://{host}/")),
                "{host}"
            );
        }
        for path in [
            "",
            "x.pem",
            "SimpleNotificationService-1.pem",
            "a/SimpleNotificationService-1.pem",
        ] {
            assert!(
                !allows(
                    "aws-sns",
                    "cert_url",
                    &format!("https://sns.us-west-2.amazonaws.com/{path}")
                ),
                "{path}"
            );
        }
        let cert = "v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270";
        for (name, host, other) in [
            ("paypal", "api.paypal.com", "api.sandbox.paypal.com"),
            ("paypal", "api-m.paypal.com", "api-m.sandbox.paypal.com"),
            ("paypal-sandbox", "api.sandbox.paypal.com", "api.paypal.com"),
        ] {
            assert!(
                allows(name, "cert_url", &format!("https://{host}/{cert}")),
                "{host}"
            );
            assert!(
                !allows(name, "cert_url", &format!("https://{other}/{cert}")),
                "{name}: {other}"
            );
            assert!(
                !allows(name, "cert_url", &format!("https://{host}/v1/other/CERT-1")),
                "{host}"
            );
        }
    }

    #[test]
    fn security_f22_a_place_without_a_pinned_path_is_a_problem() {
        let problems = Problems::default();
        let table = Table::parse(
            "t",
            "from = 'json:at'\nhost = 'a\\.example\\.com'",
            &problems,
        );
        assert!(Certificates::read(&Section::new(&table, "verify.cert_url", &problems)).is_none());
        assert!(
            problems.into_sorted()[0]
                .what
                .contains("verify.cert_url.path is missing")
        );
    }
}
