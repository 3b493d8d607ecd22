//! The channels of a configuration: one for each source with `reply`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reply::ReplyPolicy;
use super::spec::ChannelSpec;
use crate::config::reply::{ChatThreads, OverflowRule, ReplyAuth, ReplyConfig, SourceReply};
use crate::config::{Config, Place, Problems};

/// The channel of one source.
#[derive(Clone, Debug)]
pub struct SourceChannel {
    /// The channel of its provider, with what the source wants otherwise.
    pub spec: ChannelSpec,
    /// The rules for its replies.
    pub policy: ReplyPolicy,
    /// Its values for the names that the provider's file asks for.
    pub values: Vec<(String, String)>,
}

/// A source as far as its channel is concerned.
#[derive(Clone, Copy, Debug)]
pub struct ChannelSource<'s> {
    /// Name of the source.
    pub name: &'s str,
    /// The `reply` of the source.
    pub reply: &'s SourceReply,
    /// Name of its provider.
    pub provider: &'s str,
    /// The `[reply]` of the provider's file.
    pub described: Option<&'s ReplyConfig>,
}

/// Channels by the name of their source.
#[derive(Clone, Debug, Default)]
pub struct Channels(BTreeMap<String, Arc<SourceChannel>>);

impl Channels {
    /// Compiles the channel of every source with `reply`; every mistake is a problem.
    pub fn compile<'s>(
        sources: impl Iterator<Item = ChannelSource<'s>>,
        problems: &Problems,
    ) -> Self {
        let channel = |source: ChannelSource<'s>| {
            let channel = SourceChannel::compile(&source, problems)?;
            Some((source.name.to_owned(), Arc::new(channel)))
        };
        Self(sources.filter_map(channel).collect())
    }

    /// Compiles the channels of a configuration.
    pub fn of(config: &Config, problems: &Problems) -> Self {
        let sources = config.sources.iter().filter_map(|source| {
            let provider = config.providers.get(&source.provider.value);
            let reply = source.reply.as_ref()?;
            Some(ChannelSource {
                name: &source.name,
                reply,
                provider: &source.provider.value,
                described: provider.and_then(|provider| provider.reply.as_ref()),
            })
        });
        Self::compile(sources, problems)
    }

    /// The channel of a source.
    pub fn get(&self, source: &str) -> Option<&Arc<SourceChannel>> {
        self.0.get(source)
    }
}

impl SourceChannel {
    fn compile(source: &ChannelSource<'_>, problems: &Problems) -> Option<Self> {
        let reply = source.reply;
        let Some(described) = source.described else {
            problems.error_hint(
                &reply.place,
                format!(
                    "the provider {} does not say how an answer goes back",
                    source.provider
                ),
                "describe it in [reply] of a provider file of your own, or leave reply out",
            );
            return None;
        };
        if described.is_api_of_source && reply.api.is_none() {
            problems.error_hint(
                &reply.place,
                format!(
                    "{} runs on a host of its operator, and reply does not name it",
                    source.provider
                ),
                "write api = \"https://…\"",
            );
        }
        values(reply, described, problems);
        warn_of_what_has_no_effect(reply, problems);
        let spec = ChannelSpec::compile(&reply.over(described), problems)?;
        let has_secret = has_secret(reply, described.auth);
        if !has_secret && spec.ways.iter().all(|way| way.needs_secret) {
            let (keys, _) = keys(described.auth);
            problems.error_hint(
                &reply.place,
                format!(
                    "no message can be sent to {} without a secret",
                    source.provider
                ),
                format!("write {keys}"),
            );
        }
        Some(Self {
            policy: ReplyPolicy {
                has_secret,
                repeats_unknown: reply.repeats_unknown,
                max_age: reply.max_age,
            },
            values: reply
                .values
                .iter()
                .map(|(name, value)| (name.value.clone(), value.value.clone()))
                .collect(),
            spec,
        })
    }
}

/// Warns of settings that are read and that nothing obeys yet.
fn warn_of_what_has_no_effect(reply: &SourceReply, problems: &Problems) {
    let sentences = &reply.sentences;
    let is_path = |path: &str| path == "result" || path.starts_with("result.");
    let settings = [
        ("addressed", reply.is_always_addressed),
        ("bots", !reply.bots.is_empty()),
        ("edits", reply.edits_are_new),
        ("thread", reply.thread != ChatThreads::Keep),
        ("placeholder", reply.placeholder.is_some()),
        ("stream", reply.stream),
        ("exactly", reply.exactly_by_edit),
        ("overflow", reply.overflow != OverflowRule::Cut),
        ("previews", reply.previews),
        ("on_paused", sentences.on_paused.is_some()),
        ("on_refused", sentences.on_refused.is_some()),
    ];
    for (name, is_set) in settings {
        if is_set {
            let what = format!("reply.{name} has no effect yet");
            problems.warn(
                &reply.place,
                what,
                "leave it out; docs/channels.md lists what is built",
            );
        }
    }
    if let Some(path) = reply.result.as_ref().filter(|path| !is_path(&path.value)) {
        problems.error_hint(
            &path.place,
            "reply.result is no path into the result of a run",
            "write result, or a path such as result.summary",
        );
    }
}

/// Reports values that are missing, and those that nothing asks for.
fn values(reply: &SourceReply, described: &ReplyConfig, problems: &Problems) {
    let note = |place: &Place, what: String, hint: &str| problems.error_hint(place, what, hint);
    for name in &described.values {
        if !reply
            .values
            .iter()
            .any(|(known, _)| known.value == name.value)
        {
            let what = format!("reply has no value for {}", name.value);
            note(
                &reply.place,
                what,
                &format!("write values = {{ {} = \"…\" }}", name.value),
            );
        }
    }
    for (name, _) in &reply.values {
        if !described
            .values
            .iter()
            .any(|known| known.value == name.value)
        {
            let what = format!(
                "the provider asks for no value called {}",
                name.escape_debug()
            );
            note(&name.place, what, "leave it out");
        }
    }
}

/// True if a source has the secrets that a way of proof needs.
fn has_secret(reply: &SourceReply, auth: ReplyAuth) -> bool {
    keys(auth).1(reply)
}

/// Keys of a source that a way of proof needs, and the test that they are there.
fn keys(auth: ReplyAuth) -> (&'static str, fn(&SourceReply) -> bool) {
    let has_client =
        |reply: &SourceReply| reply.client_id.is_some() && reply.client_secret.is_some();
    match auth {
        ReplyAuth::None => ("nothing", |_| true),
        ReplyAuth::Token | ReplyAuth::Bearer => {
            ("token = \"env:…\"", |reply| reply.token.is_some())
        }
        ReplyAuth::Basic | ReplyAuth::OauthClient => ("client_id and client_secret", has_client),
        ReplyAuth::GoogleServiceAccount | ReplyAuth::StandardWebhooks => {
            ("key = \"file:…\"", |reply| reply.key.is_some())
        }
        ReplyAuth::GithubApp => ("token, or client_id and key", |reply| {
            reply.token.is_some() || (reply.client_id.is_some() && reply.key.is_some())
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::channel::tests::{TELEGRAM, problems};
    use crate::config::{Section, Table};

    fn compiled(provider: Option<&str>, source: &str) -> (Channels, String) {
        let found = Problems::default();
        let channels = {
            let described = provider.and_then(|text| {
                let table = Table::parse("provider.toml", text, &found);
                let file = Section::new(&table, "", &found);
                ReplyConfig::read(&file.section("reply")?)
            });
            let table = Table::parse("gate.toml", source, &found);
            let section = Section::new(&table, "sources.a", &found);
            let reply = SourceReply::read(&section, Path::new(".")).expect("a reply");
            let source = ChannelSource {
                name: "a",
                reply: &reply,
                provider: "p",
                described: described.as_ref(),
            };
            Channels::compile(std::iter::once(source), &found)
        };
        let all = found.into_sorted();
        let all: Vec<String> = all
            .iter()
            .map(ToString::to_string)
            .filter(|line| line.contains("error"))
            .collect();
        (channels, all.join("\n"))
    }

    #[test]
    fn a_source_changes_what_it_names_and_keeps_the_rest() {
        assert!(problems(TELEGRAM).is_empty());
        let (channels, found) = compiled(
            Some(TELEGRAM),
            "reply = { token = 'literal:0123456789abcdef', api = 'https://bots.example.com/x', to = { topic = 'json?:none' }, format = 'plain', max_parts = 2, on_unknown = 'retry' }",
        );
        assert_eq!(found, "");
        let channel = channels.get("a").unwrap();
        assert_eq!(channel.spec.api(), Some("https://bots.example.com/x"));
        assert_eq!(
            (channel.spec.format(), channel.spec.limits().max_parts),
            ("plain", 2)
        );
        assert!(channel.policy.repeats_unknown && channel.policy.has_secret);
    }

    #[test]
    fn a_source_that_could_not_answer_is_reported() {
        let (_, found) = compiled(None, "reply = true");
        assert!(
            found.contains("does not say how an answer goes back"),
            "{found}"
        );
        let (_, found) = compiled(Some(TELEGRAM), "reply = true");
        assert!(
            found.contains("without a secret") && found.contains("token ="),
            "{found}"
        );
        let own = TELEGRAM.replace(
            "\"https://api.telegram.org\"",
            "\"source\"\nvalues = ['account']",
        );
        let (_, found) = compiled(
            Some(&own),
            "reply = { token = 'literal:0123456789abcdef', values = { other = 'x' } }",
        );
        for part in [
            "on a host of its operator",
            "no value for account",
            "no value called other",
        ] {
            assert!(found.contains(part), "{part} in\n{found}");
        }
    }

    #[test]
    fn a_way_that_needs_no_secret_is_enough() {
        let free = "[reply]\napi = 'https://api.example.com'\nlimit = 9\nto.chat = 'json:chat'\n[[reply.send]]\ntarget = '/{chat}'\nbody = { text = '{text}' }\n[[reply.send]]\ntarget = '/x'\nheaders = { Authorization = 'Bot {token}' }\nbody = { text = '{text}' }";
        let (channels, found) = compiled(Some(free), "reply = true");
        assert_eq!(found, "");
        assert!(!channels.get("a").unwrap().policy.has_secret);
    }
}
