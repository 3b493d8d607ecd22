//! What an operator's terminal shows: whether all is well, what waits for what, and never a line wider than 80 columns.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::world::{Gateway, TOKEN, Upstream, binary, borrowed, event_id, github, wait_for};

const SOURCES: &str = r#"
[sources.open]
provider = "custom"
agent = "a-support"
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text" }
[sources.a-source-with-quite-a-long-name-for-a-terminal]
provider = "github"
secrets = ["literal:a-github-secret-for-tests"]
agent = "a-triage-agent-with-an-id-of-some-length"
prompt = "{{ event_type }} {{ body.title | default('') }}"
"#;

/// Runs a command where the terminal is 80 columns wide.
fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env("SLUICEGATE_ADMIN_TOKEN", TOKEN)
        .env("COLUMNS", "80")
        .stdin(Stdio::null());
    command
        .envs(environment.iter().copied())
        .output()
        .expect("it runs")
}

fn run(arguments: &[&str]) -> Output {
    run_with(arguments, &[])
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// No line of either is wider than 80 columns.
fn fits(what: &str, output: &Output) {
    for line in out(output).lines().chain(said(output).lines()) {
        assert!(
            line.chars().count() <= 80,
            "{what}: {} columns: {line}",
            line.chars().count()
        );
    }
}

/// A gateway that keeps refused requests whole.
async fn start(upstream: &Upstream) -> Gateway {
    let config = Gateway::config(upstream.address, SOURCES, "");
    Gateway::start_config(&config.replace("[upstream]", "keep_refused = 5\n[upstream]")).await
}

/// The commands below one, from its help.
pub(crate) fn subcommands(words: &[String]) -> Vec<Vec<String>> {
    let mut all = words.to_vec();
    all.push("-h".into());
    let help = out(&run(&all.iter().map(String::as_str).collect::<Vec<_>>()));
    let list = help.split_once("\nCommands:\n").map_or("", |(_, rest)| {
        rest.split("\n\n").next().unwrap_or_default()
    });
    let names = list
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '));
    let names = names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help");
    let mut found = vec![words.to_vec()];
    for name in names {
        let mut deeper = words.to_vec();
        deeper.push(name.to_owned());
        found.extend(subcommands(&deeper));
    }
    found
}

#[test]
fn every_help_fits_80_columns_in_plain_ascii_and_the_long_one_says_more() {
    let commands = subcommands(&[]);
    assert!(commands.len() >= 45, "{commands:?}");
    for command in commands {
        for option in ["-h", "--help"] {
            let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
            words.push(option);
            let help = run(&words);
            assert!(help.status.success(), "{words:?}: {}", said(&help));
            fits(&words.join(" "), &help);
            assert!(out(&help).is_ascii(), "{words:?}: {}", out(&help));
        }
    }
    for command in ["event", "refused", "destination", "stub"] {
        let (short, long) = (out(&run(&[command, "-h"])), out(&run(&[command, "--help"])));
        assert!(
            !short.contains("Examples:") && long.contains("Examples:"),
            "{command}: {long}"
        );
    }
    let long = out(&run(&["--help"]));
    assert!(
        long.contains("Exit codes:") && !out(&run(&["-h"])).contains("Exit codes:"),
        "{long}"
    );
}

#[test]
fn what_check_says_fits_80_columns_and_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sluicegate.toml");
    let wrong = "[sources.a-source-with-quite-a-long-name-for-a-terminal]\nprovider = \"github\"\n\
                 agent = \"a\"\nsecrets = [\"literal:a-github-secret-for-tests\"]\n\
                 events = [\"issues.opened\"]\nprompt = \"{{ event_type }} ${x} {{ body.x | unheard_of }}\"\n\
                 params_mapping = { user_id = \"body.sender.login\" }\n";
    let config = Gateway::config("127.0.0.1:9".parse().expect("an address"), wrong, "");
    std::fs::write(&file, config).expect("the folder takes files");
    let checked = run(&["check", &file.display().to_string()]);
    fits("check", &checked);
    let words = out(&checked);
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("goes by a type that is read from header:X-GitHub-Event and json?:action, which is not signed"),
        "{words}"
    );
    assert!(words.matches("warning:").count() >= 3, "{words}");
}

#[tokio::test]
async fn every_list_and_every_page_fits_80_columns_and_ids_are_whole() {
    let upstream = Upstream::start(&[]).await;
    let gateway = start(&upstream).await;
    let name = "a-source-with-quite-a-long-name-for-a-terminal";
    let body =
        json!({ "title": "word ".repeat(60), "url": format!("https://example.com/{}", "x".repeat(150)) }).to_string();
    let headers = github("a-github-secret-for-tests", "d-1", "pull_request", &body);
    let headers = borrowed(&headers);
    let answer = gateway
        .post(&format!("/hooks/{name}"), &headers, body.clone())
        .await;
    let long = event_id(&answer);
    let failed = gateway
        .accept("open", &json!({"id": 1, "text": "[[stub http=422]]"}))
        .await;
    gateway.settled(&long).await;
    gateway.settled(&failed).await;
    gateway
        .post(
            &format!("/hooks/{name}"),
            &[("x-github-event", "push")],
            body,
        )
        .await;
    let (code, _) = gateway.tell("/sources/open/pause", Value::Null).await;
    assert_eq!(code, 200);
    let waiting = gateway
        .accept("open", &json!({"id": 2, "text": "it waits"}))
        .await;
    gateway
        .tell("/replays", json!({ "filter": { "state": "dead" } }))
        .await;

    let admin = format!("http://{}", gateway.admin);
    let refused = gateway.admin_json("/refused").await["items"][0]["request_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for words in [
        &["status"][..],
        &["event", "list"],
        &["event", "list", "--open"],
        &["event", "list", "--state", "pending", "--time", "utc"],
        &["event", "list", "--time", "local"],
        &["event", "show", &long],
        &["event", "show", &failed],
        &["event", "show", &waiting],
        &["event", "replay", "--source", "open", "--dry-run"],
        &["source", "list"],
        &["destination", "list"],
        &["replay", "list"],
        &["replay", "show", "1"],
        &["refused"],
        &["refused", name],
        &["refused", &refused],
        &["pause"],
        &["destination", "pause", "agent/nobody-sends-there"],
        &["event", "list", "--source", "nosuch"],
        &["event", "show", "evt_ffffffffff"],
    ] {
        let output = run(&[words, &["--admin", &admin]].concat());
        fits(&words.join(" "), &output);
        assert!(
            !out(&output).contains('\u{1b}'),
            "no colours where there is no terminal: {words:?}"
        );
        let ascii = run_with(&[words, &["--admin", &admin]].concat(), &[("LC_ALL", "C")]);
        assert!(ascii.stdout.is_ascii(), "{words:?}: {}", out(&ascii));
    }
    let list = out(&run(&["event", "list", "--admin", &admin]));
    for id in [&long, &failed, &waiting] {
        assert!(list.contains(id.as_str()), "{id} is whole: {list}");
    }
    assert!(
        list.contains(" s ago") && list.starts_with("PAUSED: every run"),
        "{list}"
    );
    for command in [
        &["demo"][..],
        &["provider", "list"],
        &["provider", "show", "github"],
        &["provider", "show", "slack"],
        &["health", "-h"],
    ] {
        let output = run(command);
        assert!(output.status.success(), "{command:?}: {}", said(&output));
        fits(&command.join(" "), &output);
    }
}

#[tokio::test]
async fn status_says_whether_all_is_well_and_so_does_its_exit_code() {
    let upstream = Upstream::start(&["--fail", "422=1/1"]).await;
    let gateway = start(&upstream).await;
    let admin = format!("http://{}", gateway.admin);
    let status = || run(&["status", "--admin", &admin]);
    let well = status();
    assert_eq!(
        (well.status.code(), out(&well).lines().next()),
        (Some(0), Some("all is well")),
        "{}",
        out(&well)
    );
    let dead = gateway
        .accept("open", &json!({"id": 1, "text": "it is refused at first"}))
        .await;
    gateway.settled(&dead).await;
    run(&["source", "pause", "open", "--admin", &admin]);
    let ill = status();
    let text = out(&ill);
    assert_eq!(ill.status.code(), Some(1), "{text}");
    for words in [
        "2 things need attention",
        "the source open is paused by an operator",
        "source resume open",
        "1 event",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let whole: Value =
        serde_json::from_slice(&run(&["status", "--json", "--admin", &admin]).stdout)
            .expect("JSON");
    assert_eq!(
        (&whole["well"], &whole["open"]["dead"]),
        (&json!(false), &json!(1)),
        "{whole:#}"
    );

    // A replayed event is as its replay is, for lists and gauges.
    let gauge = r#"sluicegate_open_deliveries{source="open",state="dead"}"#;
    gateway.metric_is(gauge, 1.0).await;
    run(&["source", "resume", "open", "--admin", &admin]);
    let listed = |state: &str| {
        out(&run(&[
            "event", "list", "--state", state, "--admin", &admin,
        ]))
    };
    assert!(listed("dead").contains(&dead));
    upstream.set(json!({ "fail": [] })).await;
    assert!(
        run(&["event", "replay", &dead, "--admin", &admin])
            .status
            .success()
    );
    gateway.settled(&dead).await;
    assert!(!listed("dead").contains(&dead) && listed("delivered").contains(&dead));
    assert!(!out(&run(&["event", "list", "--open", "--admin", &admin])).contains(&dead));
    gateway.metric_is(gauge, 0.0).await;
    assert_eq!(status().status.code(), Some(0), "{}", out(&status()));
    let gone = run(&["status", "--admin", "http://127.0.0.1:9"]);
    assert_eq!(gone.status.code(), Some(1));
}

#[tokio::test]
async fn no_run_begins_after_pause_has_answered() {
    let upstream = Upstream::start(&[]).await;
    let gateway = start(&upstream).await;
    for round in 0..5_u32 {
        // Some are on their way while it is said.
        for number in 0..20 {
            gateway
                .accept(
                    "open",
                    &json!({"id": 1_000 * round + number, "text": &format!("before {round}")}),
                )
                .await;
        }
        let (code, held) = gateway.tell("/pause", Value::Null).await;
        assert_eq!((code, &held["paused"]), (200, &json!(true)));
        let ready = gateway.admin_json("/health/ready").await;
        assert_eq!(ready, json!({ "status": "ready", "detail": "paused" }));
        let mut last = String::new();
        let word = format!("after {round}");
        for number in 20..70 {
            last = gateway
                .accept(
                    "open",
                    &json!({"id": 1_000 * round + number, "text": &word}),
                )
                .await;
        }
        let event = gateway.admin_json(&format!("/events/{last}")).await;
        assert_eq!(event["waits_for"]["why"], "paused", "{event:#}");
        let begun = upstream
            .runs()
            .await
            .into_iter()
            .filter(|run| run["body"]["input"]["text"] == word.as_str())
            .count();
        assert_eq!(begun, 0, "round {round}");
        gateway.tell("/resume", Value::Null).await;
        gateway.settled(&last).await;
        wait_for("everything to run", async || {
            (upstream.runs().await.len() == 70 * (round as usize + 1)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_refused_request_is_shown_followed_and_explained() {
    let upstream = Upstream::start(&[]).await;
    let gateway = start(&upstream).await;
    let admin = format!("http://{}", gateway.admin);
    let name = "a-source-with-quite-a-long-name-for-a-terminal";
    let mut follow = Command::new(binary())
        .args(["refused", "--follow", "--json", "--admin", &admin])
        .env("SLUICEGATE_ADMIN_TOKEN", TOKEN)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let body = r#"{"title":"x"}"#;
    let signed = github(
        "a-github-secret-for-tests",
        "d-1",
        "push",
        &format!("{body}\n"),
    );
    let headers: Vec<(&str, &str)> = signed
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let answer = gateway
        .post(&format!("/hooks/{name}"), &headers, body)
        .await;
    assert_eq!(answer.status(), 401);
    let id = answer.headers()["sluicegate-request-id"]
        .to_str()
        .expect("text")
        .to_owned();
    let lines = std::io::BufReader::new(follow.stdout.take().expect("it is piped"));
    let line = std::io::BufRead::lines(lines)
        .next()
        .expect("a line")
        .expect("text");
    assert_eq!(
        serde_json::from_str::<Value>(&line).expect("JSON")["request_id"],
        json!(id)
    );
    follow.kill().expect("it goes");
    follow.wait().expect("it went");

    let list = out(&run(&["refused", name, "--admin", &admin]));
    assert!(
        list.contains(&id) && list.contains("bad_signature") && list.contains("kept whole"),
        "{list}"
    );
    let shown = out(&run(&["refused", &id[..12], "--admin", &admin]));
    assert!(
        shown.contains("x-hub-signature-256: sha256=") && shown.contains(r#"{"title":"x"}"#),
        "{shown}"
    );
    let signature = signed
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("x-hub-signature-256"));
    let (_, signature) = signature.expect("it is signed");
    assert!(
        !shown.replace(['\n', ' '], "").contains(&signature[..]),
        "a signature is kept by its beginning: {shown}"
    );
    let file = gateway
        .folder
        .path()
        .join("sluicegate.toml")
        .display()
        .to_string();
    let explain = [
        "verify",
        "explain",
        "--refused",
        &id,
        "--config",
        &file,
        "--admin",
        &admin,
    ];
    let explained = run(&explain);
    assert_eq!(explained.status.code(), Some(1), "{}", said(&explained));
    fits("verify explain", &explained);
    let words = out(&explained)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(
        words.contains("line end was cut off"),
        "{}{}",
        out(&explained),
        said(&explained)
    );
    assert!(
        !words.contains("malformed_signature"),
        "what was cut is not judged: {words}"
    );

    let event = gateway
        .accept("open", &json!({"id": 7, "text": "mapped"}))
        .await;
    let map = [
        "map", "explain", "--event", &event, "--config", &file, "--admin", &admin,
    ];
    let mapped = run(&map);
    assert!(
        mapped.status.success() && out(&mapped).contains("params_mapping text"),
        "{}{}",
        out(&mapped),
        said(&mapped)
    );
    assert_eq!(
        run(&["refused", "req_0000000000000000", "--admin", &admin])
            .status
            .code(),
        Some(3)
    );
}

#[tokio::test]
async fn names_that_nothing_has_and_wrong_usage_are_told_apart() {
    let upstream = Upstream::start(&[]).await;
    let gateway = start(&upstream).await;
    let admin = format!("http://{}", gateway.admin);
    let event = gateway
        .accept("open", &json!({"id": 1, "text": "hello"}))
        .await;
    gateway.settled(&event).await;
    let code = |words: &[&str]| {
        let output = run(&[words, &["--admin", &admin]].concat());
        (
            output.status.code(),
            format!("{}{}", out(&output), said(&output)),
        )
    };
    for (words, hint) in [
        (
            &["event", "list", "--source", "opn"][..],
            "did you mean open?",
        ),
        (
            &["event", "replay", "--source", "opn", "--yes"],
            "did you mean open?",
        ),
        (&["refused", "opn"], "did you mean open?"),
        (&["source", "pause", "opn"], "did you mean open?"),
        (
            &["destination", "pause", "agent/a-suport"],
            "did you mean agent/a-support?",
        ),
        (
            &["destination", "reset", "agent/a-suport"],
            "did you mean agent/a-support?",
        ),
        (&["event", "show", "evt_ffffffff"], "no such event"),
    ] {
        let (code, text) = code(words);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            code == Some(3) && text.contains(hint),
            "{words:?}: {code:?} {text}"
        );
    }
    for words in [
        &["event", "list", "--since", "tomorrow"][..],
        &["event", "list", "--nonsense"],
        &["event", "show", "evt_1"],
        &["event", "replay", &event, "--source", "open"],
        &["refused", "--limit", "0"],
        &["destination", "pause", "typo"],
    ] {
        assert_eq!(code(words).0, Some(2), "{words:?}: {}", code(words).1);
    }
    for since in [
        "today",
        "yesterday",
        "2026-01-31",
        "2026-01-31T12:00:00Z",
        "2h",
    ] {
        let (code, text) = code(&["event", "list", "--since", since]);
        assert_eq!(code, Some(0), "{since}: {text}");
    }
    assert!(
        code(&["event", "show", &event[..30]]).1.contains(&event),
        "a unique beginning is enough"
    );
    assert_eq!(
        code(&["destination", "pause", "agent/a-supp"])
            .1
            .lines()
            .next(),
        Some("agent/a-support paused")
    );
    assert_eq!(
        code(&["destination", "pause", "agent/elsewhere", "--force"]).0,
        Some(0)
    );
    // Whoever reads has seen enough.
    let mut child = Command::new(binary())
        .args(["provider", "list"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert!(ended.stderr.is_empty(), "{}", said(&ended));
}
