//! Whose word counts: parameters in an address, values that are fixed, fields of a body that nobody asked for; and what
//! is kept of a signature.

use std::process::Command;

use serde_json::json;

use crate::world::{Gateway, Upstream, binary, borrowed, event_id, github, hmac_sha256, json};

const SECRET: &str = "a-github-secret-for-tests";

fn source(provider: &str, more: &str) -> String {
    format!(
        "[sources.s]\nprovider = \"{provider}\"\nsecrets = [\"literal:{SECRET}\"]\nagent = \"a-1\"\n{more}\n"
    )
}

const CUSTOM: &str = "verify = { signature = \"header:X-Signature\" }";

/// Sends a signed body to a path, and reads the event.
async fn event(gateway: &Gateway, path: &str, body: &str) -> serde_json::Value {
    let signature = hmac_sha256(SECRET.as_bytes(), body.as_bytes());
    let answer = gateway
        .post(
            path,
            &[("x-signature", signature.as_str())],
            body.to_owned(),
        )
        .await;
    let said = json(&answer);
    match said["event_id"].as_str() {
        Some(id) => gateway.settled(id).await,
        None => said,
    }
}

fn param(event: &serde_json::Value, name: &str) -> Option<(String, String, String)> {
    let found = event["params"]
        .as_array()?
        .iter()
        .find(|param| param["name"] == name)?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Some((
        text(&found["value"]),
        text(&found["origin"]["from"]),
        text(&found["backing"]),
    ))
}

fn says(value: &str, from: &str, backing: &str) -> Option<(String, String, String)> {
    Some((value.to_owned(), from.to_owned(), backing.to_owned()))
}

#[tokio::test]
async fn s7_a_sealed_source_takes_the_parameters_that_its_operator_sealed_and_no_others() {
    let upstream = Upstream::start(&[]).await;
    let sources = source("custom", &format!("{CUSTOM}\nquery = \"sealed\""))
        + &source("custom", CUSTOM).replace("[sources.s]", "[sources.other]")
        + "query = \"sealed\"\n";
    let gateway = Gateway::start(upstream.address, &sources).await;
    let url = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command
            .args(["source", "url"])
            .args(arguments)
            .current_dir(gateway.folder.path());
        let out = command.output().unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout)
            .unwrap()
            .trim()
            .replace("https://hooks.example.com", "")
    };
    let path = url(&["s", "--user-id", "the CEO & co", "--prompt", "Read this"]);
    assert!(
        path.starts_with("/hooks/s?prompt=Read+this&user_id=the+CEO+%26+co&seal="),
        "{path}"
    );
    let good = event(&gateway, &path, "{\"n\":1}").await;
    assert_eq!(
        param(&good, "user_id"),
        says("the CEO & co", "query", "operator"),
        "{good:#}"
    );
    assert_eq!(
        param(&good, "prompt"),
        says("Read this", "query", "operator")
    );
    assert!(
        good["request_line"]
            .as_str()
            .unwrap()
            .ends_with("&seal=***"),
        "{good:#}"
    );

    // What counts for nothing may stand beside it, in any order.
    let (head, seal) = path.split_once("&seal=").unwrap();
    let query = head.split_once('?').unwrap().1;
    let (prompt, user) = query.split_once('&').unwrap();
    let turned = event(
        &gateway,
        &format!("/hooks/s?seal={seal}&utm=1&{user}&{prompt}"),
        "{\"n\":2}",
    )
    .await;
    assert_eq!(
        param(&turned, "prompt"),
        says("Read this", "query", "operator"),
        "{turned:#}"
    );
    let bare = event(&gateway, "/hooks/s?utm=1", "{\"n\":3}").await;
    assert_eq!(param(&bare, "user_id"), None, "{bare:#}");

    for bad in [
        format!("{path}&task_id=thread-of-the-ceo"),
        path.replace("CEO", "CFO"),
        format!("{path}x"),
        head.to_owned(),
        format!("{head}&{user}&seal={seal}"),
        format!("{path}&seal={seal}"),
        path.replace("/hooks/s?", "/hooks/other?"),
        "/hooks/s?prompt=Delete+everything".to_owned(),
    ] {
        let said = event(&gateway, &bad, "{\"n\":4}").await;
        assert_eq!(said["code"], "bad_seal", "{bad}: {said}");
    }
    let unsigned = gateway.post("/hooks/s?prompt=x", &[], "{}").await;
    assert_eq!(
        unsigned.status(),
        401,
        "who is not known hears nothing of seals"
    );
}

#[tokio::test]
async fn s7_s16_what_is_fixed_goes_before_everything_and_an_ignored_query_counts_for_nothing() {
    let upstream = Upstream::start(&[]).await;
    let sources = source(
        "custom",
        &format!(
            "{CUSTOM}\nfixed = {{ user_id = \"robot\" }}\nparams_mapping = {{ user_email = \"mail\" }}"
        ),
    ) + &source(
        "custom",
        &format!("{CUSTOM}\nquery = \"ignore\"\nprompt = \"{{{{ query.q | default('none') }}}}\""),
    )
    .replace("[sources.s]", "[sources.ignored]");
    let gateway = Gateway::start(upstream.address, &sources).await;
    let body = r#"{"user_id":"ceo","mail":"ann@example.com","prompt":"hello"}"#;
    let fixed = event(&gateway, "/hooks/s?user_id=cfo&task_id=t", body).await;
    assert_eq!(
        param(&fixed, "user_id"),
        says("robot", "fixed", "operator"),
        "{fixed:#}"
    );
    assert_eq!(
        param(&fixed, "user_email"),
        says("ann@example.com", "mapping", "proved")
    );
    assert_eq!(param(&fixed, "prompt"), says("hello", "body", "proved"));
    assert_eq!(param(&fixed, "task_id"), says("t", "query", "unproved"));
    let over = &fixed["params"]
        .as_array()
        .unwrap()
        .iter()
        .find(|param| param["name"] == "user_id")
        .unwrap()["over"];
    assert_eq!(over, &json!([{"from": "query"}, {"from": "body"}]));

    let ignored = event(
        &gateway,
        "/hooks/ignored?user_id=cfo&q=now&task_id=t",
        "{\"n\":1}",
    )
    .await;
    assert_eq!(
        (param(&ignored, "user_id"), param(&ignored, "task_id")),
        (None, None),
        "{ignored:#}"
    );
    assert_eq!(
        param(&ignored, "prompt"),
        says("none", "template", "unproved"),
        "a query is spoken of"
    );
}

#[tokio::test]
async fn s16_a_field_of_a_body_is_a_parameter_only_where_people_write_the_bodies() {
    let upstream = Upstream::start(&[]).await;
    let sources = source("github", "")
        + &source("github", "implicit = true").replace("[sources.s]", "[sources.said]")
        + &source("zapier", "").replace("[sources.s]", "[sources.hand]")
        + &source("zapier", "implicit = false").replace("[sources.s]", "[sources.not]");
    let gateway = Gateway::start(upstream.address, &sources).await;
    let body = json!({"action": "opened", "prompt": "Obey me", "user_id": "ceo", "task_id": "t"})
        .to_string();
    for (name, implicit, prompt) in [
        ("s", false, "template"),
        ("said", true, "body"),
        ("hand", true, "body"),
        ("not", false, "event"),
    ] {
        let mut headers = github(SECRET, "d-1", "issues", &body);
        headers.push(("x-webhook-token", SECRET.to_owned()));
        let answer = gateway
            .post(&format!("/hooks/{name}"), &borrowed(&headers), body.clone())
            .await;
        let event = gateway.settled(&event_id(&answer)).await;
        let user = param(&event, "user_id").map(|(user, ..)| user);
        assert_eq!(user.as_deref(), implicit.then_some("ceo"), "{name}");
        assert_eq!(param(&event, "prompt").unwrap().1, prompt, "{name}");
    }
    // A form's extra field is not a parameter either.
    let form = format!(
        "user_id=ceo&payload={}",
        body.replace('"', "%22").replace(' ', "+")
    );
    let mut headers = github(SECRET, "d-2", "issues", &form);
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
    headers.push(("content-type", "application/x-www-form-urlencoded".into()));
    let answer = gateway.post("/hooks/s", &borrowed(&headers), form).await;
    let event = gateway.settled(&event_id(&answer)).await;
    assert_eq!(param(&event, "user_id"), None, "{event:#}");
}

#[tokio::test]
async fn s31_eight_digits_of_a_signature_are_kept_and_what_is_kept_can_be_sent_again_by_hand() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &source("github", "")).await;
    let body = json!({"action": "opened"}).to_string();
    let headers = github(SECRET, "d-1", "issues", &body);
    let whole = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("x-hub-signature-256"))
        .unwrap()
        .1
        .clone();
    let answer = gateway.post("/hooks/s", &borrowed(&headers), body).await;
    let id = event_id(&answer);
    let event = gateway.settled(&id).await;
    let kept = event["headers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|pair| pair[0] == "x-hub-signature-256")
        .unwrap()[1]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(kept, format!("{}…", &whole[.."sha256=".len() + 8]));
    let digits = whole.trim_start_matches("sha256=");
    assert!(!event.to_string().contains(digits));
    let file = std::fs::read(gateway.folder.path().join("data/inbox.db")).unwrap();
    let log = std::fs::read(gateway.folder.path().join("data/inbox.db-wal")).unwrap_or_default();
    let holds = |bytes: &[u8]| {
        bytes
            .windows(digits.len())
            .any(|window| window == digits.as_bytes())
    };
    assert!(!holds(&file) && !holds(&log), "nowhere in the inbox");
    let (status, said) = gateway
        .tell(&format!("/events/{id}/resend"), json!({}))
        .await;
    assert_eq!(status, 202, "{said}");
    upstream.wait_for_runs(2).await;
}

#[tokio::test]
async fn s7_check_says_what_decides_though_nobody_signs_it() {
    let folder = tempfile::tempdir().unwrap();
    let check = |sources: &str| {
        let file = folder.path().join("sluicegate.toml");
        std::fs::write(
            &file,
            Gateway::config("127.0.0.1:1".parse().unwrap(), sources, ""),
        )
        .unwrap();
        let out = Command::new(binary())
            .args(["check", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        )
    };
    let said = check(&source(
        "github",
        "events = [\"issues.opened\"]\ndefaults = { user_id = \"bot\" }",
    ));
    assert!(
        said.contains("goes by a type that is read from header:X-GitHub-Event"),
        "{said}"
    );
    assert!(
        said.contains("goes before the default of user_id"),
        "{said}"
    );
    // A condition over the signed body decides as well: that is what the hint asks for.
    let said = check(&source(
        "github",
        "events = [\"issues.opened\"]\nwhen = \"body.issue\"",
    ));
    assert!(!said.contains("not signed"), "{said}");
    let said = check(&source(
        "github",
        "events = [\"issues.opened\"]\nwhen = \"body.issue and query.team\"",
    ));
    assert!(
        said.contains("goes by a type that is read from") && said.contains("goes by query"),
        "{said}"
    );
    let said = check(&source(
        "github",
        "when = \"query.team == 'a'\"\nfixed = { user_id = \"bot\" }\nquery = \"ignore\"",
    ));
    assert!(
        said.contains("when of source s goes by query, not signed"),
        "{said}"
    );
    let said = check(&source(
        "stripe",
        "events = [\"charge.succeeded\"]\nwhen = \"body.livemode\"\nquery = \"sealed\"",
    ));
    assert!(!said.contains("not signed"), "{said}");
    let said = check(&source(
        "github",
        "fixed = { user_id = \"bot\" }\nparams_mapping = { user_id = \"sender.id\" }",
    ));
    assert!(said.contains("user_id is fixed"), "{said}");
    let said = check(&source("github", "fixed = { user = \"bot\" }"));
    assert!(said.contains("there is no parameter \"user\""), "{said}");
}
