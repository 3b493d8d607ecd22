//! Text with values of the event in it, and conditions over them (minijinja).
//!
//! A template is the operator's word, the values in it are a stranger's. So in a prompt every value is fenced unless
//! the template says `| safe` (see [`super::fence`]). The same event makes the same prompt.
//!
//! Promises: a template is compiled once; rendering it ends (fuel) and stays small; it reads no file and no other
//! template. Headers that prove who somebody is by being known are not in its reach.

mod print;
mod scope;

use std::fmt::Write as _;

use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior};

use print::{Bounded, format, tojson};
pub(super) use scope::{Reach, Scope};

use super::fence::Fence;
use super::number;
use crate::config::{Located, Problems};
use crate::model::Refusal;

/// Fuel of one rendering; an instruction or 64 bytes of text take about one unit.
const FUEL: u64 = 200_000;

/// Purpose of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TemplateUse {
    /// The prompt: values are fenced.
    Prompt,
    /// The thread: values are data.
    Thread,
    /// The condition `when`: nothing is printed, what is missing counts as false.
    When,
}

impl TemplateUse {
    const fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Thread => "thread",
            Self::When => "when",
        }
    }

    const fn variables(self) -> &'static [&'static str] {
        match self {
            Self::Prompt => &["body", "query", "headers", "event_type", "params"],
            Self::Thread | Self::When => &["body", "query", "headers", "event_type"],
        }
    }
}

/// A template, compiled.
#[derive(Debug)]
pub(super) struct Template {
    kind: TemplateUse,
    environment: Environment<'static>,
}

impl Template {
    /// Compiles what the operator wrote; what is wrong with it is a problem.
    pub(super) fn compile(
        kind: TemplateUse,
        written: &Located<String>,
        strict: bool,
        problems: &Problems,
    ) -> Option<Self> {
        let mut environment = Environment::new();
        environment.set_debug(true);
        environment.set_fuel(Some(FUEL));
        environment.set_undefined_behavior(match kind {
            TemplateUse::When => UndefinedBehavior::Chainable,
            _ if strict => UndefinedBehavior::SemiStrict,
            _ => UndefinedBehavior::Chainable,
        });
        environment.set_auto_escape_callback(|name| {
            if name == TemplateUse::Prompt.name() {
                AutoEscape::Custom("fence".into())
            } else {
                AutoEscape::None
            }
        });
        environment.set_formatter(format);
        environment.add_filter("tojson", tojson);
        number::add_filter(&mut environment);
        environment.remove_global("debug");

        let compiled = if kind == TemplateUse::When {
            // The engine keeps templates but not expressions, so the expression, once it is known to be one, becomes
            // a template.
            environment
                .compile_expression(&written.value)
                .map(|_| format!("{{% if ({}) %}}+{{% endif %}}", written.value))
        } else {
            Ok(written.value.clone())
        };
        let compiled = compiled.and_then(|text| {
            environment.add_template_owned(kind.name(), number::calculating(text))
        });
        if let Err(error) = compiled {
            problems.error_hint(
                &written.place,
                format!("{}: {}", kind.name(), said(&error)),
                if kind == TemplateUse::When {
                    "write an expression, for example body.action == \"opened\""
                } else {
                    "values stand in {{ }}, for example {{ body.issue.title }}"
                },
            );
            return None;
        }
        let template = Self { kind, environment };
        template.check_variables(written, problems);
        template.check_calls(written, problems);
        template.check_sense(written, problems);
        Some(template)
    }

    fn check_variables(&self, written: &Located<String>, problems: &Problems) {
        let Ok(compiled) = self.environment.get_template(self.kind.name()) else {
            return;
        };
        let mut unknown: Vec<String> = compiled.undeclared_variables(false).into_iter().collect();
        unknown.retain(|name| {
            !self.kind.variables().contains(&name.as_str())
                && !self.environment.globals().any(|(global, _)| global == name)
        });
        unknown.sort();
        for name in unknown {
            problems.error_hint(
                &written.place,
                format!("{}: there is no {name}", self.kind.name()),
                format!("there are {}", self.kind.variables().join(", ")),
            );
        }
    }

    fn check_calls(&self, written: &Located<String>, problems: &Problems) {
        let source = if self.kind == TemplateUse::When {
            format!("{{{{ ({}) }}}}", written.value)
        } else {
            written.value.clone()
        };
        // The rest of the gateway starts all the same: an event that needs the name is kept as unmappable.
        for (what, hint) in super::calls::unknown(&self.environment, &source) {
            problems.warn(
                &written.place,
                format!("{}: {what}", self.kind.name()),
                hint,
            );
        }
    }

    /// Notes what is a template and does nothing that anybody can want.
    fn check_sense(&self, written: &Located<String>, problems: &Problems) {
        let Ok(compiled) = self.environment.get_template(self.kind.name()) else {
            return;
        };
        let place = &written.place;
        match self.kind {
            TemplateUse::When => {
                let speaks = !compiled.undeclared_variables(false).is_empty();
                let holds = || compiled.render(Value::from_pairs(Vec::<(&str, Value)>::new()));
                if !speaks && holds().is_ok_and(|text| text.is_empty()) {
                    let hint =
                        "write a condition over body, query, headers or event_type, or remove it";
                    problems.warn(place, "when never holds: no event goes further", hint);
                }
            }
            TemplateUse::Prompt if written.value.trim().is_empty() => {
                let hint = "write what the agent is told, or remove the line";
                problems.warn(place, "prompt is empty: no event goes further", hint);
            }
            TemplateUse::Prompt | TemplateUse::Thread => {
                let words = self.kind.variables().iter();
                let single = words.map(|word| format!("{{{word}.")).find(|start| {
                    written
                        .value
                        .match_indices(start.as_str())
                        .any(|(at, _)| !written.value[..at].ends_with(['{', '$']))
                });
                if let Some(start) = single {
                    let what = format!("{}: {start}…}} stands there as it is", self.kind.name());
                    problems.warn(
                        place,
                        what,
                        "values stand in two braces: {{ body.issue.title }}",
                    );
                }
            }
        }
    }

    /// Adds the parts of a request that this template uses.
    pub(super) fn reach(&self, reach: &mut Reach) {
        let names = self
            .environment
            .get_template(self.kind.name())
            .ok()
            .map(|template| {
                // The engine's list does not tell a part of the request from a variable that takes its name.
                let renames = renames_a_part(template.source(), self.kind.variables());
                if renames {
                    None
                } else {
                    Some(template.undeclared_variables(true))
                }
            });
        let Some(Some(names)) = names else {
            return *reach = Reach::ALL;
        };
        for name in names {
            let mut keys = name.split('.');
            match keys.next() {
                Some("body") => reach.body.add(keys),
                Some("headers") => reach.headers = true,
                Some("query") => reach.query = true,
                _ => {}
            }
        }
    }

    /// Names of the parts of a request that this template uses.
    pub(super) fn places(&self) -> Vec<&'static str> {
        let mut reach = Reach::NOTHING;
        self.reach(&mut reach);
        let names = self
            .environment
            .get_template(self.kind.name())
            .map(|template| template.undeclared_variables(false));
        let says = |name: &str| names.as_ref().is_ok_and(|names| names.contains(name));
        let mut places = Vec::new();
        for (place, spoken) in [
            ("body", says("body") || says("params")),
            ("event_type", says("event_type")),
            ("headers", reach.headers),
            ("query", reach.query),
        ] {
            if spoken {
                places.push(place);
            }
        }
        places
    }

    /// Renders the template with the values of a scope.
    pub(super) fn render(&self, scope: &Scope) -> Result<String, Refusal> {
        let mut text = Bounded::default();
        let rendered = self
            .environment
            .get_template(self.kind.name())
            .and_then(|template| {
                template
                    .render_captured_to(scope.value(), &mut text)
                    .map(|_| ())
            });
        match rendered {
            Ok(()) => {}
            // The text is as long as it may get, and rendering ended there.
            Err(_) if text.is_full() => {}
            Err(error) => {
                return Err(Refusal::Unmappable(format!(
                    "{}: {}",
                    self.kind.name(),
                    said(&error)
                )));
            }
        }
        if self.kind == TemplateUse::Prompt {
            let explained = scope.fence().map(Fence::explained).unwrap_or_default();
            return Ok(text.into_text() + &explained);
        }
        Ok(text.into_text())
    }

    /// True if the condition holds. The error says why the condition has no answer.
    pub(super) fn holds(&self, scope: &Scope) -> Result<bool, String> {
        self.environment
            .get_template(self.kind.name())
            .and_then(|template| template.render(scope.value()))
            .map(|text| !text.is_empty())
            .map_err(|error| said(&error))
    }
}

/// True if a template may give the name of a part of the request to a variable of its own. `set` says which name it gives,
/// before its equals sign; the other tags that name variables are rare, and are taken at their worst.
fn renames_a_part(source: &str, parts: &[&str]) -> bool {
    source.split("{%").skip(1).any(|rest| {
        let tag = rest.split("%}").next().unwrap_or(rest);
        let tag = tag.trim_start_matches(['-', '+']).trim_start();
        match tag.split(|c: char| !c.is_ascii_alphabetic()).next() {
            Some("set") => names_a_part(tag.split('=').next().unwrap_or(tag), parts),
            Some("with" | "macro" | "call" | "import" | "from") => true,
            _ => false,
        }
    })
}

/// True if the name of a part stands in a text as a word of its own, not behind a dot.
fn names_a_part(text: &str, parts: &[&str]) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    parts.iter().any(|part| {
        text.match_indices(part).any(|(at, _)| {
            !text[..at].ends_with(|c| is_word(c) || c == '.')
                && !text[at + part.len()..].starts_with(is_word)
        })
    })
}

/// An error in one line, without the name we gave the template.
fn said(error: &Error) -> String {
    let mut said = error.kind().to_string();
    if let Some(detail) = error.detail() {
        let _ = write!(
            said,
            ": {}",
            detail
                .chars()
                .take(200)
                .filter(|c| !c.is_control())
                .collect::<String>()
        );
    }
    if let Some(line) = error.line().filter(|line| *line > 1) {
        let _ = write!(said, " (line {line})");
    }
    said
}
