//! Compilation of a `[reply]` section. Every mistake of a file is found here, all of them in one pass.

mod call;

use http::Method;

use self::call::CallKind;
use super::{
    ApiBase, ChannelBody, ChannelSpec, CheckRule, HostPattern, KeyMemory, PaceRule, PaceScope,
    ProofRule, SendWay, SignOfLife, TargetTemplate,
};
use crate::channel::address::AddressRule;
use crate::channel::path::ValuePath;
use crate::channel::pattern::TextPattern;
use crate::channel::template::{Slot, SlotUse, TemplateNames, TextTemplate};
use crate::channel::verdict::AnswerRule;
use crate::config::reply::{
    FORMATS, PaceConfig, ProofConfig, QuestionConfig, ReplyAuth, ReplyConfig, SendConfig,
    SignConfig, TextPair, VerdictThen,
};
use crate::config::section::nearest;
use crate::config::{Located, Problems};

impl ChannelSpec {
    /// Compiles a section. Every mistake is a problem, and with one nothing is returned.
    pub fn compile(written: &ReplyConfig, problems: &Problems) -> Option<Self> {
        let compiler = SpecCompiler::new(written, problems);
        compiler.names_are_free();
        compiler.words();
        let address = AddressRule::compile(written, problems);
        let send = written.send.iter();
        // Everything is compiled before anything is given up, so that all mistakes come at once.
        let ways: Vec<_> = send.map(|way| compiler.way(way)).collect();
        let edit = written
            .edit
            .as_ref()
            .map(|edit| compiler.call(edit, CallKind::Edit, Method::POST));
        let check = written.check.as_ref().map(|check| compiler.check(check));
        let proof = written.proof.as_ref().map(|proof| compiler.proof(proof));
        let typing = written.typing.as_ref().map(|sign| compiler.sign(sign));
        let mark = written.mark.as_ref().map(|sign| compiler.sign(sign));
        let pace: Vec<_> = written
            .pace
            .iter()
            .map(|pace| compiler.pace(pace))
            .collect();
        let answers = AnswerRule::compile(written, problems);
        let ways: Vec<SendWay> = ways.into_iter().collect::<Option<_>>()?;
        compiler.keys_are_sent(&ways);
        compiler.left_out(&ways);
        Some(Self {
            api: written.api.as_ref().map(ApiBase::of),
            hosts: written.hosts.iter().map(pattern).collect(),
            auth: written.auth,
            address,
            values: texts(&written.values),
            quote: written.quote.as_ref().map(|name| name.value.clone()),
            format: written.format.value.clone(),
            limits: written.limits.clone(),
            pace: pace.into_iter().collect::<Option<_>>()?,
            window: written.window.as_ref().map(|window| window.value),
            ways,
            answers: answers?,
            edit: all_or_none(edit)?,
            check: all_or_none(check)?,
            proof: all_or_none(proof)?,
            typing: all_or_none(typing)?,
            mark: all_or_none(mark)?,
            recall: texts(&written.recall),
        })
        .filter(|_| !problems.any_error())
    }
}

/// Turns "there, and perhaps wrong" into "there or not", and nothing if it is wrong.
fn all_or_none<T>(compiled: Option<Option<T>>) -> Option<Option<T>> {
    match compiled {
        Some(None) => None,
        Some(Some(whole)) => Some(Some(whole)),
        None => Some(None),
    }
}

fn texts(located: &[Located<String>]) -> Vec<String> {
    located.iter().map(|text| text.value.clone()).collect()
}

fn pattern(host: &Located<String>) -> HostPattern {
    let lower = host.to_ascii_lowercase();
    match lower.strip_prefix("*.") {
        Some(parent) => HostPattern::Below(parent.to_owned()),
        None => HostPattern::Exact(lower),
    }
}

/// Keys that `recall` may name.
const RECALLED: [&str; 14] = [
    "api", "check", "edit", "entities", "format", "limit", "mark", "pace", "proof", "send", "to",
    "typing", "verdict", "window",
];

struct SpecCompiler<'w> {
    written: &'w ReplyConfig,
    problems: &'w Problems,
    names: TemplateNames<'w>,
}

impl<'w> SpecCompiler<'w> {
    fn new(written: &'w ReplyConfig, problems: &'w Problems) -> Self {
        let names = written.to.iter().map(|name| name.name.value.as_str());
        let values = written.values.iter().map(|name| name.value.as_str());
        Self {
            written,
            problems,
            names: TemplateNames {
                known: names.chain(values).collect(),
            },
        }
    }

    /// Reports names that templates could not tell from others.
    fn names_are_free(&self) {
        let to = self.written.to.iter().map(|name| &name.name);
        let mut seen: Vec<&str> = Vec::new();
        for name in to.chain(&self.written.values) {
            let is_word = name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            let hint = "write another name in small letters, digits and _";
            if Slot::is_built_in(name) || seen.contains(&name.value.as_str()) {
                let what = format!("the name {} has a meaning already", name.escape_debug());
                self.problems.error_hint(&name.place, what, hint);
            } else if !is_word || name.is_empty() {
                let what = format!("\"{}\" is no name", name.escape_debug());
                self.problems.error_hint(&name.place, what, hint);
            }
            seen.push(&name.value);
        }
    }

    /// Reports words and combinations that mean nothing.
    fn words(&self) {
        let written = self.written;
        let format = &written.format;
        if !FORMATS.contains(&format.as_str()) {
            let near = nearest(format, FORMATS.into_iter());
            let hint = near.map_or_else(
                || format!("known are {}", FORMATS.join(", ")),
                |near| format!("did you mean {near}?"),
            );
            let what = format!("no format is called \"{}\"", format.escape_debug());
            self.problems.error_hint(&format.place, what, hint);
        }
        for key in &written.recall {
            let first = key.split('.').next().unwrap_or_default();
            if !RECALLED.contains(&first) {
                let what = format!(
                    "\"{}\" is no key that can be known from memory",
                    key.escape_debug()
                );
                let hint = format!("known are {}", RECALLED.join(", "));
                self.problems.error_hint(&key.place, what, hint);
            }
        }
        if let Some(quote) = &written.quote
            && !self.names.known.contains(&quote.value.as_str())
        {
            let what = format!("no name of the address is {:?}", quote.value);
            self.problems.error(&quote.place, what);
        }
        for host in &written.hosts {
            let bare = host.strip_prefix("*.").unwrap_or(host);
            let is_host = bare.contains('.')
                && bare.split('.').all(|label| {
                    !label.is_empty()
                        && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                });
            if !is_host {
                let what = format!("\"{}\" is no host", host.escape_debug());
                let hint = "write a name like hooks.example.com, or *.example.com";
                self.problems.error_hint(&host.place, what, hint);
            }
        }
        let asks_for_token = matches!(written.auth, ReplyAuth::OauthClient);
        if asks_for_token && written.token_url.is_none() {
            let what = "auth = \"oauth-client\" needs token_url";
            self.problems.error(&written.place, what);
        }
    }

    fn when(&self, written: &[TextPair]) -> Option<Vec<(String, TextPattern)>> {
        let condition = |(name, pattern): &TextPair| {
            let is_known = self.names.known.contains(&name.value.as_str());
            if !is_known {
                let what = format!("no name of the address is {:?}", name.value);
                let hint = format!("known are {}", self.names.known.join(", "));
                self.problems.error_hint(&name.place, what, hint);
            }
            let compiled = TextPattern::parse(pattern);
            let compiled = compiled.map_err(|what| self.problems.error(&pattern.place, what));
            Some((is_known.then(|| name.value.clone())?, compiled.ok()?))
        };
        let all: Vec<_> = written.iter().map(condition).collect();
        all.into_iter().collect()
    }

    fn way(&self, written: &SendConfig) -> Option<SendWay> {
        let call = self.call(&written.call, CallKind::Send, Method::POST);
        let when = self.when(&written.when);
        let call = call?;
        if let Some(key) = &written.key {
            let template = self.text(key, CallKind::Send)?;
            // A signature over the body has the key among its headers.
            let is_signed = self.written.auth == ReplyAuth::StandardWebhooks;
            if !template.slots().any(is_key) || !(is_signed || call.any(is_key)) {
                let what = "this way has a key, and {key} is not in its call";
                self.problems.error(&key.place, what);
            }
        }
        let says =
            |of: &SlotUse| matches!(of.slot, Slot::Text | Slot::Plain | Slot::Html | Slot::Texts);
        if !call.any(says) {
            let what = "this way sends no text: {text} is not in its call";
            self.problems.error(&written.call.place, what);
        }
        let carries_several =
            matches!(&call.body, ChannelBody::Json(body) if body.carries_several());
        let is_below_api = matches!(call.target, TargetTemplate::Below(_));
        let sends_secret =
            is_below_api && !matches!(self.written.auth, ReplyAuth::None | ReplyAuth::Token);
        Some(SendWay {
            carries_key: call.any(is_key),
            needs_secret: sends_secret || call.any(|of| of.slot == Slot::Token),
            call,
            when: when?,
            until: written.until,
            uses: written.uses,
            part: written.part,
            key: written.key.as_ref().map(|_| {
                written
                    .key_window
                    .as_ref()
                    .map_or(KeyMemory::Always, |window| KeyMemory::For(window.value))
            }),
            is_idempotent: written.idempotent,
            batch: match carries_several {
                true => self.written.limits.batch,
                false => 1,
            },
            label: written.call.target.value.clone(),
        })
    }

    fn path(&self, written: &Located<String>) -> Option<ValuePath> {
        ValuePath::parse(written)
            .map_err(|what| self.problems.error(&written.place, what))
            .ok()
    }

    fn check(&self, written: &QuestionConfig) -> Option<CheckRule> {
        let call = self.call(&written.call, CallKind::Check, Method::GET);
        let same = |(path, text): &TextPair| {
            let (path, text) = (self.path(path), self.text(text, CallKind::Check));
            Some((path?, text?))
        };
        let same: Vec<_> = written.same.iter().map(same).collect();
        let (each, id) = (self.path(&written.each), written.id.as_ref());
        let id = all_or_none(id.map(|id| self.path(id)));
        let list = all_or_none(written.list.as_ref().map(|list| self.path(list)));
        let same: Vec<(ValuePath, TextTemplate)> = same.into_iter().collect::<Option<_>>()?;
        if !same.iter().any(|(_, text)| text.slots().any(is_key)) {
            let what = "a message is ours only if it has our key: {key} is not in same";
            self.problems.error(&written.each.place, what);
        }
        Some(CheckRule {
            call: call?,
            list: list?,
            each: each?,
            page: written.page,
            same,
            id: id?,
            after: written.after,
        })
    }

    fn proof(&self, written: &ProofConfig) -> Option<ProofRule> {
        let each: Vec<_> = written.each.iter().map(|path| self.path(path)).collect();
        let id = all_or_none(written.id.as_ref().map(|id| self.path(id)));
        let (mut failed, mut code) = (Vec::new(), None);
        for (name, text) in &written.failed {
            if name.value == "code" {
                code = Some(self.path(text)?);
                continue;
            }
            let pattern = TextPattern::parse(text);
            let pattern = pattern.map_err(|what| self.problems.error(&text.place, what));
            failed.push((self.path(name)?, pattern.ok()?));
        }
        Some(ProofRule {
            events: texts(&written.events),
            each: each.into_iter().collect::<Option<_>>()?,
            key: self.path(&written.key)?,
            id: id?,
            within: written.within,
            failed,
            code,
        })
    }

    fn sign(&self, written: &SignConfig) -> Option<SignOfLife> {
        let call = self.call(&written.call, CallKind::Sign, Method::POST);
        let off = written
            .off
            .as_ref()
            .map(|off| self.call(off, CallKind::Sign, Method::POST));
        Some(SignOfLife {
            call: call?,
            every: written.every,
            most: written.most,
            off: all_or_none(off)?,
        })
    }

    fn pace(&self, written: &PaceConfig) -> Option<PaceRule> {
        let when = self.when(&written.when);
        let per = match written.per.as_str() {
            "chat" => PaceScope::Chat,
            "token" => PaceScope::Token,
            _ => {
                let template = self.text(&written.per, CallKind::Sign)?;
                let names = template.slots().filter_map(|of| match &of.slot {
                    Slot::Named(name) => Some(name.clone()),
                    _ => None,
                });
                PaceScope::Of(names.collect())
            }
        };
        Some(PaceRule {
            per,
            rate: written.rate.value,
            burst: written.burst,
            when: when?,
        })
    }

    /// Reports a proof or a question that finds a message by its key, where no way to send hands over a key.
    fn keys_are_sent(&self, ways: &[SendWay]) {
        if ways.iter().any(|way| way.call.any(is_key)) {
            return;
        }
        let proof = self.written.proof.as_ref().map(|proof| &proof.place);
        let check = self.written.check.as_ref().map(|check| &check.call.place);
        for place in proof.into_iter().chain(check) {
            let what = "a message is found by its key, and no way to send has {key} in it";
            self.problems.error(place, what);
        }
    }

    /// Reports values that a verdict leaves out although a call cannot be made without them.
    fn left_out(&self, ways: &[SendWay]) {
        for verdict in &self.written.verdicts {
            let VerdictThen::Without(name) = &verdict.then else {
                continue;
            };
            let needs = |of: &SlotUse| {
                !of.is_optional && matches!(&of.slot, Slot::Named(known) if *known == name.value)
            };
            if !self.names.known.contains(&name.value.as_str()) {
                let what = format!("no name of the address is {:?}", name.value);
                self.problems.error(&name.place, what);
            } else if ways.iter().any(|way| way.call.any(needs)) {
                let what = format!(
                    "a way to send needs {{{}}}, so it cannot be left out",
                    name.value
                );
                let hint = format!("write {{{}?}} there", name.value);
                self.problems.error_hint(&name.place, what, hint);
            }
        }
    }
}

/// True for the key, whole or cut.
fn is_key(of: &SlotUse) -> bool {
    matches!(of.slot, Slot::Key(_))
}
