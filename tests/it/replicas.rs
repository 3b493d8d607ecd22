//! Several processes on one Postgres: killed, frozen, cut off, restarted and with roles of their own. Nothing
//! acknowledged is lost, no event is run twice, no thread has two turns at once, and every thread keeps its order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::json;
use sluicegate::config::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};

use crate::cluster;
use crate::load::{CHAT, Load, drain, flapping_upstream};
use crate::world::{Gateway, Upstream, free_address, json as body_of, signal, wait_for};

/// How often a process is killed or frozen.
fn kills() -> u32 {
    std::env::var("SLUICEGATE_TEST_KILLS_POSTGRES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(4)
}

const LEASE: Duration = Duration::from_secs(2);

/// The configuration that all processes have. The files with secrets and the address are the test's.
fn config(upstream: &Upstream, inbox: &str, sources: &str) -> String {
    Gateway::config(upstream.address, sources, "").replace(
        "url = \"sqlite:data/inbox.db\"",
        &format!(
            "url = \"{inbox}\"\nlease = \"{}s\"\nkey = \"literal:a-key-that-all-processes-have-0001\"",
            LEASE.as_secs()
        ),
    )
}

/// The process at a door, started as often as it dies.
async fn start(config: &str, door: SocketAddr) -> Gateway {
    Gateway::start_role(config, Some(door), &[]).await
}

fn address(inbox: &Secret) -> &str {
    inbox.expose_text().expect("an address is text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_f21_three_processes_killed_and_frozen_in_turn_lose_and_double_nothing() {
    let upstream = flapping_upstream().await;
    let inbox = cluster::shared().migrated().await;
    let config = config(&upstream, address(&inbox), CHAT);
    let doors = [free_address(), free_address(), free_address()];
    let mut gateways = Vec::new();
    for door in doors {
        gateways.push(start(&config, door).await);
    }
    let load = Load::start(&doors, 24);
    let (mut killed, mut frozen) = (0, 0);
    for turn in 0..kills() as usize {
        let at = turn % doors.len();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(150..900))).await;
        if turn % 2 == 0 {
            gateways.remove(at).kill();
            killed += 1;
            // Sometimes at once, sometimes after its leases have passed to the others.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..3500))).await;
            gateways.insert(at, start(&config, doors[at]).await);
        } else {
            signal(gateways[at].pid(), "STOP");
            frozen += 1;
            tokio::time::sleep(LEASE.mul_f64(0.5) + Duration::from_millis(fastrand::u64(0..3500)))
                .await;
            signal(gateways[at].pid(), "CONT");
        }
    }
    let sent = load.finish().await;
    assert!(
        sent.total() > 100,
        "the load was too thin to show anything: {}",
        sent.total()
    );
    drain(&gateways[0]).await;
    let runs = sent.judge(&upstream, &gateways[0]).await;
    eprintln!(
        "{killed} kills and {frozen} freezes of 3 processes, {} acknowledged, {runs} runs, 0 lost, 0 doubled, 0 out of order",
        sent.total()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f18_three_processes_restarted_one_after_the_other_refuse_and_lose_nothing() {
    let upstream = Upstream::start(&["--delay", "20ms"]).await;
    let inbox = cluster::shared().migrated().await;
    let config = config(&upstream, address(&inbox), CHAT);
    let doors = [free_address(), free_address(), free_address()];
    let mut gateways = Vec::new();
    for door in doors {
        gateways.push(start(&config, door).await);
    }
    let load = Load::start(&doors, 24);
    for at in (0..doors.len()).chain(0..doors.len()) {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let took = gateways.remove(at).stop().await;
        assert!(took < Duration::from_secs(10), "{took:?}");
        gateways.insert(at, start(&config, doors[at]).await);
    }
    let sent = load.finish().await;
    assert!(
        sent.total() > 100,
        "the load was too thin to show anything: {}",
        sent.total()
    );
    assert_eq!(sent.refused, 0, "every answer was a yes");
    drain(&gateways[0]).await;
    let runs = sent.judge(&upstream, &gateways[0]).await;
    eprintln!(
        "6 restarts, {} acknowledged, {runs} runs, 0 refused, 0 lost",
        sent.total()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f22_a_process_cut_off_from_the_database_for_longer_than_its_lease_takes_no_turn_twice() {
    let upstream = Upstream::start(&["--delay", "600ms"]).await;
    let inbox = cluster::shared().migrated().await;
    let (through, line) = Line::to(address(&inbox)).await;
    let doors = [free_address(), free_address()];
    let cut_off = start(&config(&upstream, &through, CHAT), doors[0]).await;
    let other = start(&config(&upstream, address(&inbox), CHAT), doors[1]).await;
    let load = Load::start(&doors, 24);
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        line.cut(true);
        tokio::time::sleep(LEASE * 2).await;
        assert_eq!(
            cut_off.admin(Method::GET, "/health/ready").await.status(),
            503,
            "it says that it keeps nothing"
        );
        line.cut(false);
    }
    tokio::time::sleep(LEASE).await;
    let sent = load.finish().await;
    assert!(
        sent.total() > 100,
        "the load was too thin to show anything: {}",
        sent.total()
    );
    drain(&other).await;
    let runs = sent.judge(&upstream, &other).await;
    wait_for("it to be back", async || {
        (cut_off.admin(Method::GET, "/health/ready").await.status() == 200).then_some(())
    })
    .await;
    eprintln!(
        "2 partitions, {} acknowledged, {runs} runs, 0 lost, 0 doubled",
        sent.total()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_are_processes_of_their_own() {
    let upstream = Upstream::start(&["--delay", "100ms"]).await;
    let inbox = cluster::shared().migrated().await;
    let sources = r#"
[sources.asked]
provider = "custom"
agent = "a"
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text" }
respond = "wait"
wait_timeout = "20s"
[sources.hurried]
provider = "custom"
agent = "a"
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text" }
respond = "wait"
wait_timeout = "100ms"
[sources.slow]
provider = "custom"
agent = "a"
rate = "6/h"
verify = { scheme = "none" }
defaults = { prompt = "hello" }
"#;
    let config = config(&upstream, address(&inbox), sources);
    let first = Gateway::start_role(&config, None, &["--roles", "ingress"]).await;
    let second = Gateway::start_role(&config, None, &["--roles", "ingress"]).await;
    let event = |id: &str| json!({"id": id, "text": id}).to_string();

    // Nobody dispatches: the wait ends with a link, and nothing is claimed.
    let hurried = first.post("/hooks/hurried", &[], event("early")).await;
    assert_eq!(hurried.status(), 202);
    let link = body_of(&hurried)["status_url"]
        .as_str()
        .expect("a link")
        .replace("https://hooks.example.com", "");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(upstream.runs().await.is_empty());
    assert_eq!(
        body_of(&second.send(Method::GET, &link, &[], "").await)["status"],
        "pending"
    );

    let dispatch = Gateway::start_role(&config, None, &["--roles", "dispatch"]).await;
    assert_eq!(dispatch.public.port(), 0, "it has no public listener");
    upstream.wait_for_runs(1).await;
    wait_for(
        "the link to show the end, at the other process as well",
        async || {
            let shown = body_of(&second.send(Method::GET, &link, &[], "").await);
            (shown["status"] == "delivered").then_some(())
        },
    )
    .await;
    let waited = first.post("/hooks/asked", &[], event("waited")).await;
    assert_eq!(
        (waited.status().as_u16(), &body_of(&waited)["status"]),
        (200, &json!("completed"))
    );

    // Health and metrics are everywhere, the API where the admin role is.
    let admin = Gateway::start_role(&config, None, &["--roles", "admin"]).await;
    for gateway in [&first, &second, &dispatch, &admin] {
        for path in ["/health/live", "/health/ready", "/metrics"] {
            assert_eq!(
                gateway.admin(Method::GET, path).await.status(),
                200,
                "{path}"
            );
        }
    }
    for gateway in [&first, &dispatch] {
        let refused = gateway.admin(Method::GET, "/events").await;
        assert_eq!(
            (refused.status().as_u16(), &body_of(&refused)["code"]),
            (404, &json!("no_admin_role"))
        );
    }
    assert_eq!(
        admin.admin_json("/events").await["items"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(admin.admin_json("").await["replicas"], 4);

    // Two take requests, so each has half of a limit, however many processes there are.
    wait_for("the first to know of the second", async || {
        first.log().contains("limits are divided").then_some(())
    })
    .await;
    for gateway in [&first, &second] {
        let mut taken = 0;
        for _ in 0..6 {
            taken += usize::from(gateway.post("/hooks/slow", &[], "{}").await.status() == 202);
        }
        assert_eq!(taken, 3);
    }
    let counted = second.kill();
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(
        first.post("/hooks/slow", &[], "{}").await.status(),
        429,
        "no second helping when one dies"
    );
    drop(counted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_schema_is_refused_with_what_to_do_and_migrated_when_asked() {
    let upstream = Upstream::start(&[]).await;
    let inbox = cluster::shared().database().await;
    let config = config(&upstream, address(&inbox), CHAT);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sluicegate.toml");
    std::fs::write(&file, &config).expect("a file");
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(crate::world::binary())
            .args(arguments)
            .arg("--config")
            .arg(&file)
            .output()
            .expect("it runs");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (good, said) = tokio::task::block_in_place(|| run(&["serve"]));
    assert!(!good && said.contains("sluicegate migrate"), "{said}");
    let (good, said) = tokio::task::block_in_place(|| run(&["migrate"]));
    assert!(good && said.contains("up to date"), "{said}");
    let (good, said) = tokio::task::block_in_place(|| run(&["migrate"]));
    assert!(good, "{said}");
    drop(Gateway::start_role(&config, None, &[]).await);

    let fresh = cluster::shared().database().await;
    let config = config.replace(address(&inbox), address(&fresh));
    drop(Gateway::start_role(&config, None, &["--migrate"]).await);
}

/// A line between one process and the database that can be cut: then nothing passes, and nobody is told.
struct Line(Arc<AtomicBool>);

impl Line {
    /// The database's address by way of a new line.
    async fn to(inbox: &str) -> (String, Self) {
        let (socket, name) = inbox
            .strip_prefix("postgres://sluicegate@")
            .and_then(|rest| rest.split_once('/'))
            .unwrap_or_else(|| panic!("a server of the test's own: {inbox}"));
        let socket = format!("{}/.s.PGSQL.5432", socket.replace("%2F", "/"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = cut.clone();
        tokio::spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                let Ok(there) = UnixStream::connect(&socket).await else {
                    continue;
                };
                let (here_out, here_in) = here.into_split();
                let (there_out, there_in) = there.into_split();
                tokio::spawn(carry(here_out, there_in, is_cut.clone()));
                tokio::spawn(carry(there_out, here_in, is_cut.clone()));
            }
        });
        (format!("postgres://sluicegate@{address}/{name}"), Self(cut))
    }

    fn cut(&self, cut: bool) {
        self.0.store(cut, Ordering::Relaxed);
    }
}

/// Carries bytes one way, as long as the line is whole.
async fn carry(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    cut: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        while cut.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
