//! A call as the platform's hosted webhook takes it, read and not yet made.

use std::fmt;

use super::Params;

/// A call at the drop-in door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostedCall {
    /// The agent that is called.
    pub agent_id: String,
    /// The upstream's name for the run, where the gateway chooses it; else it is the caller's `task_id`.
    pub id: Option<String>,
    /// `prompt`, `task_id` and what is known of the user, each with where it came from. A prompt that nobody gave is
    /// of [`Origin::Event`](super::Origin::Event).
    pub params: Params,
    /// Fields that are no parameters, as JSON; or a text beside a prompt. Without a prompt it is the message.
    pub extra: Option<String>,
    /// Whether the caller waits for the end.
    pub asynchronous: bool,
    /// Where the answer's value is in the task; a dotted path.
    pub getter: Option<String>,
    /// Whether `result` is answered as JSON.
    pub json: bool,
    /// Tokens for the agent's own tools.
    pub user_tokens: Option<Tokens>,
    /// Whether files stay addresses.
    pub disable_attachment_injection: bool,
    /// Where the settings above came from, for whoever asks.
    pub settings: Vec<Setting>,
}

/// Where a setting of a call came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Which.
    pub name: &'static str,
    /// `path`, `query` or `body`.
    pub from: &'static str,
    /// Where another value was found and passed over.
    pub over: Vec<&'static str>,
}

/// Tokens of a caller's user, as the text of a JSON object. Printing them prints nothing of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens(String);

impl Tokens {
    /// From the text of a JSON object.
    pub const fn new(json: String) -> Self {
        Self(json)
    }

    /// The text. For the call that carries it, and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(***)")
    }
}
