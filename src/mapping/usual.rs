//! The maps that providers' files bring along: every sample is told in words, whatever stands in an event maps, and the
//! operator's word goes before all of it.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::tests::request;
use super::*;
use crate::config::{Config, Problems, Provider, Sample, Table};
use crate::model::{Origin, Param};

/// A configuration with one source of a provider, and these lines in it.
fn configured(provider: &str, lines: &str) -> Config {
    let problems = Problems::default();
    let text = format!("[sources.s]\nprovider = \"{provider}\"\nagent = \"a\"\n{lines}");
    let config = Config::parse("t", &text, Path::new("."), std::iter::empty(), &problems);
    config.unwrap_or_else(|| panic!("{provider}: {:?}", problems.into_sorted()))
}

/// The mapping of the source, and the provider's file.
fn mapping(provider: &str, lines: &str) -> (Mapping, std::sync::Arc<Provider>) {
    let config = configured(provider, lines);
    let source = config.sources.iter().next().unwrap();
    let file = config.providers[&source.provider.value].clone();
    let problems = Problems::default();
    let empty = Table::empty(file.place.clone());
    let verify =
        crate::config::Section::new(file.verify.as_ref().unwrap_or(&empty), "verify", &problems);
    let texts = |key: &str| verify.texts(key).unwrap_or_default();
    let quiet = Problems::default();
    let mapping = Mapping::compile(
        source,
        Some(&file),
        &texts("event_id"),
        &texts("event_type"),
        &quiet,
    );
    let wrong: Vec<String> = quiet
        .into_sorted()
        .iter()
        .map(ToString::to_string)
        .collect();
    drop(verify);
    (
        mapping.unwrap_or_else(|| panic!("{provider}: {wrong:?}")),
        file,
    )
}

/// A sample, as it comes in.
fn sent(sample: &Sample, body: &str) -> Received {
    let mut headers: Vec<_> = sample
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
    {
        headers.push(("content-type", "application/json"));
    }
    request("/hooks/s", &headers, body.as_bytes())
}

/// The names of the files that bring a prompt along.
fn told() -> Vec<String> {
    let config = configured("github", "");
    config
        .providers
        .values()
        .filter(|file| file.map.prompt.is_some())
        .map(|file| file.name.clone())
        .collect()
}

/// The prompt of an event; none for one that runs no agent.
fn prompt(mapping: &Mapping, sample: &Sample, body: &str) -> Option<Param> {
    let mapped = mapping.explain(&sent(sample, body)).mapped;
    let mapped = mapped.unwrap_or_else(|refusal| panic!("{}: {refusal:?}: {body}", sample.name));
    let prompt = mapped
        .params
        .iter()
        .find(|param| param.name == Name::Prompt)
        .cloned();
    assert_eq!(
        prompt.is_none(),
        mapped.filtered.is_some(),
        "{}: there is always a prompt: {body}",
        sample.name
    );
    prompt
}

#[test]
fn every_sample_of_a_file_with_a_prompt_is_told_in_words() {
    let names = told();
    assert!(names.len() >= 16, "{names:?}");
    for name in names {
        let (mapping, file) = mapping(&name, "humans_only = false");
        assert!(
            !file.samples.is_empty(),
            "{name} has a prompt and no sample"
        );
        for sample in &file.samples {
            let Some(prompt) = prompt(&mapping, sample, &sample.body) else {
                continue;
            };
            assert_eq!(
                prompt.origin,
                Origin::Template,
                "{name} {}: its prompt makes nothing of it",
                sample.name
            );
            let first = prompt.value.lines().next().unwrap_or_default();
            assert!(
                first.chars().any(char::is_alphabetic),
                "{name} {}: {first:?}",
                sample.name
            );
            assert!(
                !first.starts_with(['{', '[']),
                "{name} {}: {first:?}",
                sample.name
            );
            let hangs = prompt
                .value
                .lines()
                .find(|line| line.trim_end().ends_with([':', '(']));
            assert_eq!(hangs, None, "{name} {}: a line says nothing", sample.name);
        }
    }
}

#[test]
fn what_people_want_to_read_first_stands_in_the_prompt() {
    let wanted = [
        ("github", "issues.opened", "Issue", "The door is stuck"),
        (
            "github",
            "pull_request.opened",
            "Pull request",
            "Fix the door",
        ),
        (
            "github",
            "issue_comment.created",
            "Comment",
            "It opens again after the last release.",
        ),
        (
            "github",
            "push",
            "Pushed to refs/heads/main",
            "Fix the door",
        ),
        (
            "github",
            "release.published",
            "Release 1.2",
            "The door opens.",
        ),
        (
            "github",
            "workflow_run.completed",
            "Workflow tests",
            "failure",
        ),
        ("meta", "page.feed", "page feed", "caf\u{e9}"),
        (
            "bitbucket",
            "pullrequest:comment_created",
            "Pull request 5",
            "Looks good",
        ),
        ("asana", "task.added", "task", "added"),
        (
            "calendly",
            "invitee.canceled",
            "ann@example.com",
            "I am ill",
        ),
        ("clerk", "user.created", "Clerk", "Ann"),
        (
            "intercom",
            "conversation.user.replied",
            "conversation 147",
            "It still does not open",
        ),
        ("gitlab", "Merge Request Hook", "GitLab", "Fix the door"),
        ("jira", "comment_created", "ED-1", "It opens again."),
        ("linear", "Issue.create", "Linear", "The door is stuck"),
        ("line", "message", "", "hello"),
        ("discord", "2.options", "/", "Is the door open?"),
    ];
    for (name, sample, kind, words) in wanted {
        let (mapping, file) = mapping(name, "");
        let sample = file
            .samples
            .iter()
            .find(|known| known.name == sample)
            .expect(sample);
        let prompt = prompt(&mapping, sample, &sample.body)
            .expect("it runs an agent")
            .value;
        assert!(
            prompt.contains(kind) && prompt.contains(words),
            "{name} {}: {prompt}",
            sample.name
        );
    }
}

/// The documents that one becomes when each of its values in turn is another.
fn changed(whole: &Json, with: &Json) -> Vec<Json> {
    let mut all = vec![with.clone()];
    match whole {
        Json::Object(fields) => {
            for (key, value) in fields {
                for other in changed(value, with) {
                    let mut fields = fields.clone();
                    fields.insert(key.clone(), other);
                    all.push(Json::Object(fields));
                }
            }
        }
        Json::Array(items) => {
            for (at, value) in items.iter().enumerate() {
                for other in changed(value, with) {
                    let mut items = items.clone();
                    items[at] = other;
                    all.push(Json::Array(items));
                }
            }
        }
        _ => {}
    }
    all
}

#[test]
fn a_prompt_of_a_file_maps_whatever_stands_in_an_event() {
    let others = [
        json!(null),
        json!("word"),
        json!(7),
        json!(true),
        json!([]),
        json!({}),
        json!([["x"], 1]),
        json!({"a": []}),
    ];
    for name in told() {
        let (mapping, file) = mapping(&name, "humans_only = false");
        for sample in &file.samples {
            let Ok(whole) = serde_json::from_str::<Json>(&sample.body) else {
                continue;
            };
            for body in others.iter().flat_map(|other| changed(&whole, other)) {
                let Some(prompt) = prompt(&mapping, sample, &body.to_string()) else {
                    continue;
                };
                assert!(!prompt.value.is_empty(), "{name} {}: {body}", sample.name);
            }
        }
    }
}

#[test]
fn the_operators_word_goes_before_the_files() {
    let body = |file: &Provider| {
        file.samples
            .iter()
            .find(|known| known.name == "issues.opened")
            .cloned()
            .unwrap()
    };
    let cases = [
        ("prompt = \"Mine: {{ body.issue.number }}\"", "Mine"),
        (
            "params_mapping = { prompt = \"issue.html_url\" }",
            "https://github.com/octo/app/issues/12",
        ),
        ("fixed = { prompt = \"Only this\" }", "Only this"),
        ("defaults = { prompt = \"Look at it\" }", "Look at it"),
    ];
    for (lines, begins) in cases {
        let (mapping, file) = mapping("github", lines);
        let sample = body(&file);
        let prompt = prompt(&mapping, &sample, &sample.body).expect("it runs an agent");
        assert!(
            prompt.value.starts_with(begins),
            "{lines}: {}",
            prompt.value
        );
    }
    let (usual, file) = mapping("github", "");
    let sample = body(&file);
    let of = |mapping: &Mapping| {
        let mapped = mapping
            .explain(&sent(&sample, &sample.body))
            .mapped
            .unwrap();
        let user = mapped
            .params
            .iter()
            .find(|param| param.name == Name::UserId)
            .map(|param| param.value.clone());
        (mapped.thread, user)
    };
    assert_eq!(of(&usual), (Some("octo/app#12".into()), Some("ann".into())));
    let lines = "thread = \"issue.html_url\"\ndefaults = { user_id = \"bot\" }";
    let own = (
        Some("https://github.com/octo/app/issues/12".to_owned()),
        Some("bot".to_owned()),
    );
    assert_eq!(of(&mapping("github", lines).0), own);
}

#[test]
fn a_source_says_which_samples_it_keeps() {
    let (mapping, _) = mapping("github", "events = [\"issues.*\"]");
    assert!(mapping.wants("issues.opened"));
    assert!(!mapping.wants("pull_request.opened"));
}
