//! The gateway, as a process of its own. On the way out it is stopped, and a test fails that left it unable to stop
//! cleanly, or with a request that was answered and not counted.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate::net::Client;

use super::{API_KEY, TOKEN, binary, client, signal, wait_for};

/// A gateway.
pub struct Gateway {
    child: Child,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub folder: Arc<tempfile::TempDir>,
    log: Arc<Mutex<String>>,
    pub(super) client: Client,
    /// How many requests were sent to the public listener and answered, those over raw sockets left out.
    pub(super) answered: AtomicU64,
    stopped: bool,
}

impl Gateway {
    /// Starts one in a fresh folder. `sources` is what stands below `[upstream]` and the rest, as TOML.
    pub async fn start(upstream: SocketAddr, sources: &str) -> Self {
        Self::start_with(upstream, sources, "").await
    }

    /// The same, with further lines for `[server]`.
    pub async fn start_with(upstream: SocketAddr, sources: &str, server: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self::run(folder, &Self::config(upstream, sources, server), None).await
    }

    /// Starts one in a fresh folder with a configuration of the test's own.
    pub async fn start_config(config: &str) -> Self {
        Self::run(
            Arc::new(tempfile::tempdir().expect("a folder")),
            config,
            None,
        )
        .await
    }

    /// Starts one in a fresh folder that may have so many descriptors.
    pub async fn start_limited(upstream: SocketAddr, sources: &str, descriptors: u32) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nofile={descriptors}:{descriptors}"))
            .arg(binary());
        Self::run_as(
            command,
            folder,
            &Self::config(upstream, sources, ""),
            None,
            &[],
        )
        .await
    }

    /// The same in a folder that may hold an inbox already.
    pub async fn start_config_in(folder: Arc<tempfile::TempDir>, config: &str) -> Self {
        Self::run(folder, config, None).await
    }

    /// Starts one in a folder that may hold an inbox already.
    pub async fn start_in(
        folder: Arc<tempfile::TempDir>,
        upstream: SocketAddr,
        sources: &str,
    ) -> Self {
        Self::run(folder, &Self::config(upstream, sources, ""), None).await
    }

    /// The same, at an address that senders know already.
    pub async fn start_at(
        public: SocketAddr,
        folder: Arc<tempfile::TempDir>,
        upstream: SocketAddr,
        sources: &str,
    ) -> Self {
        Self::run(folder, &Self::config(upstream, sources, ""), Some(public)).await
    }

    /// Starts one in a fresh folder with this configuration, some more arguments, and where it is known before, at
    /// this address.
    pub async fn start_role(config: &str, public: Option<SocketAddr>, arguments: &[&str]) -> Self {
        Self::run_with(
            Arc::new(tempfile::tempdir().expect("a folder")),
            config,
            public,
            arguments,
        )
        .await
    }

    /// Starts one in a folder by a command of the test's own that ends in the binary's name, as with variables set.
    pub async fn start_as(command: Command, folder: Arc<tempfile::TempDir>, config: &str) -> Self {
        Self::run_as(command, folder, config, None, &[]).await
    }

    async fn run(folder: Arc<tempfile::TempDir>, config: &str, public: Option<SocketAddr>) -> Self {
        Self::run_with(folder, config, public, &[]).await
    }

    async fn run_with(
        folder: Arc<tempfile::TempDir>,
        config: &str,
        public: Option<SocketAddr>,
        arguments: &[&str],
    ) -> Self {
        Self::run_as(Command::new(binary()), folder, config, public, arguments).await
    }

    /// Runs it by a command that ends in the binary's name.
    async fn run_as(
        mut command: Command,
        folder: Arc<tempfile::TempDir>,
        config: &str,
        public: Option<SocketAddr>,
        arguments: &[&str],
    ) -> Self {
        let file = folder.path().join("sluicegate.toml");
        std::fs::write(&file, config).expect("the folder takes files");
        command
            .args(["serve", "--config"])
            .arg(&file)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(public) = public {
            command.env("SLUICEGATE__SERVER__LISTEN", public.to_string());
        }
        let mut child = command.spawn().expect("the gateway starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (public, admin) = read_log(&mut child, log.clone()).await;
        Self {
            child,
            public,
            admin,
            folder,
            log,
            client: client(),
            answered: AtomicU64::new(0),
            stopped: false,
        }
    }

    /// The whole configuration.
    pub fn config(upstream: SocketAddr, sources: &str, server: &str) -> String {
        format!(
            r#"
[server]
listen = "127.0.0.1:0"
public_url = "https://hooks.example.com"
{server}
[admin]
listen = "127.0.0.1:0"
token = "literal:{TOKEN}"
[upstream]
base_url = "http://{upstream}"
api_key = "literal:{API_KEY}"
[inbox]
url = "sqlite:data/inbox.db"
[log]
format = "json"
{sources}
"#
        )
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The memory it has, in bytes.
    pub fn resident(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("Linux says so");
        line.trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .expect("a number")
            * 1024
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        self.log
            .lock()
            .expect("no test thread panics in between")
            .clone()
    }

    /// SIGKILL, as a crash.
    pub fn kill(mut self) -> Arc<tempfile::TempDir> {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        self.stopped = true;
        self.folder.clone()
    }

    /// SIGTERM, and its end; returns how long it took.
    pub async fn stop(mut self) -> Duration {
        let begun = Instant::now();
        signal(self.child.id(), "TERM");
        let code = wait_for("the gateway to stop", async || {
            self.child.try_wait().expect("a child")
        })
        .await;
        self.stopped = true;
        assert!(
            code.success(),
            "the gateway ended with {code}:\n{}",
            self.log()
        );
        begun.elapsed()
    }
}

impl Gateway {
    /// Every request that was answered has an outcome, and every refusal a reason.
    fn adds_up(&self) {
        let Ok(mut admin) = TcpStream::connect(self.admin) else {
            return;
        };
        let ask = format!(
            "GET /api/v1/metrics HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n",
            self.admin
        );
        let mut text = String::new();
        if admin.write_all(ask.as_bytes()).is_err() || admin.read_to_string(&mut text).is_err() {
            return;
        }
        let sum = |name: &str, with: &str| {
            let lines = text
                .lines()
                .filter(|line| line.starts_with(name) && line.contains(with));
            lines
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum::<f64>()
        };
        let (outcomes, answered) = (
            sum("sluicegate_requests_total{", ""),
            self.answered.load(Ordering::Relaxed),
        );
        assert!(
            outcomes >= answered as f64,
            "{answered} requests were answered and {outcomes} have an outcome:\n{text}"
        );
        let refused = sum("sluicegate_requests_total{", "outcome=\"refused\"");
        let reasons = sum("sluicegate_refused_total{", "");
        assert!(
            (refused - reasons).abs() < 0.5,
            "{refused} are refused and {reasons} have a reason:\n{text}"
        );
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        if std::thread::panicking() {
            eprintln!("the gateway said:\n{}", self.log());
            let _ = self.child.kill();
            let _ = self.child.wait();
            return;
        }
        self.adds_up();
        signal(self.child.id(), "TERM");
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            match self.child.try_wait() {
                Ok(Some(code)) => {
                    assert!(
                        code.success(),
                        "the gateway ended with {code}:\n{}",
                        self.log()
                    );
                    return;
                }
                _ if Instant::now() > deadline => {
                    let _ = self.child.kill();
                    panic!("the gateway did not stop:\n{}", self.log());
                }
                _ => pause(Duration::from_millis(20)),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a destructor has no async")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Reads the log until the gateway says where it listens, and goes on reading in the background.
async fn read_log(child: &mut Child, log: Arc<Mutex<String>>) -> (SocketAddr, SocketAddr) {
    let stderr = child.stderr.take().expect("piped");
    let (said, heard) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut said = Some(said);
        let mut reader = BufReader::new(stderr);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
            if let Ok(value) = serde_json::from_str::<Value>(&line)
                && value["message"] == "serving"
                && let Some(said) = said.take()
            {
                // One that takes no requests has no public address.
                let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
                let address = |key: &str| {
                    value[key]
                        .as_str()
                        .map(|text| text.parse().expect("an address"))
                };
                let _ = said.send((
                    address("public").unwrap_or(nowhere),
                    address("admin").expect("it has one"),
                ));
            }
            log.lock()
                .expect("no test thread panics in between")
                .push_str(&line);
            line.clear();
        }
        let _ = reader.read_to_string(&mut line);
    });
    let heard = tokio::time::timeout(Duration::from_secs(30), heard)
        .await
        .expect("the gateway starts in time");
    heard.unwrap_or_else(|_| panic!("the gateway ended before it served"))
}
