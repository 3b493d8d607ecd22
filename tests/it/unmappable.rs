//! A proved event that cannot be mapped: acknowledged, kept with the reason, and run once its mapping is mended.

use http::Method;
use serde_json::{Value, json};

use crate::world::{
    Gateway, Upstream, borrowed, github, hmac_sha256, json, signal, unmarked, wait_for,
};

const SECRET: &str = "github-secret-12";

const PROMPT: &str = "prompt = \"{{ event_type }} in {{ body.repository.full_name }}\"";
const MENDED: &str =
    "prompt = \"{{ event_type }} {{ body.action | default('alone') }}, in no repository\"";

fn source(more: &str) -> String {
    format!(
        "[sources.gh]\nprovider = \"github\"\nsecrets = [\"literal:{SECRET}\"]\nagent = \"a-gh\"\n{more}\n"
    )
}

/// Sends a signed GitHub event: the status and the JSON of the answer.
async fn post_github(gateway: &Gateway, delivery: &str, kind: &str, body: &str) -> (u16, Value) {
    let headers = github(SECRET, delivery, kind, body);
    let answer = gateway
        .post("/hooks/gh", &borrowed(&headers), body.to_owned())
        .await;
    (answer.status().as_u16(), json(&answer))
}

fn id(answer: &Value) -> String {
    answer["event_id"].as_str().expect("an id").to_owned()
}

async fn reload(gateway: &Gateway, config: &str) {
    let generation =
        async || gateway.admin_json("/status").await["configuration"]["generation"].clone();
    let before = generation().await;
    std::fs::write(gateway.folder.path().join("sluicegate.toml"), config)
        .expect("the folder takes files");
    signal(gateway.pid(), "HUP");
    wait_for("the reload", async || {
        (generation().await != before).then_some(())
    })
    .await;
}

async fn listed(gateway: &Gateway, filter: &str) -> Vec<Value> {
    gateway.admin_json(&format!("/events?{filter}")).await["items"]
        .as_array()
        .expect("a list")
        .clone()
}

#[tokio::test]
async fn a12_a_proved_event_that_cannot_be_mapped_is_kept_and_runs_once_its_mapping_is_mended() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &source(PROMPT)).await;
    let body = r#"{"action":"created","installation":{"id":1}}"#;
    let (status, answer) = post_github(&gateway, "d-1", "installation", body).await;
    assert_eq!(
        (status, &answer["status"]),
        (202, &json!("accepted")),
        "{answer}"
    );
    let first = id(&answer);
    let (_, double) = post_github(&gateway, "d-1", "installation", body).await;
    assert_eq!(
        (&double["status"], &double["event_id"]),
        (&json!("duplicate"), &json!(first))
    );

    let event = gateway.admin_json(&format!("/events/{first}")).await;
    assert_eq!(
        (&event["states"], &event["body"]),
        (&json!(["unmappable"]), &json!(body)),
        "{event:#}"
    );
    let why = &event["deliveries"][0]["attempts"][0];
    assert_eq!(why["result"], "unmappable");
    assert!(
        why["detail"]
            .as_str()
            .is_some_and(|why| why.contains("prompt") && why.contains("undefined")),
        "{why}"
    );
    let list = listed(&gateway, "state=unmappable").await;
    assert_eq!(
        (list.len(), &list[0]["reason"]["result"]),
        (1, &json!("unmappable")),
        "{list:?}"
    );
    assert_eq!(listed(&gateway, "open=true").await.len(), 1);
    gateway
        .metric_is(
            r#"sluicegate_requests_total{outcome="unmappable",source="gh"}"#,
            1.0,
        )
        .await;
    gateway
        .metric_is(
            r#"sluicegate_inbox_deliveries{source="gh",state="unmappable"}"#,
            1.0,
        )
        .await;
    gateway
        .metric_is(
            r#"sluicegate_open_deliveries{source="gh",state="unmappable"}"#,
            1.0,
        )
        .await;
    let said = gateway.admin_json("/status").await;
    let attention = said["attention"].as_array().expect("a list");
    assert!(
        attention
            .iter()
            .any(|item| item["code"] == "unmappable" && item["about"] == "gh"),
        "{said:#}"
    );
    assert!(
        gateway
            .log()
            .contains("this event is proved and cannot be mapped"),
        "{}",
        gateway.log()
    );

    // Nothing has changed yet, so a replay says what is wrong and makes nothing.
    let still = gateway
        .admin(Method::POST, &format!("/events/{first}/replay"))
        .await;
    assert_eq!(
        (still.status().as_u16(), &json(&still)["code"]),
        (409, &json!("still_unmappable")),
        "{still:?}"
    );
    let (_, second) = post_github(&gateway, "d-2", "star", r#"{"action":"created"}"#).await;
    let (_, third) = post_github(&gateway, "d-3", "ping", r#"{"zen":"z"}"#).await;
    assert_eq!(upstream.runs().await.len(), 0);

    reload(
        &gateway,
        &Gateway::config(upstream.address, &source(MENDED), ""),
    )
    .await;
    let shown = gateway
        .admin(
            Method::POST,
            &format!("/events/{first}/replay?dry_run=true"),
        )
        .await;
    assert!(
        String::from_utf8_lossy(shown.body()).contains("no repository"),
        "{shown:?}"
    );
    let replayed = gateway
        .admin(Method::POST, &format!("/events/{first}/replay"))
        .await;
    assert_eq!(replayed.status(), 202, "{replayed:?}");
    let event = gateway.settled(&first).await;
    assert_eq!(
        event["states"],
        json!(["unmappable", "delivered"]),
        "{event:#}"
    );
    let prompt = unmarked(event["params"][0]["value"].as_str().expect("a prompt"));
    assert!(
        prompt.contains("installation.created") && prompt.contains("no repository"),
        "{prompt}"
    );

    // The others by a filter.
    let (status, job) = gateway
        .tell("/replays", json!({"filter": {"state": "unmappable"}}))
        .await;
    assert_eq!(status, 202, "{job}");
    for id in [id(&second), id(&third)] {
        wait_for("the replay", async || {
            let event = gateway.admin_json(&format!("/events/{id}")).await;
            (event["states"] == json!(["unmappable", "delivered"])).then_some(())
        })
        .await;
    }
    assert_eq!(upstream.runs().await.len(), 3, "each once");
    gateway
        .metric_is(
            r#"sluicegate_inbox_deliveries{source="gh",state="unmappable"}"#,
            0.0,
        )
        .await;
    gateway
        .metric_is(
            r#"sluicegate_inbox_deliveries{source="gh",state="closed"}"#,
            3.0,
        )
        .await;
    let status = gateway.admin_json("/status").await;
    assert_eq!(status["well"], true, "{status:#}");
}

#[tokio::test]
async fn what_nobody_asked_for_is_filtered_and_what_is_filtered_after_the_mend_is_cancelled() {
    let upstream = Upstream::start(&[]).await;
    let narrow = source(&format!("events = [\"issues.*\", \"star.*\"]\n{PROMPT}"));
    let gateway = Gateway::start(upstream.address, &narrow).await;
    let (_, unwanted) =
        post_github(&gateway, "d-1", "installation", r#"{"action":"created"}"#).await;
    assert_eq!(unwanted["status"], "filtered");
    // A body that nobody can read, of a type that nobody wants.
    let (_, torn) = post_github(&gateway, "d-2", "ping", "{").await;
    assert_eq!(torn["status"], "filtered", "{torn}");
    let (_, star) = post_github(
        &gateway,
        "d-3",
        "star",
        r#"{"action":"created","starred_at":null}"#,
    )
    .await;
    let star = id(&star);
    assert_eq!(
        gateway.admin_json(&format!("/events/{star}")).await["states"],
        json!(["unmappable"])
    );

    reload(
        &gateway,
        &Gateway::config(upstream.address, &source("events = [\"issues.*\"]"), ""),
    )
    .await;
    let replayed = gateway
        .admin(Method::POST, &format!("/events/{star}/replay"))
        .await;
    assert_eq!(
        (replayed.status().as_u16(), &json(&replayed)["deliveries"]),
        (202, &json!([])),
        "{replayed:?}"
    );
    let event = gateway.admin_json(&format!("/events/{star}")).await;
    assert_eq!(event["states"], json!(["cancelled"]), "{event:#}");
    assert!(
        event["filtered"]
            .as_str()
            .is_some_and(|rule| rule.starts_with("events:")),
        "{event:#}"
    );
    assert_eq!(upstream.runs().await.len(), 0);
}

#[tokio::test]
async fn an_unmappable_event_can_be_called_off() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &source(PROMPT)).await;
    let (_, answer) = post_github(&gateway, "d-1", "star", r#"{"action":"created"}"#).await;
    let event = gateway
        .admin_json(&format!("/events/{}", id(&answer)))
        .await;
    let delivery = event["deliveries"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let (status, said) = gateway
        .tell(&format!("/deliveries/{delivery}/cancel"), json!({}))
        .await;
    assert!((200..300).contains(&status), "{status} {said}");
    assert!(listed(&gateway, "state=unmappable").await.is_empty());
    let status = gateway.admin_json("/status").await;
    assert_eq!(status["well"], true, "{status:#}");
}

/// Bodies that are signed and say nothing that can be mapped, each with why.
const ODD: [(&str, &str, &[u8]); 4] = [
    ("torn", "application/json", b"{\"text\": \"cut he"),
    ("nothing", "application/json", b""),
    ("picture", "image/png", b"\x89PNG\r\n\x1a\n\xff\xfe"),
    (
        "object",
        "application/json",
        b"{\"text\":\"hi\",\"user\":{\"a\":1}}",
    ),
];

#[tokio::test]
async fn a12_every_kind_is_kept_byte_for_byte_and_those_who_wait_or_prove_nothing_are_told() {
    let upstream = Upstream::start(&[]).await;
    let one = |name: &str, proof: &str, more: &str| {
        format!(
            "[sources.{name}]\nprovider = \"custom\"\nagent = \"a\"\n{proof}\n\
             params_mapping = {{ prompt = \"text\", user_id = \"user\" }}\n{more}\n"
        )
    };
    let signed = format!(
        "secrets = [\"literal:{SECRET}\"]\nverify = {{ signature = \"header:X-Signature\" }}"
    );
    let sources = [
        one("kept", &signed, ""),
        one("refuse", &signed, "on_unmappable = \"refuse\""),
        one("wait", &signed, "respond = \"wait\""),
        one("open", "verify = { scheme = \"none\" }", ""),
    ]
    .concat();
    let config = Gateway::config(upstream.address, &sources, "").replace(
        "[inbox]\n",
        "[inbox]\nencrypt = true\nkey = \"literal:0123456789abcdef0123456789abcdef\"\n",
    );
    let gateway = Gateway::start_config(&config).await;
    for (name, kind, body) in ODD {
        let signature = hmac_sha256(SECRET.as_bytes(), body);
        let headers = [("content-type", kind), ("x-signature", signature.as_str())];
        let answer = gateway.post("/hooks/kept", &headers, body).await;
        assert_eq!(answer.status(), 202, "{name} {answer:?}");
        let event = id(&json(&answer));
        let raw = gateway
            .admin(Method::GET, &format!("/events/{event}/body"))
            .await;
        assert_eq!(raw.body().as_ref(), body, "{name}");
        let page = gateway.admin_json(&format!("/events/{event}")).await;
        assert_eq!(page["states"], json!(["unmappable"]), "{name}: {page:#}");
        let why = page["deliveries"][0]["attempts"][0]["detail"]
            .as_str()
            .expect("a reason");
        assert!(
            !why.is_empty() && !why.starts_with("closed:"),
            "{name}: {why}"
        );
        for (source, statuses) in [
            ("refuse", [400, 415, 422]),
            ("wait", [400, 415, 422]),
            ("open", [400, 415, 422]),
        ] {
            let answer = gateway
                .post(&format!("/hooks/{source}"), &headers, body)
                .await;
            assert!(
                statuses.contains(&answer.status().as_u16()),
                "{name} at {source}: {answer:?}"
            );
        }
        let forged = gateway
            .post(
                "/hooks/kept",
                &[("content-type", kind), ("x-signature", "00")],
                body,
            )
            .await;
        assert_eq!(forged.status(), 401, "{name}");
    }
    assert_eq!(listed(&gateway, "state=unmappable").await.len(), ODD.len());

    // What is mended maps what it can, also of an inbox that is closed.
    let mended = config.replace(", user_id = \"user\"", "");
    reload(&gateway, &mended).await;
    let last = listed(&gateway, "state=unmappable").await.remove(0);
    let last = last["id"].as_str().expect("an id").to_owned();
    let replayed = gateway
        .admin(Method::POST, &format!("/events/{last}/replay"))
        .await;
    assert_eq!(replayed.status(), 202, "{replayed:?}");
    let event = gateway.settled(&last).await;
    assert_eq!(
        (&event["states"][1], &event["params"][0]["value"]),
        (&json!("delivered"), &json!("hi")),
        "{event:#}"
    );
}

#[tokio::test]
async fn files_of_an_event_that_cannot_be_mapped_stay_with_it_and_go_out_with_its_replay() {
    let upstream = Upstream::start(&[]).await;
    let proof = format!(
        "secrets = [\"literal:{SECRET}\"]\nverify = {{ signature = \"header:X-Signature\" }}"
    );
    let sources = |prompt: &str| {
        format!(
            "[sources.s]\nprovider = \"custom\"\nagent = \"a\"\nfiles = true\n{proof}\nprompt = \"{prompt}\"\n"
        )
    };
    let gateway = Gateway::start(upstream.address, &sources("{{ body.missing.text }}")).await;
    let body = "--XbX\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nread it\r\n--XbX\r\n\
                Content-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\n\
                THE FILE\r\n--XbX--\r\n";
    let signature = hmac_sha256(SECRET.as_bytes(), body.as_bytes());
    let headers = [
        ("content-type", "multipart/form-data; boundary=XbX"),
        ("x-signature", signature.as_str()),
    ];
    let answer = gateway.post("/hooks/s", &headers, body).await;
    assert_eq!(answer.status(), 202, "{answer:?}");
    let event = id(&json(&answer));
    let page = gateway.admin_json(&format!("/events/{event}")).await;
    assert_eq!(
        (&page["states"], &page["attachments"][0]["name"]),
        (&json!(["unmappable"]), &json!("a.txt")),
        "{page:#}"
    );
    assert_eq!(page["body"], json!(r#"{"text":"read it"}"#));

    reload(
        &gateway,
        &Gateway::config(upstream.address, &sources("{{ body.text }}"), ""),
    )
    .await;
    let replayed = gateway
        .admin(Method::POST, &format!("/events/{event}/replay"))
        .await;
    assert_eq!(replayed.status(), 202, "{replayed:?}");
    gateway.settled(&event).await;
    let runs = upstream.wait_for_runs(1).await;
    let input = &runs[0]["body"]["input"];
    assert!(
        input["text"]
            .as_str()
            .is_some_and(|text| text.contains("read it")),
        "{input}"
    );
    assert!(
        input["files"][0]
            .as_str()
            .is_some_and(|link| link.ends_with("a.txt")),
        "{input}"
    );
}
