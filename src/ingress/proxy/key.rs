//! The caller's key: found among the gateway's own, judged by what it is good for, exchanged for the upstream's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request;
use percent_encoding::percent_decode;

use super::Proxy;
use super::allow::{self, CallTarget, OpenedCall};
use crate::config::{GatewayKey, Secret};
use crate::limit::{LimitReport, RateLimits};
use crate::model::{Refusal, Timestamp, UpstreamIds};
use crate::source::Keyring;

/// Header with the caller's key.
pub(super) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A request whose key is to be judged.
pub(super) struct KeyedRequest<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) head: &'a request::Parts,
    /// The path that goes upstream.
    pub(super) path_upstream: &'a str,
    pub(super) now: Timestamp,
}

/// A caller, judged.
#[derive(Debug, Default)]
pub(super) struct KeyVerdict {
    /// The key that goes upstream.
    pub(super) upstream_key: Option<HeaderValue>,
    /// The name of the gateway key that it stands for.
    pub(super) name: Option<String>,
    /// The name of the key among those of its table.
    pub(super) presented: Option<String>,
    /// True if the call begins a run, or continues one.
    pub(super) begins_run: bool,
    /// True if that run has to be the key's own.
    pub(super) begins_own_run: bool,
}

/// Judges a caller by its key.
pub(super) fn judge(
    keyring: &Keyring,
    ids: &UpstreamIds,
    (limits, told): (&RateLimits, &mut LimitReport),
    asked: &KeyedRequest<'_>,
) -> Result<KeyVerdict, Refusal> {
    let (proxy, head) = (&asked.proxy.config, asked.head);
    let call = allow::below_root(proxy.upstream.path(), asked.path_upstream);
    let wish = CallTarget {
        method: &head.method,
        path: head.uri.path(),
        call,
    };
    let begins_run = allow::is_run(&wish);
    if head
        .uri
        .query()
        .is_some_and(|query| is_in_text(keyring, query))
        || is_in_headers(keyring, &head.headers)
    {
        return Err(misplaced());
    }
    let mut lines = head.headers.get_all(X_API_KEY).iter();
    let Some(presented) = lines.next().filter(|line| !line.is_empty()) else {
        return if proxy.require_key {
            Err(Refusal::NoKey)
        } else {
            Ok(KeyVerdict {
                begins_run,
                ..KeyVerdict::default()
            })
        };
    };
    // Two keys are two callers, and a reader of only one of them may take the other one.
    if lines.next().is_some() {
        return Err(Refusal::KeyRefused("more than one x-api-key".to_owned()));
    }
    let Some(key) = keyring.find(presented.as_bytes()) else {
        if proxy.require_key {
            return Err(Refusal::KeyRefused("not a gateway key".to_owned()));
        }
        // A key with something around it is still a key.
        if keyring.is_within(presented.as_bytes()) {
            return Err(misplaced());
        }
        return Ok(KeyVerdict {
            upstream_key: Some(presented.clone()),
            begins_run,
            ..KeyVerdict::default()
        });
    };
    let verdict = KeyVerdict {
        begins_run,
        presented: keyring
            .name_of(key, presented.as_bytes())
            .map(str::to_owned),
        ..KeyVerdict::default()
    };
    let opened = open(key, ids, &wish, asked)?;
    limits.key(&key.name, told)?;
    Ok(KeyVerdict {
        upstream_key: Some(exchange(key, presented, asked.proxy)?),
        name: Some(key.name.clone()),
        begins_own_run: opened == OpenedCall::Run && key.isolate,
        ..verdict
    })
}

fn refused(key: &GatewayKey, why: &str) -> Refusal {
    Refusal::KeyRefused(format!("key {} {why}", key.name))
}

/// Finds out if a gateway key may make a call.
fn open(
    key: &GatewayKey,
    ids: &UpstreamIds,
    wish: &CallTarget<'_>,
    asked: &KeyedRequest<'_>,
) -> Result<OpenedCall, Refusal> {
    if key.is_over(asked.now) {
        return Err(refused(key, "has expired"));
    }
    if !key.is_good_at(&asked.proxy.config.prefix) {
        return Err(refused(key, "is not good for this prefix"));
    }
    if !key.is_limited() {
        return Ok(OpenedCall::Other);
    }
    allow::open(key, wish, |task| ids.owns(&key.name, task))
        .ok_or_else(|| refused(key, "does not open this path with this method"))
}

/// The key that goes upstream in the place of a gateway key.
fn exchange(
    key: &GatewayKey,
    presented: &HeaderValue,
    proxy: &Proxy,
) -> Result<HeaderValue, Refusal> {
    if !proxy.config.exchange_keys {
        return Ok(presented.clone());
    }
    let own = key.upstream_key.as_ref().filter(|_| !proxy.has_own_key);
    let upstream_key = own
        .and_then(Secret::as_header)
        .or_else(|| proxy.key_here.clone());
    upstream_key
        .ok_or_else(|| refused(key, "has no upstream_key for the server behind this prefix"))
}

/// A gateway key that stands anywhere but in `x-api-key`.
pub(super) fn misplaced() -> Refusal {
    Refusal::KeyRefused(
        "a gateway key stands outside of the x-api-key header; it would go upstream as it is"
            .to_owned(),
    )
}

/// True if a gateway key stands in a header that goes upstream.
fn is_in_headers(keyring: &Keyring, headers: &HeaderMap) -> bool {
    headers.iter().any(|(name, value)| {
        let value = value.as_bytes();
        if *name == X_API_KEY {
            return false;
        }
        // Basic auth wraps what it says.
        let basic = value
            .split_at_checked(6)
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"basic "));
        let inner = basic.and_then(|(_, rest)| STANDARD.decode(rest.trim_ascii()).ok());
        keyring.is_within(value) || inner.is_some_and(|inner| keyring.is_within(&inner))
    })
}

/// True if a gateway key stands in a path or a query, as it is or encoded, once or more often.
pub(super) fn is_in_text(keyring: &Keyring, text: &str) -> bool {
    /// Nobody encodes more often in good faith, and no server decodes more often.
    const MOST: usize = 4;
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..MOST {
        if keyring.is_within(&bytes) {
            return true;
        }
        let decoded: Vec<u8> = percent_decode(&bytes).collect();
        if decoded == bytes {
            return false;
        }
        bytes = decoded;
    }
    keyring.is_within(&bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Problems};

    fn keyring(key: &str) -> Keyring {
        let text = format!("[keys.ci]\nkey = \"literal:{key}\"");
        Keyring::new(
            &Config::parse(
                "t",
                &text,
                Path::new("."),
                std::iter::empty(),
                &Problems::default(),
            )
            .unwrap(),
        )
    }

    #[test]
    fn s26_a_gateway_key_is_found_wherever_it_stands() {
        let key = "a-gateway-key/of+ours=";
        let keyring = keyring(key);
        let encoded: String = key.bytes().map(|b| format!("%{b:02X}")).collect();
        let twice = encoded.replace('%', "%25");
        for text in [
            format!("x-api-key={key}"),
            format!("a=b&KEY={encoded}&c"),
            format!("a=b;key={twice}"),
            format!("a=Bearer%20{encoded}"),
            format!("%7B%22k%22%3A%22{encoded}%22%7D"),
            format!("/v1/{encoded}/x"),
            key.to_owned(),
        ] {
            assert!(is_in_text(&keyring, &text), "{text}");
        }
        for text in [
            "",
            "x-api-key=a-gateway-key",
            "a=b&c=d",
            "a-gateway-key/of+ours",
        ] {
            assert!(!is_in_text(&keyring, text), "{text}");
        }
        let basic = format!("Basic {}", STANDARD.encode(format!("ci:{key}")));
        for (name, value) in [
            ("authorization", format!("Bearer {key}")),
            ("authorization", basic),
            ("cookie", format!("a=b; token={key}")),
            ("x-key", key.to_owned()),
            ("x-list", format!("other, {key}")),
        ] {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::try_from(value.as_str()).unwrap(),
            )]);
            assert!(is_in_headers(&keyring, &headers), "{name}: {value}");
        }
        let own = HeaderMap::from_iter([(X_API_KEY, HeaderValue::try_from(key).unwrap())]);
        assert!(!is_in_headers(&keyring, &own));
    }
}
