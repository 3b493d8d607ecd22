//! Description of a channel for people: what it can promise about a message whose end is not known, how long a message may
//! be, and at what pace messages go.

use std::fmt;
use std::time::Duration;

use super::spec::{ChannelSpec, HostPattern, KeyMemory, PaceScope, unit_name};
use crate::config::reply::ReplyAuth;

/// A promise of a channel about a send whose end is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OncePromise {
    /// A repeat with the same key is dropped for a time; always where none is given.
    Key(Option<Duration>),
    /// The call changes one message, so that a repeat changes nothing more.
    Idempotent,
    /// A message of ours can be changed again.
    Edit,
    /// The channel can be asked if it has the message.
    Question,
    /// A later event proves the message, within a time.
    Proof(Duration),
}

impl fmt::Display for OncePromise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(None) => f.write_str("a key: a repeat is dropped"),
            Self::Key(Some(time)) => write!(f, "a key: a repeat is dropped for {}", span(*time)),
            Self::Idempotent => f.write_str("a call that changes one message"),
            Self::Edit => f.write_str("an edit, if a placeholder was sent before"),
            Self::Question => f.write_str("a question: the channel says if it has the message"),
            Self::Proof(time) => write!(f, "a proof: a later event, within {}", span(*time)),
        }
    }
}

/// Lines of a channel for `provider show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelDoc {
    /// Promises by way: the target, and what a repeat by it does. No promise means that an operator decides.
    pub once: Vec<(String, Vec<OncePromise>)>,
    /// Names and texts of all other lines.
    pub facts: Vec<(&'static str, String)>,
    /// Keys of the file that are known from memory alone.
    pub recall: Vec<String>,
}

impl ChannelSpec {
    /// Describes the channel.
    pub fn doc(&self) -> ChannelDoc {
        let once = self.ways.iter().map(|way| {
            let mut promises = Vec::new();
            if let Some(key) = way.key {
                promises.push(OncePromise::Key(match key {
                    KeyMemory::Always => None,
                    KeyMemory::For(time) => Some(time),
                }));
            }
            if way.is_idempotent {
                promises.push(OncePromise::Idempotent);
            }
            promises.extend(self.edit.as_ref().map(|_| OncePromise::Edit));
            promises.extend(self.check.as_ref().map(|_| OncePromise::Question));
            let proof = self.proof.as_ref();
            promises.extend(proof.map(|proof| OncePromise::Proof(proof.within)));
            (way.label.clone(), promises)
        });
        ChannelDoc {
            once: once.collect(),
            facts: self.facts(),
            recall: self.recall.clone(),
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        if let Some(api) = &self.api {
            facts.push(("host", api.0.clone()));
        }
        let host = |host: &HostPattern| match host {
            HostPattern::Exact(host) => host.clone(),
            HostPattern::Below(parent) => format!("*.{parent}"),
        };
        let hosts: Vec<String> = self.hosts.iter().map(host).collect();
        if !hosts.is_empty() {
            facts.push(("addresses at", hosts.join(", ")));
        }
        let mut words = ReplyAuth::WORDS.iter();
        let auth = words.find(|(_, auth)| *auth == self.auth);
        facts.push(("proved by", auth.map_or("", |(word, _)| *word).to_owned()));
        if !self.values.is_empty() {
            facts.push(("values", self.values.join(", ")));
        }
        facts.push(("format", self.format.clone()));
        let limits = &self.limits;
        let over = match limits.is_after_parsing {
            true => " without markup",
            false => "",
        };
        let unit = unit_name(limits.unit);
        facts.push(("length", format!("{} {unit}{over}", limits.length)));
        facts.push(("parts", format!("{} at most", limits.max_parts)));
        for rule in &self.pace {
            let per = match &rule.per {
                PaceScope::Chat => "chat".to_owned(),
                PaceScope::Token => "token".to_owned(),
                PaceScope::Of(names) => names.join(" and "),
            };
            let (count, time) = (rule.rate.count, span(rule.rate.per));
            let burst = rule.burst.map(|burst| format!(", {burst} at once"));
            let burst = burst.unwrap_or_default();
            facts.push(("pace", format!("{count} in {time} for each {per}{burst}")));
        }
        for way in &self.ways {
            if let Some(until) = way.until {
                let text = format!("{} after the event: {}", span(until), way.label);
                facts.push(("open for", text));
            }
            if let Some(uses) = way.uses {
                facts.push(("uses", format!("{uses} an event: {}", way.label)));
            }
        }
        if let Some(window) = self.window {
            facts.push(("window", format!("{} after the event", span(window))));
        }
        let signs = [(&self.typing, "typing"), (&self.mark, "mark")];
        for (_, name) in signs.iter().filter(|(sign, _)| sign.is_some()) {
            facts.push(("sign of life", (*name).to_owned()));
        }
        facts
    }
}

/// A time as people write it.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        _ if seconds.is_multiple_of(86_400) => format!("{} d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{} h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::tests::{spec, telegram};

    #[test]
    fn a_channel_is_described_by_what_it_promises() {
        let doc = telegram().doc();
        let (target, promises) = &doc.once[0];
        assert_eq!(target, "/bot{token}/sendMessage");
        assert_eq!(promises, &[OncePromise::Edit]);
        let has = |name: &str, text: &str| doc.facts.contains(&(name, text.to_owned()));
        assert!(
            has("length", "4096 UTF-16 units without markup"),
            "{:?}",
            doc.facts
        );
        assert!(has("pace", "20 in 1 min for each chat"));
        assert!(has("sign of life", "typing") && has("host", "https://api.telegram.org"));
    }

    #[test]
    fn keys_with_a_window_and_facts_from_memory_are_named() {
        let doc = spec(
            "[reply]\napi = 'https://api.example.com'\nlimit = 9\nto.chat = 'json:chat'\nrecall = ['limit']\n[[reply.send]]\ntarget = '/x'\nkey = '{key}'\nkey_window = '25s'\nuntil = '15min'\nbody = { text = '{text}', key = '{key}' }\n",
        )
        .doc();
        let key = OncePromise::Key(Some(Duration::from_secs(25)));
        assert_eq!(doc.once[0].1, [key]);
        assert_eq!(key.to_string(), "a key: a repeat is dropped for 25 s");
        assert!(
            doc.facts
                .contains(&("open for", "15 min after the event: /x".to_owned()))
        );
        assert_eq!(doc.recall, ["limit"]);
    }
}
