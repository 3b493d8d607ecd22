//! Secrets: written as `env:NAME`, `file:PATH` or `literal:TEXT`, and never printed.

use std::fmt;
use std::path::Path;

use zeroize::Zeroize as _;

use super::problem::{Located, Problems};

/// A secret value with the name it goes by. Printing it in any way prints the name only.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    name: String,
    value: Vec<u8>,
}

impl Secret {
    /// A secret made by the program itself.
    pub fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), value: value.into() }
    }

    /// What it goes by: `env:HOOK_SECRET`, `file:/run/secrets/old`, `literal 1`.
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
    pub fn resolve(written: &Located<String>, number: usize, base: &Path, problems: &Problems) -> Option<Self> {
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
        Some(Self { name, value })
    }
}

impl Drop for Secret {
    /// What was a secret is none of whoever gets this memory next.
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
    use crate::config::problem::Place;

    fn written(text: &str) -> Located<String> {
        Located { value: text.into(), place: Place { file: "t".into(), line: 1 } }
    }

    #[test]
    fn prints_its_name_only() {
        let problems = Problems::default();
        let secret = Secret::resolve(&written("literal:hunter22"), 0, Path::new("."), &problems).expect("a secret");
        assert_eq!(secret.expose(), b"hunter22");
        assert!(!format!("{secret:?} {secret}").contains("hunter22"));
    }

    #[test]
    fn refuses_what_is_empty_missing_or_bare() {
        for wrong in ["literal:", "hunter22", "env:SLUICEGATE_NO_SUCH_VARIABLE", "file:/no/such/file"] {
            let problems = Problems::default();
            assert!(Secret::resolve(&written(wrong), 0, Path::new("."), &problems).is_none(), "{wrong}");
            assert!(problems.any_error(), "{wrong}");
        }
    }
}
