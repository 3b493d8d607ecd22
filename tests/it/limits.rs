//! How much, how fast: what callers are told, who is turned away, and the switch that stops every run.

use std::time::{Duration, Instant};

use http::Method;

use crate::world::{Gateway, Upstream, event_id, json as body_of, wait_for};

const SOURCES: &str = r#"
[sources.slow]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
rate = "2/min"
[sources.talk]
provider = "custom"
agent = "a"
thread = "chat"
when = "body.prompt != 'noise'"
verify = { scheme = "none" }
thread_rate = "2/min"
[sources.free]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
[sources.signed]
provider = "custom"
secrets = ["literal:a-secret-for-the-limits"]
agent = "a"
verify = { signature = "header:X-Signature" }
rate = "1/min"
[sources.straight]
provider = "custom"
agent = "a"
respond = "proxy"
verify = { scheme = "none" }
"#;

const PROMPT: &str = r#"{"prompt":"hi"}"#;

#[tokio::test]
async fn t44_a_conversation_that_runs_away_is_slowed_down_and_the_others_are_not() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    let say = async |chat: &str, prompt: &str| {
        gateway
            .post(
                "/hooks/talk",
                &[],
                format!(r#"{{"chat":"{chat}","prompt":"{prompt}"}}"#),
            )
            .await
    };
    for _ in 0..5 {
        assert_eq!(
            say("a", "noise").await.status(),
            202,
            "what goes no further does not count"
        );
    }
    assert_eq!(
        say("a", "1").await.headers()["ratelimit-policy"],
        r#""thread";q=2;w=60"#
    );
    assert_eq!(say("a", "2").await.status(), 202);
    for _ in 0..5 {
        let over = say("a", "3").await;
        assert_eq!(
            (over.status().as_u16(), &body_of(&over)["code"]),
            (429, &"rate_limited".into())
        );
        assert!(over.headers().contains_key("retry-after"), "{over:?}");
    }
    assert_eq!(say("b", "1").await.status(), 202);
    for _ in 0..5 {
        assert_eq!(
            gateway.post("/hooks/talk", &[], PROMPT).await.status(),
            202,
            "what belongs to no conversation"
        );
    }
}

#[tokio::test]
async fn t39_over_a_limit_is_429_before_anything_else_and_says_when_to_come_back() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    let first = gateway.post("/hooks/slow", &[], PROMPT).await;
    assert_eq!(first.status(), 202);
    let of = |answer: &http::Response<bytes::Bytes>, name: &str| {
        answer
            .headers()
            .get(name)
            .map(|value| value.to_str().expect("a text").to_owned())
            .unwrap_or_default()
    };
    assert_eq!(of(&first, "ratelimit-policy"), r#""source";q=2;w=60"#);
    assert_eq!(of(&first, "ratelimit"), r#""source";r=1;t=30"#);
    let second = gateway.post("/hooks/slow", &[], PROMPT).await;
    assert!(
        of(&second, "ratelimit").starts_with(r#""source";r=0;t="#),
        "{second:?}"
    );
    let mut waits = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let over = gateway.post("/hooks/slow", &[], "no JSON").await;
        assert_eq!(
            (over.status().as_u16(), &body_of(&over)["code"]),
            (429, &"rate_limited".into())
        );
        let wait: u64 = of(&over, "retry-after").parse().expect("whole seconds");
        assert!((20..=60).contains(&wait), "{wait}");
        waits.insert(wait);
        assert!(
            of(&over, "ratelimit").starts_with(r#""source";r=0;t="#),
            "{over:?}"
        );
    }
    assert!(
        waits.len() > 1,
        "not everybody comes back at once: {waits:?}"
    );
    assert_eq!(
        gateway
            .post("/hooks/free", &[], PROMPT)
            .await
            .headers()
            .get("ratelimit"),
        None
    );
    // Before a signature is looked at.
    let bad = [("x-signature", "00")];
    assert_eq!(
        gateway.post("/hooks/signed", &bad, PROMPT).await.status(),
        401
    );
    assert_eq!(
        gateway.post("/hooks/signed", &bad, PROMPT).await.status(),
        429
    );
}

#[tokio::test]
async fn t40_t41_whoever_calls_with_whatever_makes_no_new_series() {
    let upstream = Upstream::start(&[]).await;
    let config = Gateway::config(upstream.address, SOURCES, "")
        .replace("[upstream]", "[limits]\ncaller = \"100000/s\"\n[upstream]");
    let gateway = Gateway::start_config(&config).await;
    let series = async || {
        let answer = gateway.admin(Method::GET, "/metrics").await;
        String::from_utf8_lossy(answer.body())
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count()
    };
    let send = async |round: usize| {
        for number in 0..200 {
            let kind = format!("application/x-{round}-{number}");
            let headers = [
                ("content-type", kind.as_str()),
                ("x-github-event", kind.as_str()),
                ("host", "h.test"),
            ];
            gateway
                .post(&format!("/hooks/none-{round}-{number}"), &headers, PROMPT)
                .await;
            gateway
                .post(
                    "/hooks/free",
                    &headers,
                    format!(r#"{{"prompt":"{number}","type":"{kind}"}}"#),
                )
                .await;
        }
    };
    send(1).await;
    let before = series().await;
    send(2).await;
    assert_eq!(series().await, before);
}

#[tokio::test]
async fn t43_a_source_that_floods_does_not_keep_the_others_from_their_turn() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    let address = gateway.public;
    let flood = tokio::spawn(async move {
        let client = sluicegate::net::Client::new(Duration::from_secs(5), None).expect("a client");
        loop {
            let body = bytes::Bytes::from_static(PROMPT.as_bytes());
            let request = http::Request::post(format!("http://{address}/hooks/slow"))
                .body(body)
                .expect("a request");
            let _ = client.send(request, Duration::from_secs(5), 1 << 16).await;
        }
    });
    let begun = Instant::now();
    let mut taken = 0;
    for _ in 0..100 {
        taken += u32::from(gateway.post("/hooks/free", &[], PROMPT).await.status() == 202);
    }
    flood.abort();
    assert!(taken >= 90, "{taken} of 100");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn t44_one_word_stops_every_run_and_what_comes_in_is_kept() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    let stop = gateway.admin(Method::POST, "/pause").await;
    assert_eq!(
        (stop.status().as_u16(), &body_of(&stop)["all"]),
        (200, &true.into()),
        "{stop:?}"
    );
    assert_eq!(
        body_of(&gateway.admin(Method::POST, "/pause").await)["changed"],
        false
    );
    let folder = gateway.folder.clone();
    let kept = gateway.post("/hooks/free", &[], PROMPT).await;
    assert_eq!(kept.status(), 202);
    let turned = wait_for("what is passed on at once to be turned away", async || {
        let answer = gateway.post("/hooks/straight", &[], PROMPT).await;
        (answer.status() == 503).then_some(answer)
    })
    .await;
    assert_eq!(body_of(&turned)["code"], "stopped");
    assert!(turned.headers().contains_key("retry-after"));
    let begun = upstream.runs().await.len();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(upstream.runs().await.len(), begun);
    assert!(gateway.admin_json("").await["paused_since"].is_string());
    gateway
        .metric_is(r#"sluicegate_held{kind="all"}"#, 1.0)
        .await;
    assert_eq!(
        gateway.admin_json("/sources").await["items"][0]["paused_since"],
        serde_json::Value::Null
    );

    // Still so after it was killed.
    gateway.kill();
    let gateway = Gateway::start_in(folder, upstream.address, SOURCES).await;
    let id = event_id(&kept);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        gateway.admin_json(&format!("/events/{id}")).await["deliveries"][0]["state"],
        "pending"
    );
    assert_eq!(gateway.admin(Method::POST, "/resume").await.status(), 200);
    assert_eq!(
        gateway.settled(&id).await["deliveries"][0]["state"],
        "delivered"
    );
    wait_for("what is passed on at once to be taken", async || {
        (gateway.post("/hooks/straight", &[], PROMPT).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn t44_a_days_budget_holds_what_is_kept_refuses_the_rest_and_outlives_a_restart() {
    let upstream = Upstream::start(&[]).await;
    let budget = |most: u32| {
        Gateway::config(
            upstream.address,
            &SOURCES.replace("[sources.free]\n", "[sources.free]\nruns_per_day = 3\n"),
            "",
        )
        .replace(
            "[upstream]",
            &format!("[keys.ci]\nkey = \"literal:a-key-of-the-gateways-own\"\n[limits.runs_per_day]\nwhole = {most}\n[upstream]"),
        )
    };
    let gateway = Gateway::start_config(&budget(5)).await;
    let mut kept = Vec::new();
    for _ in 0..5 {
        let answer = gateway.post("/hooks/free", &[], PROMPT).await;
        assert_eq!(answer.status(), 202);
        kept.push(event_id(&answer));
    }
    upstream.wait_for_runs(3).await;
    // Another source's, which the first one's budget is nothing to; and one that is passed on at once.
    gateway.post("/hooks/slow", &[], PROMPT).await;
    upstream.wait_for_runs(4).await;
    assert_eq!(
        gateway.post("/hooks/straight", &[], PROMPT).await.status(),
        200
    );
    let over = gateway.post("/hooks/straight", &[], PROMPT).await;
    assert_eq!(
        (over.status().as_u16(), &body_of(&over)["code"]),
        (429, &"budget_spent".into())
    );
    let wait: u64 = over.headers()["retry-after"]
        .to_str()
        .expect("text")
        .parse()
        .expect("seconds");
    assert!((1..=24 * 3600 + 300).contains(&wait), "{wait}");
    // Nor does any of the drop-in's doors lead past it, for the keys whose runs are the operator's.
    for accept in ["*/*", "text/event-stream"] {
        let headers = [
            ("x-api-key", "a-key-of-the-gateways-own"),
            ("content-type", "application/json"),
            ("accept", accept),
        ];
        let over = gateway.post("/?agent_id=a", &headers, PROMPT).await;
        assert_eq!(
            (over.status(), over.headers().contains_key("retry-after")),
            (429.try_into().expect("a status"), true)
        );
    }
    let states = async |gateway: &Gateway| {
        let mut states = Vec::new();
        for id in &kept {
            let event = gateway.admin_json(&format!("/events/{id}")).await;
            states.push(
                event["deliveries"][0]["state"]
                    .as_str()
                    .expect("a word")
                    .to_owned(),
            );
        }
        states.sort();
        states
    };
    let some = ["delivered", "delivered", "delivered", "pending", "pending"];
    wait_for("three to end", async || {
        (states(&gateway).await == some).then_some(())
    })
    .await;
    let list = gateway.admin_json("/budgets").await;
    assert_eq!(
        (&list["items"][0]["budget"], &list["items"][0]["runs"]),
        (&"all".into(), &5.into()),
        "{list}"
    );
    assert_eq!(
        (&list["items"][1]["budget"], &list["items"][1]["most"]),
        (&"source/free".into(), &3.into()),
        "{list}"
    );

    let folder = gateway.folder.clone();
    gateway.kill();
    let gateway = Gateway::start_config_in(folder, &budget(5)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(upstream.runs().await.len(), 5, "a restart forgets nothing");
    let attempts = gateway
        .metric(r#"sluicegate_attempts_total{result="budget_spent",source="free"}"#)
        .await;
    assert!(attempts <= 4.0, "what is held is left alone: {attempts}");
    // More is allowed: what waits goes at once.
    let file = gateway.folder.path().join("sluicegate.toml");
    std::fs::write(
        file,
        budget(50).replace("runs_per_day = 3", "runs_per_day = 9"),
    )
    .expect("the folder takes files");
    crate::world::signal(gateway.pid(), "HUP");
    upstream.wait_for_runs(7).await;
}

#[tokio::test]
async fn t44_a_users_budget_keeps_nobody_else_waiting() {
    let upstream = Upstream::start(&[]).await;
    let config = Gateway::config(upstream.address, SOURCES, "")
        .replace("[upstream]", "[limits.runs_per_day]\nuser = 2\n[upstream]");
    let gateway = Gateway::start_config(&config).await;
    for user in ["ann", "ann", "ann", "bob"] {
        let body = format!(r#"{{"prompt":"{user}","user_id":"{user}"}}"#);
        assert_eq!(gateway.post("/hooks/free", &[], body).await.status(), 202);
    }
    let runs = upstream.wait_for_runs(3).await;
    let of = |name: &str| {
        runs.iter()
            .filter(|run| run.to_string().contains(name))
            .count()
    };
    assert_eq!((of("ann"), of("bob")), (2, 1), "{runs:?}");
    assert!(
        !gateway
            .admin_json("/budgets")
            .await
            .to_string()
            .contains("ann")
    );
}

#[tokio::test]
async fn t44_a_request_of_our_own_that_comes_back_goes_no_further_round() {
    let upstream = Upstream::start(&[]).await;
    let public = crate::world::free_address();
    let config = Gateway::config(upstream.address, SOURCES, "")
        .replace(
            &format!("base_url = \"http://{}\"", upstream.address),
            &format!("base_url = \"http://{public}\""),
        )
        .replacen(
            "listen = \"127.0.0.1:0\"\n",
            &format!("listen = \"{public}\"\n"),
            1,
        )
        + &format!(
            "[[proxy]]\nprefix = \"/v1\"\nupstream = \"http://{public}\"\nexchange_keys = false\n"
        );
    let gateway = Gateway::start_config(&config).await;
    let answer = gateway
        .post(
            "/v1/agents/a/invoke",
            &[("cdn-loop", "other, sluicegate-0011")],
            PROMPT,
        )
        .await;
    assert_eq!(
        (answer.status().as_u16(), &body_of(&answer)["code"]),
        (508, &"loop_detected".into())
    );
    let event = gateway.post("/hooks/free", &[], PROMPT).await;
    let id = event_id(&event);
    let tries = wait_for("the call to come back", async || {
        let event = gateway.admin_json(&format!("/events/{id}")).await;
        let tries = event["deliveries"][0]["attempts"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        (!tries.is_empty()).then_some(tries)
    })
    .await;
    assert!(
        tries[0]["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("508")),
        "{tries:?}"
    );
    gateway
        .metric_is(
            r#"sluicegate_refused_total{reason="loop_detected",source="proxy:/v1"}"#,
            2.0,
        )
        .await;
}
