//! Compiler of a `[[challenge]]` table.

use http::Method;

use super::Challenge;
use super::reply::Reply;
use super::signing_oracle::SigningOracle;
use crate::config::{Section, Table};
use crate::verify::inputs::SchemeInputs;
use crate::verify::request::condition::conditions;
use crate::verify::request::field::Field;
use crate::verify::scheme::refusal_status;
use crate::verify::template::ContentTemplate;
use crate::verify::template::parse::TemplateSetup;

impl Challenge {
    /// Compiles a `[[challenge]]` table. `setup` holds the values that its templates may use.
    pub(crate) fn compile(
        table: &Table,
        name: &str,
        setup: &TemplateSetup<'_>,
        given: &SchemeInputs<'_>,
    ) -> Option<Self> {
        let problems = given.problems;
        let section = Section::new(table, name, problems);
        let mut whole = true;
        let store = match section.text("store_secret") {
            Some(text) => {
                let field = Field::parse(&text, problems);
                whole &= field.is_some();
                field
            }
            None => None,
        };
        let otherwise = refusal_status(&section, "otherwise");
        let method = method(&section);
        whole &= otherwise.is_some() && method.is_some();
        let (otherwise, method) = (otherwise.flatten(), method.flatten());
        let when = conditions(&section);
        whole &= when.is_some();
        let when = when.unwrap_or_default();
        if whole && when.is_empty() && method.as_ref().is_none_or(|method| method == Method::POST) {
            let what = format!("{} would answer every request", section.name());
            problems.error_hint(
                section.place(),
                what,
                "say which with when = { … } or a method",
            );
            whole = false;
        }
        let require = require(&section, setup);
        whole &= require.is_some();
        let signed = section.bool("signed").is_some_and(|yes| yes.value);
        let reply = match section.section("reply") {
            Some(reply) => Reply::read(&reply, setup),
            None => {
                problems.error(
                    section.place(),
                    format!("{} is missing", section.path("reply")),
                );
                None
            }
        };
        let reply = reply?;
        let asked = SigningOracle::read(&section, &reply.templates())?;
        whole.then_some(Self {
            method,
            when,
            signed,
            require: require.unwrap_or_default(),
            store,
            otherwise,
            asked,
            reply,
        })
    }
}

/// Reads `method`; the outer none where it is not known.
fn method(section: &Section<'_>) -> Option<Option<Method>> {
    let Some(word) = section.text("method") else {
        return Some(None);
    };
    let known = [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST];
    let method = known
        .into_iter()
        .find(|method| method.as_str() == word.value);
    if method.is_none() {
        let what = format!(
            "{} must be GET, HEAD, OPTIONS or POST",
            section.path("method")
        );
        section.problems().error(&word.place, what);
    }
    method.map(Some)
}

/// Reads `require`, a table of fields and the text that each must hold.
fn require(
    section: &Section<'_>,
    setup: &TemplateSetup<'_>,
) -> Option<Vec<(Field, ContentTemplate)>> {
    let mut all = Some(Vec::new());
    for (field, text) in section.text_table("require").unwrap_or_default() {
        let field = Field::parse(&field, section.problems());
        let template = ContentTemplate::compile(&text, setup);
        all = all.zip(field.zip(template)).map(|(mut all, pair)| {
            all.push(pair);
            all
        });
    }
    all
}
