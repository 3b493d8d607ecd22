//! Checks a provider's file that is new or was changed: everything that is wrong with it, and every kept request.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use super::super::{CommandResult, answer, say};
use super::fixture::Fixture;
use crate::config::{Problems, Provider, Table};
use crate::model::Timestamp;
use crate::verify::DryRun;

/// Address of the gateway in recorded requests, for providers that sign the address.
const PUBLIC: &str = "https://hooks.example.com";

/// Least number of refused requests among a provider's cases.
const REFUSED: usize = 5;

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckProvider {
    /// The provider's file
    file: PathBuf,
    /// The folder with its kept requests [default: tests/vectors/NAME]
    #[arg(long, value_name = "FOLDER")]
    vectors: Option<PathBuf>,
}

pub(super) fn run(check: &CheckProvider) -> CommandResult {
    let name = check
        .file
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let text = std::fs::read_to_string(&check.file)
        .with_context(|| format!("cannot read {}", check.file.display()))?;
    let problems = Problems::default();
    let table = Table::parse(&check.file.display().to_string(), &text, &problems);
    let provider = Provider::read(&name, &table, &problems);
    let mut wrong: Vec<String> = problems
        .into_sorted()
        .iter()
        .map(ToString::to_string)
        .collect();
    let folder = check
        .vectors
        .clone()
        .unwrap_or_else(|| Path::new("tests/vectors").join(&name));
    let (mut accepted, mut refused, mut proves) = (0, 0, true);
    for (place, json) in cases(&folder)? {
        match judge(&provider, &json) {
            Ok((good, proved)) => {
                *if good { &mut accepted } else { &mut refused } += 1;
                proves &= proved;
            }
            Err(what) => wrong.push(format!("{place}: {what:#}")),
        }
    }
    if accepted == 0 || (proves && refused < REFUSED) {
        wrong.push(format!(
            "{}: {accepted} requests that are accepted and {refused} that are refused; it takes one and {REFUSED}: \
             tampered body, wrong secret, stale, missing, cut, wrong prefix",
            folder.display()
        ));
    }
    for what in &wrong {
        answer(what)?;
    }
    if wrong.is_empty() {
        say(&format!(
            "{}: good; {accepted} accepted, {refused} refused",
            check.file.display()
        ));
        Ok(ExitCode::SUCCESS)
    } else {
        say(&format!("{}: {} wrong", check.file.display(), wrong.len()));
        Ok(ExitCode::FAILURE)
    }
}

/// The cases in a folder: a file is one of them, or a list.
fn cases(folder: &Path) -> anyhow::Result<Vec<(String, Value)>> {
    let mut paths = Vec::new();
    let files = std::fs::read_dir(folder).with_context(|| {
        format!(
            "cannot read {}, where the requests are kept",
            folder.display()
        )
    })?;
    for file in files {
        paths.push(file?.path());
    }
    paths.sort();
    let mut all = Vec::new();
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
    {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let json: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is no JSON", path.display()))?;
        match json {
            Value::Array(list) => {
                all.extend(
                    list.into_iter()
                        .map(|case| (format!("{}: {}", path.display(), case["name"]), case)),
                );
            }
            case => all.push((path.display().to_string(), case)),
        }
    }
    Ok(all)
}

/// Judges a case: true if it is accepted, and true if the provider checks anything at all.
fn judge(provider: &Provider, json: &Value) -> anyhow::Result<(bool, bool)> {
    let mut fixture = Fixture::read(json, Timestamp::default())?;
    if fixture.received.url.is_empty() {
        fixture.received.url = format!("{PUBLIC}{}", fixture.received.target);
    }
    let written = fixture
        .written(provider)
        .context("the file has no [verify] section")?;
    let trial = DryRun::compile(written).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", all.join("\n"))
    })?;
    let judged = trial.judge(&fixture.received, fixture.now);
    let good = json["expect"]["verdict"] == "accept";
    anyhow::ensure!(
        good == (judged.verdict != "refused"),
        "it is {} ({}) and not as expected",
        judged.verdict,
        judged.cause.or(judged.secret).unwrap_or_default()
    );
    Ok((good, judged.verdict != "observed"))
}
