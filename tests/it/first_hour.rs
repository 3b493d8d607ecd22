//! The first hour of somebody who has only the repository: every configuration that it shows runs, and every command line
//! that it shows ends well; every setting and every metric is written down.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UnixDatagram;

use crate::layers::files;
use crate::readme::{blocks, text};
use crate::world::{
    API_KEY, Gateway, TOKEN, Upstream, authority, binary, borrowed, event_id, free_address, github,
    signal, wait_for,
};

/// Files that hold a configuration, beside the blocks of README and `docs/`.
const CONFIGURATIONS: [&str; 3] = [
    "config/example.toml",
    "config/demo/sources.toml",
    "deploy/sluicegate.toml",
];

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// README and every page.
fn pages() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = std::fs::read_dir(root.join("docs")).expect("the folder is there");
    let mut pages: Vec<String> = pages
        .map(|page| {
            format!(
                "docs/{}",
                page.expect("a page").file_name().to_string_lossy()
            )
        })
        .filter(|page| page.ends_with(".md"))
        .chain(["README.md".to_owned()])
        .collect();
    pages.sort();
    pages
}

/// Every configuration that is shown, with its place. What has no table is a line of one, or a provider's file; a source
/// without a provider is a part of one.
fn configurations() -> Vec<(String, String)> {
    let shown = pages().into_iter().flat_map(|page| {
        let blocks = blocks(&text(&page), "toml").into_iter().enumerate();
        blocks
            .map(|(number, block)| (format!("{page}, block {}", number + 1), block))
            .collect::<Vec<_>>()
    });
    let is_whole = |block: &str| {
        let first = block
            .lines()
            .find(|line| !line.is_empty() && !line.starts_with('#'))
            .unwrap_or_default();
        let is_part = block.contains("[sources.") && !block.contains("provider");
        first.starts_with('[') && !first.starts_with("[[challenge]]") && !is_part
    };
    let of_files = CONFIGURATIONS
        .iter()
        .map(|file| ((*file).to_owned(), text(file)));
    shown
        .filter(|(_, block)| is_whole(block))
        .chain(of_files)
        .collect()
}

/// The sources of a configuration, with their providers; those apart that a handshake has to bring a secret, and those that
/// only their provider's addresses reach.
fn sources(config: &str) -> Vec<(String, String)> {
    let tables = config.split("[sources.").skip(1);
    let named = tables.filter_map(|table| Some((table.split_once(']')?, table)));
    named
        .filter(|((name, _), table)| {
            // Nor those that ask a service which is not there.
            let asks = table.contains("scheme = \"ask\"") || table.contains("scheme  = \"ask\"");
            !name.contains('.')
                && !table.contains("enrol_file")
                && !table.contains("\nallow =")
                && !asks
        })
        .filter_map(|((name, _), table)| {
            let line = table.lines().find(|line| line.starts_with("provider"))?;
            Some((name.to_owned(), line.split('"').nth(1)?.to_owned()))
        })
        .collect()
}

/// The samples of a provider.
fn samples(provider: &str) -> Vec<String> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("config/providers/{provider}.toml"));
    let file = std::fs::read_to_string(file).unwrap_or_default();
    let samples = file.split("[[sample]]").skip(1);
    let line = |sample: &str| {
        sample
            .lines()
            .find(|line| line.starts_with("name"))
            .map(str::to_owned)
    };
    samples
        .filter_map(|sample| Some(line(sample)?.split('"').nth(1)?.to_owned()))
        .collect()
}

/// The variables that a configuration names, each with a value of its kind.
fn variables(config: &str) -> Vec<(String, String)> {
    let names: BTreeSet<&str> = config
        .split("\"env:")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let value = |name: &str| {
        if name.starts_with("STRIPE_WEBHOOK") {
            format!("whsec_{SECRET}")
        } else {
            SECRET.to_owned()
        }
    };
    names
        .into_iter()
        .map(|name| (name.to_owned(), value(name)))
        .collect()
}

/// What stands elsewhere when the configuration is not this machine's: listeners, the upstream, the inbox.
fn moved(upstream: &Upstream) -> Vec<(String, String)> {
    [
        ("SERVER__PUBLIC_URL", "https://hooks.example.com".to_owned()),
        ("SERVER__LISTEN", "127.0.0.1:0".to_owned()),
        ("ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ("ADMIN__TOKEN", format!("literal:{TOKEN}")),
        ("UPSTREAM__BASE_URL", format!("http://{}", upstream.address)),
        ("UPSTREAM__API_KEY", format!("literal:{API_KEY}")),
        ("INBOX__URL", "sqlite:data/inbox.db".to_owned()),
        ("LOG__FORMAT", "json".to_owned()),
    ]
    .map(|(name, value)| (format!("SLUICEGATE__{name}"), value))
    .to_vec()
}

/// The files that a configuration names, made in its folder.
fn make_files(folder: &Path, config: &str) -> String {
    let secrets = folder.join("secrets");
    for name in ["tls", "providers", "secrets"] {
        std::fs::create_dir_all(folder.join(name)).expect("a folder");
    }
    let made =
        rcgen::generate_simple_self_signed(vec!["gateway.test".into()]).expect("a certificate");
    std::fs::write(folder.join("tls/fullchain.pem"), made.cert.pem()).expect("a file");
    std::fs::write(
        folder.join("tls/privkey.pem"),
        made.signing_key.serialize_pem(),
    )
    .expect("a file");
    let (clients, revoked) = authority();
    std::fs::write(folder.join("tls/clients.pem"), clients).expect("a file");
    std::fs::write(folder.join("tls/clients.crl"), revoked).expect("a file");
    for name in config
        .split("/run/secrets/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
    {
        std::fs::write(secrets.join(name), SECRET).expect("a file");
    }
    config.replace("/run/secrets", &secrets.display().to_string())
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test]
async fn every_configuration_starts_and_runs_every_sample_of_its_providers() {
    let configurations = configurations();
    let mut sent = 0;
    assert!(
        configurations.len() >= 20,
        "saw {} configurations",
        configurations.len()
    );
    for (place, config) in configurations {
        let upstream = Upstream::start(&[]).await;
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let config = make_files(folder.path(), &config);
        let mut environment = [variables(&config), moved(&upstream)].concat();
        // What a prefix leads to is the server of upstream.base_url, or needs a key of its own.
        environment.retain(|(name, _)| {
            !config.contains("[[proxy]]") || name != "SLUICEGATE__UPSTREAM__BASE_URL"
        });
        let file = folder.path().join("sluicegate.toml");
        std::fs::write(&file, &config).expect("a file");
        let command = |words: &[&str]| {
            let mut command = Command::new(binary());
            command
                .args(words)
                .arg("--config")
                .arg(&file)
                .envs(environment.iter().cloned())
                .stdin(Stdio::null());
            command.output().expect("it runs")
        };
        let checked = command(&["check"]);
        assert!(checked.status.success(), "{place}: {}", said(&checked));
        let mut serve = Command::new(binary());
        serve.envs(environment.iter().cloned());
        let gateway = Gateway::start_as(serve, folder.clone(), &config).await;
        let to = format!("http://{}", gateway.public);
        let body = folder.path().join("body.json");
        std::fs::write(&body, r#"{"text":"hello"}"#).expect("a file");
        let body = body.display().to_string();
        let mut of_place = 0;
        for (source, provider) in sources(&config) {
            // `send` has no certificate to show; `client_certificate.rs` sends to such sources.
            if config.contains("scheme = \"client-cert\"") {
                continue;
            }
            let samples = samples(&provider);
            let events: Vec<Vec<&str>> = match samples.as_slice() {
                [] => vec![vec!["--body", &body]],
                names => names
                    .iter()
                    .map(|name| vec!["--event", name.as_str()])
                    .collect(),
            };
            for event in events {
                let words = [vec!["send", &source, "--to", &to], event].concat();
                let output = command(&words);
                assert!(
                    output.status.success(),
                    "{place}: {words:?}: {}",
                    said(&output)
                );
                of_place += 1;
            }
        }
        wait_for(&format!("the events of {place} to end"), async || {
            let page = gateway.admin_json("/events?limit=200").await;
            let events = page["items"].as_array().expect("a list").clone();
            let states =
                |event: &Value| event["deliveries"].as_array().cloned().unwrap_or_default();
            for event in &events {
                let states: Vec<Value> = states(event)
                    .iter()
                    .map(|delivery| delivery["state"].clone())
                    .collect();
                assert!(!states.contains(&json!("dead")), "{place}: {event:#}");
                if states.iter().any(|state| state != "delivered") {
                    return None;
                }
            }
            (events.len() >= of_place).then_some(())
        })
        .await;
        sent += of_place;
    }
    assert!(sent >= 12, "{sent} samples were sent");
}

#[test]
fn what_the_demo_says_to_try_works_as_pasted() {
    let mut demo = Command::new(binary());
    let mut demo = demo
        .args(["demo", "--serve"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let lines = BufReader::new(demo.stdout.take().expect("piped"))
        .lines()
        .map_while(Result::ok);
    let mut lines = lines
        .skip_while(|line| !line.contains("In another terminal"))
        .skip(1);
    let mut script = String::new();
    for line in lines.by_ref() {
        script.push_str(&line);
        script.push('\n');
        if line.starts_with("sluicegate refused") {
            break;
        }
    }
    let folder = binary().parent().expect("a folder").display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").expect("a path"));
    let tried = Command::new("bash")
        .args(["-e", "-c", &script])
        .env("PATH", path)
        .stdin(Stdio::null())
        .output();
    let tried = tried.expect("a shell");
    signal(demo.id(), "TERM");
    let ended = demo.wait().expect("it ends");
    assert!(tried.status.success(), "{script}\n{}", said(&tried));
    assert_eq!(
        String::from_utf8_lossy(&tried.stdout)
            .matches("202 Accepted")
            .count(),
        2,
        "{}",
        said(&tried)
    );
    assert!(ended.success(), "{ended}");
}

#[tokio::test]
async fn the_service_manager_is_told_when_the_gateway_is_ready_and_when_it_stops() {
    let upstream = Upstream::start(&[]).await;
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let mut serve = Command::new(binary());
    serve.env("NOTIFY_SOCKET", &path);
    let gateway =
        Gateway::start_as(serve, folder, &Gateway::config(upstream.address, "", "")).await;
    let mut said = [0; 64];
    let mut heard = async || {
        let word = tokio::time::timeout(Duration::from_secs(30), socket.recv(&mut said)).await;
        let length = word.expect("it is told").expect("a word");
        String::from_utf8_lossy(&said[..length]).into_owned()
    };
    assert_eq!(heard().await, "READY=1");
    gateway.stop().await;
    assert_eq!(heard().await, "STOPPING=1");
}

/// Command lines that are not run here, by their beginning or a word in them.
const ELSEWHERE: [(&str, &str); 15] = [
    ("cargo ", "builds the program, which is built by then"),
    ("tests/run", "runs this test"),
    ("benches/", "takes hours"),
    ("fuzz/", "takes hours"),
    (
        "export ",
        "names secrets of the reader's own; the test has its own",
    ),
    ("sluicegate serve", "does not end; every test runs it"),
    ("sluicegate stub", "does not end; every test runs it"),
    (" --follow", "does not end; terminal.rs runs it"),
    (
        "sluicegate reconcile",
        "asks the provider's own API; reconcile.rs runs it",
    ),
    (" --confirm", "needs a handshake; providers.rs runs it"),
    (
        "event settle",
        "needs a delivery that nobody can tell the end of; admin.rs settles one",
    ),
    ("https://api.telegram.org", "calls another machine"),
    ("https://hooks.example.com", "calls another machine"),
    ("systemctl ", "needs an init system and root"),
    ("sudo ", "changes the machine"),
];

/// Every command line of README and `docs/`, with its place. A line that ends in a backslash goes on.
fn command_lines() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for page in pages() {
        for block in blocks(&text(&page), "sh") {
            let whole = block.replace("\\\n", " ");
            let lines = whole
                .lines()
                .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
            found.extend(lines.map(|line| (page.clone(), line.to_owned())));
        }
    }
    found
}

/// What the command lines name.
const NAMED: &str = r#"
[sources.github]
provider = "github"
secrets = ["env:GITHUB_WEBHOOK_SECRET"]
agent = "a1"
[sources.triage]
provider = "github"
secrets = ["env:GITHUB_WEBHOOK_SECRET"]
agent = "a-triage"
[sources.support-bot]
provider = "telegram"
secrets = ["env:TELEGRAM_SECRET_TOKEN"]
agent = "a-support"
params_mapping = { prompt = "message.text" }
[sources.billing]
provider = "stripe"
secrets = ["env:STRIPE_WEBHOOK_SECRET"]
agent = "a-billing"
[sources.team-chat]
provider = "slack"
secrets = ["env:SLACK_SIGNING_SECRET"]
agent = "a-chat"
[sources.shop-chat]
provider = "whatsapp"
secrets = ["env:WHATSAPP_APP_SECRET"]
values = { verify_token = "env:WHATSAPP_VERIFY_TOKEN" }
agent = "a-shop"
[sources.tasks]
provider = "asana"
agent = "a-tasks"
enrol_file = "tasks.secrets"
[keys.ci]
key = "env:CI_GATEWAY_KEY"
"#;

/// A gateway that knows the names of the pages, and a shell beside it.
struct Desk {
    gateway: Gateway,
    environment: Vec<(String, String)>,
    public: String,
    sent: u32,
}

impl Desk {
    async fn new(upstream: &Upstream) -> Self {
        let (public, admin) = (free_address(), free_address());
        let config = format!(
            "[server]\nlisten = \"{public}\"\npublic_url = \"http://{public}\"\n[admin]\nlisten = \"{admin}\"\n\
             token = \"env:SLUICEGATE_ADMIN_TOKEN\"\nkeep_refused = 10\n[upstream]\nbase_url = \"http://{}\"\n\
             api_key = \"env:XPANDER_API_KEY\"\n[log]\nformat = \"json\"\n{NAMED}",
            upstream.address
        );
        let mut environment = variables(&config);
        environment
            .retain(|(name, _)| name != "XPANDER_API_KEY" && name != "SLUICEGATE_ADMIN_TOKEN");
        let folder: PathBuf = binary().parent().expect("a folder").to_owned();
        let path = format!(
            "{}:{}",
            folder.display(),
            std::env::var("PATH").expect("a path")
        );
        environment.extend(
            [
                ("XPANDER_API_KEY", API_KEY),
                ("SLUICEGATE_ADMIN_TOKEN", TOKEN),
                ("SECRET", SECRET),
                ("PATH", &path),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let mut serve = Command::new(binary());
        serve.envs(environment.iter().cloned());
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let gateway = Gateway::start_as(serve, folder, &config).await;
        Self {
            gateway,
            environment,
            public: public.to_string(),
            sent: 0,
        }
    }

    /// An event of the source `github`.
    async fn event(&mut self) -> String {
        self.sent += 1;
        let body = json!({ "action": "opened", "number": self.sent }).to_string();
        let headers = github(SECRET, &format!("d-{}", self.sent), "issues", &body);
        let answer = self
            .gateway
            .post("/hooks/github", &borrowed(&headers), body)
            .await;
        event_id(&answer)
    }

    /// What the line names is there, and the line names it.
    async fn staged(&mut self, line: &str) -> String {
        let mut line = line.replace("http://127.0.0.1:8080", &format!("http://{}", self.public));
        line = line
            .replace("AGENT", "a-agent")
            .replace(" KEY\"", " $CI_GATEWAY_KEY\"");
        if line.starts_with("sluicegate check FILE") {
            line = line.replace("FILE", "sluicegate.toml");
        }
        if line.starts_with("sluicegate init") {
            line = format!("mkdir empty && cd empty && {line}");
        }
        if line.starts_with("sluicegate status") {
            for path in [
                "/resume",
                "/sources/github/resume",
                "/sources/triage/resume",
                "/destinations/agent%2Fa1/resume",
            ] {
                self.gateway.tell(path, Value::Null).await;
            }
        }
        if line.contains("evt_") {
            let id = self.event().await;
            self.gateway.settled(&id).await;
            line = line.replace("evt_…", &id).replace("evt_0193ab12", &id);
        }
        if line.contains("dlv_…") {
            self.gateway
                .tell("/sources/github/pause", Value::Null)
                .await;
            let id = self.event().await;
            let event = self.gateway.admin_json(&format!("/events/{id}")).await;
            line = line.replace(
                "dlv_…",
                event["deliveries"][0]["id"].as_str().expect("a delivery"),
            );
        }
        if line.contains("req_0123abcd") {
            let answer = self
                .gateway
                .post("/hooks/github", &[("x-github-event", "push")], "{}")
                .await;
            line = line.replace(
                "req_0123abcd",
                answer.headers()["sluicegate-request-id"]
                    .to_str()
                    .expect("text"),
            );
        }
        if line.starts_with("sluicegate replay ") && line.contains(" 3") {
            let (id, other) = (self.event().await, self.event().await);
            self.gateway.settled(&id).await;
            self.gateway.settled(&other).await;
            let job = json!({ "filter": { "state": "delivered" }, "pace": 1 });
            let (code, job) = self.gateway.tell("/replays", job).await;
            assert!(code < 300, "{job:#}");
            if line.contains(" resume ") {
                self.gateway
                    .tell(
                        &format!("/replays/{}", job["id"]),
                        json!({ "state": "paused" }),
                    )
                    .await;
            }
            let number = job["id"].to_string();
            line = line.replacen(" 3", &format!(" {}", number.trim_matches('"')), 1);
        }
        // Whoever sits at a terminal is asked, and says yes.
        let by_filter = line.starts_with("sluicegate event replay") && !line.contains("evt_");
        if by_filter && !line.contains("--yes") && !line.contains("--dry-run") {
            let (command, comment) = line.split_once('#').unwrap_or((&line, ""));
            line = format!("{} --yes #{comment}", command.trim_end());
        }
        if line.starts_with("curl ") {
            line.replacen("curl ", "curl --fail-with-body --silent --show-error ", 1)
        } else {
            line
        }
    }

    /// Runs a line as a shell does where it was pasted.
    fn run(&self, line: &str) -> Output {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", line])
            .current_dir(self.gateway.folder.path())
            .envs(self.environment.iter().cloned());
        shell.stdin(Stdio::null()).output().expect("a shell")
    }
}

#[tokio::test]
async fn every_command_line_of_the_readme_and_the_pages_ends_well() {
    let upstream = Upstream::start(&[]).await;
    let mut desk = Desk::new(&upstream).await;
    let printed = desk.run("sluicegate send triage --print > captured.txt");
    assert!(printed.status.success(), "{}", said(&printed));
    let (mut ran, mut used) = (0, BTreeSet::new());
    for (page, line) in command_lines() {
        if let Some((word, _)) = ELSEWHERE
            .iter()
            .find(|(word, _)| line.starts_with(word) || line.contains(word))
        {
            used.insert(*word);
            continue;
        }
        let staged = desk.staged(&line).await;
        // A refused request is explained, or a warning counts, and the command says so by its code.
        let explains =
            staged.contains("verify explain --refused") || staged.contains("--deny-warnings");
        let output = desk.run(&staged);
        assert!(
            output.status.success() || (explains && output.status.code() == Some(1)),
            "{page}: {line}\n{}",
            said(&output)
        );
        ran += 1;
    }
    assert!(ran >= 35, "{ran} command lines ran");
    let unused: Vec<&str> = ELSEWHERE
        .iter()
        .map(|(word, _)| *word)
        .filter(|word| !used.contains(word))
        .collect();
    assert!(unused.is_empty(), "no page has these lines: {unused:?}");
}

/// Every key that a reader of settings asks for, by the files of `src/config`.
fn keys(file: &Path) -> BTreeSet<String> {
    const READERS: [&str; 18] = [
        "text",
        "required_text",
        "integer",
        "bool",
        "duration",
        "bytes",
        "rate",
        "parsed",
        "one_of",
        "texts",
        "blocks",
        "api",
        "text_table",
        "secret",
        "secrets",
        "section",
        "sections",
        "has",
    ];
    let code = std::fs::read_to_string(file).expect("a source file");
    let code: String = code
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let mut found = BTreeSet::new();
    let mut add = |rest: &str| {
        let name: String = rest
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect();
        if !name.is_empty() && rest[name.len()..].starts_with('"') {
            found.insert(name);
        }
    };
    for reader in READERS {
        code.split(&format!(".{reader}(\""))
            .skip(1)
            .for_each(&mut add);
    }
    // Keys that are read in a loop stand in its list.
    for list in code
        .split("forkeyin[")
        .skip(1)
        .filter_map(|rest| rest.split(']').next())
    {
        list.split(',')
            .filter_map(|key| key.strip_prefix('"'))
            .for_each(&mut add);
    }
    code.split("words(\"").skip(1).for_each(&mut add);
    code.split("(section,\"").skip(1).for_each(&mut add);
    code.split("(&section,\"").skip(1).for_each(&mut add);
    found
}

#[test]
fn every_key_of_the_schema_stands_in_default_toml() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (settings, page) = (text("config/default.toml"), text("docs/providers.md"));
    let stands = |text: &str, key: &str| {
        let key_of = |part: &str| {
            part.trim_start_matches(['#', ' ', '{', ',', '['])
                .trim_end()
                .to_owned()
        };
        let assigned = text
            .split('=')
            .any(|part| key_of(part).rsplit([' ', '\n', '{', ',']).next() == Some(key));
        let table = [
            format!("[{key}]"),
            format!("[{key}."),
            format!(".{key}]"),
            format!("[[{key}]]"),
        ];
        assigned || table.iter().any(|table| text.contains(table.as_str()))
    };
    let (mut seen, mut missing) = (0, Vec::new());
    for file in files(&root.join("src/config")) {
        let name = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        // A provider's file and what it says of files, of its own log and of its chat have pages of their own.
        let is_of_channel = file.to_string_lossy().contains("config/reply/");
        let (text, of) = match name.as_str() {
            _ if is_of_channel => (text("docs/channels.md"), "docs/channels.md"),
            "chat.rs" => (text("docs/channels.md"), "docs/channels.md"),
            "provider.rs" | "fetch.rs" | "reconcile.rs" => {
                (format!("{page}{settings}"), "docs/providers.md")
            }
            _ => (settings.clone(), "config/default.toml"),
        };
        for key in keys(&file) {
            seen += 1;
            let has_row = of.ends_with(".md") && text.contains(&format!("`{key}`"));
            if !has_row && !stands(&text, &key) {
                missing.push(format!("{key} ({name}) is not in {of}"));
            }
        }
    }
    assert!(seen >= 120, "saw {seen} keys");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_key_of_the_schema_stands_in_a_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages: String = pages().iter().map(|page| text(page)).collect();
    let words: BTreeSet<&str> = pages
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    let of_file = |file: &PathBuf| {
        let name = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        keys(file).into_iter().map(move |key| (name.clone(), key))
    };
    let keys: Vec<(String, String)> = files(&root.join("src/config"))
        .iter()
        .flat_map(of_file)
        .collect();
    let missing: Vec<&(String, String)> = keys
        .iter()
        .filter(|(_, key)| !words.contains(key.as_str()))
        .collect();
    assert!(missing.is_empty(), "no page names {missing:?}");
}

#[test]
fn every_metric_stands_in_one_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code =
        std::fs::read_to_string(root.join("src/telemetry/definition.rs")).expect("a source file");
    let code = code
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let names: BTreeSet<&str> = code
        .split("\"sluicegate_")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    assert!(names.len() >= 25, "{names:?}");
    let page = text("docs/metrics.md");
    let is_there = |name: &str| {
        page.lines()
            .any(|line| line.starts_with(&format!("| `sluicegate_{name}")))
    };
    let missing: Vec<&&str> = names.iter().filter(|name| !is_there(name)).collect();
    assert!(
        missing.is_empty(),
        "docs/metrics.md has no line for {missing:?}"
    );
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `sluicegate_"));
    let rows = rows.filter_map(|row| row.split(['{', '`']).next());
    let gone: Vec<&str> = rows.filter(|row| !names.contains(row)).collect();
    assert!(gone.is_empty(), "no metric is called {gone:?}");
}
