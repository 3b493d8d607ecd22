//! Words of `[reply]` that are called after a service or a specification, and so after providers.

use super::ReplyAuth;

/// Dialects of messages, by their words in provider files.
pub const FORMATS: [&str; 15] = [
    "plain",
    "markdown",
    "telegram",
    "telegram-rich",
    "slack-markdown",
    "slack-mrkdwn",
    "whatsapp",
    "discord",
    "teams",
    "google-chat",
    "html",
    "matrix",
    "zulip",
    "github",
    "gitlab",
];

impl ReplyAuth {
    /// Kinds of proof by their words in a file.
    pub const WORDS: [(&'static str, Self); 8] = [
        ("none", Self::None),
        ("token", Self::Token),
        ("bearer", Self::Bearer),
        ("basic", Self::Basic),
        ("oauth-client", Self::OauthClient),
        ("google-service-account", Self::GoogleServiceAccount),
        ("github-app", Self::GithubApp),
        ("standard-webhooks", Self::StandardWebhooks),
    ];
}
