//! Paths that are, or may look like, the gateway's own: no agent is called so.

const RESERVED: [&str; 18] = [
    "hooks",
    "files",
    "events",
    "api",
    "v1",
    "admin",
    "dashboard",
    "ui",
    "metrics",
    "health",
    "healthz",
    "live",
    "livez",
    "ready",
    "readyz",
    "status",
    "favicon.ico",
    "robots.txt",
];

/// True if the first segment of a path names no agent.
pub(super) fn is_reserved(path: &str) -> bool {
    let segment = path.strip_prefix('/').unwrap_or(path);
    let segment = percent_encoding::percent_decode_str(segment)
        .decode_utf8_lossy()
        .to_ascii_lowercase();
    segment.starts_with(['.', '/', '\\'])
        || RESERVED.contains(&segment.trim_end_matches(['/', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t96_what_looks_like_the_gateways_own_is_no_agent() {
        for path in [
            "/hooks",
            "/metrics",
            "/Metrics",
            "/%6detrics",
            "/api",
            "/.env",
            "/..",
            "/health",
            "/metrics%2f",
        ] {
            assert!(is_reserved(path), "{path}");
        }
        for path in [
            "/",
            "/47c3b020-9a6b-4699-8d94-d92d71929b53",
            "/healthy-agent",
        ] {
            assert!(!is_reserved(path), "{path}");
        }
    }
}
