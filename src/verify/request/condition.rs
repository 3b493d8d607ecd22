//! Condition on one text of a request, as `when` tables write it.

use super::RequestTexts;
use super::field::Field;
use crate::config::Section;

/// Condition on the text at a place.
#[derive(Debug)]
pub(crate) enum FieldCondition {
    Present,
    Absent,
    Is(String),
}

/// Reads the table `when`.
pub(crate) fn conditions(section: &Section<'_>) -> Option<Vec<(Field, FieldCondition)>> {
    let mut all = Some(Vec::new());
    for (field, text) in section.text_table("when").unwrap_or_default() {
        let want = match text.value.as_str() {
            "*" => FieldCondition::Present,
            "!" => FieldCondition::Absent,
            _ => FieldCondition::Is(text.value),
        };
        all = all
            .zip(Field::parse(&field, section.problems()))
            .map(|(mut all, field)| {
                all.push((field, want));
                all
            });
    }
    all
}

impl FieldCondition {
    /// True if the request meets the condition; an unreadable document meets none but absence.
    pub(crate) fn met(&self, field: &Field, request: &RequestTexts<'_>) -> bool {
        if let (Self::Is(text), Field::Json(_)) = (self, field)
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
            && !contains(&request.received.body, text)
        {
            // No sender writes such letters escaped, so a body without them is another request: most are, and need
            // not be read as JSON before their signature is checked.
            return false;
        }
        // A document that cannot be read meets no condition here; the judgement reports it.
        self.holds(field, request)
            .unwrap_or(matches!(self, Self::Absent))
    }

    /// True if the request meets the condition; an unreadable document is an error.
    pub(crate) fn holds(&self, field: &Field, request: &RequestTexts<'_>) -> Result<bool, String> {
        let found = request.text(field, None)?;
        Ok(match self {
            Self::Present => found.is_some(),
            Self::Absent => found.is_none(),
            Self::Is(text) => found.is_some_and(|found| &*found == text.as_bytes()),
        })
    }
}

fn contains(body: &[u8], text: &str) -> bool {
    std::str::from_utf8(body).is_ok_and(|body| body.contains(text))
}
