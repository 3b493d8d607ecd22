//! Access: the token, the host, the origin, and paths that do not exist.

use super::*;
use crate::admin::openapi::Description;

/// Every route that needs the token: its method, and its path with names that exist.
fn routes() -> Vec<(Method, String)> {
    let rows = Description::whole().rows.into_iter();
    let guarded = rows.filter(|(_, path)| !path.contains("/health/"));
    let all: Vec<(Method, String)> = guarded
        .map(|(method, path)| {
            let id = match path {
                _ if path.contains("/events/") => id(1).to_string(),
                _ if path.contains("/deliveries/") => first_of(1).to_string(),
                _ if path.contains("/destinations/") => "a1".to_owned(),
                _ => "1".to_owned(),
            };
            let path = path
                .replace("{name}", "triage")
                .replace("{kind}", "agent")
                .replace("{id}", &id);
            let method = method.to_uppercase().parse().expect("a method");
            (method, path)
        })
        .collect();
    assert!(all.len() > 30, "saw {} routes", all.len());
    all
}

#[tokio::test]
async fn t97_nothing_but_health_answers_without_the_token() {
    let host = ("host", "localhost:8081");
    for (method, path) in routes() {
        let world = world();
        for headers in [
            vec![host],
            vec![host, ("authorization", "Bearer the-admin-toke")],
            vec![host, ("authorization", "Bearer ")],
            vec![host, ("authorization", "Basic the-admin-token")],
            vec![
                host,
                ("authorization", "Bearer the-admin-token"),
                ("authorization", "Bearer x"),
            ],
        ] {
            let (status, headers, body) = world.send(method.clone(), &path, &headers).await;
            assert_eq!(
                (status.as_u16(), headers["www-authenticate"].as_bytes()),
                (401, &b"Bearer"[..]),
                "{path}"
            );
            assert!(body.contains("\"code\":\"unauthorized\""), "{body}");
        }
        assert_eq!(
            world.inbox.events.lock().unwrap()[3].deliveries.len(),
            1,
            "{path} changed something"
        );
        assert_eq!(
            world.inbox.events.lock().unwrap().len(),
            4,
            "{path} changed something"
        );
        assert!(
            world.inbox.holds.lock().unwrap().is_empty()
                && world.inbox.jobs.lock().unwrap().is_empty(),
            "{path}"
        );
    }
    let (status, ..) = world()
        .send(Method::GET, "/api/v1/health/live", &[host])
        .await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn t97_guesses_are_slowed_down_and_the_right_token_still_passes() {
    let world = world();
    let wrong = [("host", "localhost"), ("authorization", "Bearer wrong")];
    for _ in 0..GUESSES {
        assert_eq!(
            world.send(Method::GET, "/api/v1/events", &wrong).await.0,
            401
        );
    }
    let (status, headers, _) = world.send(Method::GET, "/api/v1/events", &wrong).await;
    assert_eq!(
        (status.as_u16(), headers["retry-after"].to_str().unwrap()),
        (429, "60")
    );
    assert_eq!(world.get("/events").await.0, 200);
    world.state.clock.advance(MINUTE);
    assert_eq!(
        world.send(Method::GET, "/api/v1/events", &wrong).await.0,
        401
    );
}

#[tokio::test]
async fn t98_other_hosts_and_other_sites_pages_are_refused_whatever_they_carry() {
    let world = world();
    let token = format!("Bearer {TOKEN}");
    let ours = ("host", "127.0.0.1:8081");
    for (wrong, code) in [
        (vec![("host", "evil.example")], "bad_host"),
        (vec![], "bad_host"),
        (vec![ours, ours], "bad_host"),
        (vec![ours, ("sec-fetch-site", "cross-site")], "cross_site"),
        (vec![ours, ("sec-fetch-site", "same-site")], "cross_site"),
        (vec![ours, ("origin", "http://evil.example")], "cross_site"),
        (
            vec![ours, ("origin", "http://127.0.0.1:3000")],
            "cross_site",
        ),
        (vec![ours, ("origin", "null")], "cross_site"),
    ] {
        for path in ["/api/v1/events", "/api/v1/health/live", "/api/v1/nothing"] {
            let headers = [&wrong[..], &[("authorization", &token)]].concat();
            let (status, _, body) = world.send(Method::GET, path, &headers).await;
            assert_eq!(status, 403, "{headers:?}");
            assert!(body.contains(code), "{headers:?}: {body}");
        }
    }
    let (status, ..) = world
        .send(
            Method::GET,
            "http://evil.example/api/v1/health/live",
            &[ours],
        )
        .await;
    assert_eq!(status, 403);
    let page = [
        ours,
        ("origin", "http://127.0.0.1:8081"),
        ("sec-fetch-site", "same-origin"),
        ("authorization", &token),
    ];
    assert_eq!(
        world.send(Method::GET, "/api/v1/events", &page).await.0,
        200
    );
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_said_plainly() {
    let world = world();
    for path in ["/nothing", "/events/", "/hooks/triage", "/health"] {
        let (status, answer) = world.get(path).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (404, Some("no_such_path")),
            "{path}"
        );
    }
    let token = format!("Bearer {TOKEN}");
    let headers = [("host", "[::1]:8081"), ("authorization", token.as_str())];
    for (method, path, allowed) in [
        (Method::DELETE, "/api/v1/events".to_owned(), "GET,HEAD"),
        (
            Method::GET,
            format!("/api/v1/events/{}/replay", id(1)),
            "POST",
        ),
        (Method::POST, "/api/v1/health/live".to_owned(), "GET,HEAD"),
    ] {
        let (status, headers, body) = world.send(method, &path, &headers).await;
        assert_eq!(
            (status.as_u16(), headers["allow"].to_str().unwrap()),
            (405, allowed),
            "{path}"
        );
        assert!(body.contains("method_not_allowed"), "{body}");
    }
}
