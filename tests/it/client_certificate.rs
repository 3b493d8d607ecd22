//! Client certificates: which callers a source accepts, over both protocols, and what becomes of all others.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::world::{Gateway, Upstream, binary, signal, wait_for};

const SOURCES: &str = r#"
[sources.open]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
defaults = { prompt = "hello" }

[sources.partner]
provider = "custom"
agent = "a"
verify = { scheme = "client-cert" }
client_certs = ["dns:*.partner.example"]
defaults = { prompt = "hello" }

[sources.both]
provider = "custom"
agent = "a"
secrets = ["literal:a-secret-of-some-length"]
verify = { scheme = "token", signature = "header:X-Token" }
client_certs = ["cn:billing"]
defaults = { prompt = "hello" }
"#;

/// A CA, and the serial number of the next certificate.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, as a client shows it.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a CA");
        Self { issuer }
    }

    fn issue(&self, host: &str, serial: u64, ends: i32) -> Identity {
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        params.distinguished_name.push(
            DnType::CommonName,
            host.split('.').next().unwrap_or_default(),
        );
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(ends, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let made = params
            .signed_by(&key, &*self.issuer)
            .expect("a certificate");
        Identity {
            chain: vec![made.der().clone()],
            key: key.serialize_der(),
        }
    }

    /// A revocation list with these serial numbers on it.
    fn revoke(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&*self.issuer).expect("a list");
        list.pem().expect("PEM")
    }
}

/// A gateway whose listener asks for client certificates.
struct World {
    gateway: Gateway,
    _upstream: Upstream,
    folder: tempfile::TempDir,
    server: CertificateDer<'static>,
    authority: Authority,
}

impl World {
    async fn start(tls: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let made =
            rcgen::generate_simple_self_signed(vec!["gateway.test".into()]).expect("a certificate");
        let authority = Authority::new("clients");
        let file = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).expect("a file");
        };
        file("cert.pem", made.cert.pem());
        file("key.pem", made.signing_key.serialize_pem());
        file("clients.pem", authority.issuer.pem());
        file("clients.crl", authority.revoke(&[]));
        let upstream = Upstream::start(&[]).await;
        let sources = format!("{}{SOURCES}", section(folder.path(), tls));
        let gateway = Gateway::start(upstream.address, &sources).await;
        Self {
            gateway,
            _upstream: upstream,
            folder,
            server: made.cert.der().clone(),
            authority,
        }
    }

    fn config(&self, identity: Option<&Identity>, protocol: &[u8]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.server.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(
                    identity.chain.clone(),
                    PrivateKeyDer::try_from(identity.key.clone()).expect("a key"),
                )
                .expect("a pair"),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }

    /// The answer over HTTP/1; empty if the connection was refused.
    async fn post(&self, path: &str, identity: Option<&Identity>) -> String {
        self.post_with(path, self.config(identity, b"http/1.1"))
            .await
            .unwrap_or_default()
    }

    async fn post_with(&self, path: &str, config: Arc<ClientConfig>) -> std::io::Result<String> {
        let mut stream = self.connect(config).await?;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: gateway.test\r\nX-Token: a-secret-of-some-length\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn connect(
        &self,
        config: Arc<ClientConfig>,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let socket = TcpStream::connect(self.gateway.public).await?;
        let name = ServerName::try_from("gateway.test").expect("a name");
        TlsConnector::from(config).connect(name, socket).await
    }

    /// The status over HTTP/2.
    async fn status_2(&self, path: &str, identity: Option<&Identity>) -> u16 {
        let stream = self
            .connect(self.config(identity, b"h2"))
            .await
            .expect("a handshake");
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut client = client.ready().await.expect("it is ready");
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://gateway.test{path}"))
            .body(())
            .expect("a request");
        let (answer, mut body) = client.send_request(request, false).expect("sent");
        body.send_data(Bytes::from_static(b"{}"), true)
            .expect("sent");
        answer.await.expect("an answer").status().as_u16()
    }

    /// The causes of the last refusals, the newest first.
    async fn causes(&self) -> Vec<String> {
        let refused = self.gateway.admin_json("/refused").await;
        let items = refused["items"].as_array().cloned().unwrap_or_default();
        let text = |item: &Value| item["cause"].as_str().unwrap_or_default().to_owned();
        items.iter().map(text).collect()
    }
}

fn section(folder: &Path, tls: &str) -> String {
    let at = folder.display();
    let tls = tls.replace("FOLDER", &at.to_string());
    format!("[server.tls]\ncert = \"{at}/cert.pem\"\nkey = \"{at}/key.pem\"\n{tls}\n")
}

const REQUEST: &str = "client_ca = \"FOLDER/clients.pem\"\n";

#[tokio::test]
async fn a_source_accepts_the_certificates_it_names_over_both_protocols() {
    let world = World::start(REQUEST).await;
    let good = world.authority.issue("eu.partner.example", 1, 3000);
    let billing = world.authority.issue("billing", 2, 3000);
    for (path, identity, status) in [
        ("/hooks/open", None, 202),
        ("/hooks/open", Some(&billing), 202),
        ("/hooks/partner", Some(&good), 202),
        ("/hooks/partner", Some(&billing), 403),
        ("/hooks/partner", None, 403),
        ("/hooks/both", Some(&billing), 202),
        ("/hooks/both", Some(&good), 403),
        ("/hooks/both", None, 403),
    ] {
        let answer = world.post(path, identity).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path} {answer}"
        );
        assert_eq!(answer.contains("client_certificate"), status == 403);
        assert!(!answer.contains("partner.example"), "{answer}");
    }
    assert_eq!(world.status_2("/hooks/partner", Some(&good)).await, 202);
    assert_eq!(world.status_2("/hooks/partner", None).await, 403);
    assert_eq!(world.status_2("/hooks/both", Some(&good)).await, 403);
    let causes = world.causes().await;
    assert!(
        causes.contains(&"the caller showed no client certificate".to_owned()),
        "{causes:?}"
    );
    let named = |cause: &String| {
        cause.starts_with("client_certs does not accept the client certificate \"CN=billing\"")
    };
    assert!(causes.iter().any(named), "{causes:?}");
}

#[tokio::test]
async fn a_certificate_that_the_ca_does_not_vouch_for_ends_the_handshake() {
    let world = World::start(REQUEST).await;
    let expired = world.authority.issue("eu.partner.example", 1, 2021);
    let foreign = Authority::new("others").issue("eu.partner.example", 1, 3000);
    for identity in [&expired, &foreign] {
        assert_eq!(world.post("/hooks/open", Some(identity)).await, "");
    }
    let name = r#"sluicegate_connections_refused_total{reason="client_certificate"}"#;
    world.gateway.metric_is(name, 2.0).await;
    let causes = world.causes().await.join("\n");
    assert!(causes.contains("the TLS handshake failed: "), "{causes}");
    assert!(
        causes.contains("xpired") && causes.contains("UnknownIssuer"),
        "{causes}"
    );
    assert!(world.gateway.log().contains("client certificate refused"));
}

#[tokio::test]
async fn a_listener_that_requires_a_certificate_serves_nobody_without_one() {
    let world = World::start(&format!("{REQUEST}client_auth = \"require\"\n")).await;
    assert_eq!(world.post("/hooks/open", None).await, "");
    let any = world.authority.issue("any.example", 1, 3000);
    let answer = world.post("/hooks/open", Some(&any)).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    let causes = world.causes().await.join("\n");
    assert!(causes.contains("the TLS handshake failed: "), "{causes}");
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_once_the_list_is_read_also_where_a_session_could_be_resumed()
 {
    let world = World::start(&format!("{REQUEST}client_crl = \"FOLDER/clients.crl\"\n")).await;
    let good = world.authority.issue("eu.partner.example", 7, 3000);
    // One configuration of a client keeps its sessions from connection to connection.
    let config = world.config(Some(&good), b"http/1.1");
    for _ in 0..2 {
        let answer = world
            .post_with("/hooks/partner", config.clone())
            .await
            .expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    }
    let list = world.folder.path().join("clients.crl");
    std::fs::write(list, world.authority.revoke(&[7, 8])).expect("a file");
    signal(world.gateway.pid(), "HUP");
    wait_for("the revocation to count", async || {
        let answer = world.post_with("/hooks/partner", config.clone()).await;
        answer.unwrap_or_default().is_empty().then_some(())
    })
    .await;
    let causes = world.causes().await.join("\n");
    assert!(causes.contains("evoked"), "{causes}");
}

#[test]
fn check_names_a_ca_that_cannot_be_read_and_a_source_whose_listener_asks_for_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let made =
        rcgen::generate_simple_self_signed(vec!["gateway.test".into()]).expect("a certificate");
    std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("a file");
    let key = made.signing_key.serialize_pem();
    std::fs::write(folder.path().join("key.pem"), key).expect("a file");
    let check = |tls: &str| {
        let file = folder.path().join("sluicegate.toml");
        let text = format!("{}{SOURCES}", section(folder.path(), tls));
        std::fs::write(&file, text).expect("a file");
        let ran = Command::new(binary())
            .args(["check", "--config"])
            .arg(&file)
            .output()
            .expect("it runs");
        let said = [ran.stdout, ran.stderr].concat();
        (
            ran.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let (good, said) = check("");
    assert!(!good);
    assert!(
        said.contains("source partner has client_certs, and the public listener asks for no client certificate"),
        "{said}"
    );
    let (good, said) = check("client_ca = \"missing.pem\"");
    assert!(!good && said.contains("missing.pem"), "{said}");
    let (good, said) = check("client_auth = \"require\"");
    assert!(
        !good && said.contains("has no effect without client_ca"),
        "{said}"
    );
}
