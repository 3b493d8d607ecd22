//! The caller's key: found among the gateway's own, judged by what it is good for, exchanged for the upstream's.

use http::header::{HeaderName, HeaderValue};
use http::{Method, request};
use percent_encoding::percent_decode_str;

use super::Proxies;
use crate::config::{GatewayKey, ProxyConfig};
use crate::limit::{Limits, Told};
use crate::model::Refusal;

/// Where a key stands.
pub(super) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The key that goes upstream, and the name of the gateway key that it stands for.
pub(super) fn judge(
    proxies: &Proxies,
    (limits, told): (&Limits, &mut Told),
    proxy: &ProxyConfig,
    head: &request::Parts,
) -> Result<(Option<HeaderValue>, Option<String>), Refusal> {
    let mut lines = head.headers.get_all(X_API_KEY).iter();
    let Some(presented) = lines.next().filter(|line| !line.is_empty()) else {
        return if proxy.require_key { Err(Refusal::NoKey) } else { Ok((None, None)) };
    };
    // Two keys are two callers, and whoever reads only one may read the other.
    if lines.next().is_some() {
        return Err(Refusal::KeyRefused("more than one x-api-key".to_owned()));
    }
    let Some(key) = proxies.keyring.find(presented.as_bytes()) else {
        if proxy.require_key {
            return Err(Refusal::KeyRefused("it is no gateway key".to_owned()));
        }
        return Ok((Some(presented.clone()), None));
    };
    if let Err(why) = is_good_for(key, &proxy.prefix, &head.method, head.uri.path()) {
        return Err(Refusal::KeyRefused(format!("key {} {why}", key.name)));
    }
    limits.key(&key.name, told)?;
    let upstream_key = if proxy.exchange_keys {
        key.upstream_key.as_ref().and_then(|key| header(key.expose())).or_else(|| proxies.upstream_key.clone())
    } else {
        Some(presented.clone())
    };
    Ok((upstream_key, Some(key.name.clone())))
}

/// A key as a header; none for one that no header can carry.
pub(super) fn header(key: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(key).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether a key may be used at a prefix for a path. A key for some agents is refused whatever names another, and
/// whatever is spelled so that the upstream might read a name where none is seen here.
fn is_good_for(key: &GatewayKey, prefix: &str, method: &Method, path: &str) -> Result<(), &'static str> {
    if !key.prefixes.is_empty() && !key.prefixes.iter().any(|good| good.trim_end_matches('/') == prefix) {
        return Err("is not good for this prefix");
    }
    if key.agents.is_empty() {
        return Ok(());
    }
    let path = percent_decode_str(path).decode_utf8().map_err(|_| "is good for some agents, and the path is odd")?;
    let whole = path.strip_prefix('/').unwrap_or(&path);
    let whole = whole.strip_suffix('/').unwrap_or(whole);
    let segments: Vec<&str> = whole.split('/').collect();
    if segments.iter().any(|one| matches!(*one, "" | "." | "..") || one.contains(['\\', ';'])) {
        return Err("is good for some agents, and the path is odd");
    }
    let is_listed = |id: Option<&&str>| id.is_some_and(|id| key.agents.iter().any(|agent| agent == id));
    for (at, segment) in segments.iter().enumerate() {
        let next = segments.get(at + 1);
        let names_one = segment.eq_ignore_ascii_case("agents") || segment.eq_ignore_ascii_case("workflows");
        // The control plane begins a run by the agent's id; what else stands there is the id of a task.
        let begins_one =
            segment.eq_ignore_ascii_case("agent-execution") && *method == Method::POST && at + 2 == segments.len();
        if (names_one || begins_one) && !is_listed(next) {
            return Err("is not good for this agent");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Place, Secret};

    fn key(agents: &[&str], prefixes: &[&str]) -> GatewayKey {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        GatewayKey {
            name: "ci".to_owned(),
            place: Place { file: "t".into(), line: 1 },
            key: Secret::new("keys.ci.key", "a-gateway-key-of-ours"),
            upstream_key: None,
            agents: texts(agents),
            prefixes: texts(prefixes),
            rate: None,
            isolate: true,
        }
    }

    #[test]
    fn a_key_for_some_agents_opens_no_other_in_any_spelling() {
        let some = key(&["A-1", "W-1"], &[]);
        let may = |method: Method, path: &str| is_good_for(&some, "/v1", &method, path).is_ok();
        for good in
            ["/v1/agents/A-1/invoke", "/v1/agents/A%2d1/invoke/async", "/v1/workflows/W-1", "/v1/tasks/t-1", "/v1"]
        {
            assert!(may(Method::POST, good), "{good}");
        }
        let bad = [
            "/v1/agents/A-2/invoke",
            "/v1/%61gents/A-2/invoke",
            "/v1/AGENTS/A-2",
            "/v1//agents/A-2",
            "/v1/./agents/A-2",
            "/v1/agents%2FA-2/invoke",
            "/v1/agents//A-2",
            "/v1/agents;x/A-2",
            "/v1/agents",
            "/v1/agents/",
            "/v1/x\\agents",
            "/v1/workflows/W-2/invoke",
            "/v1/%ff",
        ];
        for path in bad {
            assert!(!may(Method::POST, path), "{path}");
        }
        assert!(may(Method::POST, "/xp/agent-execution/A-1") && !may(Method::POST, "/xp/agent-execution/A-2"));
        assert!(may(Method::GET, "/xp/agent-execution/t-1/status") && may(Method::DELETE, "/xp/agent-execution/t-1"));
        let any = key(&[], &["/v1/"]);
        assert!(is_good_for(&any, "/v1", &Method::GET, "/v1//agents").is_ok());
        assert!(is_good_for(&any, "/xp", &Method::GET, "/xp/x").is_err());
    }
}
