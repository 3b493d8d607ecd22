//! Patterns for a text, and conditions made of them: `"true"`, `"issues|pulls"`, `"restricted_*"`, `"/^-/"`, `"*"`, `"!"`.

use regex::{Regex, RegexBuilder};

/// The largest compiled expression, in bytes.
const SIZE: usize = 1 << 18;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) enum TextPattern {
    /// Anything that is there.
    Present,
    /// Nothing may be there.
    Absent,
    /// One of these texts, in which `*` stands for any run of characters.
    OneOf(Vec<String>),
    /// A regular expression.
    Expression(Regex),
}

impl TextPattern {
    /// Reads a pattern. The error is a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "*" => Self::Present,
            "!" => Self::Absent,
            _ => match expression(text)? {
                Some(expression) => Self::Expression(expression),
                None => Self::OneOf(text.split('|').map(str::to_owned).collect()),
            },
        })
    }

    /// True if a text fits, or the absence of one.
    pub(crate) fn fits(&self, text: Option<&str>) -> bool {
        match (self, text) {
            (Self::Present, text) => text.is_some(),
            (Self::Absent, text) => text.is_none(),
            (Self::OneOf(words), Some(text)) => words.iter().any(|word| is_like(word, text)),
            (Self::Expression(expression), Some(text)) => expression.is_match(text),
            (_, None) => false,
        }
    }
}

/// A pattern for the text of an error: a part of it in any case of letters, or `/expression/`.
#[derive(Clone, Debug)]
pub(crate) enum ErrorPattern {
    /// A part of the text, in small letters.
    Contains(String),
    /// A regular expression.
    Expression(Regex),
}

impl ErrorPattern {
    /// Reads a pattern. The error is a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Ok(match expression(text)? {
            Some(expression) => Self::Expression(expression),
            None if text.is_empty() => return Err("an empty text fits every error".into()),
            None => Self::Contains(text.to_lowercase()),
        })
    }

    /// True if the text of an error fits.
    pub(crate) fn fits(&self, error: &str) -> bool {
        match self {
            Self::Contains(part) => error.to_lowercase().contains(part.as_str()),
            Self::Expression(expression) => expression.is_match(error),
        }
    }
}

/// The expression between two slashes.
fn expression(text: &str) -> Result<Option<Regex>, String> {
    let inner = text
        .strip_prefix('/')
        .and_then(|rest| rest.strip_suffix('/'));
    let Some(inner) = inner.filter(|inner| !inner.is_empty()) else {
        return Ok(None);
    };
    RegexBuilder::new(inner)
        .size_limit(SIZE)
        .build()
        .map(Some)
        .map_err(|_| format!("{} is no regular expression", text.escape_debug()))
}

/// True if a text is like a word in which `*` stands for any run of characters.
fn is_like(word: &str, text: &str) -> bool {
    let mut pieces = word.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else {
        return rest.is_empty();
    };
    for piece in middle {
        match rest.split_once(piece) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, text: Option<&str>) -> bool {
        TextPattern::parse(pattern).unwrap().fits(text)
    }

    #[test]
    fn patterns_are_words_stars_and_expressions() {
        assert!(fits("true", Some("true")) && !fits("true", Some("truely")));
        assert!(fits("a|b", Some("b")) && !fits("a|b", None));
        assert!(fits("restricted_*", Some("restricted_action_thread")));
        assert!(fits("a*b*c", Some("a-b-b-c")) && !fits("a*b*c", Some("a-c")));
        assert!(!fits("ab*bc", Some("abc")), "the two ends do not overlap");
        assert!(fits("/^-/", Some("-100")) && !fits("/^-/", Some("100")));
        assert!(fits("*", Some("")) && !fits("*", None) && fits("!", None));
        assert!(TextPattern::parse("/(/").is_err());
    }

    #[test]
    fn a_text_of_an_error_is_found_in_any_case() {
        let pattern = ErrorPattern::parse("thread not found").unwrap();
        assert!(pattern.fits("Bad Request: message THREAD not found"));
        assert!(ErrorPattern::parse("").is_err());
    }
}
