//! The gateway's own keys at the prefixes that are passed through: what they open, and where they go.

use http::Method;

use serde_json::json;

use crate::world::{API_KEY, Gateway, Upstream, json as json_of, wait_for};

const KEY: &str = "a-key-of-the-gateways-own";

/// Both prefixes of the API, a key for one agent, and one for everything.
fn both(upstream: &Upstream) -> String {
    format!(
        r#"
[[proxy]]
prefix = "/v1"
upstream = "http://{0}"
[[proxy]]
prefix = "/xp"
upstream = "http://{0}"
strip_prefix = true
[keys.ci]
key = "literal:{KEY}"
agents = ["A", "W"]
[keys.more]
key = "literal:a-key-with-paths-of-its-own"
agents = ["A"]
paths = ["/v1/models", "/v1/tasks/*/thread"]
methods = ["GET", "HEAD"]
[keys.all]
key = "literal:a-key-that-opens-everything"
"#,
        upstream.address
    )
}

const METHODS: [Method; 8] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
];

/// More than 200 paths, of which the first ones begin runs of the key's own agents.
fn paths() -> Vec<String> {
    let mut paths: Vec<String> = OPEN.iter().map(|path| (*path).to_owned()).collect();
    let account = [
        "agents",
        "workflows",
        "tasks",
        "api-keys",
        "organizations",
        "users",
        "models",
        "knowledge",
        "secrets",
    ];
    for name in account {
        for rest in [
            "",
            "/",
            "/A",
            "/B",
            "/A/",
            "?agent_id=A",
            "?agent_id=B",
            "/A?x-http-method=GET",
        ] {
            paths.push(format!("/v1/{name}{rest}"));
        }
        paths.push(format!("/xp/{name}/A"));
        paths.push(format!("/xp/{name}"));
    }
    // The same call, spelled so that somebody may read another.
    for id in ["A", "B"] {
        for spelled in [
            "/v1/agents/{}/invoke/",
            "/v1/agents/{}/invoke/sync",
            "/v1/agents/{}/invoke/async/",
            "/v1/agents/{}/invoke%2fasync",
            "/v1/agents/{}/Invoke",
            "/v1/agents/{}/invoke.",
            "/v1/agents/{}/invoke;a",
            "/v1/agents/{};a/invoke",
            "/v1/agents;a/{}/invoke",
            "/v1/agents./{}/invoke",
            "/v1/agents%20/{}/invoke",
            "/v1/agents%00/{}/invoke",
            "/v1/%61gents/{}/invoke",
            "/v1/%2561gents/{}/invoke",
            "/v1/AGENTS/{}/invoke",
            "/v1//agents/{}/invoke",
            "/v1/agents//{}/invoke",
            "/v1/./agents/{}/invoke",
            "/v1/agents/./{}/invoke",
            "/v1/agents/%2e/{}/invoke",
            "/v1/agents/{}/invoke/../../B/invoke",
            "/v1/agents/{}%2f..%2fB/invoke",
            "/v1/agents/{}/../B/invoke",
            "/v1/agents/{}%5c..%5cB/invoke",
            "/v1/agents/%20{}/invoke",
            "/v1/agents/{}%20/invoke",
            "/v1/agents/{}./invoke",
            "/v1/agents/{}%0a/invoke",
            "/v1/agents/{}%00/invoke",
            "/v1/agents/{},B/invoke",
            "/v1/agents/{}+B/invoke",
            "/v1/agents/{}/conversations/invoke",
            "/v1/agents/{}/conversations/1/messages",
            "/v1/agents/{}/gateway/invoke",
            "/v1/agents/{}/deploy",
            "/v1/agents/{}/tools",
            "/v1/v1/agents/{}/invoke",
            "/v1/x/agents/{}/invoke",
            "/v1/agents/{}/invoke/stream/x",
            "/v1/workflows/{}/invoke/",
            "/v1/workflows/{}",
            "/xp/agent-execution/{}/",
            "/xp/agent-execution/{}/status",
            "/xp/agent-execution/{}/update",
            "/xp/Agent-Execution/{}",
            "/xp/agent%2dexecution/{}",
            "/xp//agent-execution/{}",
            "/xp/org/agent-execution/{}/events",
            "/xp/org/agent-execution/{}",
            "/xp/agents/{}",
            "/xp/v1/agents/{}/deploy",
        ] {
            paths.push(spelled.replace("{}", id));
        }
    }
    for bad in [
        "/v1",
        "/v1/",
        "/xp",
        "/xp/",
        "/v1/agents/B/invoke",
        "/v1/workflows/B/invoke",
        "/xp/agent-execution/B",
    ] {
        paths.push(bad.to_owned());
    }
    paths
}

/// What the key opens, each with POST alone.
const OPEN: [&str; 8] = [
    "/v1/agents/A/invoke",
    "/v1/agents/A/invoke/async",
    "/v1/agents/A/invoke/stream",
    "/v1/agents/A/invoke?version=3",
    "/v1/workflows/W/invoke",
    "/v1/workflows/W/invoke/async",
    "/xp/agent-execution/A",
    "/xp/v1/agents/A/invoke",
];

#[tokio::test]
async fn s10_of_all_paths_and_methods_a_limited_key_opens_what_is_listed() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &both(&upstream)).await;
    let paths = paths();
    assert!(paths.len() >= 200, "{} paths", paths.len());
    let mut open = 0;
    for path in &paths {
        for method in &METHODS {
            let is_open = *method == Method::POST && OPEN.contains(&path.as_str());
            let headers = [("x-api-key", KEY), ("content-type", "application/json")];
            let body = r#"{"input":{"text":"hi"}}"#;
            let answer = gateway.send(method.clone(), path, &headers, body).await;
            let refused = matches!(answer.status().as_u16(), 400 | 403 | 405);
            let by_us = refused && !answer.headers().contains_key("x-ratelimit-limit");
            assert_eq!(!by_us, is_open, "{method} {path}: {}", answer.status());
            open += usize::from(is_open);
        }
    }
    assert_eq!(open, OPEN.len());
    wait_for("every request to be counted", async || {
        let passed = gateway.log().matches("\"outcome\":\"proxied\"").count();
        (passed == OPEN.len()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn s10_paths_and_methods_of_a_key_open_more_and_no_key_stays_unlimited_by_a_spelling() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &both(&upstream)).await;
    let more = [("x-api-key", "a-key-with-paths-of-its-own")];
    for (method, path, is_open) in [
        (Method::GET, "/v1/models", true),
        (Method::HEAD, "/v1/models", true),
        (Method::POST, "/v1/models", false),
        (Method::GET, "/v1/models/", false),
        (Method::GET, "/v1/tasks/t-1/thread", true),
        (Method::GET, "/v1/tasks/t-1/thread/full", false),
        (Method::GET, "/v1/tasks/%2e%2e/thread", false),
        (Method::GET, "/v1/tasks/a%2fb/thread", false),
        (Method::GET, "/v1/tasks/.../thread", false),
    ] {
        let answer = gateway.send(method.clone(), path, &more, "").await;
        assert_eq!(
            !matches!(answer.status().as_u16(), 400 | 403),
            is_open,
            "{method} {path}: {}",
            answer.status()
        );
    }
    let all = [("x-api-key", "a-key-that-opens-everything")];
    assert_eq!(
        gateway
            .send(Method::GET, "/v1/tasks", &all, "")
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn s10_a_limited_key_reads_the_tasks_that_it_began_and_no_others() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &both(&upstream)).await;
    let as_json = ("content-type", "application/json");
    let (ci, more) = [KEY, "a-key-with-paths-of-its-own"]
        .map(|key| [("x-api-key", key), as_json])
        .into();
    let begin = async |headers: &[(&str, &str)], path: &str, body: &str| {
        let answer = gateway.post(path, headers, body.to_owned()).await;
        assert_eq!(answer.status(), 200, "{path} {body}");
        json_of(&answer)["id"].as_str().expect("an id").to_owned()
    };
    let read = async |headers: &[(&str, &str)], task: &str| {
        gateway
            .send(Method::GET, &format!("/v1/tasks/{task}"), headers, "")
            .await
            .status()
            .as_u16()
    };
    let mine = begin(&ci, "/v1/agents/A/invoke", r#"{"input":{"text":"hi"}}"#).await;
    let theirs = begin(
        &more,
        "/v1/agents/A/invoke/async",
        r#"{"input":{"text":"hi"},"id":null}"#,
    )
    .await;
    assert_eq!(
        (read(&ci, &mine).await, read(&more, &theirs).await),
        (200, 200)
    );
    assert_eq!(
        (read(&ci, &theirs).await, read(&more, &mine).await),
        (403, 403)
    );
    // A conversation of somebody else does not belong to the key, whatever its name.
    let all = [("x-api-key", "a-key-that-opens-everything"), as_json];
    let ceo = begin(
        &all,
        "/v1/agents/A/invoke",
        r#"{"input":{"text":"my PIN"},"id":"the-ceo"}"#,
    )
    .await;
    let own = begin(
        &ci,
        "/v1/agents/A/invoke",
        r#"{"input":{"text":"hi"},"id":"the-ceo"}"#,
    )
    .await;
    assert!(ceo == "the-ceo" && own != ceo);
    assert_eq!((read(&ci, &ceo).await, read(&ci, &own).await), (403, 200));
    let again = begin(
        &ci,
        "/v1/agents/A/invoke",
        &format!(r#"{{"input":{{"text":"hi"}},"id":"{own}"}}"#),
    )
    .await;
    assert_eq!(again, own, "what the caller was given goes on");
    // What the drop-in door gave it is its own as well.
    let answer = gateway.post("/A", &ci, r#"{"prompt":"hi"}"#).await;
    let task = json_of(&answer)["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        (read(&ci, &task).await, read(&more, &task).await),
        (200, 403)
    );
    for body in [r#"{"id":"a","id":"b"}"#, "{", r#"{"id":1}"#] {
        assert_eq!(
            gateway
                .post("/v1/agents/A/invoke", &ci, body)
                .await
                .status(),
            400,
            "{body}"
        );
    }
}

#[tokio::test]
async fn s21_the_operators_key_goes_to_the_operators_api_alone() {
    let upstream = Upstream::start(&[]).await;
    let other = Upstream::start(&[]).await;
    other
        .set(json!({"api_key": "the-key-of-the-other-server"}))
        .await;
    upstream.set(json!({"api_key": API_KEY})).await;
    let prefix = |name: &str, server: &Upstream, more: &str| {
        format!(
            "[[proxy]]\nprefix = \"/{name}\"\nupstream = \"http://{}\"\nstrip_prefix = true\n{more}\n",
            server.address
        )
    };
    let keys = "[keys.all]\nkey = \"literal:a-key-that-opens-everything\"\n";
    let own = "upstream_key = \"literal:the-key-of-the-other-server\"";
    let config = format!(
        "{}{}{keys}",
        prefix("home", &upstream, ""),
        prefix("crm", &other, own)
    );
    let gateway = Gateway::start(upstream.address, &config).await;
    let all = [("x-api-key", "a-key-that-opens-everything")];
    for path in ["/home/v1/tasks", "/crm/v1/tasks"] {
        assert_eq!(
            gateway.send(Method::GET, path, &all, "").await.status(),
            200,
            "{path}"
        );
    }
}

#[tokio::test]
async fn s26_a_gateway_key_goes_upstream_from_no_place_and_into_no_log() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &both(&upstream)).await;
    let encoded: String = KEY.bytes().map(|b| format!("%{b:02x}")).collect();
    let foreign = ("x-api-key", "a-key-of-the-caller");
    for path in [
        format!("/v1/tasks?x-api-key={KEY}"),
        format!("/v1/tasks?x-api-key={encoded}"),
        format!("/v1/tasks?a=b&token=Bearer+{KEY}"),
        format!("/v1/tasks/{KEY}"),
        format!("/v1/tasks/x{encoded}"),
    ] {
        for headers in [&[][..], &[foreign], &[("x-api-key", KEY)]] {
            assert_eq!(
                gateway.send(Method::GET, &path, headers, "").await.status(),
                403,
                "{path}"
            );
        }
    }
    let bearer = format!("Bearer {KEY}");
    let listed = format!("{KEY}, other");
    for (name, value) in [
        ("authorization", &bearer),
        ("cookie", &format!("k={KEY}")),
        ("x-api-key", &listed),
    ] {
        let answer = gateway
            .send(Method::GET, "/v1/tasks", &[(name, value)], "")
            .await;
        assert_eq!(answer.status(), 403, "{name}");
    }
    assert_eq!(
        gateway
            .send(Method::GET, "/v1/tasks", &[foreign], "")
            .await
            .status(),
        200
    );
    let refused = gateway.admin_json("/refused").await.to_string();
    assert!(
        !gateway.log().contains(KEY) && !refused.contains(KEY),
        "{refused}"
    );
    assert!(!gateway.log().contains(&encoded) && !refused.contains(&encoded));
}
