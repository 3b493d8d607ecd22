//! The stand-in, driven over real sockets by the upstream's own client.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::config::{self, RunMode};
use crate::model::{AttemptResult, Lookup, Run, RunStatus};
use crate::net::Client;
use crate::upstream::{Budget, Call, InvokeBody, Upstream};

const SECOND: Duration = Duration::from_secs(1);

struct World {
    address: SocketAddr,
    upstream: Upstream,
    client: Client,
}

impl World {
    async fn new(options: &str) -> Self {
        Self::with_prefix(options, "").await
    }

    async fn with_prefix(options: &str, prefix: &str) -> Self {
        let stub = Arc::new(Stub::new(serde_json::from_str(options).unwrap()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, stub, std::future::pending()));
        let client = Client::new(SECOND, None).unwrap();
        let upstream = Upstream::new(
            &config::UpstreamConfig {
                base_url: format!("http://{address}{prefix}").parse().unwrap(),
                login: None,
                api_key: Some(config::Secret::new("k", "sk-right")),
                connect_timeout: SECOND,
                run_timeout: 5 * SECOND,
                max_answer: 1024 * 1024,
                budget: None,
                ca_file: None,
            },
            client.clone(),
            Budget::default(),
        );
        Self {
            address,
            upstream,
            client,
        }
    }

    async fn say(&self, id: &str, text: &str) -> AttemptResult {
        self.upstream.invoke(&call(id, text)).await
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("x-api-key", "sk-right")
            .header("content-type", "application/json")
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .unwrap();
        let answer = self
            .client
            .send(request, 5 * SECOND, 1024 * 1024)
            .await
            .unwrap();
        (
            answer.status().as_u16(),
            serde_json::from_slice(answer.body()).unwrap(),
        )
    }

    async fn stats(&self) -> Value {
        self.ask("GET", "/_stub/stats", "").await.1
    }
}

fn call(id: &str, text: &str) -> Call {
    Call {
        path: "/v1/agents/a%2Fb/invoke".into(),
        body: InvokeBody::new(text, Some(id.to_owned())),
        timeout: None,
        key: None,
        run: RunMode::Call,
    }
}

fn ran(result: AttemptResult) -> Run {
    match result {
        AttemptResult::Ran(run) => run,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_runs_and_its_task_can_be_asked_for() {
    let world = World::new(r#"{"api_key":"sk-right"}"#).await;
    assert_eq!(world.upstream.task("t/1", None).await, Lookup::NotFound);
    let run = ran(world.say("t/1", "hello").await);
    assert_eq!(
        (run.status, run.result.as_deref()),
        (RunStatus::Completed, Some("echo: hello"))
    );
    assert_eq!(run.input_text.as_deref(), Some("hello"));
    assert!(run.started_at.is_some() && run.finished_at.is_some());
    assert_eq!(world.upstream.task("t/1", None).await, Lookup::Found(run));
    let json = ran(world.say("t/1", "{\"a\":1}").await);
    assert_eq!(json.result.as_deref(), Some("echo of JSON: {\"a\":1}"));

    let (_, all) = world.ask("GET", "/_stub/runs", "").await;
    let runs = all["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!((&runs[0]["turn"], &runs[1]["turn"]), (&json!(1), &json!(2)));
    assert_eq!(runs[0]["destination"], "agents/a/b");
    assert_eq!(runs[0]["body"]["input"]["text"], "hello");
    assert!(
        runs[0]["headers"]
            .as_array()
            .unwrap()
            .contains(&json!("x-api-key"))
    );
    assert!(!all.to_string().contains("sk-right"));
}

#[tokio::test]
async fn who_shows_no_key_or_a_wrong_one_is_refused() {
    let world = World::new(r#"{"api_key":"another"}"#).await;
    let wanted = AttemptResult::Refused {
        status: 401,
        detail: "Invalid or missing API key".into(),
        retry_after: None,
    };
    assert_eq!(world.say("t", "x").await, wanted);
    let (_, stats) = world.ask("GET", "/_stub/stats", "").await;
    assert_eq!(
        (&stats["runs"], &stats["answers"]["401"]),
        (&json!(0), &json!(1))
    );
}

#[tokio::test]
async fn what_goes_wrong_is_told_apart_by_whether_it_may_have_run() {
    let world = World::new("{}").await;
    let cases: [(&str, &str, u64); 9] = [
        ("[[stub http=429 retry-after=7]]", "refused 429 7", 0),
        ("[[stub http=503]]", "refused 503 1", 0),
        ("[[stub http=404]]", "refused 404 0", 0),
        ("[[stub http=unavailable]]", "ambiguous", 0),
        ("[[stub http=500]]", "ambiguous", 0),
        ("[[stub fault=gateway]]", "ambiguous", 1),
        ("[[stub drop=before]]", "ambiguous", 0),
        ("[[stub drop=after]]", "ambiguous", 1),
        ("[[stub answer=malformed]]", "ran unreadable", 1),
    ];
    for (n, (text, wanted, runs)) in cases.into_iter().enumerate() {
        let before = world.stats().await["runs"].as_u64().unwrap();
        let got = match world.say(&format!("t{n}"), text).await {
            AttemptResult::Refused {
                status,
                retry_after,
                ..
            } => {
                format!(
                    "refused {status} {}",
                    retry_after.map_or(0, |wait| wait.as_secs())
                )
            }
            AttemptResult::Ambiguous(_) => "ambiguous".into(),
            AttemptResult::Ran(run) => format!("ran {}", run.status_text),
            AttemptResult::NotSent(why) => format!("not sent: {why}"),
        };
        assert_eq!(got, wanted, "{text}");
        assert_eq!(
            world.stats().await["runs"].as_u64().unwrap() - before,
            runs,
            "{text}"
        );
    }
    let failed = ran(world
        .say("f", "[[stub status=failed result=because of this]]")
        .await);
    assert_eq!(
        (failed.status, failed.result.as_deref()),
        (RunStatus::Failed, Some("because of this"))
    );
}

#[tokio::test]
async fn a_message_may_fail_so_many_times_and_then_run() {
    let world = World::new("{}").await;
    let text = "[[stub http=429 times=2 result=done]]";
    for _ in 0..2 {
        assert!(matches!(
            world.say("t", text).await,
            AttemptResult::Refused { status: 429, .. }
        ));
    }
    assert_eq!(
        ran(world.say("t", text).await).result.as_deref(),
        Some("done")
    );
}

#[tokio::test]
async fn a_run_goes_on_when_its_caller_is_gone() {
    let world = World::new("{}").await;
    let mut call = call("t", "[[stub delay=1s result=late]]");
    call.timeout = Some(Duration::from_millis(400));
    assert_eq!(
        world.upstream.invoke(&call).await,
        AttemptResult::Ambiguous("no answer within 400 ms".into())
    );
    let Lookup::Found(now) = world.upstream.task("t", None).await else {
        panic!("it runs")
    };
    assert_eq!(now.status, RunStatus::Running);
    tokio::time::sleep(Duration::from_millis(900)).await;
    let Lookup::Found(then) = world.upstream.task("t", None).await else {
        panic!("it ran")
    };
    assert_eq!(
        (then.status, then.result.as_deref()),
        (RunStatus::Completed, Some("late"))
    );
}

#[tokio::test]
async fn two_runs_of_one_id_at_once_are_an_overlap_and_one_text_twice_a_duplicate() {
    let world = World::new(r#"{"delay":"100ms"}"#).await;
    let (one, two) = tokio::join!(world.say("t", "a"), world.say("t", "b"));
    ran(one);
    ran(two);
    let stats = world.stats().await;
    assert_eq!(
        (
            &stats["overlaps"],
            &stats["duplicates"],
            &stats["max_running"]
        ),
        (&json!(1), &json!(0), &json!(2))
    );
    ran(world.say("t", "a").await);
    ran(world.say("u", "a").await);
    let stats = world.stats().await;
    assert_eq!(
        (&stats["overlaps"], &stats["duplicates"], &stats["running"]),
        (&json!(1), &json!(1), &json!(0))
    );
    world.ask("DELETE", "/_stub/runs", "").await;
    assert_eq!(
        world.ask("GET", "/_stub/runs", "").await.1,
        json!({"runs": []})
    );
    assert_eq!(world.stats().await["overlaps"], 0);
    assert!(matches!(
        world.upstream.task("t", None).await,
        Lookup::Found(_)
    ));
}

#[tokio::test]
async fn two_hundred_runs_go_on_at_once() {
    let world = Arc::new(World::new(r#"{"delay":"1s"}"#).await);
    let mut calls = JoinSet::new();
    for n in 0..200 {
        let world = Arc::clone(&world);
        calls.spawn(async move { ran(world.say(&n.to_string(), "x").await) });
        // On some machines no more than 128 connections may wait to be accepted.
        if n % 50 == 49 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    while let Some(run) = calls.join_next().await {
        assert_eq!(run.unwrap().status, RunStatus::Completed);
    }
    assert_eq!(world.stats().await["max_running"], 200);
}

#[tokio::test]
async fn rules_apply_every_so_often_and_change_at_run_time() {
    let world = World::new(r#"{"fail":["500=1/3"]}"#).await;
    let mut failed = Vec::new();
    for n in 1..=6 {
        if matches!(
            world.say("t", &n.to_string()).await,
            AttemptResult::Ambiguous(_)
        ) {
            failed.push(n);
        }
    }
    assert_eq!(failed, [3, 6]);
    assert_eq!(world.stats().await["faults"], json!({"500": 2}));
    assert_eq!(
        world
            .ask("POST", "/_stub/options", r#"{"fail":["drop-before=1"]}"#)
            .await
            .0,
        200
    );
    assert!(matches!(
        world.say("t", "x").await,
        AttemptResult::Ambiguous(_)
    ));
    assert_eq!(
        world
            .ask("POST", "/_stub/options", r#"{"fail":["nonsense"]}"#)
            .await
            .0,
        422
    );
    assert_eq!(
        world
            .ask("POST", "/_stub/options", r#"{"fail":[],"result":"new"}"#)
            .await
            .0,
        200
    );
    assert_eq!(
        ran(world.say("t", "x").await).result.as_deref(),
        Some("new")
    );
}

#[tokio::test]
async fn a_started_run_is_pending_then_executing_and_can_be_stopped() {
    let world = World::new(r#"{"delay":"10s"}"#).await;
    let body = r#"{"input":{"text":"x","user":{"id":"u","email":"e"}}}"#;
    let (status, made) = world
        .ask("POST", "/v1/workflows/w/invoke/async", body)
        .await;
    assert_eq!(
        (status, &made["status"], &made["result"]),
        (200, &json!("pending"), &Value::Null)
    );
    let id = made["id"].as_str().unwrap();
    assert!(id.parse::<uuid::Uuid>().is_ok());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        world.ask("GET", &format!("/v1/tasks/{id}"), "").await.1["status"],
        "executing"
    );
    for _ in 0..2 {
        let (status, task) = world.ask("POST", &format!("/v1/tasks/{id}/stop"), "").await;
        assert_eq!(
            (status, &task["status"], &task["is_manually_stopped"]),
            (200, &json!("stopped"), &json!(true))
        );
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.stats().await["running"], 0);
    assert_eq!(world.ask("POST", "/v1/tasks/none/stop", "").await.0, 404);

    let (_, one) = world
        .ask("GET", "/v1/tasks?user_id=u&status=stopped&agent_id=w", "")
        .await;
    assert_eq!(
        (&one["total"], &one["items"][0]["id"]),
        (&json!(1), &json!(id))
    );
    let (_, none) = world.ask("GET", "/v1/tasks?user_id=v", "").await;
    assert_eq!(
        none,
        json!({"items": [], "total": 0, "page": 1, "per_page": 20, "total_pages": 0})
    );
    assert_eq!(world.ask("GET", "/v1/tasks?per_page=51", "").await.0, 422);
}

#[tokio::test]
async fn a_stream_tells_of_the_run_until_it_ends() {
    let world = World::new("{}").await;
    let request = Request::post(format!(
        "http://{}/v1/agents/a/invoke/stream",
        world.address
    ))
    .header("x-api-key", "k")
    .header("content-type", "application/json")
    .body(Bytes::from_static(
        br#"{"input":{"text":"[[stub delay=50ms result=one two three]]"}}"#,
    ))
    .unwrap();
    let answer = world
        .client
        .send(request, 5 * SECOND, 65_536)
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = std::str::from_utf8(answer.body()).unwrap();
    let events: Vec<Value> = text
        .split_terminator("\n\n")
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    let wanted = [
        "connected",
        "task_created",
        "task_updated",
        "chunk",
        "chunk",
        "chunk",
        "task_finished",
    ];
    assert_eq!(kinds, wanted);
    let said: String = events[3..6]
        .iter()
        .map(|event| event["data"].as_str().unwrap())
        .collect();
    assert_eq!(said, "one two three");
    assert_eq!(events[6]["data"]["status"], "completed");
    assert_eq!(events[6]["data"]["result"], "one two three");
}

#[tokio::test]
async fn a_prefix_of_the_base_address_stands_before_every_path() {
    let world = World::with_prefix("{}", "/_stub/").await;
    assert!(matches!(
        world.say("t", "x").await,
        AttemptResult::Refused { status: 404, .. }
    ));
    assert_eq!(world.ask("GET", "/v1/agents/a/invoke", "").await.0, 405);
    assert_eq!(world.ask("GET", "/nowhere", "").await.0, 404);
    assert_eq!(world.ask("GET", "/health", "").await.0, 200);
}

#[tokio::test]
async fn the_journal_has_a_line_for_every_beginning_and_end() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let world = World::new(&json!({"journal": file.path()}).to_string()).await;
    ran(world.say("t", "one").await);
    ran(world.say("t", "[[stub status=failed]]").await);
    let text = std::fs::read_to_string(file.path()).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<String> = lines
        .iter()
        .map(|l| format!("{} {} {}", l["event"], l["turn"], l["status"]))
        .collect();
    let wanted = [
        r#""begin" 1 "executing""#,
        r#""end" 1 "completed""#,
        r#""begin" 2 "executing""#,
        r#""end" 2 "failed""#,
    ];
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn a_stop_lets_an_answer_leave_and_takes_no_new_connection() {
    let stub = Arc::new(
        Stub::new(StubOptions {
            delay: Duration::from_millis(300),
            ..StubOptions::default()
        })
        .unwrap(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, stub, async { drop(stopped.await) }));
    let client = Client::new(SECOND, None).unwrap();
    let request = || {
        Request::post(format!("http://{address}/v1/agents/a/invoke"))
            .header("x-api-key", "k")
            .header("content-type", "application/json")
            .body(Bytes::from_static(br#"{"input":{}}"#))
            .unwrap()
    };
    let going = tokio::spawn({
        let (client, request) = (client.clone(), request());
        async move { client.send(request, 5 * SECOND, 65_536).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.send(()).unwrap();
    assert_eq!(going.await.unwrap().unwrap().status(), StatusCode::OK);
    server.await.unwrap();
    assert!(matches!(
        client.send(request(), SECOND, 9).await,
        Err(crate::net::SendError::NotSent(_))
    ));
}

#[tokio::test]
async fn with_a_list_of_agents_and_keys_others_are_unknown() {
    let world = World::new(
        r#"{"agents":["support","workflow/nightly"],"api_key":"k-1","keys":["sk-right"]}"#,
    )
    .await;
    let call = r#"{"input":{"text":"hi"}}"#;
    for (path, status) in [
        ("/v1/agents/support/invoke", 200),
        ("/v1/workflows/support/invoke", 200),
        ("/v1/workflows/nightly/invoke", 200),
        ("/v1/agents/nightly/invoke", 404),
        ("/v1/agents/typo/invoke/async", 404),
    ] {
        assert_eq!(world.ask("POST", path, call).await.0, status, "{path}");
    }
    assert_eq!(
        world.ask("GET", "/v1/agents/support", "").await.1["id"],
        "support"
    );
    assert_eq!(world.ask("GET", "/v1/agents/typo", "").await.0, 404);
    let (_, list) = world.ask("GET", "/v1/agents", "").await;
    assert_eq!(
        (&list["total"], &list["items"][0]["id"]),
        (&json!(1), &json!("support"))
    );
    let change = r#"{"keys":["another"]}"#;
    assert_eq!(world.ask("POST", "/_stub/options", change).await.0, 200);
    assert_eq!(world.ask("GET", "/v1/agents/support", "").await.0, 401);
    assert_eq!(
        world.ask("POST", "/v1/agents/support/invoke", call).await.0,
        401
    );
}

#[tokio::test]
async fn the_first_calls_of_the_sdk_are_answered() {
    let world = World::new(r#"{"delay":"50ms"}"#).await;
    let (status, agent) = world.ask("GET", "/agents/a1", "").await;
    assert_eq!((status, &agent["id"]), (200, &json!("a1")));
    let call = r#"{"input":{"text":"hi","files":[],"user":null},"source":"sdk","tool_call_limit":null,"title":"a"}"#;
    let (status, task) = world.ask("POST", "/agent-execution/a1", call).await;
    assert_eq!(
        (status, &task["status"]),
        (200, &json!("pending")),
        "{task}"
    );
    let id = task["id"].as_str().unwrap();
    let organization = task["organization_id"].as_str().unwrap();
    let request = Request::get(format!(
        "http://{}/{organization}/agent-execution/{id}/events",
        world.address
    ))
    .header("x-api-key", "any")
    .body(Bytes::new())
    .unwrap();
    let events = world
        .client
        .send(request, 5 * SECOND, 1024 * 1024)
        .await
        .unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let text = String::from_utf8_lossy(events.body()).into_owned();
    let kinds: Vec<String> = text
        .split("\n\n")
        .filter_map(|event| serde_json::from_str::<Value>(event.strip_prefix("data: ")?).ok())
        .map(|event| event["type"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        (
            kinds.first().unwrap().as_str(),
            kinds.last().unwrap().as_str()
        ),
        ("task_created", "task_finished")
    );
    let (_, task) = world
        .ask("GET", &format!("/agent-execution/{id}/status"), "")
        .await;
    assert_eq!(
        (&task["status"], &task["result"]),
        (&json!("completed"), &json!("echo: hi"))
    );
    assert_eq!(
        world
            .ask(
                "PATCH",
                &format!("/agent-execution/{id}/update"),
                r#"{"title":"b"}"#
            )
            .await
            .0,
        200
    );
    assert_eq!(
        world
            .ask("DELETE", &format!("/agent-execution/{id}"), "")
            .await
            .1["status"],
        "completed"
    );
    for (method, path, status) in [
        ("GET", "/agent-execution/nothing/status", 404),
        ("GET", "/org/agent-execution/nothing/events", 404),
        ("PUT", "/agents/a1", 405),
        ("GET", "/nothing", 404),
    ] {
        assert_eq!(world.ask(method, path, "").await.0, status, "{path}");
    }
}
