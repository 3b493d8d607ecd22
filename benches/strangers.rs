//! What strangers cost: 512 connections with 1,000 keys that nobody knows and bodies of every kind, for a minute, while
//! the operator's signed events run.
//!
//! `cargo bench --bench strangers` (`-- 10` for ten seconds instead of sixty). Every figure is printed with what it has
//! to hold; what does not hold ends the run with 1.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on ends"
)]

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const SECRET: &str = "a-secret-for-the-benchmark";
const API_KEY: &str = "the-operators-upstream-key";
const TOKEN: &str = "bench-token-0123456789abcdef";

const CONNECTIONS: usize = 512;
const KEYS: usize = 1_000;

/// How many addresses the strangers have.
const ADDRESSES: usize = 8;

const MIB: f64 = 1024.0 * 1024.0;

fn main() -> ExitCode {
    let asked = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let time = Duration::from_secs(asked.unwrap_or(60));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    if runtime.block_on(siege(folder.path(), time)) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn siege(folder: &Path, time: Duration) -> bool {
    let (stub, upstream) = stub();
    let (gateway, public, admin) = gateway(folder, upstream);
    let mut holds = true;
    let mut hold = |what: &str, figure: f64, most: f64, unit: &str| {
        let good = figure <= most;
        holds &= good;
        println!(
            "{what:<60} {figure:>9.2} {unit:<5} at most {most:>9.2}   {}",
            if good { "holds" } else { "MISSED" }
        );
    };

    // The first ones warm everything up, and are not counted.
    events(public, Duration::from_secs(3)).await;
    let before = resident(gateway.id());
    let usual = events(public, Duration::from_secs(15)).await;
    let (sizes, kept) = (disk(folder), deliveries(admin).await);
    let stop = Arc::new(AtomicBool::new(false));
    let (sent, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let strangers: Vec<_> = (0..CONNECTIONS)
        .map(|number| tokio::spawn(stranger(public, number, stop.clone(), sent.clone())))
        .collect();
    let watched = tokio::spawn(watch(gateway.id(), stop.clone(), most.clone()));
    let under = events(public, time).await;
    stop.store(true, Ordering::Relaxed);
    for stranger in strangers {
        let _ = tokio::time::timeout(Duration::from_secs(20), stranger).await;
    }
    let _ = watched.await;
    let after = deliveries(admin).await;

    println!(
        "{} requests of strangers, {} events of the operator's",
        sent.load(Ordering::Relaxed),
        under.waits.len()
    );
    println!(
        "an event's whole way: usually p50 {:.1} ms, p99 {:.1} ms",
        usual.part(0.5),
        usual.part(0.99)
    );
    println!(
        "                      besieged p50 {:.1} ms, p99 {:.1} ms",
        under.part(0.5),
        under.part(0.99)
    );
    hold(
        "events of the operator's that were not run",
        under.failed as f64,
        0.0,
        "",
    );
    hold(
        "p99 of an event's whole way, longer than usual",
        under.part(0.99) - usual.part(0.99),
        1_000.0,
        "ms",
    );
    hold("deliveries of strangers", after.1 as f64, 0.0, "");
    // An event of the operator's own is kept, and takes what it took before.
    let own = (after.0 - kept.0) as f64 * 4096.0;
    hold(
        "growth of inbox and files, the operator's apart",
        (disk(folder) as f64 - sizes as f64 - own) / MIB,
        1.0,
        "MiB",
    );
    let grown = most.load(Ordering::Relaxed).saturating_sub(before) as f64 / MIB;
    hold("memory above what it was", grown, 256.0 + 64.0, "MiB");
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!(
        "memory: {:.1} MiB before, {:.1} MiB after",
        before as f64 / MIB,
        resident(gateway.id()) as f64 / MIB
    );
    drop((gateway, stub));
    holds
}

/// One connection of a stranger: opened again whenever it ends.
async fn stranger(to: SocketAddr, number: usize, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) {
    let large = vec![b'x'; 1 << 20];
    let mut round = number;
    while !stop.load(Ordering::Relaxed) {
        round += CONNECTIONS + 1;
        let key = format!("a-key-that-nobody-knows-{}", round % KEYS);
        let (head, body): (String, Vec<u8>) = match round % 9 {
            0 => (
                json("/A?asynchronous=true"),
                br#"{"prompt":"junk"}"#.to_vec(),
            ),
            1 => (
                json("/A?asynchronous=true"),
                format!("{{\"prompt\":\"{}\"}}", "j".repeat(900_000)).into_bytes(),
            ),
            2 => (json("/a?task_id=4711"), br#"{"prompt":"junk"}"#.to_vec()),
            3 => (json("/A"), br#"{"prompt":"junk"}"#.to_vec()),
            4 => (form("/A?asynchronous=true"), file(&large[..200_000])),
            5 => (json("/hooks/bench"), br#"{"action":"opened"}"#.to_vec()),
            6 => (json("/hooks/bench"), large.clone()),
            7 => (json("/hooks/nobody"), br#"{"a":1}"#.to_vec()),
            _ => (
                json("/A?agent_id=B&asynchronous=true"),
                format!("[{}1]", "1,".repeat(400_000)).into_bytes(),
            ),
        };
        let length = body.len();
        let request = format!(
            "{head}x-api-key: {key}\r\nx-hub-signature-256: sha256=00\r\nContent-Length: {length}\r\n\r\n"
        );
        let Some(mut stream) = connect(to, number).await else {
            continue;
        };
        let whole = async {
            stream.write_all(request.as_bytes()).await?;
            // Some never send the rest.
            if round.is_multiple_of(7) {
                stream.write_all(&body[..length / 2]).await?;
                tokio::time::sleep(Duration::from_secs(5)).await;
                return Ok(());
            }
            stream.write_all(&body).await?;
            let mut answer = [0; 2048];
            stream.read(&mut answer).await.map(drop)
        };
        let _ = tokio::time::timeout(Duration::from_secs(15), whole)
            .await
            .map(|end: std::io::Result<()>| end.is_ok());
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

fn json(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n")
}

fn form(path: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    )
}

fn file(bytes: &[u8]) -> Vec<u8> {
    let head =
        b"--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.csv\"\r\nContent-Type: text/csv\r\n\r\n";
    [&head[..], bytes, b"\r\n--x--\r\n"].concat()
}

/// A connection from one of the strangers' addresses.
async fn connect(to: SocketAddr, number: usize) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    let from = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + number % ADDRESSES).ok()?);
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0)).ok()?;
    socket.connect(to).await.ok()
}

/// How long the operator's events took, each from its request to the end of its run.
struct Waits {
    waits: Vec<f64>,
    failed: usize,
}

impl Waits {
    fn part(&self, share: f64) -> f64 {
        let mut sorted = self.waits.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
            .get(((sorted.len().max(1) - 1) as f64 * share) as usize)
            .copied()
            .unwrap_or(f64::MAX)
    }
}

/// Signed events, four a second, each on a connection of its own as providers have them.
async fn events(to: SocketAddr, time: Duration) -> Waits {
    let begun = Instant::now();
    let mut sent = Vec::new();
    while begun.elapsed() < time {
        sent.push(tokio::spawn(event(to)));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let mut waits = Waits {
        waits: Vec::new(),
        failed: 0,
    };
    for wait in sent {
        match wait.await.unwrap() {
            Some(wait) => waits.waits.push(wait),
            None => waits.failed += 1,
        }
    }
    waits
}

/// One event at a source that answers with the run's end; milliseconds.
async fn event(to: SocketAddr) -> Option<f64> {
    let delivery = fastrand::u64(..);
    let body = format!("{{\"action\":\"opened\",\"number\":{delivery}}}");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let request = format!(
        "POST /hooks/bench HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nX-GitHub-Event: issues\r\n\
         X-GitHub-Delivery: {delivery}\r\nX-Hub-Signature-256: sha256={signature}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let begun = Instant::now();
    let mut stream = TcpStream::connect(to).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    answer
        .starts_with(b"HTTP/1.1 200 ")
        .then(|| begun.elapsed().as_secs_f64() * 1e3)
}

/// The largest memory that a process has while this goes on.
async fn watch(pid: u32, stop: Arc<AtomicBool>, most: Arc<AtomicU64>) {
    while !stop.load(Ordering::Relaxed) {
        most.fetch_max(resident(pid), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .unwrap_or_default()
        * 1024
}

/// The bytes of the inbox, without what SQLite writes ahead, and of the files.
fn disk(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.path() {
            path if path.is_dir() => disk(&path),
            path if path
                .extension()
                .is_some_and(|end| end == "db-wal" || end == "db-shm") =>
            {
                0
            }
            _ => entry.metadata().map_or(0, |known| known.len()),
        })
        .sum()
}

/// How many deliveries there are of the operator's source, and of the drop-in.
async fn deliveries(admin: SocketAddr) -> (u64, u64) {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = format!(
        "GET /api/v1/metrics HTTP/1.1\r\nhost: {admin}\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let of = |source: &str| {
        let lines = text.lines().filter(|line| {
            line.starts_with("sluicegate_inbox_deliveries{") && line.contains(source)
        });
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>() as u64
    };
    (of("\"bench\""), of("\"dropin\""))
}

/// A process that goes with this.
struct Running(Child);

impl Running {
    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An upstream that knows one key.
fn stub() -> (Running, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.args([
        "stub",
        "--listen",
        "127.0.0.1:0",
        "--api-key",
        API_KEY,
        "--delay",
        "20ms",
    ]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out: BufReader<ChildStdout> = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let address = line.trim().rsplit('/').next().unwrap().parse().unwrap();
    (Running(child), address)
}

/// A gateway as it is shipped, but for where it listens.
fn gateway(folder: &Path, upstream: SocketAddr) -> (Running, SocketAddr, SocketAddr) {
    let config = folder.join("sluicegate.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://hooks.example.com\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"literal:{TOKEN}\"\n\
         [upstream]\nbase_url = \"http://{upstream}\"\napi_key = \"literal:{API_KEY}\"\n\
         [log]\nformat = \"json\"\n\
         [sources.bench]\nprovider = \"github\"\nsecrets = [\"literal:{SECRET}\"]\nagent = \"a\"\n\
         prompt = \"{{{{ body.action }}}}\"\nrespond = \"wait\"\nwait_timeout = \"30s\"\nrate = \"6000/min\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    let mut child = command
        .args(["serve", "--config"])
        .arg(&config)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log: BufReader<ChildStderr> = BufReader::new(child.stderr.take().unwrap());
    let serving = loop {
        let mut line = String::new();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "the gateway ended before it served"
        );
        // What is said of the configuration is no JSON.
        let Ok(said) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        if said["message"] == "serving" {
            break said;
        }
    };
    let address = |name: &str| serving[name].as_str().unwrap().parse().unwrap();
    let (public, admin) = (address("public"), address("admin"));
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    (Running(child), public, admin)
}
