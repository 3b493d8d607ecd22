//! Judge requests by a provider's file: a line of JSON in, a line of JSON out. Starts nothing and asks nobody.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};

use super::super::CommandResult;
use super::fixture::Fixture;
use super::known;
use crate::config::{Config, find_provider};
use crate::model::{Clock, Timestamp};
use crate::verify::{ChallengeResponse, DryRun};

/// The longest line: a body of 25 MiB as base64, and room for the rest.
const LONGEST: u64 = 40 * 1024 * 1024;

#[derive(Debug, Args)]
pub(in crate::cli) struct Try {
    /// The file with the requests, one JSON object a line; - is standard input
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
    /// A configuration file, for the providers of its folder
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(command: &Try) -> CommandResult {
    let Some(config) = known(command.config.as_deref()) else {
        return Ok(ExitCode::FAILURE);
    };
    let mut input: Box<dyn BufRead> = if command.requests.as_os_str() == "-" {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = std::fs::File::open(&command.requests)
            .with_context(|| format!("cannot read {}", command.requests.display()))?;
        Box::new(BufReader::new(file))
    };
    let mut out = std::io::stdout().lock();
    let clock = Clock::system();
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut input)
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .context("cannot read the requests")?;
        if length == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        if line.len() as u64 == LONGEST {
            anyhow::bail!("a line is longer than {LONGEST} bytes");
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        writeln!(out, "{}", judge(&config, &line, clock.now()))?;
        out.flush()?;
    }
}

/// The line that answers a line.
fn judge(config: &Config, line: &[u8], now: Timestamp) -> Value {
    let not_tried = |id: Value, code: &str, why: String| json!({ "id": id, "verdict": "refused", "code": code, "secret": null, "detail": why });
    let json: Value = match serde_json::from_slice(line) {
        Ok(json) => json,
        Err(error) => {
            return not_tried(
                Value::Null,
                "malformed_request",
                format!("the line is no JSON: {error}"),
            );
        }
    };
    let id = json.get("id").cloned().unwrap_or(Value::Null);
    let fixture = match Fixture::read(&json, now) {
        Ok(fixture) => fixture,
        Err(error) => return not_tried(id, "malformed_request", format!("{error:#}")),
    };
    let name = fixture.provider.as_deref().unwrap_or_default();
    let Some(written) =
        find_provider(&config.providers, name).and_then(|provider| fixture.written(provider))
    else {
        return not_tried(
            id,
            "not_attempted",
            format!("no provider is called {name:?}"),
        );
    };
    let trial = match DryRun::compile(written) {
        Ok(trial) => trial,
        Err(problems) => {
            let why: Vec<&str> = problems
                .iter()
                .map(|problem| problem.what.as_str())
                .collect();
            return not_tried(id, "not_attempted", why.join("; "));
        }
    };
    let judged = trial.judge(&fixture.received, fixture.now);
    let mut answer = Map::new();
    answer.insert("id".into(), id);
    answer.insert("verdict".into(), judged.verdict.into());
    answer.insert("code".into(), judged.code.into());
    answer.insert("secret".into(), judged.secret.into());
    if let Some(reply) = judged.reply {
        answer.insert("reply".into(), view(&reply));
    }
    if let Some(cause) = judged.cause {
        answer.insert("detail".into(), cause.into());
    }
    Value::Object(answer)
}

fn view(reply: &ChallengeResponse) -> Value {
    let mut headers = Map::new();
    if !reply.body.is_empty() {
        headers.insert("content-type".into(), reply.content_type.clone().into());
    }
    for (name, value) in &reply.headers {
        headers.insert(name.clone(), value.clone().into());
    }
    json!({ "status": reply.status, "headers": headers, "body": String::from_utf8_lossy(&reply.body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_answered_whatever_stands_in_it() {
        let config = known(None).unwrap();
        let now = Timestamp::from_seconds(1_700_000_000);
        let ask = |line: &str| judge(&config, line.as_bytes(), now);
        let signed = r#"{"id":1,"provider":"github","method":"POST","path":"/h","url":"https://x/h","headers":{"X-Hub-Signature-256":"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},"body_base64":"SGVsbG8sIFdvcmxkIQ==","secrets":["another","It's a Secret to Everybody"]}"#;
        let good = ask(signed);
        assert_eq!(
            good,
            json!({ "id": 1, "verdict": "verified", "code": null, "secret": "secrets[1]" })
        );
        let bad = ask(&signed.replace("SGVsbG8", "aGVsbG8"));
        assert_eq!(
            (&bad["verdict"], &bad["code"]),
            (&json!("refused"), &json!("wrong_signature"))
        );
        assert!(!bad.to_string().contains("Everybody"));
        for (line, code) in [
            ("{", "malformed_request"),
            ("[]", "malformed_request"),
            (r#"{"provider":"no-such"}"#, "not_attempted"),
            (r#"{"provider":"github"}"#, "not_attempted"),
            (r#"{"provider":"github","secret":""}"#, "not_attempted"),
            (r#"{"provider":"github","secret":"s"}"#, "missing_signature"),
        ] {
            let answer = ask(line);
            assert_eq!(
                (&answer["verdict"], &answer["code"]),
                (&json!("refused"), &json!(code)),
                "{line}"
            );
        }
    }

    #[test]
    fn a_handshake_shows_its_reply() {
        let config = known(None).unwrap();
        let line = r#"{"id":"h","provider":"x","method":"GET","url":"https://x.example/h?crc_token=abc","secret":"consumer"}"#;
        let answer = judge(
            &config,
            line.as_bytes(),
            Timestamp::from_seconds(1_700_000_000),
        );
        assert_eq!(answer["reply"]["status"], 200);
        assert_eq!(
            answer["reply"]["headers"]["content-type"],
            "application/json"
        );
        assert!(
            answer["reply"]["body"]
                .as_str()
                .unwrap()
                .contains("sha256="),
            "{answer}"
        );
    }
}
