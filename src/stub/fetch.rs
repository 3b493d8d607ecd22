//! Files of a run: fetched as the platform would fetch them, and reported by size and digest.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::net::Client;

/// Time limit for one file, and its largest size.
const TIME: Duration = Duration::from_secs(120);
const MOST: u64 = 4 << 30;

/// The links of a call's input.
pub(super) fn links(input: &Map<String, Value>) -> Vec<String> {
    let links = input.get("files").and_then(Value::as_array);
    links
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// A line for each link: its last segment, and the size and digest of what it leads to, or why it leads nowhere.
pub(super) async fn told(client: &Client, links: &[String]) -> String {
    let mut lines = String::new();
    for link in links {
        let path = link.split('?').next().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        let line = match tokio::time::timeout(TIME, fetched(client, link)).await {
            Ok(Ok((bytes, digest))) => format!("file {name} {bytes} bytes sha256 {digest}"),
            Ok(Err(why)) => format!("file {name} cannot be fetched: {why}"),
            Err(_) => format!("file {name} cannot be fetched in time"),
        };
        lines.push('\n');
        lines.push_str(&line);
    }
    lines
}

async fn fetched(client: &Client, link: &str) -> Result<(u64, String), String> {
    let request = Request::get(link)
        .body(Bytes::new())
        .map_err(|error| error.to_string())?;
    let answer = client
        .open(request, TIME)
        .await
        .map_err(|error| error.to_string())?;
    if answer.status() != http::StatusCode::OK {
        return Err(format!("it answers {}", answer.status().as_u16()));
    }
    let (mut body, mut digest, mut bytes) = (answer.into_body(), Sha256::new(), 0_u64);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("it was cut off: {error}"))?;
        if let Some(piece) = frame.data_ref() {
            bytes += piece.len() as u64;
            digest.update(piece);
        }
        if bytes > MOST {
            return Err("it is too large".into());
        }
    }
    Ok((bytes, hex::encode(digest.finalize())))
}
