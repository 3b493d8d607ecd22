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
    /// True if the caller does not wait for the end.
    pub asynchronous: bool,
    /// Path of the answer's value in the task, with dots.
    pub getter: Option<String>,
    /// True if `result` is answered as JSON.
    pub json: bool,
    /// Tokens for the agent's own tools.
    pub user_tokens: Option<Tokens>,
    /// True if files stay addresses.
    pub disable_attachment_injection: bool,
    /// Origins of the settings above, for an explanation of the call.
    pub settings: Vec<Setting>,
}

/// Origin of a setting of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// `path`, `query` or `body`.
    pub from: &'static str,
    /// Places in which another value was found and passed over.
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
