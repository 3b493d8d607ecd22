//! Options of the stand-in: its behaviour, the faults it plays, and the directives that a message may contain.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::config::{Secret, unit};

/// Options of the stand-in. In JSON, every field may be left out; times are texts like `"5s"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "OptionsPatch")]
pub struct StubOptions {
    /// The key that callers must show; without one any key will do.
    pub api_key: Option<Secret>,
    /// More keys that callers may show instead.
    pub keys: Vec<Secret>,
    /// The agents and workflows that there are, like `support`, `agent/support` or `workflow/w`; without any there are
    /// all.
    pub agents: Vec<String>,
    /// Duration of a run.
    pub delay: Duration,
    /// Answer of every run, in place of an echo of its input.
    pub result: Option<String>,
    /// Rules for faults; the first rule that applies to a call decides.
    pub fail: Vec<FailRule>,
    /// Seed of the random order of faults, so that a test meets the same faults each time.
    pub seed: u64,
    /// A file to which a line of JSON is added for every run that begins or ends. Opened once, at the start.
    pub journal: Option<PathBuf>,
}

/// Options to change at run time: what is left out stays.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptionsPatch {
    api_key: Option<String>,
    keys: Option<Vec<String>>,
    agents: Option<Vec<String>>,
    #[serde(deserialize_with = "duration")]
    delay: Option<Duration>,
    result: Option<String>,
    fail: Option<Vec<FailRule>>,
    seed: Option<u64>,
    journal: Option<PathBuf>,
}

impl Default for StubOptions {
    fn default() -> Self {
        let (keys, agents) = (Vec::new(), Vec::new());
        Self {
            api_key: None,
            keys,
            agents,
            delay: Duration::ZERO,
            result: None,
            fail: Vec::new(),
            seed: 1,
            journal: None,
        }
    }
}

impl From<OptionsPatch> for StubOptions {
    fn from(change: OptionsPatch) -> Self {
        let mut options = Self::default();
        options.apply(change);
        options
    }
}

impl StubOptions {
    /// Takes over what a change names. An empty text for the key or the result takes it away.
    pub fn apply(&mut self, change: OptionsPatch) {
        if let Some(key) = change.api_key {
            self.api_key = (!key.is_empty()).then(|| Secret::new("the stub's key", key));
        }
        if let Some(result) = change.result {
            self.result = (!result.is_empty()).then_some(result);
        }
        if let Some(keys) = change.keys {
            self.keys = keys
                .into_iter()
                .map(|key| Secret::new("the stub's key", key))
                .collect();
        }
        self.agents = change
            .agents
            .unwrap_or_else(|| std::mem::take(&mut self.agents));
        self.delay = change.delay.unwrap_or(self.delay);
        self.fail = change
            .fail
            .unwrap_or_else(|| std::mem::take(&mut self.fail));
        self.seed = change.seed.unwrap_or(self.seed);
        self.journal = change.journal.or_else(|| self.journal.take());
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let time = unit::duration(&text);
    time.map(Some)
        .ok_or_else(|| serde::de::Error::custom("a time is a number and ms, s, min or h"))
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StubFault {
    /// An answer with this status, and nothing runs. 429 and 503 come with `Retry-After: 1`.
    Status(u16),
    /// 503 without `Retry-After`: nobody can tell whether anything runs. Nothing does.
    Unavailable,
    /// A 502 as from something in between, while the run goes on.
    Gateway,
    /// The connection is closed before the body is read, and nothing runs.
    DropBefore,
    /// The run begins, and the connection is closed.
    DropAfter,
    /// The run takes ten times as long, and a second more.
    Slow,
    /// The run ends in failure.
    Failed,
    /// The run ends well, but its answer is half a JSON text.
    Malformed,
}

impl StubFault {
    /// The word in a rule and in the counters.
    pub fn word(self) -> String {
        match self {
            Self::Status(status) => return status.to_string(),
            Self::Unavailable => "unavailable",
            Self::Gateway => "gateway",
            Self::DropBefore => "drop-before",
            Self::DropAfter => "drop-after",
            Self::Slow => "slow",
            Self::Failed => "failed",
            Self::Malformed => "malformed",
        }
        .to_owned()
    }

    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "unavailable" => Self::Unavailable,
            "gateway" => Self::Gateway,
            "drop-before" => Self::DropBefore,
            "drop-after" => Self::DropAfter,
            "slow" => Self::Slow,
            "failed" => Self::Failed,
            "malformed" => Self::Malformed,
            status => Self::Status(
                status
                    .parse()
                    .ok()
                    .filter(|status| (300..600).contains(status))?,
            ),
        })
    }
}

/// Rule for a fault: `429=0.1` is a tenth of the calls by chance, `drop-after=1/7` is every seventh call.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct FailRule {
    /// The fault.
    pub fault: StubFault,
    /// The calls that it applies to.
    pub when: When,
}

/// Calls that a rule applies to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// To this part of the calls, by chance.
    Fraction(f64),
    /// To every so many-th call.
    Every(u64),
}

impl FromStr for FailRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (fault, when) = text.split_once('=')?;
            let when = match when.split_once('/') {
                Some(("1", every)) => When::Every(every.parse().ok().filter(|every| *every > 0)?),
                Some(_) => return None,
                None => When::Fraction(
                    when.parse()
                        .ok()
                        .filter(|part| (0.0..=1.0).contains(part))?,
                ),
            };
            Some(Self {
                fault: StubFault::parse(fault)?,
                when,
            })
        };
        read().ok_or_else(|| {
            "a rule is a fault and how often: \"429=0.1\" (a tenth, by chance) or \"drop-after=1/7\" (every seventh); \
             faults are a status, unavailable, gateway, drop-before, drop-after, slow, failed, malformed"
                .to_owned()
        })
    }
}

impl TryFrom<String> for FailRule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for FailRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.when {
            When::Fraction(part) => write!(f, "{}={part}", self.fault.word()),
            When::Every(every) => write!(f, "{}=1/{every}", self.fault.word()),
        }
    }
}

/// Directive in a message: `[[stub delay=5s status=failed http=503 drop=after times=2 result=…]]`. It overrides the
/// options. `result` comes last and takes the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StubDirective {
    /// `delay=5s`: how long the run takes.
    pub delay: Option<Duration>,
    /// `status=failed`: how the run ends.
    pub status: Option<String>,
    /// `http=503`, `http=unavailable`, `drop=before`, `drop=after`, `answer=malformed`, `fault=gateway`: what goes
    /// wrong.
    pub fault: Option<StubFault>,
    /// `retry-after=2`: the header's value, whatever it is, beside `http`.
    pub retry_after: Option<String>,
    /// `times=2`: only the first two calls with this text go wrong.
    pub times: Option<u32>,
    /// `result=…`: what the run answers.
    pub result: Option<String>,
}

impl StubDirective {
    /// Reads the directive in a text; a text without one gives an empty directive.
    pub fn read(text: &str) -> Self {
        let mut wish = Self::default();
        let Some(inner) = text
            .split_once("[[stub")
            .and_then(|(_, rest)| rest.split_once("]]"))
        else {
            return wish;
        };
        let mut rest = inner.0.trim();
        while !rest.is_empty() {
            let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "delay" => wish.delay = unit::duration(value),
                "status" => wish.status = Some(value.to_owned()),
                "http" | "fault" => wish.fault = StubFault::parse(value),
                "drop" => wish.fault = StubFault::parse(&format!("drop-{value}")),
                "answer" => wish.fault = StubFault::parse(value),
                "retry-after" => wish.retry_after = Some(value.to_owned()),
                "times" => wish.times = value.parse().ok(),
                "result" => {
                    wish.result = rest.split_once('=').map(|(_, result)| result.to_owned());
                    return wish;
                }
                _ => {}
            }
            rest = after.trim_start();
        }
        wish
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_back_as_printed_and_nothing_else_does() {
        for rule in [
            "429=0.1",
            "500=1",
            "drop-before=1/7",
            "drop-after=0",
            "unavailable=0.5",
            "slow=1/1",
        ] {
            assert_eq!(rule.parse::<FailRule>().unwrap().to_string(), rule);
        }
        for wrong in [
            "", "429", "429=2", "429=-1", "429=NaN", "200=1", "700=1", "drop=1", "slow=1/0",
            "slow=2/3",
        ] {
            assert!(wrong.parse::<FailRule>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_change_leaves_alone_what_it_does_not_name() {
        let mut options: StubOptions =
            serde_json::from_str(r#"{"delay":"5s","api_key":"k","fail":["429=1/2"]}"#).unwrap();
        assert!(!format!("{options:?}").contains("\"k\""));
        options.apply(serde_json::from_str(r#"{"delay":"10ms"}"#).unwrap());
        assert_eq!(
            (options.delay, options.fail.len()),
            (Duration::from_millis(10), 1)
        );
        options.apply(serde_json::from_str(r#"{"fail":[],"api_key":""}"#).unwrap());
        assert!(options.fail.is_empty() && options.api_key.is_none());
        for wrong in [
            r#"{"delay":"soon"}"#,
            r#"{"dealy":"1s"}"#,
            r#"{"fail":["x"]}"#,
        ] {
            assert!(
                serde_json::from_str::<StubOptions>(wrong).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_message_may_ask_for_its_own_fate() {
        let wish = StubDirective::read(
            "before [[stub delay=5s  status=failed drop=after times=2 result=all is = well]] after",
        );
        assert_eq!(
            wish,
            StubDirective {
                delay: Some(Duration::from_secs(5)),
                status: Some("failed".into()),
                fault: Some(StubFault::DropAfter),
                retry_after: None,
                times: Some(2),
                result: Some("all is = well".into()),
            }
        );
        let wish = StubDirective::read("[[stub http=503 retry-after=2]]");
        assert_eq!(
            (wish.fault, wish.retry_after.as_deref()),
            (Some(StubFault::Status(503)), Some("2"))
        );
        for none in [
            "",
            "[[stub",
            "[[stub]]",
            "[[stub nonsense x=]]",
            "stub delay=5s",
        ] {
            assert_eq!(
                StubDirective::read(none),
                StubDirective::default(),
                "{none}"
            );
        }
    }
}
