//! Certificates that requests name: which address may be fetched, and a bounded cache of those that were.
//!
//! A certificate is fetched only from the host that the provider's file pins, and only for a request that is right in
//! everything else. The fetch itself is the work of [`crate::source`].

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::pinned_url::PinnedUrl;
use super::public::{PublicKey, PublicKeyEncoding};
use crate::config::Section;
use crate::model::{OriginFault, Timestamp};
use crate::verify::proof_error::ProofError;
use crate::verify::template::render::Context;

/// Number of certificates that are kept for a source.
const MOST: usize = 16;

/// Number of addresses without a certificate that a network may name in a minute. The fetches of a network that named more
/// wait for each other.
const MOST_FAILURES: usize = 12;
const MINUTE: Duration = Duration::from_secs(60);

/// Number of networks that are remembered for naming such addresses.
const MOST_NETWORKS: usize = 1024;

/// Time before its end at which a certificate is fetched again, and the time between two tries.
const AHEAD: Duration = Duration::from_secs(24 * 3600);
const AGAIN: Duration = Duration::from_secs(3600);

/// The certificates of a source whose requests name them.
#[derive(Debug)]
pub(crate) struct Certificates {
    pinned: PinnedUrl,
    cache: Mutex<BTreeMap<String, CachedCertificate>>,
    /// The last times at which each network named an address without a certificate.
    failures: Mutex<BTreeMap<IpAddr, VecDeque<Timestamp>>>,
}

/// A certificate that was fetched.
#[derive(Debug)]
struct CachedCertificate {
    key: Arc<PublicKey>,
    fetched: Timestamp,
    /// The time at which it last proved a request. A certificate that never did is the first to be dropped.
    proved: Option<Timestamp>,
}

/// Reason to fetch a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// No request can be judged without it.
    Missing,
    /// The one at hand ends soon.
    Ending,
}

impl Certificates {
    /// Reads the table `cert_url`.
    pub(crate) fn read(section: &Section<'_>) -> Option<Self> {
        Some(Self {
            pinned: PinnedUrl::read(section)?,
            cache: Mutex::default(),
            failures: Mutex::default(),
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
        let cache = self.cache();
        cache
            .get(address)
            .filter(|kept| kept.key.holds_at(now))
            .map(|kept| kept.key.clone())
    }

    /// The reason to fetch the certificate at an address; none where the one at hand is good.
    pub(crate) fn need(&self, address: &str, now: Timestamp) -> Option<Need> {
        let cache = self.cache();
        let Some(kept) = cache.get(address).filter(|kept| kept.key.holds_at(now)) else {
            return Some(Need::Missing);
        };
        let ends = !kept.key.holds_at(now + AHEAD);
        (ends && kept.proved.is_some() && now.since(kept.fetched) > AGAIN).then_some(Need::Ending)
    }

    /// Notes that the certificate at an address proved a request: it keeps its place.
    pub(crate) fn proved(&self, address: &str, now: Timestamp) {
        if let Some(kept) = self.cache().get_mut(address) {
            kept.proved = Some(now);
        }
    }

    /// True if the network of a peer has named so many addresses without a certificate that it has to wait.
    pub(crate) fn is_crowded(&self, peer: IpAddr, now: Timestamp) -> bool {
        self.failed(peer, now) >= MOST_FAILURES
    }

    /// True if the certificate at an address still has to be fetched. Notes that it is being fetched.
    pub(crate) fn begin(&self, address: &str, now: Timestamp) -> bool {
        if self.need(address, now).is_none() {
            return false;
        }
        if let Some(kept) = self.cache().get_mut(address) {
            kept.fetched = now;
        }
        true
    }

    /// Keeps what was fetched from an address for a request of this peer.
    pub(crate) fn end(
        &self,
        address: &str,
        fetched: Result<&[u8], String>,
        peer: IpAddr,
        now: Timestamp,
    ) -> Result<(), String> {
        match fetched.and_then(|bytes| read(address, bytes, now)) {
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
        let mut cache = self.cache();
        let proved = cache.remove(address).and_then(|before| before.proved);
        if cache.len() >= MOST {
            let idlest = cache
                .iter()
                .min_by_key(|(_, kept)| (kept.proved, kept.fetched));
            if let Some(idlest) = idlest.map(|(address, _)| address.clone()) {
                cache.remove(&idlest);
            }
        }
        cache.insert(
            address.to_owned(),
            CachedCertificate {
                key: Arc::new(key),
                fetched: now,
                proved,
            },
        );
    }

    /// Number of addresses without a certificate that the network of a peer has named in the last minute.
    fn failed(&self, peer: IpAddr, now: Timestamp) -> usize {
        let failures = self.failures.lock();
        failures.get(&network(peer)).map_or(0, |times| {
            times.iter().filter(|at| is_recent(**at, now)).count()
        })
    }

    fn fail(&self, peer: IpAddr, now: Timestamp) {
        let mut failures = self.failures.lock();
        let network = network(peer);
        if failures.len() >= MOST_NETWORKS && !failures.contains_key(&network) {
            failures.retain(|_, times| times.back().is_some_and(|at| is_recent(*at, now)));
            if failures.len() >= MOST_NETWORKS {
                // The network that failed longest ago is forgotten.
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

    fn cache(&self) -> MutexGuard<'_, BTreeMap<String, CachedCertificate>> {
        self.cache.lock()
    }
}

/// Reads the certificate that was fetched from an address.
fn read(address: &str, bytes: &[u8], now: Timestamp) -> Result<PublicKey, String> {
    let key = PublicKey::of_certificate(address, bytes)
        .or_else(|| PublicKey::read(address, PublicKeyEncoding::X509, bytes)?.pop())
        .ok_or("the address holds no certificate")?;
    if key.holds_at(now) {
        Ok(key)
    } else {
        Err("the certificate at the address is not valid now".into())
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
    use crate::verify::request::RequestTexts;
    use crate::verify::request::field::{DocumentPlace, Field};
    use crate::verify::tests::support::{post, shipped};

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
        let request = RequestTexts::new(&received, &DocumentPlace::Body);
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
    fn s30_hosts_are_named_by_region_and_paths_are_pinned() {
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
    fn s22_a_place_without_a_pinned_path_is_a_problem() {
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
