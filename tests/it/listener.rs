//! The listener: slow and many, proxies in front, TLS and drains. Names carry the row of the threat page. Bounds are
//! shortened by settings.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use crate::framing::raw;
use crate::world::{Gateway, Upstream, json, signal, wait_for};

const OPEN: &str = r#"
[sources.open]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
defaults = { prompt = "hello" }
"#;

const GOOD: &[u8] = b"POST /hooks/open HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n{\"a\":1}";

async fn gateway(server: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start_with(upstream.address, OPEN, server).await;
    (upstream, gateway)
}

async fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway
        .metric(&format!(
            r#"sluicegate_connections_refused_total{{reason="{reason}"}}"#
        ))
        .await
}

/// How long until the other side ends a connection on which these bytes were written.
fn life(address: SocketAddr, bytes: &[u8]) -> Duration {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a time-out");
    let _ = stream.write_all(bytes);
    let _ = stream.read_to_end(&mut Vec::new());
    begun.elapsed()
}

#[tokio::test]
async fn t30_t32_a_slow_head_and_an_idle_connection_end_at_their_bounds() {
    let (_upstream, gateway) = gateway("head_timeout = \"500ms\"\nidle_timeout = \"1500ms\"").await;
    let public = gateway.public;
    for (bytes, least, most) in [
        // Nothing, half a head, half a second head: the head's bound. Between two requests: the idle one's.
        (&b""[..], 400, 1_400),
        (b"POST /hooks/open HT", 400, 1_400),
        (&[GOOD, b"POST"].concat(), 400, 1_400),
        (GOOD, 1_400, 3_000),
        (&[GOOD, b"\r\n"].concat(), 1_400, 3_000),
    ] {
        let bytes = bytes.to_vec();
        let said = String::from_utf8_lossy(&bytes).into_owned();
        let lived = spawn_blocking(move || life(public, &bytes))
            .await
            .expect("no panic");
        let bounds = Duration::from_millis(least)..Duration::from_millis(most);
        assert!(bounds.contains(&lived), "{said:?} lived {lived:?}");
    }
}

#[tokio::test]
async fn t31_a_body_in_drips_ends_at_the_bound_of_the_whole() {
    let (_upstream, gateway) = gateway("body_stall = \"1s\"\nbody_timeout = \"2s\"").await;
    let public = gateway.public;
    let answer = spawn_blocking(move || {
        let mut stream = TcpStream::connect(public).expect("it listens");
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a time-out");
        let head = b"POST /hooks/open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head).expect("sent");
        let begun = Instant::now();
        let mut answer = Vec::new();
        while begun.elapsed() < Duration::from_secs(8) {
            let _ = stream.write_all(b"1\r\n \r\n");
            let mut piece = [0; 1024];
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => answer.extend_from_slice(&piece[..length]),
                Err(_) => {}
            }
        }
        (
            String::from_utf8_lossy(&answer).into_owned(),
            begun.elapsed(),
        )
    });
    let (answer, took) = answer.await.expect("no panic");
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("slow_body"),
        "{answer}"
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// An upstream that streams without end; counts those that are being streamed to.
fn endless() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let open = Arc::new(AtomicUsize::new(0));
    let counted = open.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, counted) = (stream.expect("a connection"), counted.clone());
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                counted.fetch_add(1, Ordering::SeqCst);
                let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                let _ = stream.write_all(head);
                let piece = [&b"1000\r\n"[..], &[b'x'; 4096], b"\r\n"].concat();
                while stream.write_all(&piece).is_ok() {}
                counted.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, open)
}

#[tokio::test]
async fn t33_a_reader_that_never_reads_is_reset_and_its_upstream_call_ends() {
    let (from, open) = endless();
    let sources = format!(
        "[[proxy]]\nprefix = \"/v1\"\nupstream = \"http://{from}\"\nexchange_keys = false\n"
    );
    let gateway = Gateway::start_with(from, &sources, "write_stall = \"1s\"").await;
    let before = gateway.resident();
    let public = gateway.public;
    let ask = move || {
        let mut stream = TcpStream::connect(public).expect("it listens");
        stream
            .write_all(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect("sent");
        stream
    };
    let readers: Vec<TcpStream> = (0..20).map(|_| ask()).collect();
    wait_for("the upstream to stream", async || {
        (open.load(Ordering::SeqCst) == 20).then_some(())
    })
    .await;
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 20 * 512 * 1024, "{grown} bytes for 20 readers");
    wait_for("the upstream's calls to end", async || {
        (open.load(Ordering::SeqCst) == 0).then_some(())
    })
    .await;
    drop(readers);
}

#[tokio::test]
async fn t34_t36_thousands_that_are_stuck_or_reset_leave_good_traffic_as_it_was() {
    let count = 2_000;
    let (_upstream, gateway) = gateway(
        "max_connections_per_address = 5000\nhead_timeout = \"120s\"\nbody_stall = \"120s\"\nbody_timeout = \"120s\"",
    )
    .await;
    let public = gateway.public;
    // What events and their deliveries need is there before, and has ended when memory is looked at.
    let idle = async || {
        let held = gateway.admin_json("").await["deliveries"].clone();
        (held["pending"] == 0 && held["leased"] == 0).then_some(())
    };
    let warm = spawn_blocking(move || {
        let open = |_| {
            let mut stream = TcpStream::connect(public).expect("it listens");
            stream.write_all(GOOD).expect("sent");
            stream
        };
        let mut open: Vec<TcpStream> = (0..count / 4).map(open).collect();
        for stream in &mut open {
            assert!(stream.read(&mut [0; 4096]).expect("an answer") > 0);
        }
    });
    warm.await.expect("no panic");
    wait_for("the first events to be delivered", idle).await;
    let before = gateway.resident();
    let stuck = spawn_blocking(move || {
        let heads: [&[u8]; 4] = [
            b"",
            b"POST /hooks/open HTTP/1.1\r\nHost: a\r\n",
            b"POST /hooks/open HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{",
            GOOD,
        ];
        let open = |number: usize| {
            let mut stream = TcpStream::connect(public).expect("it listens");
            stream.write_all(heads[number % heads.len()]).expect("sent");
            stream
        };
        (0..count).map(open).collect::<Vec<_>>()
    });
    let stuck = stuck.await.expect("no panic");
    let name = "sluicegate_connections";
    wait_for("all to be open", async || {
        (gateway.metric(name).await >= f64::from(count as u32)).then_some(())
    })
    .await;
    wait_for("their events to be delivered", idle).await;
    let each = gateway.resident().saturating_sub(before) / count as u64;
    assert!(each < 20 * 1024, "T34: {each} bytes a stuck connection");
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(gateway.post("/hooks/open", &[], "{}").await.status(), 202);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    drop(stuck);
    // T36: resets by the thousand, in the middle of a head and of an answer.
    let reset = spawn_blocking(move || {
        for number in 0..count {
            let mut stream = TcpStream::connect(public).expect("it listens");
            let _ = stream.write_all(if number % 2 == 0 { GOOD } else { b"POST /" });
            // Dropped with an answer unread, the socket is reset.
        }
    });
    reset.await.expect("no panic");
    wait_for("all to be gone", async || {
        (gateway.metric(name).await <= 1.0).then_some(())
    })
    .await;
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid()))
        .expect("Linux says so")
        .count();
    // The deliveries of the good ones keep connections to the upstream for a while.
    assert!(descriptors < 400, "{descriptors} descriptors are open");
    assert_eq!(gateway.post("/hooks/open", &[], "{}").await.status(), 202);
}

#[tokio::test]
async fn t35_an_address_past_its_share_is_refused_at_accept() {
    let (_upstream, gateway) = gateway("max_connections_per_address = 3").await;
    let public = gateway.public;
    let held: Vec<TcpStream> = (0..3)
        .map(|_| TcpStream::connect(public).expect("it listens"))
        .collect();
    wait_for("all to be open", async || {
        (gateway.metric("sluicegate_connections").await == 3.0).then_some(())
    })
    .await;
    let answer = spawn_blocking(move || raw(public, &[GOOD]))
        .await
        .expect("no panic");
    assert!(answer.ended && answer.text.is_empty(), "{}", answer.text);
    assert_eq!(refused(&gateway, "address").await, 1.0);
    drop(held);
    wait_for("the share to be free", async || {
        let answer = spawn_blocking(move || raw(public, &[b"GET / HTTP/1.0\r\n\r\n"]))
            .await
            .expect("no panic");
        (!answer.text.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_operators_listener_takes_no_more_than_the_public_one() {
    let (_upstream, gateway) = gateway("head_timeout = \"500ms\"").await;
    let admin = gateway.admin;
    for (bytes, status) in [
        (
            &b"GET /api/v1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
            400,
        ),
        (b"\x16\x03\x01", 400),
        (b"GET /api/v1 HTTP/3.0\r\n\r\n", 505),
        (b"GET /api", 408),
        (&[b"GET /", &[b'x'; 40_000][..]].concat(), 414),
        (b"GET /api/v1/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
    ] {
        let bytes = bytes.to_vec();
        let heard = spawn_blocking(move || raw(admin, &[&bytes])).await.expect("no panic");
        assert!(heard.statuses() == [status] && heard.ended, "{status}: {}", heard.text);
    }
}

#[tokio::test]
async fn t42_whoever_finds_all_places_taken_is_told_so_at_once() {
    let (_upstream, gateway) = gateway("max_connections = 2").await;
    let public = gateway.public;
    let held: Vec<TcpStream> = (0..2)
        .map(|_| TcpStream::connect(public).expect("it listens"))
        .collect();
    wait_for("both to be open", async || {
        (gateway.metric("sluicegate_connections").await == 2.0).then_some(())
    })
    .await;
    let begun = Instant::now();
    let answer = spawn_blocking(move || raw(public, &[GOOD]))
        .await
        .expect("no panic")
        .text;
    assert!(
        begun.elapsed() < Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"overloaded\""),
        "{answer}"
    );
    let wait = answer
        .lines()
        .find_map(|line| line.strip_prefix("retry-after: "))
        .expect("when to come back");
    assert!(
        (1..=30).contains(&wait.parse::<u32>().expect("whole seconds")),
        "{wait}"
    );
    assert_eq!(refused(&gateway, "full").await, 1.0);
    drop(held);
}

#[tokio::test]
async fn s35_an_idle_connection_goes_before_a_new_one_is_turned_away() {
    let (_upstream, gateway) = gateway("max_connections = 3").await;
    let public = gateway.public;
    let ask = |stream: &mut TcpStream| {
        stream.write_all(GOOD).expect("sent");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 202");
    };
    let mut idle: Vec<TcpStream> = (0..2)
        .map(|_| TcpStream::connect(public).expect("it listens"))
        .collect();
    idle.iter_mut().for_each(ask);
    let mut busy = TcpStream::connect(public).expect("it listens");
    busy.write_all(b"POST /hooks/open HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{")
        .expect("sent");
    let open = async || (gateway.metric("sluicegate_connections").await >= 3.0).then_some(());
    wait_for("all places to be taken", open).await;
    let mut new: Vec<TcpStream> = (0..2)
        .map(|_| TcpStream::connect(public).expect("it listens"))
        .collect();
    spawn_blocking(move || {
        new.iter_mut().for_each(ask);
        for stream in &mut idle {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).expect("it is closed");
        }
        busy.write_all(b"}").expect("sent");
        let mut answer = [0; 12];
        busy.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 202", "whoever is busy keeps its place");
    })
    .await
    .expect("no panic");
    assert_eq!(refused(&gateway, "full").await, 0.0);
}

#[tokio::test]
async fn t42_too_many_requests_in_work_shed_unknown_paths_first() {
    let (_upstream, gateway) = gateway("max_requests = 4\nbody_stall = \"20s\"").await;
    let public = gateway.public;
    let hold = move || {
        let mut stream = TcpStream::connect(public).expect("it listens");
        let head = b"POST /hooks/open HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{";
        stream.write_all(head).expect("sent");
        stream
    };
    let mut held = vec![hold(), hold()];
    wait_for("an unknown path to be shed", async || {
        let answer = gateway.post("/hooks/nobody", &[], "{}").await;
        (answer.status() == 503).then(|| {
            assert_eq!(json(&answer)["code"], "overloaded");
            assert!(answer.headers().contains_key("retry-after"));
        })
    })
    .await;
    assert_eq!(gateway.post("/hooks/open", &[], "{}").await.status(), 202);
    wait_for("a source to be shed", async || {
        // One that comes while another is being answered may itself be shed.
        held.push(hold());
        (gateway.post("/hooks/open", &[], "{}").await.status() == 503).then_some(())
    })
    .await;
    drop(held);
}

#[tokio::test]
async fn f7_without_descriptors_connections_are_turned_away_and_nothing_stands_still() {
    let upstream = Upstream::start(&[]).await;
    // The reserve is for everything else: 160 descriptors leave 96 connections.
    let gateway = Gateway::start_limited(upstream.address, OPEN, 160).await;
    let public = gateway.public;
    let held: Vec<TcpStream> = (0..150)
        .map(|_| TcpStream::connect(public).expect("it listens"))
        .collect();
    wait_for("the door to be full", async || {
        (refused(&gateway, "full").await >= 50.0).then_some(())
    })
    .await;
    gateway.metric_is("sluicegate_connections", 96.0).await;
    drop(held);
    wait_for("good traffic", async || {
        let answer =
            spawn_blocking(move || raw(public, &[&[GOOD, b"GET / HTTP/1.0\r\n\r\n"].concat()]));
        answer
            .await
            .expect("no panic")
            .text
            .starts_with("HTTP/1.1 202 ")
            .then_some(())
    })
    .await;
    assert!(
        gateway
            .log()
            .contains("fewer descriptors than server.max_connections wants")
    );
}

#[tokio::test]
async fn t37_t38_a_trusted_proxy_names_the_caller_and_a_source_may_be_kept_to_addresses() {
    let upstream = Upstream::start(&[]).await;
    let sources = OPEN.replace("agent = \"a\"", "agent = \"a\"\nallow = [\"192.0.2.0/24\"]");
    let gateway = Gateway::start_with(
        upstream.address,
        &sources,
        "trusted_proxies = [\"127.0.0.0/8\"]",
    )
    .await;
    for (value, status) in [
        ("1.1.1.1, 192.0.2.7", 202),
        ("192.0.2.7, 1.1.1.1", 403),
        ("evil", 403),
    ] {
        let answer = gateway
            .post("/hooks/open", &[("x-forwarded-for", value)], "{}")
            .await;
        assert_eq!(answer.status(), status, "{value}");
        if status == 403 {
            assert_eq!(json(&answer)["code"], "address_not_allowed");
        }
    }
    let peers = gateway.admin_json("/refused?source=open").await["items"].to_string();
    assert!(
        peers.contains("\"1.1.1.1\"") && peers.contains("\"127.0.0.1\""),
        "{peers}"
    );
    let untrusting = Gateway::start_with(upstream.address, &sources, "").await;
    let answer = untrusting
        .post("/hooks/open", &[("x-forwarded-for", "192.0.2.7")], "{}")
        .await;
    assert_eq!(
        answer.status(),
        403,
        "nobody is believed who is not trusted"
    );
}

#[tokio::test]
async fn s18_a_header_that_the_proxy_does_not_write_makes_nobody_the_proxy() {
    let upstream = Upstream::start(&[]).await;
    // Proxies and callers inside share a block.
    let sources = OPEN.replace("agent = \"a\"", "agent = \"a\"\nallow = [\"127.0.0.0/8\"]");
    let trusting = "trusted_proxies = [\"127.0.0.0/8\"]\n";
    let gateway = Gateway::start_with(upstream.address, &sources, trusting).await;
    let through = ("x-forwarded-for", "198.51.100.7");
    for (lines, status) in [
        (&[][..], 202),
        (&[("x-forwarded-for", "127.0.0.9")], 202),
        (&[through], 403),
        (&[("forwarded", "for=127.0.0.9"), through], 403),
        (&[("forwarded", "for=127.0.0.9")], 403),
        (&[("x-real-ip", "127.0.0.9")], 403),
        (&[("x-forwarded-for", "unknown")], 403),
    ] {
        assert_eq!(
            gateway.post("/hooks/open", lines, "{}").await.status(),
            status,
            "{lines:?}"
        );
    }
    let other = format!("{trusting}forwarded = \"forwarded\"");
    let gateway = Gateway::start_with(upstream.address, &sources, &other).await;
    for (lines, status) in [
        (&[("forwarded", "for=127.0.0.9"), through][..], 202),
        (&[through], 403),
    ] {
        assert_eq!(
            gateway.post("/hooks/open", lines, "{}").await.status(),
            status,
            "{lines:?}"
        );
    }
}

#[tokio::test]
async fn t37_a_proxy_header_names_the_caller_and_nothing_else_is_taken_from_a_proxy() {
    let upstream = Upstream::start(&[]).await;
    let sources = OPEN.replace("agent = \"a\"", "agent = \"a\"\nallow = [\"192.0.2.0/24\"]");
    let server = "trusted_proxies = [\"127.0.0.0/8\"]\nproxy_protocol = true\nmax_connections_per_address = 2";
    let gateway = Gateway::start_with(upstream.address, &sources, server).await;
    let public = gateway.public;
    let ask = async |begin: &'static [u8]| {
        let last = b"GET /hooks/nobody HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        spawn_blocking(move || raw(public, &[begin, GOOD, last]))
            .await
            .expect("no panic")
    };
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\x30\x39\0\x50";
    for begin in [&b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 80\r\n"[..], v2] {
        assert_eq!(ask(begin).await.statuses(), [202, 404]);
    }
    assert_eq!(
        ask(b"PROXY TCP4 198.51.100.1 127.0.0.1 4000 80\r\n")
            .await
            .statuses(),
        [403, 404]
    );
    for begin in [&b""[..], b"PROXY TCP4 192.0.2.999 127.0.0.1 4000 80\r\n"] {
        let heard = ask(begin).await;
        assert!(heard.ended && heard.text.is_empty(), "{}", heard.text);
    }
    assert_eq!(refused(&gateway, "proxy_header").await, 2.0);
    // Each caller behind the proxy has a share of its own.
    let hold = |line: &'static [u8]| {
        let mut stream = TcpStream::connect(public).expect("it listens");
        stream.write_all(line).expect("sent");
        stream
    };
    let held: Vec<_> = (0..3)
        .map(|_| hold(b"PROXY TCP4 192.0.2.8 127.0.0.1 1 1\r\n"))
        .collect();
    wait_for("the third to be turned away", async || {
        (refused(&gateway, "address").await == 1.0).then_some(())
    })
    .await;
    assert_eq!(
        ask(b"PROXY TCP4 192.0.2.9 127.0.0.1 4000 80\r\n")
            .await
            .statuses(),
        [202, 404]
    );
    drop(held);
}

#[tokio::test]
async fn f17_a_stop_answers_what_is_in_flight_and_closes_what_is_idle() {
    let (_upstream, gateway) = gateway("").await;
    let mut idle = TcpStream::connect(gateway.public).expect("it listens");
    idle.write_all(GOOD).expect("sent");
    let mut busy = TcpStream::connect(gateway.public).expect("it listens");
    busy.write_all(&GOOD[..GOOD.len() - 3]).expect("sent");
    wait_for("both to be open", async || {
        (gateway.metric("sluicegate_connections").await == 2.0).then_some(())
    })
    .await;
    signal(gateway.pid(), "TERM");
    let read = |mut stream: TcpStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    let ended = spawn_blocking(move || read(idle))
        .await
        .expect("no panic")
        .expect("a clean end");
    assert_eq!(ended.matches("HTTP/1.1 202 ").count(), 1);
    busy.write_all(&GOOD[GOOD.len() - 3..]).expect("sent");
    let answer = spawn_blocking(move || read(busy))
        .await
        .expect("no panic")
        .expect("a clean end");
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    let took = gateway.stop().await;
    assert!(took < Duration::from_secs(6), "{took:?}");
}
