//! Secrets: written as `env:NAME`, `file:PATH` or `literal:TEXT`, and never printed.

use std::fmt;
use std::path::Path;

use zeroize::Zeroize as _;

use super::problem::{Located, Place, Problems};
use crate::model::Timestamp;

/// A secret value with the name it goes by. Printing it in any way prints the name only.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    name: String,
    value: Vec<u8>,
    until: Option<Timestamp>,
}

impl Secret {
    /// A secret made by the program itself.
    pub fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            until: None,
        }
    }

    /// The same under another name, good until a moment where there is one.
    #[must_use]
    pub fn called(mut self, name: Option<String>, until: Option<Timestamp>) -> Self {
        if let Some(name) = name {
            self.name = name;
        }
        self.until = until;
        self
    }

    /// From when on it proves nothing any more.
    pub const fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Name of the secret: `env:HOOK_SECRET`, `file:/run/secrets/old`, `literal 1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value itself. For the digest or the header that needs it, and for nothing else.
    pub fn expose(&self) -> &[u8] {
        &self.value
    }

    /// The value as text, where it is text.
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.value).ok()
    }

    /// The value as a header that is not printed; none for one that no header can carry.
    pub fn as_header(&self) -> Option<http::HeaderValue> {
        let mut value = http::HeaderValue::from_bytes(&self.value).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Finds the value behind what was written; what cannot be found is a problem. `number` names literals.
    pub fn resolve(
        written: &Located<String>,
        number: usize,
        base: &Path,
        problems: &Problems,
    ) -> Option<Self> {
        let place = &written.place;
        let (kind, rest) = match written.value.split_once(':') {
            Some((kind @ ("env" | "file" | "literal"), rest)) => (kind, rest),
            _ => {
                problems.error_hint(
                    place,
                    "a secret must say where it is kept",
                    "write \"env:NAME\", \"file:/path\", or for trying out \"literal:TEXT\"",
                );
                return None;
            }
        };
        let (name, value) = match kind {
            "env" => match std::env::var(rest) {
                Ok(value) => (written.value.clone(), value.into_bytes()),
                Err(_) => {
                    problems.error_hint(
                        place,
                        format!("the environment variable {rest} is not set"),
                        format!("set it before starting: export {rest}=…"),
                    );
                    return None;
                }
            },
            "file" => match std::fs::read(base.join(rest)) {
                Ok(mut value) => {
                    while matches!(value.last(), Some(b'\n' | b'\r')) {
                        value.pop();
                    }
                    (written.value.clone(), value)
                }
                Err(error) => {
                    problems.error_hint(
                        place,
                        format!("the secret file {rest} cannot be read: {error}"),
                        "put the secret alone into that file, readable by the user that runs sluicegate",
                    );
                    return None;
                }
            },
            _ => (format!("literal {}", number + 1), rest.as_bytes().to_vec()),
        };
        if value.is_empty() {
            problems.error_hint(
                place,
                "this secret is empty",
                "an empty secret would let everyone in; set a value of 16 or more random characters",
            );
            return None;
        }
        let secret = Self {
            name,
            value,
            until: None,
        };
        secret.doubt(kind == "literal", place, problems);
        Some(secret)
    }

    /// True for a placeholder: a value that was never filled in, or a shell expression that no shell has run.
    pub fn is_placeholder(&self) -> bool {
        let text = String::from_utf8_lossy(&self.value);
        let text = text.trim();
        let is_within = |open: &str, close: &str| text.starts_with(open) && text.ends_with(close);
        const WORDS: [&str; 8] = [
            "todo",
            "tbd",
            "fixme",
            "your-api-key",
            "your_api_key",
            "your-key-here",
            "your-secret-here",
            "insert-key-here",
        ];
        text.chars()
            .all(|letter| matches!(letter, '…' | '.' | 'x' | 'X' | '*' | '•'))
            || is_within("<", ">")
            || is_within("${", "}")
            || is_within("$(", ")")
            || is_within("`", "`")
            || WORDS.contains(&text.to_ascii_lowercase().as_str())
    }

    /// Notes a value that is probably not what was meant.
    fn doubt(&self, is_literal: bool, place: &Place, problems: &Problems) {
        let name = self.name();
        if self.is_placeholder() {
            let text = String::from_utf8_lossy(&self.value);
            let (what, hint) = match text.trim_start().starts_with(['$', '`']) {
                true => (
                    format!(
                        "the secret {name} is a command or variable that no shell has filled in"
                    ),
                    "write double quotes around it where it is set, or keep the value in a file: file:PATH",
                ),
                false => (
                    format!("the secret {name} is a placeholder"),
                    "put the value itself there",
                ),
            };
            // What was written for trying out is only pointed at.
            match is_literal {
                true => problems.warn(place, what, hint),
                false => problems.error_hint(place, what, hint),
            }
        } else if self.value.starts_with(b"\xff\xfe") || self.value.starts_with(b"\xef\xbb\xbf") {
            let what = format!("the secret {name} begins with a byte order mark");
            problems.warn(
                place,
                what,
                "save the file again as UTF-8 without one: it counts as a part of the secret",
            );
        } else if self.value.trim_ascii().len() != self.value.len() {
            let what = format!("the secret {name} has blanks or line ends around it, which count");
            problems.warn(place, what, "remove them, unless they belong to it");
        }
    }
}

impl Drop for Secret {
    /// Overwrites the secret before its memory is used again.
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Located<String> {
        Located {
            value: text.into(),
            place: Place {
                file: "t".into(),
                line: 1,
            },
        }
    }

    #[test]
    fn prints_its_name_only() {
        let problems = Problems::default();
        let secret = Secret::resolve(&written("literal:hunter22"), 0, Path::new("."), &problems)
            .expect("a secret");
        assert_eq!(secret.expose(), b"hunter22");
        assert!(!format!("{secret:?} {secret}").contains("hunter22"));
    }

    #[test]
    fn what_nobody_filled_in_is_told() {
        let said = |text: &str| {
            let problems = Problems::default();
            let _ = Secret::resolve(&written(text), 0, Path::new("."), &problems);
            problems
                .into_sorted()
                .iter()
                .map(ToString::to_string)
                .collect::<String>()
        };
        for placeholder in [
            "…",
            "...",
            "xxxx",
            "<your key>",
            "${KEY}",
            "TODO",
            "your-api-key",
        ] {
            assert!(
                said(&format!("literal:{placeholder}")).contains("warning"),
                "{placeholder}"
            );
        }
        let command = said("literal:$(openssl rand -hex 24)");
        assert!(
            command.contains("no shell") && !command.contains("openssl rand"),
            "{command}"
        );
        assert!(said("literal: a-long-enough-secret").contains("blanks"));
        assert_eq!(said("literal:a-long-enough-secret"), "");
    }

    #[test]
    fn refuses_what_is_empty_missing_or_bare() {
        for wrong in [
            "literal:",
            "hunter22",
            "env:SLUICEGATE_NO_SUCH_VARIABLE",
            "file:/no/such/file",
        ] {
            let problems = Problems::default();
            assert!(
                Secret::resolve(&written(wrong), 0, Path::new("."), &problems).is_none(),
                "{wrong}"
            );
            assert!(problems.any_error(), "{wrong}");
        }
    }
}
