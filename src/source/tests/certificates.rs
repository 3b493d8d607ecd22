//! Certificates that requests name: fetched once, from the pinned host, only for a request that is right.

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;

use crate::model::{OriginFault, Received, Verify as _};
use crate::source::WebClient;
use crate::source::certificates::CertificateFetches;
use crate::verify::Signer;
use crate::verify::tests::support::{NOW, compile, fault, post, source};

const NOTE: &str = "scheme = 'rsa-pkcs1'\nsignature = 'json:Signature'\nencoding = 'base64'\nkey_encoding = 'x509'\n\
    algorithm = { from = 'json:Version', map = { 1 = 'sha1', 2 = 'sha256' } }\n\
    cert_url = { from = 'json:Cert', host = 'certs\\.[a-z]+\\.example\\.com', path = '/[a-z0-9]+\\.pem' }\n\
    signed_content = 'Message\\n{json:Message}\\n[Subject\\n{json:Subject}\\n]Topic\\n{json:Topic}\\n'\n\
    config = ['topic']\nequal = [['{json:Topic}', '{config:topic}']]\n";

/// A web with one page, which remembers what was asked.
#[derive(Debug)]
struct Web(String, Mutex<Vec<String>>);

#[async_trait::async_trait]
impl WebClient for Web {
    async fn get(&self, address: &str) -> Result<Bytes, String> {
        self.1.lock().push(address.to_owned());
        Ok(self.0.clone().into())
    }
}

fn note(cert: &str, topic: &str) -> Received {
    post(
        &[],
        &json!({ "Message": "m", "Topic": topic, "Version": "1", "Cert": cert, "Signature": "" })
            .to_string(),
    )
}

#[tokio::test]
async fn t55_a_certificate_is_fetched_once_from_the_pinned_host_and_only_for_a_request_that_is_right()
 {
    let (scheme, _) = compile(&source(&[], &[("topic", "t")], NOTE), None).unwrap();
    let fetches = CertificateFetches::default();
    let pair = scheme.make_pair().unwrap();
    let web = Web(scheme.public_key(&pair, NOW).unwrap(), Mutex::default());
    let address = "https://certs.eu.example.com/a.pem";
    let good = scheme
        .signed(Signer::Pair(&pair), &note(address, "t"), NOW)
        .unwrap();
    assert_eq!(
        fault(scheme.judge(&good, NOW)),
        Some(OriginFault::UnknownKey),
        "not at hand"
    );
    for _ in 0..3 {
        fetches
            .fetch_wanted(&scheme, &good, &web, NOW)
            .await
            .unwrap();
        assert_eq!(
            scheme.judge(&good, NOW).unwrap().secret.as_deref(),
            Some(address)
        );
    }
    assert_eq!(*web.1.lock(), [address]);
    let mut changed = good.clone();
    changed.body = String::from_utf8_lossy(&good.body)
        .replace("\"m\"", "\"n\"")
        .into();
    assert_eq!(
        fault(scheme.judge(&changed, NOW)),
        Some(OriginFault::WrongSignature)
    );

    let year = std::time::Duration::from_secs(365 * 86_400);
    assert!(
        fetches
            .fetch_wanted(&scheme, &good, &web, NOW + year)
            .await
            .is_err(),
        "a certificate that ran out is none"
    );
    web.1.lock().clear();
    for wrong in [
        "http://certs.eu.example.com/a.pem",
        "https://certs.eu.example.com.evil.org/a.pem",
        "https://evil.org/certs.eu.example.com/a.pem",
        "https://certs.eu.example.com@evil.org/a.pem",
        "https://certs.eu.example.com:8443/a.pem",
        "https://certs.eu.example.com/a.pem#.pem",
        "https://certs.eu.example.com/../a.txt",
        "https://certs.eu.example.com/a.txt",
        "https://certs.eu.example.com/a.pem?1",
        "//certs.eu.example.com/a.pem",
        "file:///a.pem",
        "",
    ] {
        let request = scheme
            .signed(Signer::Pair(&pair), &note(wrong, "t"), NOW)
            .unwrap();
        assert!(
            fetches
                .fetch_wanted(&scheme, &request, &web, NOW)
                .await
                .is_err(),
            "{wrong}"
        );
        assert!(
            matches!(
                fault(scheme.judge(&request, NOW)),
                Some(OriginFault::UnknownKey)
            ),
            "{wrong}"
        );
    }
    let other = scheme
        .signed(
            Signer::Pair(&pair),
            &note("https://certs.us.example.com/a.pem", "other"),
            NOW,
        )
        .unwrap();
    assert!(
        fetches
            .fetch_wanted(&scheme, &other, &web, NOW)
            .await
            .is_err(),
        "another topic"
    );
    assert!(
        fetches
            .fetch_wanted(
                &scheme,
                &note("https://certs.us.example.com/a.pem", "t"),
                &web,
                NOW
            )
            .await
            .is_err(),
        "unsigned"
    );
    assert_eq!(*web.1.lock(), [""; 0], "nothing was asked for any of them");
}

/// A web where most addresses have no certificate.
#[derive(Debug)]
struct Junk {
    pem: String,
    at: &'static str,
    asked: std::sync::atomic::AtomicUsize,
}

#[async_trait::async_trait]
impl WebClient for Junk {
    async fn get(&self, address: &str) -> Result<Bytes, String> {
        self.asked
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if address == self.at {
            Ok(self.pem.clone().into())
        } else {
            Err("it answered 404 Not Found".into())
        }
    }
}

#[tokio::test]
async fn s22_made_up_addresses_do_not_keep_the_true_one_from_being_fetched_nor_kept() {
    let (scheme, _) = compile(&source(&[], &[("topic", "t")], NOTE), None).unwrap();
    let fetches = CertificateFetches::default();
    let pair = scheme.make_pair().unwrap();
    let at = "https://certs.eu.example.com/true.pem";
    let web = Junk {
        pem: scheme.public_key(&pair, NOW).unwrap(),
        at,
        asked: Default::default(),
    };
    let made_up = |number: u32| {
        let cert = format!("https://certs.us.example.com/{number}.pem");
        scheme
            .signed(Signer::Pair(&pair), &note(&cert, "t"), NOW)
            .unwrap()
    };
    let junk: Vec<_> = (0..100).map(made_up).collect();
    let all = futures_util::future::join_all(
        junk.iter()
            .map(|request| fetches.fetch_wanted(&scheme, request, &web, NOW)),
    )
    .await;
    assert!(all.iter().all(Result::is_err));
    let good = scheme
        .signed(Signer::Pair(&pair), &note(at, "t"), NOW)
        .unwrap();
    fetches
        .fetch_wanted(&scheme, &good, &web, NOW)
        .await
        .unwrap();
    assert!(scheme.judge(&good, NOW).is_ok());

    // Certificates that prove nothing do not take the place of one that did.
    let everywhere = Web(scheme.public_key(&pair, NOW).unwrap(), Mutex::default());
    for number in 100..140 {
        fetches
            .fetch_wanted(&scheme, &made_up(number), &everywhere, NOW)
            .await
            .unwrap();
    }
    let before = web.asked.load(std::sync::atomic::Ordering::Relaxed);
    fetches
        .fetch_wanted(&scheme, &good, &web, NOW)
        .await
        .unwrap();
    assert!(scheme.judge(&good, NOW).is_ok());
    assert_eq!(
        web.asked.load(std::sync::atomic::Ordering::Relaxed),
        before,
        "it is still at hand"
    );
}
