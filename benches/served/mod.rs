//! The real gateway as a process, and events as GitHub signs them: what the benches that go over HTTP begin with.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hmac::{Hmac, KeyInit as _, Mac as _};

/// The secret of the source `bench`.
const SECRET: &str = "a-secret-for-the-benchmark";

/// An event of 1 KB and its signature.
pub(crate) fn event(number: &str) -> (String, String) {
    // A body that was signed before is a replay, whatever its delivery is called.
    let body = format!(
        "{{\"action\":\"opened\",\"number\":\"{number}\",\"pad\":\"{}\"}}",
        "x".repeat(960)
    );
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    (body, signature)
}

/// The whole request. `delivery` is what tells one event from another.
pub(crate) fn request(body: &str, signature: &str, delivery: &str) -> String {
    format!(
        "POST /hooks/bench HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nX-GitHub-Event: issues\r\n\
         X-GitHub-Delivery: {delivery}\r\nX-Hub-Signature-256: sha256={signature}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A gateway whose upstream takes nothing, so that only the way in is measured.
pub(crate) struct Gateway {
    pub(crate) child: Child,
    pub(crate) public: SocketAddr,
    #[allow(dead_code, reason = "not every bench asks")]
    pub(crate) admin: SocketAddr,
}

impl Gateway {
    /// Starts `command` (the binary, or what runs it) with these settings in `[server]` and `[inbox]`.
    pub(crate) fn start(mut command: Command, folder: &Path, server: &str, inbox: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let config = folder.join("sluicegate.toml");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n{server}\n[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"literal:bench-token\"\n\
             [upstream]\nbase_url = \"http://127.0.0.1:9\"\napi_key = \"literal:bench\"\n\
             [inbox]\nurl = \"sqlite:inbox.db\"\n{inbox}\n\
             [dispatch]\nconcurrency = 1\nbackoff = \"1h\"\nbackoff_max = \"1h\"\n[log]\nformat = \"json\"\n\
             [sources.bench]\nprovider = \"github\"\nsecrets = [\"literal:{SECRET}\"]\nagent = \"a\"\n\
             prompt = \"{{{{ body.action }}}}\"\n\
             [sources.again]\nprovider = \"custom\"\nsecrets = [\"literal:{SECRET}\"]\nagent = \"a\"\n\
             replay_window = \"0s\"\nprompt = \"{{{{ body.action }}}}\"\n\
             verify = {{ signature = \"header:X-Hub-Signature-256\", prefix = \"sha256=\", \
             event_id = \"header:X-GitHub-Delivery\" }}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut child = command
            .args(["serve", "--config"])
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let serving = loop {
            let mut line = String::new();
            assert!(
                log.read_line(&mut line).unwrap() > 0,
                "the gateway ended before it served"
            );
            // What is said of the configuration is no JSON.
            let Ok(said) = serde_json::from_str::<serde_json::Value>(&line) else {
                continue;
            };
            if said["message"] == "serving" {
                break said;
            }
        };
        let address = |name: &str| serving[name].as_str().unwrap().parse().unwrap();
        let (public, admin) = (address("public"), address("admin"));
        // Lines that nobody reads are dropped and counted; a gateway in use has a reader.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self {
            child,
            public,
            admin,
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
