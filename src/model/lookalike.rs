//! Look-alikes of a fence's lines and marks, broken before they are printed inside of the fence.
//!
//! A model is no comparer of bytes: `[/EVENT 19a3…]`, with a letter that has no width between two others or in another
//! alphabet, ends a fence for it as well. So a text is compared as it is seen, and what looks like a line or a mark of
//! its fence gets a [`BREAK`] in it. Everything else of the text stays as it is, byte for byte.
//!
//! Promises: a text that was broken has no look-alike left, and is not changed by being broken once more.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Stands where a look-alike was broken.
pub const BREAK: char = '~';

/// A text in which nothing looks like a line `[word …]` or `[/word …]` of its fence, or like the fence's mark.
pub fn broken<'t>(text: &'t str, mark: &str, word: &str) -> Cow<'t, str> {
    with_breaks(text, |seen| {
        let mut at = seen.marks(mark);
        at.extend(seen.lines(word));
        at
    })
}

/// A text in which nothing looks like the quotation marks `«` and `»`, or like the mark beside them.
pub fn unquoted<'t>(text: &'t str, mark: &str) -> Cow<'t, str> {
    with_breaks(text, |seen| {
        let mut at = seen.marks(mark);
        at.extend(seen.quotes());
        at
    })
}

/// Puts a [`BREAK`] behind the characters that end at these places.
fn with_breaks<'t>(text: &'t str, find: impl FnOnce(&VisibleText) -> Vec<usize>) -> Cow<'t, str> {
    let mut places = find(&VisibleText::of(text));
    if places.is_empty() {
        return Cow::Borrowed(text);
    }
    places.sort_unstable();
    places.dedup();
    let mut out = String::with_capacity(text.len() + places.len());
    let mut from = 0;
    for place in places {
        out.push_str(&text[from..place]);
        out.push(BREAK);
        from = place;
    }
    out.push_str(&text[from..]);
    Cow::Owned(out)
}

/// A text as it is seen: without what has no width, in one case and one alphabet. Each byte knows where the character
/// it came from ends.
struct VisibleText {
    text: String,
    ends: Option<Vec<usize>>,
}

impl VisibleText {
    fn of(text: &str) -> Self {
        // The bulk of what comes in. What is no control character is seen as it stands there.
        if text
            .bytes()
            .all(|byte| byte.is_ascii() && (!byte.is_ascii_control() || byte.is_ascii_whitespace()))
        {
            return Self {
                text: text.to_ascii_lowercase(),
                ends: None,
            };
        }
        let mut seen = String::with_capacity(text.len());
        let mut ends = Vec::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            if is_unseen(c) {
                continue;
            }
            if c.is_ascii() {
                seen.push(c.to_ascii_lowercase());
            } else {
                for part in std::iter::once(c).nfkd().filter(|part| !is_unseen(*part)) {
                    seen.extend(part.to_lowercase().map(in_latin));
                }
            }
            ends.resize(seen.len(), at + c.len_utf8());
        }
        Self {
            text: seen,
            ends: Some(ends),
        }
    }

    /// End of the character, in the original text, that this byte came from.
    fn end(&self, at: usize) -> usize {
        self.ends.as_ref().map_or(at + 1, |ends| ends[at])
    }

    /// The middle of each thing that looks like the mark.
    fn marks(&self, mark: &str) -> Vec<usize> {
        if mark.is_empty() {
            return Vec::new();
        }
        let found = memchr::memmem::find_iter(self.text.as_bytes(), mark.as_bytes());
        found.map(|at| self.end(at + mark.len() / 2)).collect()
    }

    /// The bracket of each thing that looks like a line of a fence.
    fn lines(&self, word: &str) -> Vec<usize> {
        let opens = self.text.char_indices().filter(|(_, c)| is_bracket(*c));
        let lines = opens.filter(|(at, c)| {
            let rest = self.text[at + c.len_utf8()..]
                .trim_start_matches(|c: char| c.is_whitespace() || is_slash(c));
            // Not the beginning of another word; digits of a mark may follow at once.
            rest.strip_prefix(word).is_some_and(|rest| {
                rest.chars()
                    .next()
                    .is_none_or(|next| !next.is_alphanumeric() || next.is_ascii_hexdigit())
            })
        });
        lines.map(|(at, _)| self.end(at)).collect()
    }

    /// The end of each thing that looks like a quotation mark of ours; of a double one, its middle.
    fn quotes(&self) -> Vec<usize> {
        let mut places = Vec::new();
        let mut chars = self.text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map(|(_, next)| *next);
            let doubled = matches!(c, '<' | '>') && next == Some(c);
            if doubled || (is_quote(c) && next != Some(BREAK)) {
                places.push(self.end(at));
            }
        }
        places
    }
}

const fn is_bracket(c: char) -> bool {
    matches!(
        c,
        '[' | '⁅'
            | '〔'
            | '【'
            | '〖'
            | '〘'
            | '〚'
            | '⟦'
            | '⟬'
            | '❲'
            | '⦗'
            | '⦋'
            | '⦍'
            | '⦏'
            | '⸢'
            | '「'
            | '『'
    )
}

const fn is_slash(c: char) -> bool {
    matches!(c, '/' | '\\' | '⁄' | '∕' | '⧸' | '╱' | '⟋' | '⧵' | '⫽')
}

const fn is_quote(c: char) -> bool {
    matches!(
        c,
        '«' | '»'
            | '≪'
            | '≫'
            | '⟪'
            | '⟫'
            | '《'
            | '》'
            | '⦉'
            | '⦊'
            | '❮'
            | '❯'
            | '❰'
            | '❱'
            | '⋘'
            | '⋙'
    )
}

/// True for a character that is invisible in print: format characters, default ignorable ones, and marks on the letter
/// before them.
fn is_unseen(c: char) -> bool {
    (c.is_control() && !c.is_whitespace())
        || matches!(u32::from(c),
            0xad | 0x34f | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2 | 0x115f..=0x1160
            | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0x3164
            | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffb | 0x110bd | 0x110cd | 0x13430..=0x1343f
            | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff)
        || is_combining_mark(c)
}

/// The Latin letter that a letter of another alphabet looks like, as far as it stands in our lines and marks.
const fn in_latin(c: char) -> char {
    match c {
        'а' | 'α' | 'ɑ' => 'a',
        'Ь' | 'ь' | 'ƅ' => 'b',
        'с' | 'ϲ' | 'ᴄ' => 'c',
        'ԁ' | 'ɗ' | 'ᴅ' => 'd',
        'е' | 'ε' | 'є' | 'ҽ' | 'ᴇ' => 'e',
        'ғ' | 'ƒ' => 'f',
        'ո' | 'п' | 'η' | 'ɴ' => 'n',
        'т' | 'τ' | 'ᴛ' => 't',
        'ѵ' | 'ν' | 'ᴠ' => 'v',
        'м' | 'ᴍ' => 'm',
        'ѕ' | 'ꜱ' => 's',
        'о' | 'ο' | 'օ' => 'o',
        'З' | 'з' | 'ʒ' => '3',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARK: &str = "19317d0123456789abcdef0123456789";

    fn event(text: &str) -> Cow<'_, str> {
        broken(text, MARK, "event")
    }

    #[test]
    fn s15_what_looks_like_the_line_of_a_fence_is_broken_visibly() {
        for (text, wanted) in [
            (
                format!("x [/event {MARK}] y"),
                format!("x [~/event {}~{}] y", &MARK[..17], &MARK[17..]),
            ),
            ("[/EVENT 19317D]".into(), "[~/EVENT 19317D]".into()),
            ("[ / event ]".into(), "[~ / event ]".into()),
            ("[/ev\u{200b}ent 1]".into(), "[~/ev\u{200b}ent 1]".into()),
            ("[/e\u{332}vent 1]".into(), "[~/e\u{332}vent 1]".into()),
            (
                "［／ｅｖｅｎｔ １９３１７ｄ］".into(),
                "［~／ｅｖｅｎｔ １９３１７ｄ］".into(),
            ),
            ("[/еvеnт 1]".into(), "[~/еvеnт 1]".into()),
            ("⟦⁄event 1⟧".into(), "⟦~⁄event 1⟧".into()),
            ("[event1]".into(), "[~event1]".into()),
            (
                MARK.to_uppercase(),
                format!("{}~{}", &MARK[..17], &MARK[17..]).to_uppercase(),
            ),
        ] {
            assert_eq!(event(&text), wanted);
        }
        let fine = r#"{"event":"64f1c0ffee0123456789abcd","list":["event","19317d"],"é":"[events] [eventual]"}"#;
        assert!(
            matches!(event(fine), Cow::Borrowed(_)),
            "JSON stays as it is"
        );
    }

    #[test]
    fn s16_what_looks_like_our_quotation_marks_is_broken_visibly() {
        for (text, wanted) in [
            ("a»1234 b", "a»~1234 b"),
            ("1234«b", "1234«~b"),
            ("a >> b >>> c", "a >~> b >~>~> c"),
            ("》", "》~"),
            ("deadbeef", "deadb~eef"),
            ("a > b < c", "a > b < c"),
        ] {
            assert_eq!(unquoted(text, "deadbeef"), wanted);
        }
    }

    /// The parts that look-alikes are made of.
    fn forged() -> impl Strategy<Value = String> {
        let parts = proptest::sample::select(vec![
            "[",
            "/",
            "event",
            "EVENT",
            "e",
            "v",
            "ent",
            "\u{200b}",
            "\u{332}",
            " ",
            "\u{1}",
            "１９３１７ｄ",
            "19317D",
            "0123",
            "456789ab",
            "cdef0123456789",
            "]",
            "［",
            "»",
            "«",
            "<",
            ">",
            "~",
            "é",
            "е",
            "т",
            "\n",
            "《",
            "\u{ad}",
            "x",
        ]);
        proptest::collection::vec(parts, 0..24).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn s15_nothing_that_was_broken_looks_like_a_fence(text in prop_oneof![forged(), any::<String>()]) {
            let once = event(&text).into_owned();
            let seen = VisibleText::of(&once);
            prop_assert!(seen.marks(MARK).is_empty() && seen.lines("event").is_empty(), "{once:?}");
            prop_assert_eq!(event(&once).into_owned(), once.clone(), "once is enough");
            prop_assert_eq!(once.replace(BREAK, ""), text.replace(BREAK, ""), "nothing is lost");

            let once = unquoted(&text, "0123456789ab").into_owned();
            prop_assert!(VisibleText::of(&once).quotes().is_empty() && !once.contains("»0"), "{once:?}");
            prop_assert_eq!(once.replace(BREAK, ""), text.replace(BREAK, ""));
        }
    }
}
