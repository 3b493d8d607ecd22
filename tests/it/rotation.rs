//! Secrets and keys that are exchanged while they are used: several at once, with an end, and with proof of use.

use std::time::Duration;

use serde_json::{Value, json};
use sluicegate::model::Clock;

use crate::world::{API_KEY, Gateway, TOKEN, Upstream, binary, borrowed, github, wait_for};

const SOURCE: &str = r#"
[sources.g]
provider = "github"
secrets = [
    { name = "nov", value = "literal:the-new-secret-of-november" },
    { name = "soon", value = "literal:the-secret-that-ends-soon", until = "SOON" },
    { name = "old", value = "literal:the-old-secret-of-october", until = 2020-01-01 },
]
agent = "a"
prompt = "hi"
"#;

fn command(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = std::process::Command::new(binary())
        .args(arguments)
        .args(["--admin", &format!("http://{}", gateway.admin)])
        .env("SLUICEGATE_ADMIN_TOKEN", TOKEN)
        .output()
        .expect("it runs");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A moment that is so far from now, as RFC 3339 writes it.
fn later(time: Duration) -> String {
    (Clock::system().now() + time).to_string()
}

#[tokio::test]
async fn a_secret_that_has_ended_proves_nothing_and_use_is_proved() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(
        upstream.address,
        &SOURCE.replace("SOON", &later(Duration::from_secs(36 * 3600))),
    )
    .await;
    let send = async |secret: &str, id: &str| {
        let headers = github(secret, id, "push", "{}");
        gateway
            .post("/hooks/g", &borrowed(&headers), "{}")
            .await
            .status()
            .as_u16()
    };
    assert_eq!(send("the-new-secret-of-november", "d-1").await, 202);
    assert_eq!(send("the-new-secret-of-november", "d-2").await, 202);
    assert_eq!(send("the-old-secret-of-october", "d-3").await, 401);
    let refused = gateway.admin_json("/refused").await;
    let cause = refused["items"][0]["cause"].as_str().expect("a cause");
    assert!(
        cause.contains("the secret old, which ended at 2020-01-01"),
        "{cause}"
    );
    let secrets = gateway.admin_json("/sources/g/secrets").await;
    let of = |name: &str| -> Value {
        let items = secrets["items"].as_array().expect("a list");
        items
            .iter()
            .find(|item| item["name"] == name)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(
        (
            &of("nov")["used"]["count"],
            &of("old")["used"],
            &of("old")["ended"]
        ),
        (&json!(2), &json!(null), &json!(true))
    );
    let healthy = gateway.admin_json("/status").await;
    assert!(!healthy.to_string().contains("\"secret\""), "{healthy}");

    // One that ends soon and still proves is told of.
    assert_eq!(send("the-secret-that-ends-soon", "d-4").await, 202);
    wait_for("the warning", async || {
        gateway
            .log()
            .contains("a secret that ends soon still proves")
            .then_some(())
    })
    .await;
    let status = gateway.admin_json("/status").await;
    assert!(
        status["attention"]
            .to_string()
            .contains("the secret soon of g still proves"),
        "{status}"
    );
    let shown = command(&gateway, &["source", "secrets", "g"]);
    assert!(
        shown.contains("nov") && shown.contains("never") && !shown.contains("the-new-secret"),
        "{shown}"
    );
}

const KEYS: &str = r#"
[keys.partner]
keys = ["literal:the-new-key-of-a-partner", "literal:the-old-key-of-a-partner"]
agents = ["a"]
runs_per_day = 3
max_upload = "1KiB"
[keys.gone]
key = "literal:the-key-of-one-who-left"
expires = 2020-01-01
[[proxy]]
prefix = "/v1"
upstream = "http://UPSTREAM"
"#;

#[tokio::test]
async fn a_partner_has_several_keys_a_budget_and_an_end() {
    let upstream = Upstream::start(&["--api-key", API_KEY]).await;
    let gateway = Gateway::start(
        upstream.address,
        &KEYS.replace("UPSTREAM", &upstream.address.to_string()),
    )
    .await;
    let call = async |key: &str| {
        let headers = [("x-api-key", key), ("content-type", "application/json")];
        gateway
            .post("/?agent_id=a", &headers, r#"{"prompt":"hi"}"#)
            .await
            .status()
            .as_u16()
    };
    assert_eq!(call("the-new-key-of-a-partner").await, 200);
    assert_eq!(call("the-old-key-of-a-partner").await, 200);
    assert_eq!(call("the-key-of-one-who-left").await, 403);
    let proxied = gateway
        .post(
            "/v1/agents/a/invoke",
            &[("x-api-key", "the-key-of-one-who-left")],
            "{}",
        )
        .await;
    assert_eq!(proxied.status(), 403);
    let body = format!(
        "--X\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n{}\r\n--X--\r\n",
        "y".repeat(2_000)
    );
    let kind = [
        ("x-api-key", "the-new-key-of-a-partner"),
        ("content-type", "multipart/form-data; boundary=X"),
    ];
    assert_eq!(
        gateway.post("/?agent_id=a", &kind, body).await.status(),
        413
    );
    assert_eq!(call("the-old-key-of-a-partner").await, 200);
    assert_eq!(
        call("the-old-key-of-a-partner").await,
        429,
        "the budget of the name is spent"
    );

    let counted = r#"sluicegate_key_requests_total{key="partner",outcome="proxied"}"#;
    assert!(
        (gateway.metric(counted).await - 3.0).abs() < 0.5,
        "{}",
        gateway.metric(counted).await
    );
    let line = wait_for("the line of the request", async || {
        let log = gateway.log();
        let mut lines = log.lines();
        let line = lines.find(|line| line.contains("\"key\":\"partner\""))?;
        Some(line.to_owned())
    })
    .await;
    assert!(
        line.contains("\"agent\":\"a\"") && line.contains("\"status\":200"),
        "{line}"
    );
    let keys = gateway.admin_json("/keys").await;
    let partner = keys["items"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|key| key["name"] == "partner")
        .cloned();
    let partner = partner.expect("it is listed");
    assert_eq!(
        (&partner["runs_today"], &partner["runs_per_day"]),
        (&json!(3), &json!(3)),
        "{partner}"
    );
    assert_eq!(
        (
            &partner["keys"][0]["used"]["count"],
            &partner["keys"][1]["used"]["count"]
        ),
        (&json!(2), &json!(3))
    );
    let shown = command(&gateway, &["key", "list"]);
    assert!(
        shown.contains("partner") && shown.contains("3 of 3") && shown.contains("ended"),
        "{shown}"
    );
    assert!(!shown.contains("the-new-key"), "{shown}");
}

#[tokio::test]
async fn a18_a19_a_refusal_says_which_source_was_meant_and_which_signature_is_there() {
    let upstream = Upstream::start(&[]).await;
    let source = "[sources.c]\nprovider = \"github\"\nsecrets = [\"literal:github-secret-12\"]\nagent = \"a\"\n";
    let gateway = Gateway::start(upstream.address, source).await;
    for path in [
        "/hooks/c/",
        "//hooks/c",
        "/hooks/%63",
        "/hooks/C",
        "/webhooks/c",
        "/c/hooks/c",
    ] {
        assert_eq!(gateway.post(path, &[], "{}").await.status(), 404, "{path}");
        let refused = gateway.admin_json("/refused?limit=1").await;
        let cause = refused["items"][0]["cause"].as_str().expect("a cause");
        assert!(
            cause.contains("there is a source c: its path is /hooks/c"),
            "{path}: {cause}"
        );
    }
    assert_eq!(
        gateway.post("/c", &[], "{}").await.status(),
        401,
        "it may be the agent of a drop-in call"
    );
    let refused = gateway.admin_json("/refused?limit=1").await;
    assert!(
        refused["items"][0]["cause"]
            .as_str()
            .expect("a cause")
            .contains("there is a source c"),
        "{refused}"
    );
    assert_eq!(
        gateway.post("/a/b/wp-login.php", &[], "{}").await.status(),
        404
    );
    let refused = gateway.admin_json("/refused?limit=1").await;
    assert!(
        !refused["items"][0]["cause"]
            .as_str()
            .expect("a cause")
            .contains("there is a source"),
        "{refused}"
    );

    let sha1 = {
        use hmac::{Hmac, KeyInit as _, Mac as _};
        let mut mac =
            Hmac::<sha1::Sha1>::new_from_slice(b"github-secret-12").expect("any key length");
        mac.update(b"{}");
        format!("sha1={}", hex::encode(mac.finalize().into_bytes()))
    };
    let headers = [
        ("x-github-event", "push"),
        ("x-github-delivery", "d-1"),
        ("x-hub-signature", sha1.as_str()),
    ];
    assert_eq!(gateway.post("/hooks/c", &headers, "{}").await.status(), 401);
    let refused = gateway.admin_json("/refused?limit=1").await;
    let cause = refused["items"][0]["cause"].as_str().expect("a cause");
    assert!(
        cause.contains("x-hub-signature has a right signature (SHA-1)"),
        "{cause}"
    );
}
