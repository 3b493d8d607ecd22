//! nginx and Caddy in front, with the files that `deploy/` has for them: large uploads, long runs and event streams get through, and the
//! gateway's log names the cause where a proxy gives up.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::json;
use sluicegate::net::Client;

use crate::world::{Gateway, Upstream, event_id, free_address, hmac_sha256, signal, wait_for};

const SECRET: &str = "a-secret-behind-a-proxy";

const SOURCES: &str = r#"
[sources.scans]
provider = "custom"
secrets = ["literal:a-secret-behind-a-proxy"]
agent = "a-scans"
verify = { signature = "header:X-Signature" }
files = { max_upload = "25MiB", max_file = "25MiB" }
[sources.waits]
provider = "custom"
agent = "a-waits"
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text" }
respond = "wait"
wait_timeout = "60s"
"#;

fn site() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/nginx.conf"))
        .expect("it is there")
}

/// The main file around a site.
fn main_file(folder: &Path) -> String {
    let at = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {at}/{what};\n"))
        .concat();
    format!(
        "user root;\nworker_processes 1;\ndaemon off;\npid {at}/nginx.pid;\nerror_log {at}/error.log;\n\
         events {{ worker_connections 128; }}\nhttp {{\naccess_log off;\n{temporary}include {at}/site.conf;\n}}\n"
    )
}

/// An nginx with the site of `deploy/`, moved to an address of its own and without TLS.
struct Nginx {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Nginx {
    async fn start(gateway: SocketAddr, change: impl Fn(String) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = free_address();
        let site = site();
        let kept: String = site
            .lines()
            .filter(|line| !line.trim_start().starts_with("ssl_") && !line.contains("listen [::]"))
            .map(|line| match line.trim_start() {
                rest if rest.starts_with("listen 443") => format!("listen {address};\n"),
                rest if rest.starts_with("listen 80") => format!("listen {};\n", free_address()),
                rest if rest.starts_with("server 127.0.0.1:8080") => format!("server {gateway};\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        std::fs::write(folder.path().join("site.conf"), change(kept)).expect("a file");
        std::fs::write(folder.path().join("nginx.conf"), main_file(folder.path())).expect("a file");
        let child = Command::new("nginx")
            .arg("-c")
            .arg(folder.path().join("nginx.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        wait_for("nginx to listen", async || TcpStream::connect(address).ok()).await;
        Self {
            child,
            address,
            _folder: folder,
        }
    }

    async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<Bytes> {
        let mut request = Request::post(format!("http://{}{path}", self.address))
            .header("host", "hooks.example.com");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let client = Client::new(Duration::from_secs(5), None).expect("a client");
        let request = request.body(body.into()).expect("a request");
        client
            .send(request, Duration::from_secs(60), 1 << 24)
            .await
            .expect("nginx answers")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        signal(self.child.id(), "TERM");
        let _ = self.child.wait();
    }
}

#[test]
fn nginx_takes_the_file_as_it_stands_and_waits_as_long_as_the_gateway() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(vec!["hooks.example.com".into()])
        .expect("a certificate");
    let (certificate, key) = (
        folder.path().join("fullchain.pem"),
        folder.path().join("privkey.pem"),
    );
    std::fs::write(&certificate, made.cert.pem()).expect("a file");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    let live = "/etc/letsencrypt/live/hooks.example.com";
    let site = site();
    assert!(site.contains(live), "the certificate's folder");
    let site = site.replace(live, &folder.path().display().to_string());
    std::fs::write(folder.path().join("site.conf"), &site).expect("a file");
    std::fs::write(folder.path().join("nginx.conf"), main_file(folder.path())).expect("a file");
    let tested = Command::new("nginx")
        .arg("-t")
        .arg("-c")
        .arg(folder.path().join("nginx.conf"))
        .output();
    let tested = tested.expect("nginx is installed");
    assert!(
        tested.status.success(),
        "{}",
        String::from_utf8_lossy(&tested.stderr)
    );

    let value = |name: &str| {
        let line = site
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(name))
            .expect("it is set");
        let digits: String = line
            .trim_start()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse::<u64>().expect("a number")
    };
    // The longest waits of the gateway's defaults: a prefix's 1500 s for the beginning of an answer.
    assert!(
        value("proxy_read_timeout") > 1_500,
        "a run may take that long"
    );
    assert!(
        value("client_max_body_size") >= 100,
        "the largest upload of the pages"
    );
    assert!(site.contains("proxy_request_buffering off;") && site.contains("proxy_buffering off;"));
}

#[test]
fn caddy_takes_the_file_as_it_stands() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("Caddyfile");
    std::fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/Caddyfile"),
        &file,
    )
    .expect("it is there");
    let validated = Command::new("caddy")
        .args(["validate", "--adapter", "caddyfile", "--config"])
        .arg(&file)
        .env("HOME", folder.path())
        .env("XDG_DATA_HOME", folder.path())
        .env("XDG_CONFIG_HOME", folder.path())
        .output()
        .expect("caddy is installed");
    assert!(
        validated.status.success(),
        "{}",
        String::from_utf8_lossy(&validated.stderr)
    );
}

#[tokio::test]
async fn large_uploads_long_runs_and_event_streams_get_through_nginx() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start_with(
        upstream.address,
        SOURCES,
        "trusted_proxies = [\"127.0.0.1\"]",
    )
    .await;
    let nginx = Nginx::start(gateway.public, |site| site).await;

    let file: Vec<u8> = (0..20_000_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let head = b"--XbX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"scan.pdf\"\r\nContent-Type: application/pdf\r\n\r\n";
    let body = [&head[..], &file, b"\r\n--XbX--\r\n"].concat();
    let signature = hmac_sha256(SECRET.as_bytes(), &body);
    let headers = [
        ("content-type", "multipart/form-data; boundary=XbX"),
        ("x-signature", &signature),
    ];
    let answer = nginx.post("/hooks/scans", &headers, body).await;
    assert_eq!(answer.status(), 202, "{:?}", answer.body());
    let event = event_id(&answer);
    let event = gateway.settled(&event).await;
    assert_eq!(
        event["attachments"].as_array().map(Vec::len),
        Some(1),
        "{event:#}"
    );
    assert!(
        event.to_string().contains("20000000"),
        "every byte of it: {event:#}"
    );

    let text = json!({ "id": 1, "text": "[[stub delay=2s result=late]]" }).to_string();
    let answer = nginx.post("/hooks/waits", &[], text).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.body());

    // The first event of a stream is here while the run goes on.
    let mut stream = TcpStream::connect(nginx.address).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a time");
    let prompt = r#"{"prompt":"[[stub delay=20s result=one two]]"}"#;
    let request = format!(
        "POST /a-stream HTTP/1.1\r\nhost: hooks.example.com\r\naccept: text/event-stream\r\nx-api-key: k-of-a-caller\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{prompt}",
        prompt.len()
    );
    stream.write_all(request.as_bytes()).expect("written");
    let (mut seen, mut piece) = (String::new(), [0; 1024]);
    while !seen.contains("data: ") {
        let read = stream
            .read(&mut piece)
            .expect("the stream begins before the run ends");
        assert!(read > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    assert!(!seen.contains("task_finished"), "{seen}");
}

#[tokio::test]
async fn the_log_names_the_cause_when_a_proxy_waits_too_shortly() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start_with(
        upstream.address,
        SOURCES,
        "trusted_proxies = [\"127.0.0.1\"]",
    )
    .await;
    let impatient = |site: String| {
        site.lines()
            .map(|line| {
                if line.contains("proxy_read_timeout") {
                    "proxy_read_timeout 1s;\n".into()
                } else {
                    format!("{line}\n")
                }
            })
            .collect()
    };
    let nginx = Nginx::start(gateway.public, impatient).await;
    let call = r#"{"prompt":"[[stub delay=30s]]"}"#;
    let headers = [
        ("x-api-key", "k-of-a-caller"),
        ("content-type", "application/json"),
    ];
    let answer = nginx.post("/a-call", &headers, call).await;
    assert_eq!(answer.status(), 504, "nginx gave up");
    wait_for("the line", async || {
        gateway
            .log()
            .contains("went away before it was answered")
            .then_some(())
    })
    .await;
    assert!(
        !gateway.log().contains("before the body was whole"),
        "the body was whole"
    );
}
