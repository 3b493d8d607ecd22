//! Good traffic while the public listener is under attack: beside 10,000 connections that are stuck, and with far more
//! callers than the gateway can carry, none of whom waits to come back.
//!
//! `cargo bench --bench siege` (or with `-- stuck`, `-- flood`). The gateway has one core, the attack another. Needs
//! `taskset` and `prlimit` (util-linux), and wrk. Every figure is printed with what it has to hold; what does not hold
//! ends the run with 1.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on ends"
)]

mod served;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use served::Gateway;

const STUCK: usize = 10_000;

/// Callers at once: more than may be in work (`server.max_requests`).
const FLOOD: usize = 12_000;

/// After how long what is in flight has come to its bound.
const FULL: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    // Of our own process, its threads included.
    let pid = std::process::id().to_string();
    let cores = std::thread::available_parallelism().unwrap().get();
    let ours = if cores > 1 {
        format!("0-{}", cores - 2)
    } else {
        "0".to_owned()
    };
    quiet("taskset", &["-acp", &ours, &pid]);
    quiet("prlimit", &["--pid", &pid, "--nofile=20000:20000"]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let wants = |what: &str| asked.is_empty() || asked.iter().any(|word| word == what);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut verdict = Verdict(true);
    if wants("stuck") {
        runtime.block_on(stuck(&folder.path().join("stuck"), cores - 1, &mut verdict));
    }
    if wants("flood") {
        runtime.block_on(flood(&folder.path().join("flood"), cores - 1, &mut verdict));
    }
    if verdict.0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether everything has held so far.
struct Verdict(bool);

impl Verdict {
    fn hold(&mut self, what: &str, figure: f64, most: f64, unit: &str) {
        let holds = figure <= most;
        self.0 &= holds;
        println!(
            "{what:<52} {figure:>9.1} {unit:<6} at most {most:>8.1}   {}",
            if holds { "holds" } else { "MISSED" }
        );
    }

    fn reach(&mut self, what: &str, figure: f64, least: f64, unit: &str) {
        let holds = figure >= least;
        self.0 &= holds;
        println!(
            "{what:<52} {figure:>9.1} {unit:<6} at least {least:>7.1}   {}",
            if holds { "holds" } else { "MISSED" }
        );
    }
}

/// Connections that send a part of a request, or nothing, or never read.
async fn stuck(folder: &Path, core: usize, verdict: &mut Verdict) {
    let gateway = started(folder, core, "");
    let good = async || {
        let mut waits = steady(gateway.public, 8, 400.0, Duration::from_secs(8)).await;
        waits.sort_by(f64::total_cmp);
        (part(&waits, 0.5) * 1e3, part(&waits, 0.99) * 1e3)
    };
    good().await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let (own, mut each) = (descriptors(&gateway), 0.0_f64);
    for _ in 0..3 {
        without.push(good().await);
        let before = resident(gateway.child.id());
        let heads: [&[u8]; 4] = [
            b"",
            b"POST /hooks/bench HTTP/1.1\r\nHost: a\r\nX-Half: ",
            b"POST /hooks/bench HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"half\":",
            b"POST /hooks/bench HTTP/1.1\r\n",
        ];
        let mut held = Vec::with_capacity(STUCK);
        for number in 0..STUCK {
            let mut stream = TcpStream::connect(gateway.public).await.unwrap();
            stream.write_all(heads[number % heads.len()]).await.unwrap();
            held.push(stream);
        }
        while descriptors(&gateway) < own + STUCK * 9 / 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        with.push(good().await);
        each = each.max(
            resident(gateway.child.id()).saturating_sub(before) as f64 / STUCK as f64 / 1024.0,
        );
        drop(held);
        let begun = Instant::now();
        while descriptors(&gateway) > own + 64 && begun.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let best = |all: &[(f64, f64)]| all.iter().map(|(_, p99)| *p99).fold(f64::MAX, f64::min);
    println!("400 signed events a second, p50 and p99 in ms, three times in turn");
    println!("  without: {without:.2?}\n  beside {STUCK} stuck connections: {with:.2?}");
    verdict.hold(
        "p99 beside them to p99 without (best of three)",
        best(&with) / best(&without),
        2.0,
        "times",
    );
    verdict.hold("memory of a stuck connection", each, 20.0, "KiB");
    verdict.hold(
        "descriptors left when they are gone",
        descriptors(&gateway) as f64,
        (own + 64) as f64,
        "",
    );
}

/// More than can be carried: first five times what the operator says is its share, which is a fifth of the peak; then
/// whatever this machine can offer.
async fn flood(folder: &Path, core: usize, verdict: &mut Verdict) {
    let gateway = started(&folder.join("free"), core, "");
    let mut peak = 0.0_f64;
    for connections in [64, 256, 512] {
        let rate = storm(gateway.public, connections, Duration::from_secs(5))
            .await
            .good as f64
            / 5.0;
        println!(
            "{connections} connections, each as fast as it is answered: {rate:.0} events a second"
        );
        peak = peak.max(rate);
    }
    let share = (peak / 5.0).round();
    let limited = started(
        &folder.join("limited"),
        core,
        &format!("\n[limits]\nwhole = \"{share}/s\""),
    );
    println!(
        "512 callers who do not wait to come back, limits.whole = {share} events a second; the second 15 s of 30"
    );
    let time = Duration::from_secs(15);
    // What is kept warms the database's cache, whoever floods.
    storm(limited.public, 512, time).await;
    let flood = under(&limited, 512, time).await;
    verdict.reach(
        "offered to the limit",
        flood.offered(time) / share,
        5.0,
        "times",
    );
    verdict.reach(
        "goodput to the limit",
        flood.storm.good as f64 / time.as_secs_f64() / share * 100.0,
        90.0,
        "%",
    );
    verdict.hold("a refusal, p99", flood.refusal * 1e3, 100.0, "ms");
    flood.hold(verdict, &limited).await;
    drop(limited);

    println!("{FLOOD} callers who do not wait to come back, no limit");
    let flood = under(&gateway, FLOOD, time).await;
    println!(
        "{:.1} times the peak is offered",
        flood.offered(time) / peak
    );
    // Callers who wait for nothing outnumber the core: each is served in its turn, and so is each refusal. Were more of
    // them refused, more would be asked at once, and less done.
    verdict.reach(
        "goodput to peak",
        flood.storm.good as f64 / time.as_secs_f64() / peak * 100.0,
        65.0,
        "%",
    );
    verdict.hold("a refusal, p99", flood.refusal * 1e3, 1000.0, "ms");
    flood.hold(verdict, &gateway).await;
}

/// What a flood did.
struct Flood {
    storm: Storm,
    /// How long a refusal took, p99, for callers who have a thread of their own.
    refusal: f64,
    /// The most memory, until it has come to its bound and after that.
    memory: [f64; 2],
}

/// A flood over so many connections, watched: the gateway's memory, and how long a few callers beside it wait.
async fn under(gateway: &Gateway, connections: usize, time: Duration) -> Flood {
    let most = [AtomicU64::new(0), AtomicU64::new(0)].map(Arc::new);
    let watching = tokio::spawn({
        let (most, pid, begun) = (most.clone(), gateway.child.id(), Instant::now());
        async move {
            loop {
                most[usize::from(begun.elapsed() >= FULL)]
                    .fetch_max(resident(pid), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    // The flood's many callers wait for each other's turn, these do not.
    let public = gateway.public;
    let probes = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::time::sleep(FULL).await;
            probe(public, time - FULL).await
        })
    });
    let storm = storm(gateway.public, connections, time).await;
    watching.abort();
    println!(
        "  {} taken, {} refused, {} without an answer",
        storm.good, storm.refused, storm.failed
    );
    let mut probes = probes.join().unwrap();
    for (what, waits) in [
        ("refusals", &mut probes.refused),
        ("acknowledgements", &mut probes.good),
    ] {
        waits.sort_by(f64::total_cmp);
        if !waits.is_empty() {
            let [p50, p99] = [0.5, 0.99].map(|share| part(waits, share) * 1e3);
            println!(
                "  {} {what} among the probes: p50 {p50:.1} ms, p99 {p99:.1} ms",
                waits.len()
            );
        }
    }
    let refusal = if probes.refused.is_empty() {
        0.0
    } else {
        part(&probes.refused, 0.99)
    };
    Flood {
        storm,
        refusal,
        memory: most.map(|bytes| bytes.load(Ordering::Relaxed) as f64 / 1024.0 / 1024.0),
    }
}

impl Flood {
    fn offered(&self, time: Duration) -> f64 {
        (self.storm.good + self.storm.refused + self.storm.failed) as f64 / time.as_secs_f64()
    }

    async fn hold(&self, verdict: &mut Verdict, gateway: &Gateway) {
        let [early, late] = self.memory;
        println!(
            "  memory: {early:.0} MiB at most in the first {} s, {late:.0} later",
            FULL.as_secs()
        );
        verdict.hold("memory later to memory by then", late / early, 1.1, "times");
        let (accepted, kept) = accepted_and_kept(gateway).await;
        println!("  {accepted:.0} acknowledged, {kept:.0} in the inbox");
        verdict.hold(
            "acknowledged and not kept",
            (accepted - kept).max(0.0),
            0.0,
            "",
        );
    }
}

/// How long a few callers wait for their answers.
#[derive(Default)]
struct Probes {
    good: Vec<f64>,
    refused: Vec<f64>,
}

/// Fifty callers, each ten times a second.
async fn probe(to: SocketAddr, time: Duration) -> Probes {
    let end = Instant::now() + time;
    let callers: Vec<_> = (0..50)
        .map(|number| {
            tokio::spawn(async move {
                let (mut caller, mut probes) = (Caller::new(to, number), Probes::default());
                tokio::time::sleep(Duration::from_millis(2 * number as u64)).await;
                while Instant::now() < end {
                    let sent = Instant::now();
                    match caller.send().await {
                        Some(202) => probes.good.push(sent.elapsed().as_secs_f64()),
                        Some(429 | 503) => probes.refused.push(sent.elapsed().as_secs_f64()),
                        _ => {}
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                probes
            })
        })
        .collect();
    let mut all = Probes::default();
    for caller in callers {
        let probes = caller.await.unwrap();
        all.good.extend(probes.good);
        all.refused.extend(probes.refused);
    }
    all
}

/// The waits of events that are sent at a steady rate.
async fn steady(to: SocketAddr, connections: usize, rate: f64, time: Duration) -> Vec<f64> {
    let end = Instant::now() + time;
    let pause = Duration::from_secs_f64(connections as f64 / rate);
    let senders: Vec<_> = (0..connections)
        .map(|number| {
            tokio::spawn(async move {
                let mut caller = Caller::new(to, number);
                let mut next = Instant::now() + pause.mul_f64(number as f64 / connections as f64);
                let mut waits = Vec::new();
                while next < end {
                    tokio::time::sleep_until(next.into()).await;
                    assert_eq!(caller.send().await, Some(202));
                    // From when it was due: what waited behind a slow one counts too.
                    waits.push(next.elapsed().as_secs_f64());
                    next += pause;
                }
                waits
            })
        })
        .collect();
    let mut waits = Vec::new();
    for sender in senders {
        waits.extend(sender.await.unwrap());
    }
    waits
}

/// What became of a storm.
#[derive(Default)]
struct Storm {
    good: u64,
    refused: u64,
    failed: u64,
}

/// Sends as fast as answers come, over so many connections. By wrk, whose own work is small beside the gateway's.
async fn storm(to: SocketAddr, connections: usize, time: Duration) -> Storm {
    let (body, signature) = served::event("0");
    // wrk signs nothing, so all have one body; this source takes it again and again.
    let request =
        served::request(&body, &signature, "DELIVERY").replace("/hooks/bench", "/hooks/again");
    let (before, after) = request.split_once("DELIVERY").unwrap();
    let run = fastrand::u32(..);
    let script = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let text = format!(
        "local before, after, sent = {before:?} .. '{run}-', {after:?}, 0\n\
         function request()\n  sent = sent + 1\n  return before .. sent .. after\nend\n"
    );
    std::fs::write(script.path(), text).unwrap();
    let mut wrk = Command::new("wrk");
    wrk.args([
        "-t1",
        &format!("-c{connections}"),
        &format!("-d{}s", time.as_secs()),
        "--timeout",
        "30s",
        "-s",
    ]);
    wrk.arg(script.path()).arg(format!("http://{to}"));
    let out = tokio::task::spawn_blocking(move || wrk.output().expect("wrk runs"))
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let number = |line: Option<&str>| {
        line.map_or(0, |line| {
            line.split(|c: char| !c.is_ascii_digit())
                .filter_map(|word| word.parse::<u64>().ok())
                .sum()
        })
    };
    let line = |mark: &str| text.lines().find(|line| line.contains(mark)).map(str::trim);
    let all = number(line(" requests in ").and_then(|line| line.split(" requests").next()));
    let refused = number(line("Non-2xx or 3xx responses").and_then(|line| line.rsplit(':').next()));
    Storm {
        good: all - refused,
        refused,
        failed: number(line("Socket errors")),
    }
}

/// A connection that is opened again when it was closed.
struct Caller {
    to: SocketAddr,
    number: usize,
    sent: u64,
    stream: Option<TcpStream>,
}

impl Caller {
    fn new(to: SocketAddr, number: usize) -> Self {
        // Unlike those of any other caller, in this run of it too.
        let number = number + (fastrand::u32(..) as usize) * 100_000;
        Self {
            to,
            number,
            sent: 0,
            stream: None,
        }
    }

    /// The answer's status; none when there was no answer.
    async fn send(&mut self) -> Option<u16> {
        self.sent += 1;
        let delivery = format!("{}-{}", self.number, self.sent);
        let (body, signature) = served::event(&delivery);
        let request = served::request(&body, &signature, &delivery);
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.to).await.ok()?;
            let _ = stream.set_nodelay(true);
            self.stream = Some(stream);
        }
        let stream = self.stream.as_mut()?;
        let (mut buffer, mut filled) = ([0_u8; 2048], 0);
        let sent = stream.write_all(request.as_bytes()).await;
        while !buffer[..filled].ends_with(b"}") {
            match stream.read(&mut buffer[filled..]).await {
                Ok(read @ 1..) => filled += read,
                _ => break,
            }
        }
        let text = String::from_utf8_lossy(&buffer[..filled]).into_owned();
        if sent.is_err() || filled == 0 || text.contains("connection: close") {
            self.stream = None;
        }
        text.split(' ').nth(1)?.parse().ok()
    }
}

fn part(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn quiet(command: &str, arguments: &[&str]) {
    assert!(
        Command::new(command)
            .args(arguments)
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success(),
        "{command}"
    );
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

/// A gateway on one core.
fn started(folder: &Path, core: usize, more: &str) -> Gateway {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), env!("CARGO_BIN_EXE_sluicegate")]);
    let server = "max_connections = 15000\nmax_connections_per_address = 15000\nhead_timeout = \"300s\"\n\
                  body_stall = \"300s\"\nbody_timeout = \"300s\"";
    Gateway::start(command, folder, &format!("{server}{more}"), "")
}

fn descriptors(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.child.id()))
        .unwrap()
        .count()
}

/// How many events it says it has acknowledged, and how many its inbox holds.
async fn accepted_and_kept(gateway: &Gateway) -> (f64, f64) {
    let mut stream = TcpStream::connect(gateway.admin).await.unwrap();
    let head = format!(
        "GET /api/v1/metrics HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer bench-token\r\nconnection: close\r\n\r\n",
        gateway.admin
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let sum = |name: &str, with: &str| {
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(with));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>()
    };
    (
        sum("sluicegate_requests_total{", "\"accepted\""),
        sum("sluicegate_inbox_deliveries{", ""),
    )
}
