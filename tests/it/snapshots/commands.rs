//! Output of every command: its help, what it prints without a gateway, and what it prints of the story.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Snapshot;
use super::mask::Mask;
use super::story::Story;
use crate::terminal::subcommands;
use crate::world::{TOKEN, binary};

/// Runs commands in a folder and puts down what they print and how they end.
struct Runner {
    folder: String,
    mask: Mask,
    snapshot: Snapshot,
}

impl Runner {
    fn new(folder: String, file: &'static str) -> Self {
        Self {
            mask: Mask::new(&folder),
            folder,
            snapshot: Snapshot::new(file),
        }
    }

    fn run(&mut self, words: &[&str]) {
        let output = Command::new(binary())
            .args(words)
            .current_dir(&self.folder)
            .env_clear()
            .env("SLUICEGATE_ADMIN_TOKEN", TOKEN)
            .env("LC_ALL", "C.UTF-8")
            .env("COLUMNS", "100")
            .env("TMPDIR", &self.folder)
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        if !talk.is_empty() {
            text.push_str(&format!("--- standard error\n{talk}"));
        }
        text.push_str(&format!(
            "--- exit code {}\n",
            output.status.code().unwrap_or(-1)
        ));
        let title = self.mask.apply(&format!("sluicegate {}", words.join(" ")));
        let text = self.mask.apply(&text);
        self.snapshot.add(&title, &text);
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(Path::new(&self.folder).join(file), text).expect("the folder takes files");
    }
}

/// Help of every command, the short and the long one.
pub(super) fn helps() -> Snapshot {
    let folder = tempfile::tempdir().expect("a folder");
    let mut runner = Runner::new(folder.path().display().to_string(), "help.txt");
    for command in subcommands(&[]) {
        for option in ["-h", "--help"] {
            let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
            words.push(option);
            runner.run(&words);
        }
    }
    runner.snapshot
}

const BAD: &str = r#"
[server]
listen = 5
colour = "red"
[sources.a]
provider = "githb"
[sources.b]
provider = "github"
secrets = ["env:NO_SUCH_VARIABLE"]
agent = "x"
prompt = "{{ body."
"#;

const WARNED: &str = r#"
[upstream]
base_url = "https://agents.example"
api_key = "literal:a-key-of-the-upstream"
[dropin]
enabled = false
[sources.a]
provider = "github"
secrets = ["literal:a-secret-of-github"]
agent = "x"
params_mapping = { prompt = "items[0].id" }
"#;

const REQUEST: &str = "POST /hooks/a HTTP/1.1\r\nHost: hooks.example.com\r\nX-GitHub-Event: issues\r\n\
    X-GitHub-Delivery: d-1\r\nX-Hub-Signature-256: sha256=0000000000000000000000000000000000000000000000000000000000000000\r\n\
    Content-Type: application/json\r\n\r\n{\"action\":\"opened\",\"items\":[\"one\"]}";

/// What commands print that need no gateway.
pub(super) fn alone() -> Snapshot {
    let folder = tempfile::tempdir().expect("a folder");
    let mut runner = Runner::new(folder.path().display().to_string(), "alone.txt");
    runner.write("bad.toml", BAD);
    runner.write("warned.toml", WARNED);
    runner.write("request.txt", REQUEST);
    runner.write("no-request.txt", "no request\n");
    runner.write("header.txt", "POST / HTTP/1.1\na b: c\n\n");
    runner.write("method.txt", "P(ST / HTTP/1.1\n\n");
    runner.write("method.json", r#"{"method":"P(ST","path":"/"}"#);
    runner.write(
        "requests.json",
        "{\"id\":1,\"provider\":\"github\",\"secret\":\"s\",\"body\":\"x\"}\n{\"id\":2,\"method\":\"P(ST\"}\n[]\n{\n",
    );
    let commands: &[&[&str]] = &[
        &["--version"],
        &["serv"],
        &["check", "bad.toml"],
        &["check", "bad.toml", "--json"],
        &["check", "warned.toml"],
        &["check", "warned.toml", "--deny-warnings"],
        &["check", "warned.toml", "--json"],
        &["check", "nothing.toml"],
        &["serve", "--config", "bad.toml"],
        &["migrate", "--config", "bad.toml"],
        &["migrate", "--config", "warned.toml"],
        &["init", "made.toml"],
        &["init", "made.toml"],
        &["health", "--config", "nothing.toml"],
        &["status", "--config", "nothing.toml"],
        &["status", "--admin", "ftp://x"],
        &["status", "--admin", "http://127.0.0.1:9"],
        &[
            "status",
            "--admin",
            "http://127.0.0.1:9",
            "--token-env",
            "NO_SUCH_VARIABLE",
        ],
        &["provider", "list", "git"],
        &["provider", "list", "githb"],
        &["provider", "list", "github", "--json"],
        &["provider", "show", "github"],
        &["provider", "show", "githb"],
        &["provider", "show", "asana", "--json"],
        &["provider", "try", "--requests", "requests.json"],
        &["provider", "try", "--requests", "nothing.json"],
        &["provider", "check", "nothing.toml"],
        &["source", "url", "a", "--config", "warned.toml"],
        &["source", "url", "b", "--config", "warned.toml"],
        &[
            "send",
            "a",
            "--config",
            "warned.toml",
            "--sample",
            "nothing",
        ],
        &["send", "nothing", "--config", "warned.toml"],
        &[
            "map",
            "explain",
            "--config",
            "warned.toml",
            "--source",
            "a",
            "--request",
            "request.txt",
        ],
        &[
            "map",
            "explain",
            "--config",
            "warned.toml",
            "--source",
            "a",
            "--request",
            "request.txt",
            "--json",
        ],
        &[
            "map",
            "explain",
            "--config",
            "warned.toml",
            "--source",
            "a",
            "--request",
            "no-request.txt",
        ],
        &[
            "map",
            "explain",
            "--config",
            "warned.toml",
            "--source",
            "a",
            "--request",
            "header.txt",
        ],
        &[
            "map",
            "explain",
            "--config",
            "warned.toml",
            "--source",
            "b",
            "--request",
            "request.txt",
        ],
        &[
            "map",
            "explain",
            "--config",
            "warned.toml",
            "--dropin",
            "--request",
            "request.txt",
        ],
        &[
            "verify",
            "explain",
            "--provider",
            "github",
            "--secret",
            "literal:s",
            "--request",
            "request.txt",
            "--now",
            "2026-01-31T12:00:00Z",
        ],
        &[
            "verify",
            "explain",
            "--config",
            "warned.toml",
            "--source",
            "a",
            "--request",
            "request.txt",
            "--now",
            "2026-01-31T12:00:00Z",
        ],
        &[
            "verify",
            "explain",
            "--provider",
            "githb",
            "--request",
            "request.txt",
        ],
        &[
            "verify",
            "explain",
            "--provider",
            "github",
            "--request",
            "no-request.txt",
        ],
        &[
            "verify",
            "explain",
            "--provider",
            "github",
            "--request",
            "method.txt",
        ],
        &[
            "verify",
            "explain",
            "--provider",
            "github",
            "--request",
            "method.json",
        ],
        &[
            "verify",
            "explain",
            "--request",
            "request.txt",
            "--now",
            "noon",
        ],
        &["event", "show", "evt_"],
        &[
            "event",
            "list",
            "--since",
            "noon",
            "--admin",
            "http://127.0.0.1:9",
        ],
        &["event", "replay", "--admin", "http://127.0.0.1:9"],
        &["replay", "pace", "1", "fast"],
        &["destination", "pause", "robot/1"],
    ];
    for words in commands {
        runner.run(words);
    }
    runner.snapshot
}

/// What commands print of the story, in an order in which later ones see what earlier ones did.
pub(super) async fn all(story: &Story) -> Snapshot {
    let mut runner = Runner::new(story.folder(), "commands.txt");
    let short = |event: &str| event[..4 + 30].to_owned();
    let (delivered, dead, unmappable, file) = (
        short(&story.delivered),
        short(&story.dead),
        short(&story.unmappable),
        short(&story.with_file),
    );
    let delivery = |event: &str| format!("dlv_{}_0", &event[4..]);
    let (pending, held) = (delivery(&story.pending), delivery(&story.held));
    let refused = story.refused.clone();
    let lists: &[&[&str]] = &[
        &["status"],
        &["status", "--json"],
        &["health"],
        &["event", "list"],
        &["event", "list", "--time", "ago", "--limit", "2"],
        &["event", "list", "--open"],
        &["event", "list", "--source", "talk"],
        &[
            "event", "list", "--source", "talks", "--limit", "1", "--json",
        ],
        &["event", "list", "--type", "nothing"],
        &["event", "show", &delivered],
        &["event", "show", &delivered, "--body"],
        &["event", "show", &dead],
        &["event", "show", &unmappable],
        &["event", "show", &file, "--json"],
        &["event", "show", "evt_00000000000000000000000000000000"],
        &["event", "replay", &dead, "--dry-run"],
        &["event", "replay", &unmappable],
        &[
            "event",
            "replay",
            &dead,
            "evt_00000000000000000000000000000000",
        ],
        &["event", "replay", "--source", "talks", "--dry-run"],
        &["event", "replay", "--source", "talks"],
        &["event", "replay", "--source", "nowhere", "--yes"],
        &["event", "replay", "--dedup", "nothing", "--yes"],
        &[
            "event",
            "resend",
            &delivered,
            "--dry-run",
            "--header",
            "x-a: b",
        ],
        &["event", "resend", &delivered, "--header", "no colon"],
        &["event", "settle", &pending, "--as", "dead"],
        &["event", "cancel", &pending],
        &["event", "cancel", &pending, "--json"],
        &["event", "cancel", &held],
        &["replay", "list"],
        &["replay", "show", "1"],
        &["replay", "show", "1", "--json"],
        &["replay", "pause", "1"],
        &["replay", "cancel", "77"],
        &["source", "list"],
        &["source", "list", "--json"],
        &["source", "pause", "hub"],
        &["source", "pause", "hub"],
        &["source", "resume", "hub", "--json"],
        &["source", "resume", "hb"],
        &["source", "secrets", "hub"],
        &["source", "secrets", "quiet"],
        &["source", "secrets", "hb"],
        &["source", "enrol", "tasks"],
        &["source", "enrol", "tasks", "--show"],
        &["source", "enrol", "tasks", "--confirm", "0123456789abcdef"],
        &["source", "enrol", "hub"],
        &["destination", "list"],
        &["destination", "list", "--json"],
        &["destination", "pause", "agent/talker"],
        &["destination", "list"],
        &["destination", "resume", "agent/talker"],
        &["destination", "reset", "agent/talker"],
        &["destination", "pause", "agent/nobody"],
        &["key", "list"],
        &["key", "list", "--json"],
        &["refused"],
        &["refused", "hub", "--json"],
        &["refused", "hubb"],
        &["refused", &refused],
        &["refused", "req_00000000"],
        &["verify", "explain", "--refused", &refused],
        &["map", "explain", "--event", &dead],
        &["pause"],
        &["status"],
        &["event", "list", "--limit", "1"],
        &["resume"],
        &["resume", "--json"],
        &["reconcile", "log", "--since", "2h"],
        &["reconcile", "log", "--since", "2h", "--dry-run", "--json"],
        &["reconcile", "talks", "--since", "2h"],
        &["reconcile", "nosuch", "--since", "2h"],
        &["send", "hub"],
        &["reload"],
        &["reload", "--json"],
        &["reload", "--wait", "soon"],
        &["demo"],
    ];
    for words in lists {
        let mut words = words.to_vec();
        if words[0] != "demo" {
            words.extend(["--config", "known.toml"]);
        }
        let timed = words.contains(&"--time") || !takes_time(words[0]);
        if !timed {
            words.extend(["--time", "utc"]);
        }
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        runner = tokio::task::spawn_blocking(move || {
            runner.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
            runner
        })
        .await
        .expect("the command runs");
        story.at_rest().await;
    }
    runner.snapshot
}

/// True if a command has the option `--time`.
fn takes_time(command: &str) -> bool {
    !matches!(command, "demo" | "health" | "map" | "verify" | "send")
}
