//! Allow list of a gateway key.
//!
//! Promises: Every path is closed but the few that are spelled out here or in the key's table,
//! each for its method, and each in one spelling, compared byte for byte. Nothing is decoded or tidied first, so what an
//! upstream might read differently is not on the list.

use http::Method;

use crate::config::GatewayKey;
use crate::config::door::is_plain_segment;

/// A call, as it came and as it goes upstream.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallTarget<'a> {
    pub(super) method: &'a Method,
    /// The path as the caller wrote it.
    pub(super) path: &'a str,
    /// The path upstream, below the root of the API.
    pub(super) call: &'a str,
}

/// Kind of a call that a key may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenedCall {
    /// It begins a run, or goes on with one.
    Run,
    /// Any other.
    Other,
}

/// The kind of a call that a key with a list of its own may make; absent where it may not. `owns` is true for a task
/// that the key began.
pub(super) fn open(
    key: &GatewayKey,
    wish: &CallTarget<'_>,
    owns: impl Fn(&str) -> bool,
) -> Option<OpenedCall> {
    if begins_run(key, wish) {
        return Some(OpenedCall::Run);
    }
    let is_open =
        is_listed(key, wish) || task_read(wish).is_some_and(|task| key.isolate && owns(task));
    is_open.then_some(OpenedCall::Other)
}

/// The path upstream without what stands before `/v1` in the upstream's own address.
pub(super) fn below_root<'p>(base: &str, path_upstream: &'p str) -> &'p str {
    let base = base.trim_end_matches('/');
    let root = base.strip_suffix("/v1").unwrap_or(base);
    path_upstream.strip_prefix(root).unwrap_or(path_upstream)
}

/// True if a call begins a run, or continues one, whoever makes it.
pub(super) fn is_run(wish: &CallTarget<'_>) -> bool {
    *wish.method == Method::POST && run_of(wish.call).is_some()
}

/// A run of one of the key's agents or workflows, at the API or at the control plane of the SDK.
fn begins_run(key: &GatewayKey, wish: &CallTarget<'_>) -> bool {
    let ours = |id: &str| key.agents.iter().any(|agent| agent == id);
    *wish.method == Method::POST && run_of(wish.call).is_some_and(ours)
}

/// The agent or workflow that a path runs.
fn run_of(call: &str) -> Option<&str> {
    match segments(call)?[..] {
        ["v1", "agents" | "workflows", id, "invoke"] => Some(id),
        [
            "v1",
            "agents" | "workflows",
            id,
            "invoke",
            "async" | "stream",
        ] => Some(id),
        ["agent-execution", id] => Some(id),
        _ => None,
    }
}

/// The task that a call reads, at the API or at the control plane of the SDK.
fn task_read<'a>(wish: &CallTarget<'a>) -> Option<&'a str> {
    if *wish.method != Method::GET {
        return None;
    }
    match segments(wish.call)?[..] {
        ["v1", "tasks", task]
        | ["v1", "tasks", task, "thread"]
        | ["v1", "tasks", task, "thread", "full"] => Some(task),
        ["agent-execution", task, "status"] | [_, "agent-execution", task, "events"] => Some(task),
        _ => None,
    }
}

/// A path that the key's table lists.
fn is_listed(key: &GatewayKey, wish: &CallTarget<'_>) -> bool {
    let Some(segments) = segments(wish.path) else {
        return false;
    };
    key.methods.contains(wish.method) && key.paths.iter().any(|pattern| fits(pattern, &segments))
}

fn fits(pattern: &str, segments: &[&str]) -> bool {
    let mut left = segments.iter();
    for part in pattern.split('/').skip(1) {
        match (part, left.next()) {
            ("**", Some(_)) => return true,
            ("*", Some(_)) => {}
            (part, Some(segment)) if part == *segment => {}
            _ => return false,
        }
    }
    left.next().is_none()
}

/// The segments of a path that has one reading; none for any other.
fn segments(path: &str) -> Option<Vec<&str>> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    segments
        .iter()
        .all(|segment| is_plain_segment(segment))
        .then_some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Place, Secret};

    fn key(agents: &[&str], paths: &[&str], methods: &[Method]) -> GatewayKey {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        GatewayKey {
            name: "ci".to_owned(),
            place: Place {
                file: "t".into(),
                line: 1,
            },
            keys: vec![Secret::new("keys.ci.key", "a-gateway-key-of-ours")],
            expires: None,
            runs_per_day: None,
            max_upload: None,
            upstream_key: None,
            agents: texts(agents),
            prefixes: Vec::new(),
            paths: texts(paths),
            methods: methods.to_vec(),
            rate: None,
            isolate: true,
        }
    }

    fn may(key: &GatewayKey, method: &Method, path: &str) -> bool {
        open(
            key,
            &CallTarget {
                method,
                path,
                call: path,
            },
            |task| task == "mine",
        )
        .is_some()
    }

    #[test]
    fn s10_a_key_reads_the_tasks_that_it_began() {
        let mut some = key(&["A-1"], &[], &[Method::GET]);
        for path in [
            "/v1/tasks/mine",
            "/v1/tasks/mine/thread",
            "/v1/tasks/mine/thread/full",
            "/agent-execution/mine/status",
            "/org/agent-execution/mine/events",
        ] {
            assert!(may(&some, &Method::GET, path), "{path}");
            assert!(
                !may(&some, &Method::GET, &path.replace("mine", "theirs")),
                "{path}"
            );
            assert!(
                !may(&some, &Method::GET, &format!("{path}/"))
                    && !may(&some, &Method::DELETE, path),
                "{path}"
            );
        }
        assert!(
            !may(&some, &Method::POST, "/v1/tasks/mine/stop")
                && !may(&some, &Method::GET, "/v1/tasks/Mine")
        );
        some.isolate = false;
        assert!(
            !may(&some, &Method::GET, "/v1/tasks/mine"),
            "its tasks have no name that says whose they are"
        );
    }

    #[test]
    fn s10_a_key_for_some_agents_begins_their_runs_and_does_nothing_else() {
        let some = key(&["A-1", "W_1"], &[], &[Method::GET]);
        for good in [
            "/v1/agents/A-1/invoke",
            "/v1/agents/A-1/invoke/async",
            "/v1/workflows/W_1/invoke/stream",
            "/agent-execution/A-1",
        ] {
            assert!(may(&some, &Method::POST, good), "{good}");
            for other in [
                Method::GET,
                Method::HEAD,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
                Method::OPTIONS,
            ] {
                assert!(!may(&some, &other, good), "{other} {good}");
            }
        }
        for bad in [
            "",
            "/",
            "/v1",
            "/v1/agents",
            "/v1/agents/A-1",
            "/v1/agents/A-1/",
            "/v1/agents/A-1/invoke/",
            "/v1/agents/A-1/invoke/async/x",
            "/v1/agents/A-1/conversations/invoke",
            "/v1/agents/A-2/invoke",
            "/v1/agents/a-1/invoke",
            "/v1/agents/A%2d1/invoke",
            "/v1/Agents/A-1/invoke",
            "/v1/agents./A-1/invoke",
            "/v1/agents%20/A-1/invoke",
            "/v1//agents/A-1/invoke",
            "//v1/agents/A-1/invoke",
            "/v1/./agents/A-1/invoke",
            "/v1/agents/A-1/invoke;x",
            "/v1/agents/A-1/invoke%2fasync",
            "/v1/agents/A-1/invoke.",
            "/v1/tasks",
            "/v1/api-keys",
            "/agent-execution/t-1",
            "/agent-execution/A-1/status",
            "/x/agent-execution/A-1",
        ] {
            assert!(!may(&some, &Method::POST, bad), "{bad}");
        }
    }

    #[test]
    fn s10_more_is_open_only_as_it_is_listed() {
        let more = key(
            &[],
            &["/v1/models", "/v1/files/*", "/xp/kb/**"],
            &[Method::GET, Method::PUT],
        );
        for good in ["/v1/models", "/v1/files/a", "/xp/kb/a", "/xp/kb/a/b"] {
            assert!(
                may(&more, &Method::GET, good) && may(&more, &Method::PUT, good),
                "{good}"
            );
            assert!(!may(&more, &Method::POST, good), "{good}");
        }
        for bad in [
            "/v1/models/",
            "/v1/models/x",
            "/v1/files",
            "/v1/files/a/b",
            "/v1/files/%2e",
            "/v1/files/a%2fb",
            "/v1/files/..",
            "/xp/kb",
            "/xp/kb/",
            "/xp/kb/a//b",
            "/xp/kb/a/../b",
            "/v1/agents/A-1/invoke",
        ] {
            assert!(!may(&more, &Method::GET, bad), "{bad}");
        }
        assert!(!may(&more, &Method::POST, "/v1/agents/A-1/invoke"));
    }

    #[test]
    fn a_call_is_seen_below_the_root_of_the_api() {
        for (base, path, call) in [
            ("", "/v1/tasks", "/v1/tasks"),
            ("/", "/v1/tasks", "/v1/tasks"),
            ("/v1", "/v1/tasks", "/v1/tasks"),
            ("/inner/v1/", "/inner/v1/tasks", "/v1/tasks"),
            ("/inner", "/inner/v1/tasks", "/v1/tasks"),
        ] {
            assert_eq!(below_root(base, path), call, "{base} {path}");
        }
    }
}
