//! Strength of a configured secret.

use crate::config::{Located, Problems, Secret};

/// Secrets that documentation uses as examples.
const WELL_KNOWN: [&str; 14] = [
    "secret",
    "changeme",
    "change-me",
    "password",
    "your-secret",
    "your_secret",
    "yoursecret",
    "your-webhook-secret",
    "my-secret",
    "mysecret",
    "webhook-secret",
    "webhooksecret",
    "supersecret",
    "test-secret",
];

/// Reports a secret that can be guessed; one that is written out in the file is a warning only.
pub(crate) fn weigh(secret: &Located<Secret>, problems: &Problems) {
    let value = String::from_utf8_lossy(secret.expose()).to_ascii_lowercase();
    if secret.is_placeholder() {
        // Reported where it is read.
        return;
    }
    let what = if WELL_KNOWN.contains(&value.as_str()) {
        format!("the secret {} is one that everybody knows", secret.name())
    } else if secret.expose().len() < 8 {
        format!("the secret {} is shorter than 8 characters", secret.name())
    } else {
        return;
    };
    let hint =
        "set a long random one here and with the provider, for example from: openssl rand -hex 32";
    if secret.name().starts_with("literal ") {
        problems.warn(&secret.place, what, hint);
    } else {
        problems.error_hint(&secret.place, what, hint);
    }
}
