//! Durable acknowledgements through the whole gateway: signed 1 KB events over kept-alive connections, each answered
//! after the commit that holds it is synced. Printed beside the raw sync rate of the same disk, beside a gateway that
//! commits every event alone, and, where `redis-server` is installed, beside a Redis stream that syncs before it answers:
//! a queue that is handed the bare body, and checks, maps and looks up nothing.
//!
//! `cargo bench --bench ack`; `-- 64` for 64 connections alone. `BENCH_FOLDER` picks another disk. The load runs on the same machine and is part of the
//! figures; ratios within one run mean more than the figures themselves.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on ends"
)]

mod served;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use served::Gateway;

const TIME: Duration = Duration::from_secs(4);

fn main() {
    let disk =
        std::env::var_os("BENCH_FOLDER").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let folder = tempfile::tempdir_in(disk).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    println!(
        "raw 8 KiB + fdatasync      {:>8.0} /s",
        raw_sync(folder.path())
    );
    println!(
        "{:<26} {:>8}   {:>8} {:>8}",
        "durable acks over HTTP", "acks/s", "p50 ms", "p99 ms"
    );
    let chosen: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let counts = if chosen.is_empty() {
        vec![1, 64, 512]
    } else {
        chosen
    };
    let mut at_most = [0.0; 2];
    for (row, (batch, name)) in [(512, "grouped"), (1, "one commit an event")]
        .into_iter()
        .enumerate()
    {
        for &connections in &counts {
            let place = folder.path().join(format!("{batch}-{connections}"));
            let command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
            let gateway = Gateway::start(
                command,
                &place,
                "max_connections_per_address = 1024",
                &format!("batch = {batch}"),
            );
            let figures = runtime.block_on(load(gateway.public, connections, Speaks::Http));
            println!(
                "{:<26} {:>8.0}   {:>8.2} {:>8.2}",
                format!("{name}, {connections}"),
                figures.rate,
                figures.p50,
                figures.p99
            );
            at_most[row] = figures.rate;
        }
    }
    match Redis::start(&folder.path().join("redis")) {
        Some(redis) => {
            for &connections in &counts {
                let figures = runtime.block_on(load(redis.address, connections, Speaks::Redis));
                let name = format!("peer: Redis stream, {connections}");
                println!(
                    "{name:<26} {:>8.0}   {:>8.2} {:>8.2}",
                    figures.rate, figures.p50, figures.p99
                );
            }
        }
        None => println!("peer: Redis stream         not measured: there is no redis-server"),
    }
    println!(
        "grouped to one commit an event: {:.1} times",
        at_most[0] / at_most[1]
    );
}

struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
}

/// Sends events over so many connections for a while.
async fn load(address: SocketAddr, connections: usize, speaks: Speaks) -> Figures {
    let begun = Instant::now();
    let senders: Vec<_> = (0..connections)
        .map(|number| tokio::spawn(sender(address, number, begun + TIME, speaks)))
        .collect();
    let mut waits: Vec<f64> = Vec::new();
    for sender in senders {
        waits.extend(sender.await.unwrap());
    }
    let took = begun.elapsed().as_secs_f64();
    waits.sort_by(f64::total_cmp);
    let part = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize] * 1e3;
    Figures {
        rate: waits.len() as f64 / took,
        p50: part(0.5),
        p99: part(0.99),
    }
}

/// What is spoken to whoever keeps the events.
#[derive(Clone, Copy)]
enum Speaks {
    Http,
    Redis,
}

impl Speaks {
    fn request(self, body: &str, signature: &str, number: usize, sent: u64) -> String {
        match self {
            Self::Http => served::request(body, signature, &format!("{number}-{sent}")),
            Self::Redis => {
                format!(
                    "*5\r\n$4\r\nXADD\r\n$6\r\nevents\r\n$1\r\n*\r\n$4\r\nbody\r\n${}\r\n{body}\r\n",
                    body.len()
                )
            }
        }
    }

    /// Whether an answer is whole: ours ends with its JSON, Redis' is a length and an id.
    fn is_whole(self, answer: &[u8]) -> bool {
        match self {
            Self::Http => answer.ends_with(b"}"),
            Self::Redis => answer.windows(2).filter(|pair| pair == b"\r\n").count() == 2,
        }
    }

    const fn good(self) -> &'static [u8] {
        match self {
            Self::Http => b"HTTP/1.1 202",
            Self::Redis => b"$",
        }
    }
}

async fn sender(address: SocketAddr, number: usize, until: Instant, speaks: Speaks) -> Vec<f64> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut waits = Vec::new();
    let mut buffer = vec![0_u8; 4096];
    let mut sent = 0_u64;
    while Instant::now() < until {
        sent += 1;
        let (body, signature) = served::event(&format!("{number}-{sent}"));
        let request = speaks.request(&body, &signature, number, sent);
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut filled = 0;
        while !speaks.is_whole(&buffer[..filled]) {
            let read = stream.read(&mut buffer[filled..]).await.unwrap();
            assert!(read > 0, "the connection was closed");
            filled += read;
        }
        assert!(
            buffer.starts_with(speaks.good()),
            "{}",
            String::from_utf8_lossy(&buffer[..filled])
        );
        waits.push(begun.elapsed().as_secs_f64());
    }
    waits
}

/// How often this disk syncs a page that was appended.
fn raw_sync(folder: &Path) -> f64 {
    let mut file = std::fs::File::create(folder.join("raw")).unwrap();
    let page = [7_u8; 8192];
    let begun = Instant::now();
    let mut syncs = 0_u32;
    while begun.elapsed() < Duration::from_secs(2) {
        file.write_all(&page).unwrap();
        file.sync_data().unwrap();
        syncs += 1;
    }
    f64::from(syncs) / begun.elapsed().as_secs_f64()
}

/// A Redis that appends every write to a file and syncs it before it answers; writes that come together share a sync.
struct Redis {
    child: Child,
    address: SocketAddr,
}

impl Redis {
    /// None where it is not installed.
    fn start(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let port = address.port().to_string();
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port,
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--dir",
            ])
            .arg(folder)
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        while std::net::TcpStream::connect(address).is_err() {
            std::thread::yield_now();
        }
        Some(Self { child, address })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
