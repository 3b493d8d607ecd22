//! JSON that is cut to a size and is still JSON. The place of each cut says how much was left out.
//!
//! Long strings are cut first, to the longest length that lets everything else stay. Where that is not enough, lists and
//! objects end early. Numbers and keys keep their spelling.

use std::fmt::Write as _;

use super::is_valid;

/// Lengths that strings are cut to, in bytes of their spelling.
const LENGTHS: [usize; 11] = [
    65_536, 32_768, 16_384, 8_192, 4_096, 2_048, 1_536, 1_024, 768, 512, 256,
];

/// Room for the end of one open list or object, and for the words that say what was left out of it.
const END: usize = 64;

/// Length that strings are cut to where lists and objects have to end early.
const SHORT: usize = 1_024;

/// Deepest nesting that is kept where something has to be left out.
const DEEPEST: usize = 128;

/// Cuts a compact JSON text to about `most` bytes. A text that is not JSON comes back unchanged.
pub fn shorten(json: &str, most: usize) -> String {
    if json.len() <= most || !is_valid(json) {
        return json.to_owned();
    }
    for length in LENGTHS {
        let whole = Shorter {
            json,
            at: 0,
            out: String::new(),
            length,
            most: usize::MAX,
            depth: 0,
        }
        .whole(most);
        if let Some(whole) = whole {
            return whole;
        }
    }
    let mut shorter = Shorter {
        json,
        at: 0,
        out: String::new(),
        length: SHORT,
        most,
        depth: 0,
    };
    shorter.value();
    shorter.out
}

struct Shorter<'a> {
    json: &'a str,
    at: usize,
    out: String,
    /// Longest string that is kept whole.
    length: usize,
    /// Most bytes of the output.
    most: usize,
    depth: usize,
}

impl Shorter<'_> {
    /// The whole document with its strings cut; nothing if that is still too long.
    fn whole(mut self, most: usize) -> Option<String> {
        self.value();
        (self.out.len() <= most).then_some(self.out)
    }

    fn next(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    /// Reads the next value and writes it.
    fn value(&mut self) {
        match self.next() {
            Some(b'{' | b'[') if self.depth == DEEPEST => {
                self.out.push_str("\"…[left out]\"");
                self.skip(false);
            }
            Some(b'{') => self.list(b'}'),
            Some(b'[') => self.list(b']'),
            Some(b'"') => {
                let end = self.string_end();
                let inner = &self.json[self.at + 1..end - 1];
                self.out.push('"');
                let kept = cut(inner, self.length);
                self.out.push_str(&inner[..kept]);
                if kept < inner.len() {
                    let _ = write!(self.out, "…[{} bytes left out]", inner.len() - kept);
                }
                self.out.push('"');
                self.at = end;
            }
            _ => {
                let end = self.plain_end();
                self.out.push_str(&self.json[self.at..end]);
                self.at = end;
            }
        }
    }

    /// Reads a list or an object and writes as much of it as there is room for.
    fn list(&mut self, end: u8) {
        self.out.push(char::from(self.json.as_bytes()[self.at]));
        self.at += 1;
        self.depth += 1;
        let (mut written, mut left) = (0, 0);
        while let Some(byte) = self.next().filter(|byte| *byte != end) {
            if byte == b',' {
                self.at += 1;
                continue;
            }
            let begun = (self.out.len(), self.at);
            if left == 0 && self.has_room(0) {
                if written > 0 {
                    self.out.push(',');
                }
                if end == b'}' {
                    let colon = self.string_end() + 1;
                    self.out.push_str(&self.json[self.at..colon]);
                    self.at = colon;
                }
                let is_list = matches!(self.next(), Some(b'{' | b'['));
                if self.has_room(if is_list { END } else { 0 }) {
                    self.value();
                    if self.has_room(0) || is_list {
                        written += 1;
                        continue;
                    }
                }
                self.out.truncate(begun.0);
                self.at = begun.1;
            }
            left += 1;
            self.skip(end == b'}');
        }
        if left > 0 {
            let comma = if written > 0 { "," } else { "" };
            let _ = match end {
                b'}' => write!(self.out, "{comma}\"…\":\"[{left} more left out]\""),
                _ => write!(self.out, "{comma}\"…[{left} more left out]\""),
            };
        }
        self.out.push(char::from(end));
        self.at += 1;
        self.depth -= 1;
    }

    /// True if `more` bytes fit beside the ends of all open lists and objects.
    const fn has_room(&self, more: usize) -> bool {
        self.out.len().saturating_add(more + self.depth * END) <= self.most
    }

    /// Goes past a value; with `has_key`, past its key first.
    fn skip(&mut self, has_key: bool) {
        if has_key {
            self.at = self.string_end() + 1;
        }
        let mut depth = 0_usize;
        loop {
            match self.next() {
                Some(b'"') => self.at = self.string_end(),
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':') if depth > 0 => self.at += 1,
                None | Some(b'}' | b']' | b',') => break,
                _ => self.at = self.plain_end(),
            }
            if depth == 0 {
                break;
            }
        }
    }

    /// Offset behind the closing quote of the string that begins at the cursor.
    fn string_end(&self) -> usize {
        let bytes = self.json.as_bytes();
        let mut at = self.at + 1;
        while let Some(next) = bytes
            .get(at..)
            .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
        {
            at += next;
            if bytes[at] == b'"' {
                return at + 1;
            }
            at += 2;
        }
        self.json.len()
    }

    /// Offset behind the number or word that begins at the cursor.
    fn plain_end(&self) -> usize {
        let rest = &self.json.as_bytes()[self.at..];
        let length = rest
            .iter()
            .position(|byte| matches!(byte, b',' | b'}' | b']' | b':' | b'"'));
        self.at + length.unwrap_or(rest.len())
    }
}

/// Offset at which the content of a JSON string can be cut, so that at most `length` bytes stay and no character or
/// escape is split.
fn cut(inner: &str, length: usize) -> usize {
    if inner.len() <= length {
        return inner.len();
    }
    let bytes = inner.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let step = match (byte, bytes.get(at + 1)) {
            (b'\\', Some(b'u')) => 6,
            (b'\\', _) => 2,
            (0..=0x7f, _) => 1,
            (0xf0.., _) => 4,
            (0xe0.., _) => 3,
            _ => 2,
        };
        if at + step > length {
            break;
        }
        at += step;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a14_what_is_cut_is_still_json_and_says_what_is_missing() {
        let text = json!({ "big": vec!["y".repeat(1000); 300], "after": 1 }).to_string();
        let short = shorten(&text, 256 * 1024);
        assert!(
            short.len() <= 256 * 1024 && short.len() > 200 * 1024,
            "{}",
            short.len()
        );
        let read: Value = serde_json::from_str(&short).unwrap();
        assert_eq!(read["big"].as_array().unwrap().len(), 300);
        assert!(
            read["big"][299]
                .as_str()
                .unwrap()
                .ends_with("…[232 bytes left out]"),
            "{}",
            read["big"][299]
        );
        assert_eq!(read["after"], 1);

        let many = json!({ "list": (0..100_000).collect::<Vec<_>>(), "after": [1], "last": {} })
            .to_string();
        let short = shorten(&many, 1000);
        assert!(short.len() <= 1000, "{}", short.len());
        let read: Value = serde_json::from_str(&short).unwrap();
        let list = read["list"].as_array().unwrap();
        let left = format!("…[{} more left out]", 100_000 - (list.len() - 1));
        assert_eq!(list.last().unwrap(), &Value::from(left));
        assert_eq!(read["…"], "[2 more left out]");
    }

    #[test]
    fn numbers_keep_their_digits_and_small_texts_stay() {
        let text = format!(
            "{{\"n\":1.50,\"e\":1E400,\"t\":\"{}\"}}",
            "é\\n".repeat(1000)
        );
        let short = shorten(&text, 500);
        assert!(
            short.starts_with("{\"n\":1.50,\"e\":1E400,\"t\":\"é\\n") && short.len() <= 500,
            "{short}"
        );
        assert!(serde_json::from_str::<Value>(&short).is_ok());
        assert_eq!(shorten("[1]", 3), "[1]");
        let digits = format!("[{}]", "9".repeat(5000));
        assert_eq!(shorten(&digits, 1000), "[\"…[1 more left out]\"]");
        let deep = shorten(&("[".repeat(200_000) + &"]".repeat(200_000)), 1000);
        assert_eq!(deep, "[".repeat(128) + "\"…[left out]\"" + &"]".repeat(128));
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "[aé\"\\\\\n\u{0}😀]{0,80}".prop_map(Value::from)
        ];
        leaf.prop_recursive(5, 200, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::vec(("[a-z\"]{0,9}", inner), 0..8)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_cut_is_json(value in document(), most in 300_usize..1000) {
            let short = shorten(&value.to_string(), most);
            prop_assert!(serde_json::from_str::<Value>(&short).is_ok(), "{}", short);
        }

        #[test]
        fn what_is_no_json_comes_back_as_it_is(text in "[\\[\\]{}:,\"\\\\aé1 ]{300,600}") {
            let is_json = is_valid(&text);
            prop_assert_eq!(shorten(&text, 200) == text, !is_json);
        }
    }
}
