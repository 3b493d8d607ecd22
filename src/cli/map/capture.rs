//! A captured request: as it stood on the wire, or as JSON.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use crate::model::{Received, RequestId, Timestamp};

/// A captured request.
#[derive(Debug)]
pub(super) struct Capture {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Capture {
    /// Reads one; what is wrong with it otherwise.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.trim_ascii_start().starts_with(b"{") {
            Self::from_json(bytes)
        } else {
            Self::from_wire(bytes)
        }
    }

    fn from_wire(bytes: &[u8]) -> Result<Self, String> {
        let find = |end: &[u8]| {
            bytes
                .windows(end.len())
                .position(|window| window == end)
                .map(|at| (at, at + end.len()))
        };
        // A capture saved by an editor often has plain line ends.
        let ends = [find(b"\r\n\r\n"), find(b"\n\n")];
        let (head, body) = match ends.into_iter().flatten().min() {
            Some((head, body)) => (&bytes[..head], &bytes[body..]),
            None => (bytes, &[][..]),
        };
        let head = std::str::from_utf8(head).map_err(|_| "its head is not UTF-8".to_owned())?;
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default();
        let mut words = first.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err("its first line is not like: POST /path HTTP/1.1".into());
        };
        let mut headers = HeaderMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("a header line has no colon: {line:?}"))?;
            add(&mut headers, name.trim(), value.trim())?;
        }
        Self::new(method, target, headers, Bytes::copy_from_slice(body))
    }

    fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let text = |key: &str, default: &str| {
            value
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or(default)
                .to_owned()
        };
        let mut headers = HeaderMap::new();
        let pairs: Vec<(&str, &Value)> = match value.get("headers") {
            Some(Value::Object(map)) => map
                .iter()
                .map(|(name, value)| (name.as_str(), value))
                .collect(),
            Some(Value::Array(list)) => {
                let pair = |pair: &'_ Value| {
                    pair.get(0).and_then(Value::as_str).is_some() && pair.get(1).is_some()
                };
                if !list.iter().all(pair) {
                    return Err("its headers are neither an object nor a list of pairs".into());
                }
                list.iter()
                    .filter_map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?)))
                    .collect()
            }
            _ => Vec::new(),
        };
        for (name, value) in pairs {
            add(
                &mut headers,
                name,
                value.as_str().unwrap_or(&value.to_string()),
            )?;
        }
        let body = match value.get("body") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(json) => json.to_string(),
        };
        Self::new(
            &text("method", "POST"),
            &text("url", "/"),
            headers,
            body.into(),
        )
    }

    /// An event as the admin API shows it, with its body.
    pub(super) fn of_event(event: &Value, body: Bytes) -> Result<Self, String> {
        let line = event["request_line"].as_str().unwrap_or_default();
        let (method, target) = line.split_once(' ').unwrap_or(("POST", line));
        let mut headers = HeaderMap::new();
        for pair in event["headers"].as_array().into_iter().flatten() {
            add(
                &mut headers,
                pair[0].as_str().unwrap_or_default(),
                pair[1].as_str().unwrap_or_default(),
            )?;
        }
        Self::new(method, target, headers, body)
    }

    fn new(method: &str, target: &str, headers: HeaderMap, body: Bytes) -> Result<Self, String> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("{method:?} is no method"))?;
        // What stands behind the host, where there is one.
        let target = match target.split_once("://") {
            Some((_, rest)) => match rest.find(['/', '?']) {
                Some(at) if rest[at..].starts_with('?') => format!("/{}", &rest[at..]),
                Some(at) => rest[at..].to_owned(),
                None => "/".to_owned(),
            },
            None => target.to_owned(),
        };
        Ok(Self {
            method,
            target,
            headers,
            body,
        })
    }

    /// As the stages see it.
    pub(super) fn received(&self, public_url: &str) -> Received {
        Received {
            id: RequestId::new(),
            at: Timestamp::default(),
            method: self.method.clone(),
            target: self.target.clone(),
            url: format!("{public_url}{}", self.target),
            headers: self.headers.clone(),
            body: self.body.clone(),
            peer: [127, 0, 0, 1].into(),
            certificate: None,
        }
    }
}

fn add(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        (Ok(name), Ok(value)) => drop(headers.append(name, value)),
        _ => return Err(format!("invalid header {name:?}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_from_the_wire_or_from_json() {
        let wire = "POST /hooks/a?x=1 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n\r\n{\"a\":\r\n\r\n1}";
        let json = r#"{"method":"POST","url":"https://h.example/hooks/a?x=1","headers":{"X-A":"1"},"body":{"a":1.50}}"#;
        let plain = "POST /hooks/a?x=1\nX-A: 1\n\n{}";
        for (text, body) in [
            (wire, "{\"a\":\r\n\r\n1}"),
            (json, r#"{"a":1.50}"#),
            (plain, "{}"),
        ] {
            let read = Capture::parse(text.as_bytes()).unwrap();
            assert_eq!(
                (read.method.as_str(), read.target.as_str()),
                ("POST", "/hooks/a?x=1")
            );
            assert_eq!(
                (&read.headers["x-a"], &read.body[..]),
                (&HeaderValue::from_static("1"), body.as_bytes())
            );
        }
        assert_eq!(
            Capture::parse(br#"{"url":"https://h?agent_id=a"}"#)
                .unwrap()
                .target,
            "/?agent_id=a"
        );
        for wrong in [
            "",
            "POST",
            "POST / HTTP/1.1\nno colon here\n\n",
            "{\"a\"",
            "{\"headers\":[1]}",
        ] {
            assert!(Capture::parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
