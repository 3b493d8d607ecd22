//! How much at once and how fast: caps, rates, breakers, holds and turns that wait, over the real gateway.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::world::{API_KEY, Gateway, Upstream, free_address, wait_for};

/// Two sources, one of them to an agent that may do little at once.
const PAIR: &str = r#"
[dispatch]
concurrency = 6
destination_concurrency = 5
backoff = "50ms"
backoff_max = "200ms"
breaker_calls = 4
breaker_rest = "1s"
[destinations."agent/small"]
concurrency = 2
[sources.wide]
provider = "custom"
agent = "wide"
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text", task_id = "chat" }
[sources.small]
provider = "custom"
agent = "small"
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text", task_id = "chat" }
[sources.few]
provider = "custom"
agent = "wide"
concurrency = 1
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text", task_id = "chat" }
"#;

async fn send_many(gateway: &Gateway, source: &str, count: usize, text: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(
            gateway
                .accept(
                    source,
                    &json!({"id": format!("{source}-{text}-{number}"), "text": text}),
                )
                .await,
        );
    }
    ids
}

/// The inbox's deliveries by state, and that they add up to what was accepted. The two are read one after the other, so
/// that one may be a moment ahead.
async fn states(gateway: &Gateway) -> HashMap<String, f64> {
    wait_for("the figures to add up", async || adding_up(gateway).await).await
}

async fn adding_up(gateway: &Gateway) -> Option<HashMap<String, f64>> {
    let text = String::from_utf8(gateway.admin(Method::GET, "/metrics").await.body().to_vec())
        .expect("text");
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let lines = |name: &'static str| {
        text.lines()
            .filter(move |line| line.starts_with(&format!("{name}{{")))
    };
    let value = |line: &str| {
        line.rsplit(' ')
            .next()
            .and_then(|value| value.parse::<f64>().ok())
            .expect("a number")
    };
    let mut states: HashMap<String, f64> = HashMap::new();
    for line in lines("sluicegate_inbox_deliveries") {
        *states
            .entry(label(line, "state").expect("a state"))
            .or_default() += value(line);
    }
    let accepted: f64 = lines("sluicegate_requests_total")
        .filter(|line| line.contains("\"accepted\""))
        .map(value)
        .sum();
    if states.values().sum::<f64>() != accepted {
        return None;
    }
    for line in lines("sluicegate_deliveries_total") {
        let state = label(line, "state").expect("a state");
        let counted: f64 = lines("sluicegate_deliveries_total")
            .filter(|line| label(line, "state").as_ref() == Some(&state))
            .map(value)
            .sum();
        if states.get(&state) != Some(&counted) {
            return None;
        }
    }
    Some(states)
}

#[tokio::test]
async fn caps_are_held_under_load_and_a_full_destination_keeps_no_other_waiting() {
    let upstream = Upstream::start(&["--delay", "150ms"]).await;
    let gateway = Gateway::start(upstream.address, PAIR).await;
    send_many(&gateway, "small", 12, "x").await;
    let before = Instant::now();
    send_many(&gateway, "wide", 12, "x").await;
    send_many(&gateway, "few", 3, "x").await;
    upstream.wait_for_runs(27).await;
    wait_for("all to end", async || {
        let delivered = states(&gateway)
            .await
            .get("delivered")
            .copied()
            .unwrap_or_default();
        (delivered == 27.0).then_some(())
    })
    .await;
    assert!(
        before.elapsed() < Duration::from_secs(8),
        "{:?}",
        before.elapsed()
    );
    let stats = upstream.stats().await;
    assert!(stats["max_running"].as_u64() <= Some(6), "{stats:#}");
    let most = |destination: &str| {
        stats["max_running_by"][destination]
            .as_u64()
            .unwrap_or_default()
    };
    assert_eq!(most("agents/small"), 2, "{stats:#}");
    assert!((2..=5).contains(&most("agents/wide")), "{stats:#}");
    gateway
        .metric_is(r#"sluicegate_deliveries_in_flight{kind="agent"}"#, 0.0)
        .await;
}

#[tokio::test]
async fn a_rate_is_held_and_does_not_stand_still() {
    let upstream = Upstream::start(&[]).await;
    let config = PAIR.replace(
        "[destinations.\"agent/small\"]",
        "[destinations.\"agent/small\"]\nrate = \"5/s\"",
    );
    let gateway = Gateway::start(upstream.address, &config).await;
    let begun = Instant::now();
    send_many(&gateway, "small", 8, "x").await;
    send_many(&gateway, "wide", 8, "x").await;
    wait_for("the other destination", async || {
        let runs = upstream.runs().await;
        (runs
            .iter()
            .filter(|run| run["destination"] == "agents/wide")
            .count()
            == 8)
            .then_some(())
    })
    .await;
    let small = |runs: &[Value]| {
        runs.iter()
            .filter(|run| run["destination"] == "agents/small")
            .count()
    };
    let (count, took) = (small(&upstream.runs().await), begun.elapsed().as_secs_f64());
    assert!(count as f64 <= 1.0 + 5.0 * took, "{count} in {took} s");
    upstream.wait_for_runs(16).await;
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(1_400) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[tokio::test]
async fn f11_a_destination_that_fails_rests_is_tried_and_comes_back() {
    let upstream = Upstream::start(&["--delay", "100ms"]).await;
    let gateway = Gateway::start(upstream.address, PAIR).await;
    upstream.set(json!({"fail": ["unavailable=1/1"]})).await;
    send_many(&gateway, "wide", 20, "x").await;
    let opened = "sluicegate_breaker_opened_total";
    wait_for("the breaker to open", async || {
        (gateway.metric(opened).await == 1.0).then_some(())
    })
    .await;
    // While it rests it costs nothing but a try now and then.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let requests = upstream.stats().await["requests"]
        .as_u64()
        .expect("a number");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let tries = upstream.stats().await["requests"]
        .as_u64()
        .expect("a number")
        - requests;
    assert!(
        (1..=8).contains(&tries),
        "{tries} requests in three rests of a second"
    );
    let broken = gateway
        .metric(r#"sluicegate_breaker_destinations{state="open"}"#)
        .await
        + gateway
            .metric(r#"sluicegate_breaker_destinations{state="half_open"}"#)
            .await;
    assert_eq!(broken, 1.0);

    upstream.set(json!({"fail": []})).await;
    let back = Instant::now();
    upstream.wait_for_runs(1).await;
    assert!(
        back.elapsed() < Duration::from_secs(5),
        "{:?}",
        back.elapsed()
    );
    upstream.wait_for_runs(20).await;
    let stats = upstream.stats().await;
    assert!(stats["max_running"].as_u64() <= Some(5), "{stats:#}");
    assert_eq!(stats["duplicates"], 0);
    wait_for("the log to say so", async || {
        let log = gateway.log();
        (log.contains("it is left alone") && log.contains("it answers again")).then_some(())
    })
    .await;
    states(&gateway).await;
}

#[tokio::test]
async fn f11_what_waits_for_an_upstream_that_is_gone_costs_no_tries_and_goes_out_when_it_is_back() {
    let address = free_address();
    let gateway = Gateway::start(address, PAIR).await;
    send_many(&gateway, "wide", 40, "x").await;
    send_many(&gateway, "small", 40, "x").await;
    wait_for("both breakers", async || {
        (gateway.metric("sluicegate_breaker_opened_total").await >= 2.0).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let tried = async || {
        let all = ["wide", "small"].map(|source| {
            format!(r#"sluicegate_attempts_total{{result="not_sent",source="{source}"}}"#)
        });
        gateway.metric(&all[0]).await + gateway.metric(&all[1]).await
    };
    let before = tried().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let tries = tried().await - before;
    assert!(
        (2.0..=12.0).contains(&tries),
        "{tries} tries of two destinations in four rests of a second"
    );

    let upstream = Upstream::start_at(address, &["--delay", "20ms"]).await;
    let back = Instant::now();
    upstream.wait_for_runs(1).await;
    assert!(
        back.elapsed() < Duration::from_secs(3),
        "{:?}",
        back.elapsed()
    );
    upstream.wait_for_runs(80).await;
    let stats = upstream.stats().await;
    assert!(stats["max_running"].as_u64() <= Some(6), "{stats:#}");
    states(&gateway).await;
}

#[tokio::test]
async fn t82_a_destination_that_asks_for_time_is_left_alone_and_no_other() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, PAIR).await;
    let asks = "[[stub http=503 retry-after=3 times=1]] later";
    let begun = Instant::now();
    let first = gateway
        .accept("small", &json!({"id": "1", "text": asks}))
        .await;
    wait_for("the answer that asks", async || {
        let event = gateway.admin_json(&format!("/events/{first}")).await;
        (event["deliveries"][0]["attempts"]
            .as_array()
            .map_or(0, Vec::len)
            == 1)
            .then_some(())
    })
    .await;
    let other = gateway
        .accept("wide", &json!({"id": "2", "text": "now"}))
        .await;
    let same = gateway
        .accept("small", &json!({"id": "3", "text": "after"}))
        .await;
    gateway.settled(&other).await;
    assert!(
        begun.elapsed() < Duration::from_millis(2_500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(upstream.runs().await.len(), 1);
    gateway.settled(&same).await;
    assert!(
        begun.elapsed() >= Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    gateway.settled(&first).await;
}

#[tokio::test]
async fn t82_one_that_is_over_its_rate_rests_all() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, PAIR).await;
    let begun = Instant::now();
    let asks = "[[stub http=429 retry-after=2 times=1]] later";
    let first = gateway
        .accept("small", &json!({"id": "1", "text": asks}))
        .await;
    wait_for("the answer that asks", async || {
        let event = gateway.admin_json(&format!("/events/{first}")).await;
        (event["deliveries"][0]["attempts"]
            .as_array()
            .map_or(0, Vec::len)
            == 1)
            .then_some(())
    })
    .await;
    let other = gateway
        .accept("wide", &json!({"id": "2", "text": "now"}))
        .await;
    gateway.settled(&other).await;
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    gateway.settled(&first).await;
}

async fn tell(gateway: &Gateway, path: &str) {
    let answer = gateway.admin(Method::POST, path).await;
    assert!(
        answer.status().is_success(),
        "{path}: {} {:?}",
        answer.status(),
        answer.body()
    );
}

#[tokio::test]
async fn what_is_held_waits_and_goes_out_when_it_is_let_go() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, PAIR).await;
    tell(&gateway, "/sources/few/pause").await;
    tell(&gateway, "/destinations/agent/small/pause").await;
    let held = [
        gateway
            .accept("few", &json!({"id": "1", "text": "of a source"}))
            .await,
        gateway
            .accept("small", &json!({"id": "2", "text": "to a destination"}))
            .await,
    ];
    let other = gateway
        .accept("wide", &json!({"id": "3", "text": "neither"}))
        .await;
    gateway.settled(&other).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let runs = upstream.runs().await;
    assert_eq!(runs.len(), 1, "{runs:#?}");
    assert_eq!(states(&gateway).await["pending"], 2.0);
    gateway
        .metric_is(r#"sluicegate_held{kind="source"}"#, 1.0)
        .await;
    for (path, id) in ["/sources/few/resume", "/destinations/agent/small/resume"]
        .iter()
        .zip(&held)
    {
        tell(&gateway, path).await;
        let let_go = Instant::now();
        gateway.settled(id).await;
        assert!(
            let_go.elapsed() < Duration::from_secs(1),
            "{:?}",
            let_go.elapsed()
        );
    }
    gateway
        .metric_is(r#"sluicegate_held{kind="destination"}"#, 0.0)
        .await;
}

#[tokio::test]
async fn a_destination_that_is_left_alone_is_shown_and_called_at_once_after_a_reset() {
    let upstream = Upstream::start(&["--fail", "drop-before=1/1"]).await;
    let config = PAIR.replace("breaker_rest = \"1s\"", "breaker_rest = \"10min\"");
    let gateway = Gateway::start(upstream.address, &config).await;
    let ids = send_many(&gateway, "wide", 6, "x").await;
    wait_for("the breaker to open", async || {
        (gateway.metric("sluicegate_breaker_opened_total").await == 1.0).then_some(())
    })
    .await;
    let shown = gateway.admin_json("/destinations").await;
    let shown = shown["items"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|item| item["destination"] == "agent/wide");
    let fare = &shown.expect("it is shown")["fare"];
    assert_eq!(fare["breaker"], "open", "{fare:#}");
    upstream.set(json!({"fail": []})).await;
    tell(&gateway, "/destinations/agent/wide/reset").await;
    for id in &ids {
        assert_eq!(
            gateway.settled(id).await["deliveries"][0]["state"],
            "delivered"
        );
    }
    // A replay is one more delivery.
    tell(&gateway, &format!("/events/{}/replay", ids[0])).await;
    let again = gateway.settled(&ids[0]).await;
    assert_eq!(again["deliveries"][1]["state"], "delivered", "{again:#}");
    let counted = gateway
        .metric(r#"sluicegate_inbox_deliveries{source="wide",state="delivered"}"#)
        .await;
    assert_eq!(counted, 7.0, "six accepted and one replayed");
}

/// Chats whose turns overlap in the way that is asked for.
fn chat(overlap: &str) -> String {
    PAIR.replace(
        "agent = \"wide\"\nverify",
        &format!("agent = \"wide\"\n{overlap}\nverify"),
    )
}

fn said(runs: &[Value], number: usize) -> &str {
    runs[number]["body"]["input"]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("{:#}", runs[number]))
}

#[tokio::test]
async fn what_waits_goes_out_as_one_turn() {
    let upstream = Upstream::start(&["--delay", "700ms"]).await;
    let gateway = Gateway::start(
        upstream.address,
        &chat("overlap = \"collect\"\noverlap_depth = 3"),
    )
    .await;
    let turn = |number: &str| json!({"id": number, "chat": "7", "text": format!("say {number}")});
    let first = gateway.accept("wide", &turn("0")).await;
    upstream.wait_for_runs(1).await;
    let mut ids = Vec::new();
    for number in ["1", "2", "3", "4", "5"] {
        ids.push(gateway.accept("wide", &turn(number)).await);
    }
    // What fails once is sent again as the same turn, with what comes in between left for the next.
    upstream.set(json!({"fail": ["drop-before=1/2"]})).await;
    let mut states_of = Vec::new();
    for id in [&first].into_iter().chain(&ids) {
        states_of.push(
            gateway.settled(id).await["deliveries"][0]["state"]
                .as_str()
                .expect("a state")
                .to_owned(),
        );
    }
    assert_eq!(
        states_of,
        [
            "delivered",
            "dropped",
            "dropped",
            "delivered",
            "merged",
            "merged"
        ]
    );
    let runs = upstream.runs().await;
    assert_eq!(runs.len(), 2, "{runs:#?}");
    let text = said(&runs, 1);
    assert!(
        text.starts_with(
            "2 earlier messages of this conversation were not passed on.\n\n3 messages"
        ),
        "{text}"
    );
    let places = [
        "say 3",
        "[message 2 of 3 ",
        "say 4",
        "[message 3 of 3 ",
        "say 5",
    ]
    .map(|part| text.find(part));
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{text}"
    );
    assert_eq!(runs[0]["task_id"], runs[1]["task_id"]);
    let states = states(&gateway).await;
    assert_eq!(
        (states["merged"], states["dropped"], states["delivered"]),
        (2.0, 2.0, 2.0)
    );
}

#[tokio::test]
async fn only_the_latest_goes_out() {
    let upstream = Upstream::start(&["--delay", "700ms"]).await;
    let gateway = Gateway::start(upstream.address, &chat("overlap = \"latest\"")).await;
    let turn = |number: &str| json!({"id": number, "chat": "7", "text": format!("say {number}")});
    gateway.accept("wide", &turn("0")).await;
    upstream.wait_for_runs(1).await;
    for number in ["1", "2", "3"] {
        gateway.accept("wide", &turn(number)).await;
    }
    let runs = upstream.wait_for_runs(2).await;
    let wanted = "2 earlier messages of this conversation were not passed on.\n\nsay 3";
    assert_eq!(said(&runs, 1), wanted);
    wait_for("both to end", async || {
        let states = states(&gateway).await;
        (states.get("delivered") == Some(&2.0) && states.get("dropped") == Some(&2.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_new_configuration_changes_the_caps_and_forgets_nothing() {
    let upstream = Upstream::start(&["--delay", "400ms"]).await;
    let gateway = Gateway::start(upstream.address, PAIR).await;
    send_many(&gateway, "wide", 10, "before").await;
    upstream.wait_for_runs(5).await;
    let next = PAIR.replace("destination_concurrency = 5", "destination_concurrency = 1");
    let file = gateway.folder.path().join("sluicegate.toml");
    std::fs::write(file, Gateway::config(upstream.address, &next, ""))
        .expect("the folder takes files");
    crate::world::signal(gateway.pid(), "HUP");
    wait_for("the reload", async || {
        gateway
            .log()
            .contains("configuration reloaded")
            .then_some(())
    })
    .await;
    upstream.wait_for_runs(10).await;
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let answer = upstream.runs_with_key(API_KEY).await;
    assert_eq!(answer.len(), 10, "{begun:?}");
    let texts = send_many(&gateway, "wide", 3, "after").await;
    for id in &texts {
        gateway.settled(id).await;
    }
    let runs = upstream.runs().await;
    let times: Vec<(&str, &str)> = runs[10..]
        .iter()
        .map(|run| {
            (
                run["started_at"].as_str().expect("a time"),
                run["finished_at"].as_str().expect("a time"),
            )
        })
        .collect();
    assert!(
        times.windows(2).all(|pair| pair[0].1 <= pair[1].0),
        "one at a time: {times:?}"
    );
}
