//! Compilation of `[reply.sent]` and `[[reply.verdict]]`.

use http::HeaderName;

use super::{AnswerRule, ChannelVerdict, RuleVerdict, StatusPattern, VerdictRule, WaitScope};
use crate::channel::path::ValuePath;
use crate::channel::pattern::{ErrorPattern, TextPattern};
use crate::config::reply::{ReplyConfig, TextPair, VerdictConfig, VerdictThen};
use crate::config::section::nearest;
use crate::config::{Located, Place, Problems};

/// Verdicts that are one word.
static WORDS: [(&str, RuleVerdict); 10] = [
    ("sent", RuleVerdict::Sent),
    ("retry", RuleVerdict::Fixed(ChannelVerdict::Retry)),
    ("wait", RuleVerdict::Wait(WaitScope::Chat, None)),
    ("plain", RuleVerdict::Fixed(ChannelVerdict::Plain)),
    ("smaller", RuleVerdict::Fixed(ChannelVerdict::Smaller)),
    ("next", RuleVerdict::Fixed(ChannelVerdict::Next)),
    ("dead", RuleVerdict::Fixed(ChannelVerdict::Dead)),
    ("gone", RuleVerdict::Fixed(ChannelVerdict::Gone)),
    ("alarm", RuleVerdict::Fixed(ChannelVerdict::Alarm)),
    ("doubt", RuleVerdict::Fixed(ChannelVerdict::Doubt)),
];

impl AnswerRule {
    /// Compiles both tables; every mistake is a problem.
    pub(crate) fn compile(written: &ReplyConfig, problems: &Problems) -> Option<Self> {
        let compiler = AnswerCompiler { written, problems };
        let sent = &written.sent;
        let ok = compiler.conditions(&sent.ok);
        let optional = |path: &Option<Located<String>>| match path {
            Some(path) => compiler.path(path).map(Some),
            None => Some(None),
        };
        let (id, code, error) = (
            optional(&sent.id),
            optional(&sent.code),
            optional(&sent.error),
        );
        let wait = match &sent.wait {
            Some(wait) => compiler.path(&wait.at).map(|at| Some((at, wait.unit))),
            None => Some(None),
        };
        let pace = match &written.pace_headers {
            Some(headers) => {
                let name = |name: &Located<String>| compiler.header(name);
                let (remaining, reset) = (name(&headers.remaining), name(&headers.reset_after));
                remaining.zip(reset).map(Some)
            }
            None => Some(None),
        };
        let verdicts = written.verdicts.iter();
        let verdicts: Vec<_> = verdicts.map(|rule| compiler.rule(rule)).collect();
        Some(Self {
            ok: ok?,
            id: id?,
            code: code?,
            error: error?,
            wait: wait?,
            pace: pace?,
            verdicts: verdicts.into_iter().collect::<Option<_>>()?,
        })
    }
}

struct AnswerCompiler<'w> {
    written: &'w ReplyConfig,
    problems: &'w Problems,
}

impl AnswerCompiler<'_> {
    fn path(&self, written: &Located<String>) -> Option<ValuePath> {
        ValuePath::parse(written)
            .map_err(|what| self.problems.error(&written.place, what))
            .ok()
    }

    fn header(&self, written: &Located<String>) -> Option<HeaderName> {
        HeaderName::try_from(written.value.as_str())
            .map_err(|_| {
                let what = format!("{:?} is no name of a header", written.value);
                self.problems.error(&written.place, what);
            })
            .ok()
    }

    fn conditions(&self, written: &[TextPair]) -> Option<Vec<(ValuePath, TextPattern)>> {
        let condition = |(path, pattern): &TextPair| {
            let path = self.path(path);
            let compiled = TextPattern::parse(pattern);
            let compiled = compiled.map_err(|what| self.problems.error(&pattern.place, what));
            Some((path?, compiled.ok()?))
        };
        let all: Vec<_> = written.iter().map(condition).collect();
        all.into_iter().collect()
    }

    fn status(&self, written: &Located<String>) -> Option<StatusPattern> {
        let hundred = |first: &str| first.parse().ok().filter(|first| (1..=5).contains(first));
        let pattern = match written.strip_suffix("xx") {
            Some(first) => hundred(first).map(StatusPattern::Hundred),
            None => written
                .parse()
                .ok()
                .filter(|status| (100..600).contains(status))
                .map(StatusPattern::One),
        };
        if pattern.is_none() {
            let what = format!("\"{}\" is no status", written.escape_debug());
            let hint = "write a number like 409, or a hundred like \"5xx\"";
            self.problems.error_hint(&written.place, what, hint);
        }
        pattern
    }

    fn rule(&self, written: &VerdictConfig) -> Option<VerdictRule> {
        let status: Vec<_> = written.status.iter().map(|of| self.status(of)).collect();
        let note = |place: &Place, what| self.problems.error(place, what);
        let code = |of: &Located<String>| {
            let pattern = TextPattern::parse(of);
            pattern.map_err(|what| note(&of.place, what)).ok()
        };
        let error = |of: &Located<String>| {
            let pattern = ErrorPattern::parse(of);
            pattern.map_err(|what| note(&of.place, what)).ok()
        };
        let code: Vec<_> = written.code.iter().map(code).collect();
        let error: Vec<_> = written.error.iter().map(error).collect();
        let (when, then) = (self.conditions(&written.when), self.then(&written.then));
        let sent = &self.written.sent;
        let unread = [
            (!code.is_empty() && sent.code.is_none(), "code"),
            (!error.is_empty() && sent.error.is_none(), "error"),
        ];
        for (is_unread, key) in unread {
            if is_unread {
                let what = format!("this verdict needs the {key} of an answer");
                let hint = format!("say where it stands: {key} = \"…\" in [reply.sent]");
                self.problems.error_hint(&written.place, what, hint);
            }
        }
        Some(VerdictRule {
            status: status.into_iter().collect::<Option<_>>()?,
            code: code.into_iter().collect::<Option<_>>()?,
            error: error.into_iter().collect::<Option<_>>()?,
            when: when?,
            then: then?,
        })
    }

    fn then(&self, written: &VerdictThen) -> Option<RuleVerdict> {
        match written {
            VerdictThen::Word(word) => {
                let known = WORDS.iter().find(|(known, _)| *known == word.value);
                if known.is_none() {
                    let names = || WORDS.iter().map(|(word, _)| *word);
                    let hint = nearest(word, names()).map_or_else(
                        || format!("known are {}", names().collect::<Vec<_>>().join(", ")),
                        |near| format!("did you mean {near}?"),
                    );
                    let what = format!("no verdict is called \"{}\"", word.escape_debug());
                    self.problems.error_hint(&word.place, what, hint);
                }
                known.map(|(_, verdict)| verdict.clone())
            }
            // Its name is compared with the ways to send, once they are compiled.
            VerdictThen::Without(name) => {
                let verdict = ChannelVerdict::Without(name.value.clone());
                Some(RuleVerdict::Fixed(verdict))
            }
            VerdictThen::With(values) => {
                let value = |(name, path): &TextPair| {
                    let is_known = self.written.to.iter().any(|to| to.name.value == name.value);
                    if !is_known {
                        let what = format!("no name of the address is {:?}", name.value);
                        self.problems.error(&name.place, what);
                    }
                    let path = self.path(path)?;
                    is_known.then(|| (name.value.clone(), path))
                };
                let all: Vec<_> = values.iter().map(value).collect();
                all.into_iter()
                    .collect::<Option<_>>()
                    .map(RuleVerdict::With)
            }
            VerdictThen::Wait(scope, pause) => match scope.as_str() {
                "chat" => Some(RuleVerdict::Wait(WaitScope::Chat, *pause)),
                "token" => Some(RuleVerdict::Wait(WaitScope::Token, *pause)),
                _ => {
                    let what = format!("nothing rests as \"{}\"", scope.escape_debug());
                    let hint = "write \"chat\" or \"token\"";
                    self.problems.error_hint(&scope.place, what, hint);
                    None
                }
            },
        }
    }
}
