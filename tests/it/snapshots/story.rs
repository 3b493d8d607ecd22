//! The fixed story behind the snapshots: events that are delivered, refused, dead, unknown, doubled, filtered,
//! unmappable, held and over budget; a file, a key, a window for a secret, and a provider's own log.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use serde_json::{Value, json};

use crate::reconcile::{Api, delivery, hook_log, issue};
use crate::upload;
use crate::world::{Gateway, Upstream, borrowed, github, json as body_of, wait_for};

const SECRET: &str = "github-secret-12";

/// The key of the gateway's own that the story uses.
const KEY: &str = "a-key-of-the-gateways-own";

/// A gateway after the story, and the ids of what happened in it.
pub(super) struct Story {
    pub(super) gateway: Gateway,
    _upstream: Upstream,
    _api: Api,
    pub(super) delivered: String,
    pub(super) dead: String,
    pub(super) unknown: String,
    pub(super) unmappable: String,
    pub(super) pending: String,
    pub(super) held: String,
    pub(super) with_file: String,
    pub(super) refused: String,
}

fn sources(upstream: &Upstream, api: &Api) -> String {
    format!(
        r#"
[attachments]
store = "file:data/files"
[dispatch]
max_attempts = 1
[sources.talks]
provider = "custom"
agent = "talker"
verify = {{ scheme = "none", event_id = "json:id", event_type = "json:kind" }}
params_mapping = {{ prompt = "text", user_id = "who" }}
thread = "talk"
[sources.hub]
provider = "github"
secrets = ["literal:{SECRET}", {{ value = "literal:github-secret-13", until = 2100-01-01 }}]
agent = "triage"
prompt = "{{{{ event_type }}}} in {{{{ body.repository.full_name }}}}"
events = ["issues.opened", "installation.created"]
[sources.few]
provider = "custom"
agent = "seldom"
verify = {{ scheme = "none" }}
params_mapping = {{ prompt = "text" }}
runs_per_day = 1
[sources.files]
provider = "custom"
agent = "reader"
verify = {{ scheme = "none" }}
files = true
[sources.quiet]
provider = "custom"
agent = "silent"
verify = {{ scheme = "none" }}
params_mapping = {{ prompt = "text" }}
[sources.tasks]
provider = "asana"
agent = "tasks"
enrol_file = "tasks.secrets"
prompt = "a task"
[sources.log]
provider = "github"
secrets = ["literal:{SECRET}"]
agent = "triage"
events = ["issues.opened"]
prompt = "Triage {{{{ body.issue.title }}}}"
[sources.log.reconcile]
api = "http://{api}/api/v3/"
token = "literal:an-api-token-of-the-log"
hook = "repos/octo/app/hooks/42"
[keys.ci]
key = "literal:{KEY}"
agents = ["talker"]
runs_per_day = 5
[keys.left]
key = "literal:the-key-of-one-who-left"
expires = 2020-01-01
[[proxy]]
prefix = "/v1"
upstream = "http://{upstream}"
"#,
        upstream = upstream.address,
        api = api.address,
    )
}

impl Story {
    /// Plays the story up to its end, when nothing moves any more.
    pub(super) async fn play() -> Self {
        let script = hook_log(vec![
            delivery("103", "g-3", 30, issue(7, "three")),
            delivery("102", "g-2", 40, issue(7, "two")),
            delivery("101", "g-1", 50, issue(7, "one")),
        ]);
        let api = Api::start(move |address, seen, _| script(address, seen)).await;
        let upstream = Upstream::start(&[]).await;
        let config = Gateway::config(upstream.address, &sources(&upstream, &api), "")
            .replace("[upstream]", "keep_refused = 5\n[upstream]")
            .replace("[log]", "search = true\n[log]\nfilter = \"info\"");
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let gateway = Gateway::start_config_in(folder.clone(), &config).await;
        // Commands find the gateway by this file.
        let known = config
            .replacen(
                "listen = \"127.0.0.1:0\"",
                &format!("listen = \"{}\"", gateway.public),
                1,
            )
            .replacen(
                "listen = \"127.0.0.1:0\"",
                &format!("listen = \"{}\"", gateway.admin),
                1,
            );
        std::fs::write(folder.path().join("known.toml"), known).expect("the folder takes files");

        let say = async |id: u32, text: &str| {
            let event = json!({ "id": id, "kind": "said", "talk": format!("t{id}"), "text": text, "who": "u1" });
            event_of(&gateway.post("/hooks/talks", &[], event.to_string()).await)
        };
        let delivered = say(1, "hello").await;
        gateway.settled(&delivered).await;
        assert_eq!(say(1, "hello").await, delivered, "the same event again");
        let dead = say(2, "[[stub http=422]]").await;
        gateway.settled(&dead).await;
        let unknown = say(3, "[[stub drop=after]]").await;
        gateway.settled(&unknown).await;
        let few = async |text: &str| {
            event_of(
                &gateway
                    .post("/hooks/few", &[], json!({ "text": text }).to_string())
                    .await,
            )
        };
        gateway.settled(&few("the first of today").await).await;
        let pending = few("one too many for today").await;

        let hub = async |delivery: &str, kind: &str, body: &str| {
            let headers = github(SECRET, delivery, kind, body);
            gateway
                .post("/hooks/hub", &borrowed(&headers), body.to_owned())
                .await
        };
        let answer = hub(
            "d-1",
            "issues",
            r#"{"action":"opened","repository":{"full_name":"octo/app"}}"#,
        )
        .await;
        gateway.settled(&event_of(&answer)).await;
        hub("d-2", "push", r#"{"repository":{"full_name":"octo/app"}}"#).await;
        let unmappable = event_of(&hub("d-3", "installation", r#"{"action":"created"}"#).await);
        gateway.settled(&unmappable).await;
        let forged = github("another-secret-xy", "d-4", "issues", "{}");
        gateway.post("/hooks/hub", &borrowed(&forged), "{}").await;
        gateway.post("/hooks/nowhere", &[], "{}").await;
        gateway.post("/hooks/talks", &[], "no json").await;
        let refused = gateway.admin_json("/refused?source=hub").await["items"][0]["request_id"]
            .as_str()
            .expect("an id")
            .to_owned();

        let (kind, form) = (
            upload::kind(),
            upload::form(
                &[("prompt", "read it")],
                &[("file", "a.txt", "text/plain", b"the text")],
            ),
        );
        let answer = gateway
            .post("/hooks/files", &[(kind.0, &kind.1)], form)
            .await;
        let with_file = event_of(&answer);
        gateway.settled(&with_file).await;

        let key = [("x-api-key", KEY)];
        let call = r#"{"input":{"text":"through the proxy"}}"#;
        gateway
            .send(Method::POST, "/v1/agents/talker/invoke", &key, call)
            .await;
        gateway
            .send(Method::GET, "/v1/agents/talker", &key, "")
            .await;

        gateway.admin(Method::POST, "/sources/quiet/pause").await;
        let answer = gateway
            .post("/hooks/quiet", &[], r#"{"text":"not now"}"#)
            .await;
        let held = event_of(&answer);
        let story = Self {
            gateway,
            _upstream: upstream,
            _api: api,
            delivered,
            dead,
            unknown,
            unmappable,
            pending,
            held,
            with_file,
            refused,
        };
        story.at_rest().await;
        story
    }

    /// Waits until every run that was begun is done with, in the accounts of the dispatcher as well.
    pub(super) async fn at_rest(&self) {
        wait_for("nothing to be in flight", async || {
            let page = self.gateway.admin_json("/destinations").await;
            let status = self.gateway.admin_json("/status").await;
            let busy = page["items"].as_array()?.iter().any(|destination| {
                destination["fare"]["in_flight"]
                    .as_u64()
                    .is_some_and(|count| count > 0)
            });
            let why = self
                .gateway
                .admin_json(&format!("/events/{}", self.pending))
                .await;
            let settled = why["waits_for"]["why"] == "runs_per_day"
                || why["deliveries"][0]["state"] != "pending";
            (!busy && settled && status["waiting"]["running"] == 0).then_some(())
        })
        .await;
    }

    /// Folder of the gateway and its configuration.
    pub(super) fn folder(&self) -> String {
        self.gateway.folder.path().display().to_string()
    }
}

fn event_of(answer: &Response<Bytes>) -> String {
    let body: Value = body_of(answer);
    body["event_id"]
        .as_str()
        .unwrap_or_else(|| panic!("no event: {body}"))
        .to_owned()
}
