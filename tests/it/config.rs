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
        .env("STRIPE_WEBHOOK_SECRET", "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH")
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
                let (digits, rest) = mark.split_at(mark.find(' ').expect("a blank behind the mark"));
                wanted.push((digits.parse().unwrap_or(number + 1), rest.trim().to_owned()));
            }
        }
        assert!(!wanted.is_empty(), "{} marks no line", file.display());
        let output = check(file);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.code() != Some(1) {
            failures.push(format!("{}: exit {:?}", file.display(), output.status.code()));
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
            if !blocks.iter().any(|block| block.starts_with(&place) && block.contains(&text)) {
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
            for secret in ["hunter22", "a-long-enough-secret", "upstream-key", "It's a Secret"] {
                assert!(!text.contains(secret), "{}: {text}", file.display());
            }
        }
    }
}

#[test]
fn check_prints_json_on_demand() {
    let file = &cases("tests/config/invalid")[0];
    let output = Command::new(binary()).args(["check", "--json", "--config"]).arg(file).output().expect("check runs");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["good"], false);
    assert!(answer["problems"][0]["line"].as_u64().is_some_and(|line| line > 0), "{answer}");
}
