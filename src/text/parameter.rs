//! Header values with parameters, such as `form-data; name="a"; filename*=utf-8''b`, as people's senders write them.
//!
//! Names in any case, values quoted or not, in any order. Read leniently: a name of a file is text for people, and what
//! cannot be read is no reason to refuse an event.

use percent_encoding::percent_decode;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use encoding_rs::UTF_8;

use super::{Charset, charset};

/// The most parameters that are looked at.
const MOST: usize = 64;

/// A value and its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The value in front of the parameters, in lower case.
    pub value: String,
    list: Vec<(String, Vec<u8>)>,
}

/// Reads a header's value.
pub fn parse(line: &[u8]) -> Parameters {
    let end = line
        .iter()
        .position(|byte| *byte == b';')
        .unwrap_or(line.len());
    let value = String::from_utf8_lossy(line[..end].trim_ascii()).to_ascii_lowercase();
    let mut list = Vec::new();
    let mut rest = &line[end..];
    while let Some(more) = rest.strip_prefix(b";") {
        let stop = more
            .iter()
            .position(|byte| matches!(byte, b'=' | b';'))
            .unwrap_or(more.len());
        let name = String::from_utf8_lossy(more[..stop].trim_ascii()).to_ascii_lowercase();
        let (value, after) = match more[stop..].strip_prefix(b"=") {
            Some(written) => one(written),
            None => (Vec::new(), &more[stop..]),
        };
        rest = after;
        if !name.is_empty() && list.len() < MOST {
            list.push((name, value));
        }
    }
    Parameters { value, list }
}

/// One value, and what follows it from its semicolon on.
fn one(written: &[u8]) -> (Vec<u8>, &[u8]) {
    let written = written.trim_ascii_start();
    let Some(quoted) = written.strip_prefix(b"\"") else {
        let end = written
            .iter()
            .position(|byte| *byte == b';')
            .unwrap_or(written.len());
        return (written[..end].trim_ascii().to_vec(), &written[end..]);
    };
    let mut value = Vec::new();
    let mut at = 0;
    while let Some(byte) = quoted.get(at) {
        match (byte, quoted.get(at + 1)) {
            (b'"', _) => break,
            // Some senders write a Windows path with its backslashes as they are.
            (b'\\', Some(next @ (b'"' | b'\\'))) => {
                value.push(*next);
                at += 1;
            }
            _ => value.push(*byte),
        }
        at += 1;
    }
    let after = quoted.get(at + 1..).unwrap_or_default();
    let end = after
        .iter()
        .position(|byte| *byte == b';')
        .unwrap_or(after.len());
    (value, &after[end..])
}

impl Parameters {
    /// A parameter's bytes; of several of one name those of the first.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.list
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| &value[..])
    }

    /// A parameter's text, in whichever form it stands: the extended form goes before the plain one where it can be
    /// read (RFC 6266, 4.3). `default` is the character set of plain values that are no UTF-8. The flag says that
    /// something could not be read and stands as U+FFFD.
    pub fn text(&self, name: &str, default: Option<Charset>) -> Option<(String, bool)> {
        let extended = self.extended(name);
        if let Some((_, false)) = extended {
            return extended;
        }
        let plain = self.get(name).map(|bytes| spoken(bytes, default));
        plain.or(extended)
    }

    /// The extended forms: `name*=charset'language'text` (RFC 8187), and values in numbered pieces (RFC 2231).
    fn extended(&self, name: &str) -> Option<(String, bool)> {
        if let Some(written) = self.get(&format!("{name}*")) {
            let (set, text) = labelled(written);
            return Some(decoded(&percent_decode(text).collect::<Vec<u8>>(), set));
        }
        let mut bytes = Vec::new();
        let mut set = Ok(UTF_8);
        for number in 0.. {
            if let Some(written) = self.get(&format!("{name}*{number}*")) {
                let mut text = written;
                if number == 0 {
                    (set, text) = labelled(written);
                }
                bytes.extend(percent_decode(text));
            } else if let Some(written) = self.get(&format!("{name}*{number}")) {
                bytes.extend_from_slice(written);
            } else if number == 0 {
                return None;
            } else {
                break;
            }
        }
        Some(decoded(&bytes, set))
    }
}

/// The character set that an extended value names, and the rest of it. An error is a set that is unknown.
fn labelled(written: &[u8]) -> (Result<Charset, ()>, &[u8]) {
    let mut pieces = written.splitn(3, |byte| *byte == b'\'');
    match (pieces.next(), pieces.next(), pieces.next()) {
        (Some([]), Some(_), Some(text)) => (Ok(UTF_8), text),
        (Some(name), Some(_), Some(text)) => {
            (charset(&String::from_utf8_lossy(name)).ok_or(()), text)
        }
        _ => (Ok(UTF_8), written),
    }
}

fn decoded(bytes: &[u8], set: Result<Charset, ()>) -> (String, bool) {
    let (text, is_replaced) = set.unwrap_or(UTF_8).decode_without_bom_handling(bytes);
    (text.into_owned(), is_replaced || set.is_err())
}

/// A plain value: UTF-8, else the default, with the escapes that browsers make of quotes and line ends (the forms of
/// RFC 7578, 4.2) and the encoded words of mail senders (RFC 2047).
fn spoken(bytes: &[u8], default: Option<Charset>) -> (String, bool) {
    let (text, is_replaced) = match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => decoded(bytes, Ok(default.unwrap_or(UTF_8))),
    };
    if let Some(words) = words(&text) {
        return (words, false);
    }
    let text = match text.contains('%') {
        true => text
            .replace("%22", "\"")
            .replace("%0D", "\r")
            .replace("%0A", "\n"),
        false => text,
    };
    (text, is_replaced)
}

/// A text made of encoded words alone: `=?utf-8?B?…?= =?utf-8?Q?…?=`. None for any other.
fn words(text: &str) -> Option<String> {
    if !text.starts_with("=?") {
        return None;
    }
    let mut all: Vec<(Charset, Vec<u8>)> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.strip_prefix("=?")?;
        let mut pieces = word.splitn(3, '?');
        let (set, kind, more) = (pieces.next()?, pieces.next()?, pieces.next()?);
        let (written, after) = more.split_once("?=")?;
        let set = charset(set.split('*').next().unwrap_or_default())?;
        let bytes = match kind {
            "B" | "b" => BASE64_STANDARD.decode(written).ok()?,
            "Q" | "q" => percent_decode(
                written
                    .replace('%', "=25")
                    .replace('_', " ")
                    .replace('=', "%")
                    .as_bytes(),
            )
            .collect(),
            _ => return None,
        };
        // A character may be cut between two words of one set.
        match all.last_mut() {
            Some((last, known)) if *last == set => known.extend(bytes),
            _ => all.push((set, bytes)),
        }
        rest = after.trim_ascii_start();
    }
    let mut whole = String::new();
    for (set, bytes) in all {
        let (text, is_replaced) = set.decode_without_bom_handling(&bytes);
        if is_replaced {
            return None;
        }
        whole.push_str(&text);
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(line: &[u8]) -> Option<(String, bool)> {
        parse(line).text("filename", None)
    }

    fn good(line: &str) -> String {
        let (text, is_replaced) = name(line.as_bytes()).unwrap();
        assert!(!is_replaced, "{line}");
        text
    }

    #[test]
    fn names_and_values_are_read_in_any_spelling() {
        let parameters = parse(b"Form-Data ; NAME = field ;FileName=\"a;b=c.txt\" ; x ; y=");
        assert_eq!(parameters.value, "form-data");
        assert_eq!(parameters.get("name"), Some(&b"field"[..]));
        assert_eq!(parameters.get("filename"), Some(&b"a;b=c.txt"[..]));
        assert_eq!(
            (
                parameters.get("x"),
                parameters.get("y"),
                parameters.get("z")
            ),
            (Some(&b""[..]), Some(&b""[..]), None)
        );
        assert_eq!(
            parse(b"multipart/form-data; boundary=----=_Part_0_1.2").get("boundary"),
            Some(&b"----=_Part_0_1.2"[..])
        );
        assert_eq!(
            parse(b"a; filename=my file.txt; b=c").get("filename"),
            Some(&b"my file.txt"[..])
        );
    }

    #[test]
    fn rfc_7578_4_2_quotes_are_escaped_in_either_way() {
        assert_eq!(good(r#"form-data; filename="a \"b\".txt""#), "a \"b\".txt");
        assert_eq!(
            good("form-data; filename=\"a%22b%0D%0A.txt\""),
            "a\"b\r\n.txt"
        );
        assert_eq!(
            good("form-data; filename=\"100%25 %20.txt\""),
            "100%25 %20.txt"
        );
        assert_eq!(
            good(r#"form-data; filename="C:\dir\file.txt""#),
            r"C:\dir\file.txt"
        );
        assert_eq!(good("form-data; filename=\"open"), "open");
    }

    #[test]
    fn rfc_8187_extended_names_win_where_they_can_be_read() {
        assert_eq!(
            good("a; filename=\"x.txt\"; filename*=UTF-8''caf%C3%A9.txt"),
            "café.txt"
        );
        assert_eq!(
            good("a; filename*=iso-8859-1'en'caf%E9.pdf; filename=x"),
            "café.pdf"
        );
        assert_eq!(good("a; filename*=Shift_JIS''%93%FA.txt"), "日.txt");
        assert_eq!(
            good("a; filename=\"x.txt\"; filename*=no-such''%41"),
            "x.txt"
        );
        assert_eq!(good("a; filename=\"x.txt\"; filename*=UTF-8''%ff"), "x.txt");
        assert_eq!(
            name(b"a; filename*=UTF-8''%ff.txt"),
            Some(("\u{fffd}.txt".into(), true))
        );
        assert_eq!(good("a; filename*=\"utf-8''quoted.txt\""), "quoted.txt");
        assert_eq!(good("a; filename*=bare.txt"), "bare.txt");
    }

    #[test]
    fn rfc_2231_names_in_pieces_are_put_together() {
        assert_eq!(
            good("a; filename*0*=iso-8859-1''caf%E9; filename*1=\" menu\"; filename*2=.txt"),
            "café menu.txt"
        );
        assert_eq!(good("a; filename*0=\"one\"; filename*1=\"two\""), "onetwo");
    }

    #[test]
    fn rfc_2047_encoded_words_are_names() {
        assert_eq!(good("a; filename=\"=?UTF-8?B?Y2Fmw6kudHh0?=\""), "café.txt");
        assert_eq!(
            good("a; filename=\"=?iso-8859-1?Q?caf=E9_menu.txt?=\""),
            "café menu.txt"
        );
        assert_eq!(
            good("a; filename=\"=?utf-8?B?w?= =?utf-8?B?6Q==?=\""),
            "=?utf-8?B?w?= =?utf-8?B?6Q==?="
        );
        assert_eq!(
            good("a; filename=\"=?utf-8?Q?caf=C3?= =?utf-8?q?=A9?=\""),
            "café"
        );
        assert_eq!(good("a; filename=\"=?x\""), "=?x");
    }

    #[test]
    fn a6_names_outside_utf_8_are_names_with_replacement() {
        assert_eq!(
            name(b"a; filename=\"caf\xe9.txt\""),
            Some(("caf\u{fffd}.txt".into(), true))
        );
        let latin = parse(b"a; filename=\"caf\xe9.txt\"").text("filename", charset("latin1"));
        assert_eq!(latin, Some(("café.txt".into(), false)));
    }
}
