//! Forges: comments on issues, pull requests and merge requests.

use serde_json::json;

use super::Chat;
use crate::channel::CallOf;

#[test]
fn github_comments_on_the_issue_and_is_found_by_the_mark_in_the_comment() {
    let chat = Chat::of_json(
        "github",
        json!({"action": "created", "issue": {"number": 12}, "comment": {"id": 99}, "repository": {"name": "r.x", "owner": {"login": "o"}}, "installation": {"id": 5}}),
    );
    let body = r#"{"body":"*hello*\n\n<!-- sluicegate:01234567-89ab-cdef-0123-456789abcdef -->"}"#;
    chat.calls(
        CallOf::Send(1),
        "POST https://api.github.com/repos/o/r.x/issues/12/comments",
        body,
    );
    assert_eq!(
        chat.header(CallOf::Send(1), "authorization"),
        "Bearer T0KEN"
    );
    chat.calls(
        CallOf::Edit,
        "PATCH https://api.github.com/repos/o/r.x/issues/comments/m7",
        body,
    );
    chat.calls(
        CallOf::Check,
        "GET https://api.github.com/repos/o/r.x/issues/12/comments?since=2023-11-14T21%3A56%3A40.000Z&per_page=100",
        "",
    );
    chat.calls(
        CallOf::Mark,
        "POST https://api.github.com/repos/o/r.x/issues/comments/99/reactions",
        r#"{"content":"eyes"}"#,
    );
    assert_eq!(chat.address.text("installation").as_deref(), Some("5"));
    chat.verdicts(&[
        (201, r#"{"id":123}"#, "Sent { id: Some(Number(123))"),
        (
            403,
            r#"{"message":"You have exceeded a secondary rate limit."}"#,
            "Wait { pause: Some(60s), scope: Token }",
        ),
        (
            403,
            r#"{"message":"Resource not accessible by integration"}"#,
            "Gone",
        ),
        (401, r#"{"message":"Bad credentials"}"#, "Alarm"),
        (
            422,
            r#"{"message":"body is too long (maximum is 65536 characters)"}"#,
            "Smaller",
        ),
        (422, r#"{"message":"Validation Failed"}"#, "Dead"),
        (502, "", "Doubt"),
    ]);
}

#[test]
fn github_answers_a_review_comment_in_its_thread() {
    let chat = Chat::of_json(
        "github",
        json!({"pull_request": {"number": 3}, "comment": {"id": 77, "pull_request_review_id": 1}, "repository": {"name": "r", "owner": {"login": "o"}}}),
    );
    let line = "POST https://api.github.com/repos/o/r/pulls/3/comments/77/replies";
    let call = chat.call(CallOf::Send(0)).unwrap();
    assert_eq!(format!("{} {}", call.method, call.url), line);
    let check = chat.call(CallOf::Check).unwrap();
    assert!(
        check
            .url
            .starts_with("https://api.github.com/repos/o/r/pulls/3/comments?since=")
    );
}

#[test]
fn gitlab_answers_in_the_discussion() {
    let note = json!({"user": {"id": 4}, "project": {"id": 8}, "merge_request": {"iid": 2}, "object_attributes": {"id": 1, "noteable_type": "MergeRequest", "discussion_id": "abc"}});
    let chat = Chat::of_json("gitlab", note).at("https://git.example.com/sub");
    chat.calls(
        CallOf::Send(0),
        "POST https://git.example.com/sub/api/v4/projects/8/merge_requests/2/discussions/abc/notes",
        r#"{"body":"*hello*\n\n<!-- sluicegate:01234567-89ab-cdef-0123-456789abcdef -->"}"#,
    );
    assert_eq!(chat.header(CallOf::Send(0), "private-token"), "T0KEN");
    let issue = json!({"project": {"id": 8}, "issue": {"iid": 5}, "object_attributes": {"noteable_type": "Issue", "discussion_id": "d"}});
    let chat = Chat::of_json("gitlab", issue);
    let call = chat.call(CallOf::Check).unwrap();
    assert_eq!(
        call.url,
        "https://gitlab.com/api/v4/projects/8/issues/5/notes?sort=desc&order_by=created_at&per_page=100"
    );
    chat.verdicts(&[
        (201, r#"{"id":9}"#, "Sent { id: Some(Number(9))"),
        (404, r#"{"message":"404 Not found"}"#, "Gone"),
        (429, "", "Wait"),
        (503, "", "Doubt"),
    ]);
}
