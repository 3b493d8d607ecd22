//! Every shipped, every valid and every wrong configuration: a case is a file. In a wrong one, `#~ TEXT` at the end
//! of a line says what `sluicegate check` must say of that line; `#~N TEXT` alone on a line speaks of line N.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::world::binary;

fn check(file: &Path) -> Output {
    Command::new(binary())
        .args(["check", "--config"])
        .arg(file)
        .env("SLUICEGATE_ADMIN_TOKEN", "a-token-for-the-admin-api")
        .env("XPANDER_API_KEY", "upstream-key")
        .env("GITHUB_WEBHOOK_SECRET", "It's a Secret to Everybody")
        .env("TELEGRAM_SECRET_TOKEN", "telegram-secret-token")
        .env(
            "STRIPE_WEBHOOK_SECRET",
            "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH",
        )
        .output()
        .expect("check runs")
}

fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn check_names_every_problem_of_every_wrong_file_with_its_line() {
    let files = cases("tests/config/invalid");
    assert!(files.len() >= 15, "saw {} wrong files", files.len());
    let mut failures = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("a text");
        let mut wanted = Vec::new();
        for (number, line) in text.lines().enumerate() {
            for mark in line.split("#~").skip(1) {
                let (digits, rest) =
                    mark.split_at(mark.find(' ').expect("a blank behind the mark"));
                wanted.push((digits.parse().unwrap_or(number + 1), rest.trim().to_owned()));
            }
        }
        assert!(!wanted.is_empty(), "{} marks no line", file.display());
        let output = check(file);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.code() != Some(1) {
            failures.push(format!(
                "{}: exit {:?}",
                file.display(),
                output.status.code()
            ));
        }
        // A problem is its line and the indented hint below it.
        let mut blocks: Vec<String> = Vec::new();
        for line in said.lines() {
            match blocks.last_mut() {
                Some(block) if line.starts_with(' ') => block.push_str(line),
                _ => blocks.push(line.to_owned()),
            }
        }
        for (line, text) in wanted {
            let place = format!("{}:{line}: ", file.display());
            if !blocks
                .iter()
                .any(|block| block.starts_with(&place) && block.contains(&text))
            {
                failures.push(format!("{place}nothing says {text:?} in:\n{said}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn check_takes_every_good_file() {
    let files = [cases("tests/config/valid"), cases("config")].concat();
    assert!(files.len() >= 3, "saw {} good files", files.len());
    for file in files.iter().filter(|file| !file.ends_with("default.toml")) {
        let output = check(file);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}: {said}", file.display());
        assert!(!said.contains("error"), "{}: {said}", file.display());
    }
}

#[test]
fn check_never_prints_a_secret() {
    for file in [cases("tests/config/invalid"), cases("tests/config/valid")].concat() {
        let output = check(&file);
        for text in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(text);
            for secret in [
                "hunter22",
                "a-long-enough-secret",
                "upstream-key",
                "It's a Secret",
            ] {
                assert!(!text.contains(secret), "{}: {text}", file.display());
            }
        }
    }
}

#[test]
fn check_prints_json_on_demand() {
    let file = &cases("tests/config/invalid")[0];
    let output = Command::new(binary())
        .args(["check", "--json", "--config"])
        .arg(file)
        .output()
        .expect("check runs");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["good"], false);
    assert!(
        answer["problems"][0]["line"]
            .as_u64()
            .is_some_and(|line| line > 0),
        "{answer}"
    );
}

/// Runs a command in a folder of its own: exit code, standard output, standard error.
fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary())
        .args(arguments)
        .current_dir(folder)
        .env("SLUICEGATE_ADMIN_TOKEN", "a-token-for-the-admin-api")
        .env("XPANDER_API_KEY", "upstream-key")
        .env("GITHUB_WEBHOOK_SECRET", "It's a Secret to Everybody")
        .env("TELEGRAM_SECRET_TOKEN", "telegram-secret-token")
        .output()
        .expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

const GOOD: &str = "[server]\npublic_url = \"https://hooks.example.com\"\n[dropin]\nenabled = false\n\
                    [upstream]\napi_key = \"env:XPANDER_API_KEY\"\n[sources.gh]\nprovider = \"github\"\n\
                    secrets = [\"env:GITHUB_WEBHOOK_SECRET\"]\nagent = \"support\"\n";

#[test]
fn check_takes_a_file_prints_the_addresses_and_denies_warnings_on_demand() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |text: &str| {
        std::fs::write(folder.path().join("g.toml"), text).expect("the folder takes files")
    };
    write(GOOD);
    let (code, out, err) = run(folder.path(), &["check", "g.toml", "--deny-warnings"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.contains("https://hooks.example.com/hooks/gh") && out.contains("github"),
        "{out}"
    );
    assert_eq!(
        run(folder.path(), &["check", "--config", "g.toml"]).0,
        Some(0)
    );
    write(&GOOD.replace("\"support\"", "\"TODO\""));
    assert_eq!(run(folder.path(), &["check", "g.toml"]).0, Some(0));
    let (code, out, err) = run(folder.path(), &["check", "g.toml", "--deny-warnings"]);
    assert!(
        code == Some(1) && out.contains("\"TODO\" stands where"),
        "{out}{err}"
    );
}

#[test]
fn without_a_file_check_says_what_to_do_and_init_does_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, out, _) = run(folder.path(), &["check"]);
    assert!(code == Some(1) && out.contains("sluicegate init"), "{out}");
    assert_eq!(run(folder.path(), &["init"]).0, Some(0));
    let (code, out, err) = run(folder.path(), &["check"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(
        run(folder.path(), &["init"]).0,
        Some(1),
        "what is there stays"
    );
    assert!(
        run(folder.path(), &["init", "--defaults"])
            .1
            .contains("max_body")
    );
}

#[test]
fn a15_a16_a17_a19_check_says_what_cannot_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = |text: &[u8]| {
        std::fs::write(folder.path().join("g.toml"), text).expect("the folder takes files");
        let (code, out, _) = run(folder.path(), &["check", "g.toml"]);
        (code, out)
    };
    for (line, is_error, wanted) in [
        (
            "params_mapping = { prompt = \"items[0].id\" }",
            false,
            "did you mean \"items.0.id\"?",
        ),
        (
            "params_mapping = { prompt = \"body.x\" }",
            false,
            "did you mean \"x\"?",
        ),
        (
            "params_mapping = { prompt = \"$.message[\" }",
            true,
            "a [ in it is not closed",
        ),
        (
            "prompt = \"{{ body.x | foo }}\"",
            false,
            "there is no filter foo",
        ),
        (
            "prompt = \"Hi ${body.user.name}\"",
            false,
            "{{ body.user.name }}",
        ),
        (
            "events = [\"pull_request\"]",
            false,
            "did you mean pull_request.*?",
        ),
        (
            "events = [\"issue.opened\"]",
            false,
            "did you mean issues.opened?",
        ),
        (
            "events = [\"pull-request.opened\"]",
            false,
            "did you mean pull_request.opened?",
        ),
        (
            "verify = { signature = \"header:X-Other\" }",
            false,
            "replaces the whole check of the provider github",
        ),
        (
            "verify = { scheme = \"none\" }",
            false,
            "nothing proves who it is",
        ),
        ("when = \"false\"", false, "when never holds"),
        ("getter = \"$.result\"", false, "did you mean \"result\"?"),
    ] {
        let (code, out) = said(format!("{GOOD}{line}\n").as_bytes());
        assert!(
            code == Some(i32::from(is_error)) && out.contains(wanted) && out.contains("g.toml:11"),
            "{line}\n{out}"
        );
    }
    for good in [
        "events = [\"issues.opened\", \"push\", \"pull_request.*\", \"*\"]",
        "params_mapping = { prompt = \"items.0.id\" }",
    ] {
        let (code, out) = said(format!("{GOOD}{good}\n").as_bytes());
        let quiet = !out.contains("no known event type") && !out.contains("other programs");
        assert!(code == Some(0) && quiet, "{good}\n{out}");
    }
    let (code, out) = said(&[GOOD.as_bytes(), b"prompt = \"caf\xe9\"\n"].concat());
    assert!(
        code == Some(1) && out.contains("g.toml:11") && out.contains("not UTF-8"),
        "{out}"
    );
    // One mistake, one message.
    let (_, out) = said(GOOD.replace("secrets =", "secret =").as_bytes());
    assert_eq!(out.matches("error").count(), 1, "{out}");
    let (_, out) = said(GOOD.replace("provider =", "provder =").as_bytes());
    assert_eq!(out.matches("error").count(), 1, "{out}");
}

#[tokio::test]
async fn check_online_asks_the_upstream_for_the_key_and_each_agent() {
    let upstream =
        crate::world::Upstream::start(&["--agents", "support,other", "--keys", "upstream-key"])
            .await;
    let folder = tempfile::tempdir().expect("a folder");
    let good = GOOD.replace(
        "[upstream]\n",
        &format!("[upstream]\nbase_url = \"http://{}\"\n", upstream.address),
    );
    let said = |text: &str| {
        std::fs::write(folder.path().join("g.toml"), text).expect("the folder takes files");
        run(folder.path(), &["check", "g.toml", "--online"])
    };
    let (code, out, err) = said(&good);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.contains("takes upstream.api_key") && out.contains("has agent/support"),
        "{out}"
    );
    let (code, out, _) = said(&good.replace("\"support\"", "\"nobody\""));
    assert!(
        code == Some(1) && out.contains("has no agent/nobody") && out.contains("g.toml:11"),
        "{out}"
    );
    let (code, out, _) = said(&good.replace("env:XPANDER_API_KEY", "env:GITHUB_WEBHOOK_SECRET"));
    assert!(
        code == Some(1) && out.contains("refuses upstream.api_key"),
        "{out}"
    );
    let (code, out, _) = said(&good.replace(
        &upstream.address.to_string(),
        &crate::world::free_address().to_string(),
    ));
    assert!(code == Some(1) && out.contains("does not answer"), "{out}");
}

#[test]
fn commands_for_one_source_do_without_the_secrets_of_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let more = "[sources.other]\nprovider = \"github\"\nsecrets = [\"env:SLUICEGATE_NOBODY_SET_THIS\"]\nagent = \"a\"\n";
    let text = format!("{GOOD}{more}").replace("env:XPANDER_API_KEY", "env:SLUICEGATE_NOR_THIS");
    std::fs::write(folder.path().join("g.toml"), text).expect("the folder takes files");
    let (code, out, err) = run(
        folder.path(),
        &["send", "gh", "--config", "g.toml", "--print"],
    );
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, _, err) = run(
        folder.path(),
        &["send", "other", "--config", "g.toml", "--print"],
    );
    assert!(
        code == Some(1) && err.contains("SLUICEGATE_NOBODY_SET_THIS") && !err.contains("NOR_THIS"),
        "{err}"
    );
    let (code, out, _) = run(folder.path(), &["check", "g.toml"]);
    assert!(
        code == Some(1) && out.matches("SLUICEGATE_NOBODY_SET_THIS is not set").count() == 1,
        "{out}"
    );
}

#[test]
fn a17_event_types_of_other_providers_are_known_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    for (provider, events, wanted) in [
        ("slack", "message.channels", "did you mean message?"),
        ("slack", "app_mention", ""),
        ("telegram", "messages", "did you mean message?"),
        ("linear", "issue.create", "did you mean Issue.create?"),
        ("gitlab", "push", "Push Hook"),
        ("gitea", "issues.opened", "did you mean issues?"),
        ("bitbucket", "repo:push", ""),
        ("sentry", "issue", "its types have 2 words"),
    ] {
        let text = format!(
            "[server]\npublic_url = \"https://hooks.example.com\"\n[dropin]\nenabled = false\n[upstream]\n\
             api_key = \"env:XPANDER_API_KEY\"\n[sources.s]\nprovider = \"{provider}\"\n\
             secrets = [\"env:GITHUB_WEBHOOK_SECRET\"]\nagent = \"a\"\nevents = [\"{events}\"]\n"
        );
        std::fs::write(folder.path().join("g.toml"), text).expect("the folder takes files");
        let (code, out, _) = run(folder.path(), &["check", "g.toml"]);
        let is_right = if wanted.is_empty() {
            !out.contains("no known event type")
        } else {
            out.contains(wanted)
        };
        assert!(code == Some(0) && is_right, "{provider} {events}\n{out}");
    }
}
