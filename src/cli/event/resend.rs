//! An event with changes, sent again as a new one of the same source, which reads it once more.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Map, Value, json};

use super::super::gateway::{Gateway, GatewayArgs, NOT_FOUND};
use super::super::sheet::Paper;
use super::super::{print, usage};
use super::EventName;

/// Options of a resend.
#[derive(Debug, Args)]
pub(in crate::cli) struct Resend {
    /// The event, like evt_0193ab12; it stays as it is
    #[arg(value_name = "ID")]
    id: EventName,
    /// A file with another body, or - for standard input; `event show ID --body` prints the one there is
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Another header, in place of those of its name
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// A header that is left away
    #[arg(long, value_name = "NAME")]
    without_header: Vec<String>,
    /// Show the request that would go out
    #[arg(long)]
    dry_run: bool,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) gateway: GatewayArgs,
}

impl Resend {
    pub(super) async fn run(
        &self,
        gateway: &Gateway,
        out: &mut impl Paper,
        talk: &mut impl Paper,
    ) -> anyhow::Result<u8> {
        let changes = self.changes()?;
        let dry_run = if self.dry_run { "?dry_run=true" } else { "" };
        let path = format!("/events/{}/resend{dry_run}", self.id);
        let Some(answer) = gateway
            .tell(&path, &changes)
            .await?
            .or_say(talk, &self.id.to_string())
        else {
            return Ok(NOT_FOUND);
        };
        if let Some(rule) = answer["filtered"].as_str() {
            print::say(
                talk,
                &format!("its source's filter holds it back: {}", print::line(rule)),
            );
        }
        if self.json {
            print::json(out, &answer)?;
        } else if self.dry_run {
            print::dry_run(out, &answer)?;
        } else {
            print::replayed(out, &answer)?;
        }
        out.flush()?;
        Ok(0)
    }

    fn changes(&self) -> anyhow::Result<Value> {
        let mut headers = Map::new();
        for line in &self.header {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| usage("--header is NAME: VALUE"))?;
            headers.insert(name.trim().to_owned(), value.trim().into());
        }
        for name in &self.without_header {
            headers.insert(name.trim().to_owned(), Value::Null);
        }
        let mut changes = json!({ "headers": headers });
        if let Some(file) = &self.body {
            match String::from_utf8(read(file)?) {
                Ok(text) => changes["body"] = text.into(),
                Err(bytes) => changes["body_base64"] = STANDARD.encode(bytes.as_bytes()).into(),
            }
        }
        Ok(changes)
    }
}

/// A file, or what comes in.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file.as_os_str() == "-" {
        let mut body = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut body)
            .context("cannot read standard input")?;
        return Ok(body);
    }
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
