//! Paths to a value of a document: a dotted path is followed while the body is read, a JSONPath needs a tree, which is made
//! when the path is used.

use super::jsonpath::JsonPath;
use crate::config::{Located, Problems};
use crate::json::Dotted;

/// The dotted paths of a mapping, each once; they are followed together.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths(Vec<Dotted>);

impl Paths {
    /// Adds a path and returns the number under which its piece is found.
    pub(super) fn add(&mut self, path: Dotted) -> usize {
        self.0
            .iter()
            .position(|known| *known == path)
            .unwrap_or_else(|| {
                self.0.push(path);
                self.0.len() - 1
            })
    }

    /// All of them, in the order of their numbers.
    pub(super) fn list(&self) -> &[Dotted] {
        &self.0
    }
}

/// A compiled path.
#[derive(Clone, Debug)]
pub(super) enum Path {
    /// By its number in [`Paths`].
    Dotted(usize),
    /// RFC 9535.
    Json(Box<JsonPath>),
}

impl Path {
    /// Compiles a path. An invalid path is reported to `problems`.
    pub(super) fn compile(
        written: &Located<String>,
        paths: &mut Paths,
        problems: &Problems,
    ) -> Option<Self> {
        let better = super::notation::better(written);
        let compiled = if written.starts_with('$') {
            JsonPath::parse(written).map(|path| Self::Json(Box::new(path)))
        } else {
            Dotted::parse(written)
                .map(|path| Self::Dotted(paths.add(path)))
                .map_err(str::to_owned)
        };
        match compiled {
            Ok(path) => {
                super::notation::doubt(written, problems);
                Some(path)
            }
            Err(what) => {
                let hint = match better {
                    Some(right) => format!("did you mean {right:?}?"),
                    None => {
                        "write a dotted path like \"message.chat.id\" or a JSONPath like \"$.items[0].id\"".to_owned()
                    }
                };
                problems.error_hint(
                    &written.place,
                    format!("{:?} is no path: {what}", written.value),
                    hint,
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::corpus;
    use crate::json::{Dotted, extract, tree};

    #[test]
    fn t60_numbers_keep_their_digits() {
        for row in corpus::cases("edge-cases/numbers.json").as_array().unwrap() {
            let number = row["number"].as_str().unwrap();
            let text = format!("{{\"n\":{number}}}");
            let found = extract(&text, &[Dotted::parse("n").unwrap()]).unwrap();
            assert_eq!(
                found[0].clone().and_then(|range| text.get(range)),
                Some(number)
            );
            assert_eq!(tree(&text).unwrap().to_string(), text);
        }
        assert_eq!(tree("[1E5]").unwrap().to_string(), "[1E5]");
        assert_eq!(json!({"a": 1}), tree("{\"a\":1}").unwrap());
    }
}
