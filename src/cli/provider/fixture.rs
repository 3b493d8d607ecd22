//! A request written down, with what it is to be judged by: a line for `provider try`, a kept fixture of a provider, or a
//! request as it stood on the wire.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use crate::config::{Provider, Secret, Table, Value as Toml};
use crate::model::{Received, RequestId, Timestamp};
use crate::verify::CheckConfig;

/// A request, and what it is to be judged by.
#[derive(Debug)]
pub(in crate::cli) struct Fixture {
    pub(in crate::cli) received: Received,
    pub(in crate::cli) provider: Option<String>,
    secrets: Vec<Secret>,
    public_keys: Vec<Secret>,
    pub(in crate::cli) values: Vec<(String, String)>,
    pub(in crate::cli) now: Timestamp,
}

impl Fixture {
    /// Reads the JSON form. `now` is the time where it names none.
    pub(in crate::cli) fn read(json: &Value, now: Timestamp) -> anyhow::Result<Self> {
        let object = json
            .as_object()
            .ok_or_else(|| anyhow!("it is no JSON object"))?;
        let text = |key: &str| match object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(anyhow!("{key} is no text")),
        };
        let body = match (text("body_base64")?, text("body")?) {
            (Some(body), None) => STANDARD.decode(body).context("body_base64 is no base64")?,
            (None, Some(body)) => body.as_bytes().to_vec(),
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => bail!("it has body and body_base64"),
        };
        let url = text("url")?.unwrap_or_default().to_owned();
        let mut target = match text("path")?.or(text("target")?) {
            Some(path) if path.starts_with('/') => path.to_owned(),
            Some(path) => format!("/{path}"),
            None => path_of(&url).to_owned(),
        };
        if let (false, Some((_, query))) = (target.contains('?'), url.split_once('?')) {
            target = format!("{target}?{query}");
        }
        let now = match object.get("now_unix") {
            None | Some(Value::Null) => match text("now")? {
                Some(text) => Timestamp::parse(text).ok_or_else(|| anyhow!("now is no time"))?,
                None => now,
            },
            Some(number) => {
                let seconds = number
                    .as_f64()
                    .filter(|s| s.abs() < 9.0e12)
                    .ok_or_else(|| anyhow!("now_unix is no time"))?;
                Timestamp::from_millis((seconds * 1000.0).round() as i64)
            }
        };
        let method = text("method")?.unwrap_or("POST");
        let received = Received {
            id: RequestId::new(),
            at: now,
            method: Method::from_bytes(method.as_bytes()).map_err(|_| anyhow!("invalid method"))?,
            url,
            target,
            headers: headers(object.get("headers"))?,
            body: body.into(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            certificate: None,
        };
        let mut secrets = named("secret", object.get("secret"))?;
        secrets.extend(named("secrets", object.get("secrets"))?);
        let config = object.get("config").or(object.get("values"));
        Ok(Self {
            received,
            provider: text("provider")?.map(str::to_owned),
            secrets,
            public_keys: named("public_key", object.get("public_key"))?,
            values: table(config)?,
            now,
        })
    }

    /// Reads a request as it stood on the wire: request line, headers, an empty line, the body.
    pub(in crate::cli) fn raw(bytes: &[u8], now: Timestamp) -> anyhow::Result<Self> {
        let find = |mark: &[u8]| {
            bytes
                .windows(mark.len())
                .position(|window| window == mark)
                .map(|at| (at, mark.len()))
        };
        // Whichever comes first ends the head.
        let ends = [find(b"\r\n\r\n"), find(b"\n\n")];
        let (end, gap) = ends.into_iter().flatten().min().unwrap_or((bytes.len(), 0));
        let head =
            std::str::from_utf8(&bytes[..end]).context("the head of the request is no text")?;
        let mut lines = head.lines();
        let mut words = lines.next().unwrap_or_default().split_ascii_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            bail!("the first line is no request line, such as: POST /hooks/name HTTP/1.1");
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| anyhow!("a header has no colon: {line:?}"))?;
            put(&mut headers, name.trim(), value.trim())?;
        }
        let target = if target.starts_with('/') {
            target
        } else {
            path_of(target)
        };
        Ok(Self {
            received: Received {
                id: RequestId::new(),
                at: now,
                method: Method::from_bytes(method.as_bytes())
                    .map_err(|_| anyhow!("invalid method"))?,
                target: target.to_owned(),
                url: String::new(),
                headers,
                body: bytes[end + gap..].to_vec().into(),
                peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
                certificate: None,
            },
            provider: None,
            secrets: Vec::new(),
            public_keys: Vec::new(),
            values: Vec::new(),
            now,
        })
    }

    /// The check of a provider's file that judges the fixture; `None` if the file has no `[verify]` section.
    pub(in crate::cli) fn written(&self, provider: &Provider) -> Option<CheckConfig> {
        let uses = provider
            .verify
            .as_ref()
            .map_or(SecretKinds::Secrets, SecretKinds::of);
        let secrets = match uses {
            SecretKinds::Secrets => self.secrets.clone(),
            SecretKinds::Pairs if self.public_keys.is_empty() => self.secrets.clone(),
            SecretKinds::Pairs => self.public_keys.clone(),
            SecretKinds::Both => self
                .secrets
                .iter()
                .chain(&self.public_keys)
                .cloned()
                .collect(),
        };
        CheckConfig::of_provider(provider, secrets, self.values.clone())
    }
}

/// Kinds of secrets that a scheme needs.
enum SecretKinds {
    Secrets,
    Pairs,
    Both,
}

impl SecretKinds {
    fn of(verify: &Table) -> Self {
        let text = |key: &str| match verify.get(key).map(|node| &node.value) {
            Some(Toml::Text(text)) => text.clone(),
            _ => String::new(),
        };
        match text("scheme").as_str() {
            "ed25519" | "ecdsa-p256" | "rsa-pkcs1" | "rsa-pss" => Self::Pairs,
            "jwt" => {
                let words: Vec<String> = match verify.get("algorithms").map(|node| &node.value) {
                    Some(Toml::List(list)) => list
                        .iter()
                        .filter_map(|node| match &node.value {
                            Toml::Text(text) => Some(text.clone()),
                            _ => None,
                        })
                        .collect(),
                    _ => vec![text("algorithms")],
                };
                let hmac = words.iter().filter(|word| word.starts_with("HS")).count();
                match hmac {
                    0 => Self::Pairs,
                    n if n == words.len() => Self::Secrets,
                    _ => Self::Both,
                }
            }
            _ => Self::Secrets,
        }
    }
}

fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find(['/', '?']).map_or("/", |at| &rest[at..])
}

/// Headers as an object, whose values may be lists, or as a list of pairs.
fn headers(json: Option<&Value>) -> anyhow::Result<HeaderMap> {
    let mut map = HeaderMap::new();
    let mut add = |name: &str, value: &Value| match value {
        Value::String(text) => put(&mut map, name, text),
        Value::Number(number) => put(&mut map, name, &number.to_string()),
        _ => Err(anyhow!("the header {name:?} is no text")),
    };
    match json {
        None | Some(Value::Null) => {}
        Some(Value::Object(entries)) => {
            for (name, value) in entries {
                match value {
                    Value::Array(lines) => lines.iter().try_for_each(|line| add(name, line))?,
                    line => add(name, line)?,
                }
            }
        }
        Some(Value::Array(pairs)) => {
            for pair in pairs {
                match pair.as_array().map(Vec::as_slice) {
                    Some([Value::String(name), value]) => add(name, value)?,
                    _ => bail!("headers is no list of pairs"),
                }
            }
        }
        Some(_) => bail!("headers is neither an object nor a list of pairs"),
    }
    Ok(map)
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) -> anyhow::Result<()> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| anyhow!("{name:?} is no name of a header"))?;
    let value = HeaderValue::from_bytes(value.as_bytes())
        .map_err(|_| anyhow!("the header {name} cannot be sent so"))?;
    headers.append(parsed, value);
    Ok(())
}

/// Secrets by name: one text, a list whose members go by their number, or an object whose members go by their key.
fn named(key: &str, json: Option<&Value>) -> anyhow::Result<Vec<Secret>> {
    let one = |name: String, value: &Value| match value {
        Value::String(text) => Ok(Secret::new(name, text.as_str())),
        // A key that is JSON, such as a JWK, need not be quoted.
        Value::Object(_) => Ok(Secret::new(name, value.to_string())),
        _ => Err(anyhow!("{name} is no text")),
    };
    match json {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list
            .iter()
            .enumerate()
            .map(|(number, value)| one(format!("{key}[{number}]"), value))
            .collect(),
        Some(Value::Object(entries)) if key == "secrets" => entries
            .iter()
            .map(|(name, value)| one(name.clone(), value))
            .collect(),
        Some(value) => Ok(vec![one(key.to_owned(), value)?]),
    }
}

fn table(json: Option<&Value>) -> anyhow::Result<Vec<(String, String)>> {
    let entries = match json {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(entries)) => entries,
        Some(_) => bail!("config is no object"),
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Ok(entries
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_of_a_request_is_read() {
        let now = Timestamp::from_seconds(5);
        let fixture = Fixture::read(
            &json!({ "method": "POST", "url": "https://x.example/hooks/a?b=1", "headers": { "A": ["1", "2"], "B": 3 },
                     "body_base64": "aGk=", "secrets": ["s", "t"], "config": { "n": 7 }, "now_unix": 1.5 }),
            now,
        )
        .unwrap();
        assert_eq!(
            (fixture.received.target.as_str(), &fixture.received.body[..]),
            ("/hooks/a?b=1", &b"hi"[..])
        );
        assert_eq!(fixture.received.headers.get_all("a").iter().count(), 2);
        assert_eq!(
            (fixture.now.millis(), fixture.secrets[1].name()),
            (1500, "secrets[1]")
        );
        assert_eq!(fixture.values, [("n".to_owned(), "7".to_owned())]);
        let pairs = Fixture::read(&json!({ "path": "/p", "headers": [["A", "1"]] }), now).unwrap();
        assert_eq!((pairs.received.target.as_str(), pairs.now), ("/p", now));
        for raw in [
            "POST /h?a=1 HTTP/1.1\r\nA: b\r\n\r\nbody\n\nmore",
            "POST /h?a=1 HTTP/1.1\nA: b\n\nbody\n\nmore",
        ] {
            let fixture = Fixture::raw(raw.as_bytes(), now).unwrap();
            assert_eq!(
                (fixture.received.target.as_str(), &fixture.received.body[..]),
                ("/h?a=1", &b"body\n\nmore"[..])
            );
        }
        for wrong in [
            json!([]),
            json!({ "body": 1 }),
            json!({ "headers": { "a b": "c" } }),
            json!({ "now_unix": "x" }),
        ] {
            assert!(Fixture::read(&wrong, now).is_err(), "{wrong}");
        }
    }
}
