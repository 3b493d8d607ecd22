//! Multipart bodies, taken apart while they come (RFC 2046, 5.1; RFC 7578).
//!
//! This is the only reader of such bodies, so that the check of a signature and the mapping see the same parts. It accepts
//! what real senders write: odd boundaries, folded heads, parts nested once, transfer encodings. Promises: it buffers no
//! more than a head or the length of a boundary; a body is complete only with its closing boundary; the first line end
//! decides between CRLF and LF for the whole body, and a boundary counts only behind such a line end.
//!
//! The reader is our own because existing crates read part heads like HTTP heads: they refuse boundaries that are not
//! tokens, take a file with a name outside UTF-8 for a text, and do not know nested parts.

use std::collections::VecDeque;

use bytes::Bytes;
use memchr::memchr;

use super::boundary::{BoundarySplitter, LineEvent};
pub use super::fault::{PARTS, PartFault};
use super::parameter::{self, Parameters};
use super::transfer::Transfer;
use super::{Charset, charset, header};

/// True for the media type of a form in parts.
pub fn is_form(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("multipart/form-data")
}

/// The head of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartHead {
    disposition: Parameters,
    /// The field of the part that this one is nested in.
    outer: Option<Parameters>,
    /// The type as its sender wrote it.
    pub content_type: Option<String>,
}

impl PartHead {
    /// The field's name.
    pub fn name(&self, default: Option<Charset>) -> Option<(String, bool)> {
        let own = self.disposition.text("name", default);
        own.or_else(|| self.outer.as_ref()?.text("name", default))
    }

    /// The file's name as its sender wrote it; nothing for a part that is not a file. A part with a binary type is a file
    /// even without a name.
    pub fn file_name(&self, default: Option<Charset>) -> Option<(String, bool)> {
        let named = self.disposition.text("filename", default);
        named.or_else(|| self.is_binary().then(|| (String::from("file"), false)))
    }

    /// The character set that the part says its text is in.
    pub fn charset(&self) -> Option<Charset> {
        super::declared(self.content_type.as_deref()?)
            .as_deref()
            .and_then(charset)
    }

    fn is_binary(&self) -> bool {
        let essence =
            parameter::parse(self.content_type.as_deref().unwrap_or_default().as_bytes()).value;
        let (kind, sub) = essence.split_once('/').unwrap_or_default();
        matches!(kind, "image" | "audio" | "video" | "font")
            || (kind == "application" && matches!(sub, "pdf" | "zip"))
    }

    /// The boundary of the parts inside this one, where it is a list of files under one name (RFC 2388, 4.2).
    fn nested(&self) -> Option<Vec<u8>> {
        let kind = parameter::parse(self.content_type.as_deref()?.as_bytes());
        let is_list = kind.value == "multipart/mixed" && self.disposition.get("filename").is_none();
        kind.get("boundary").filter(|_| is_list).map(<[u8]>::to_vec)
    }
}

/// Piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultipartPiece {
    /// A part begins.
    Head(PartHead),
    /// Bytes of it, without their transfer encoding.
    Bytes(Bytes),
    /// The part ends.
    End,
}

/// A part that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPart {
    /// Its head.
    pub head: PartHead,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The parts of a body that is held.
pub fn read(content_type: &str, body: &[u8]) -> Result<Vec<HeldPart>, PartFault> {
    let mut reader = MultipartReader::new(content_type)?;
    reader.feed(Bytes::copy_from_slice(body));
    let mut parts: Vec<HeldPart> = Vec::new();
    while let Some(piece) = reader.piece()? {
        match (piece, parts.last_mut()) {
            (MultipartPiece::Head(head), _) => parts.push(HeldPart {
                head,
                bytes: Vec::new(),
            }),
            (MultipartPiece::Bytes(bytes), Some(part)) => part.bytes.extend_from_slice(&bytes),
            _ => {}
        }
    }
    reader.end()?;
    Ok(parts)
}

/// A body that is read piece by piece.
#[derive(Debug)]
pub struct MultipartReader {
    outer: BoundarySplitter,
    /// The parts inside a part, and that part's names.
    inner: Option<(BoundarySplitter, Parameters)>,
    transfer: Transfer,
    parts: usize,
    ready: VecDeque<MultipartPiece>,
}

impl MultipartReader {
    /// Begins a body of a type.
    pub fn new(content_type: &str) -> Result<Self, PartFault> {
        let parameters = parameter::parse(content_type.as_bytes());
        let outer = BoundarySplitter::new(parameters.get("boundary").unwrap_or_default())?;
        Ok(Self {
            outer,
            inner: None,
            transfer: Transfer::Plain,
            parts: 0,
            ready: VecDeque::new(),
        })
    }

    /// Takes the next bytes of the body.
    pub fn feed(&mut self, bytes: Bytes) {
        self.outer.feed(&bytes);
    }

    /// Returns the next piece of the bytes given so far; nothing until there are more bytes.
    pub fn piece(&mut self) -> Result<Option<MultipartPiece>, PartFault> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if let Some((inner, names)) = &mut self.inner
                && let Some(found) = inner.next()?
            {
                let names = names.clone();
                self.found(found, Some(names))?;
                continue;
            }
            match self.outer.next()? {
                None => return Ok(None),
                Some(LineEvent::Bytes(bytes)) if self.inner.is_some() => {
                    if let Some((inner, _)) = &mut self.inner {
                        inner.feed(&bytes);
                    }
                }
                Some(LineEvent::End) if self.inner.is_some() => {
                    if let Some((inner, _)) = self.inner.take() {
                        inner.end()?;
                    }
                }
                Some(found) => self.found(found, None)?,
            }
        }
    }

    /// Checks that the body is complete.
    pub fn end(&self) -> Result<(), PartFault> {
        self.outer.end()
    }

    fn found(&mut self, found: LineEvent, outer: Option<Parameters>) -> Result<(), PartFault> {
        match found {
            LineEvent::Head(lines) => {
                let (mut head, transfer) = head(&lines)?;
                let is_nested = outer.is_some();
                head.outer = outer;
                if let Some(boundary) = head.nested().filter(|_| !is_nested) {
                    self.inner = Some((BoundarySplitter::new(&boundary)?, head.disposition));
                    return Ok(());
                }
                self.parts += 1;
                if self.parts > PARTS {
                    return Err(PartFault::Parts);
                }
                self.transfer = transfer;
                self.ready.push_back(MultipartPiece::Head(head));
            }
            LineEvent::Bytes(bytes) => self.bytes(Transfer::take, bytes)?,
            LineEvent::End => {
                self.bytes(|transfer, _| transfer.end(), Bytes::new())?;
                self.ready.push_back(MultipartPiece::End);
            }
        }
        Ok(())
    }

    fn bytes(
        &mut self,
        undo: impl FnOnce(&mut Transfer, Bytes) -> Option<Bytes>,
        bytes: Bytes,
    ) -> Result<(), PartFault> {
        let plain = undo(&mut self.transfer, bytes).ok_or(PartFault::Encoded)?;
        if !plain.is_empty() {
            self.ready.push_back(MultipartPiece::Bytes(plain));
        }
        Ok(())
    }
}

/// Reads the lines of a head.
fn head(lines: &[Vec<u8>]) -> Result<(PartHead, Transfer), PartFault> {
    let mut head = PartHead::default();
    let mut transfer = Transfer::Plain;
    let mut seen: Vec<String> = Vec::new();
    for line in lines {
        if line
            .iter()
            .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        {
            return Err(PartFault::Head);
        }
        let colon = memchr(b':', line).ok_or(PartFault::Head)?;
        let name = String::from_utf8_lossy(line[..colon].trim_ascii()).to_ascii_lowercase();
        let value = line[colon + 1..].trim_ascii();
        match name.as_str() {
            name if !is_token(name) => return Err(PartFault::Head),
            "content-disposition" => head.disposition = parameter::parse(value),
            "content-type" => head.content_type = Some(header(value).into_owned()),
            "content-transfer-encoding" => {
                transfer = Transfer::named(&header(value)).ok_or(PartFault::Encoding)?;
            }
            _ => continue,
        }
        // Another reader might use the other one of two equal headers, so both are refused.
        if seen.contains(&name) {
            return Err(PartFault::Head);
        }
        seen.push(name);
    }
    Ok((head, transfer))
}

/// True if a text can be the name of a header (RFC 9110, 5.6.2).
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Simple = (String, Option<String>, String);

    fn simple(parts: &[HeldPart]) -> Vec<Simple> {
        let text = |found: Option<(String, bool)>| found.map(|(text, _)| text);
        let one = |part: &HeldPart| {
            let name = text(part.head.name(None)).unwrap_or_default();
            (
                name,
                text(part.head.file_name(None)),
                String::from_utf8_lossy(&part.bytes).into_owned(),
            )
        };
        parts.iter().map(one).collect()
    }

    /// Reads a body whole and in pieces of several sizes; all must say the same.
    fn all(content_type: &str, body: &[u8]) -> Result<Vec<Simple>, PartFault> {
        let whole = read(content_type, body);
        for size in [1, 2, 3, 7, 64] {
            let mut reader = MultipartReader::new(content_type)?;
            let mut parts: Vec<HeldPart> = Vec::new();
            let mut wrong = None;
            'pieces: for piece in body.chunks(size) {
                reader.feed(Bytes::copy_from_slice(piece));
                loop {
                    match (reader.piece(), parts.last_mut()) {
                        (Ok(Some(MultipartPiece::Head(head))), _) => parts.push(HeldPart {
                            head,
                            bytes: Vec::new(),
                        }),
                        (Ok(Some(MultipartPiece::Bytes(bytes))), Some(part)) => {
                            part.bytes.extend_from_slice(&bytes)
                        }
                        (Ok(Some(_)), _) => {}
                        (Ok(None), _) => break,
                        (Err(fault), _) => {
                            wrong = Some(fault);
                            break 'pieces;
                        }
                    }
                }
            }
            let pieces = match wrong {
                Some(fault) => Err(fault),
                None => reader.end().map(|()| parts),
            };
            assert_eq!(pieces, whole, "in pieces of {size}");
        }
        whole.map(|parts| simple(&parts))
    }

    fn form(body: &str) -> Result<Vec<Simple>, PartFault> {
        all("multipart/form-data; boundary=x", body.as_bytes())
    }

    fn field(name: &str, text: &str) -> Simple {
        (name.into(), None, text.into())
    }

    fn file(name: &str, file: &str, text: &str) -> Simple {
        (name.into(), Some(file.into()), text.into())
    }

    #[test]
    fn rfc_2046_5_1_1_preamble_epilogue_padding_and_empty_parts() {
        let one = "--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--";
        for body in [
            one.to_owned(),
            format!("{one}\r\n"),
            format!("\r\n{one}"),
            format!("a preamble\r\n-- x --x\r\n{one}\r\nan epilogue --x\r\n--x\r\n"),
            one.replace("--x\r\n", "--x \t \r\n"),
        ] {
            assert_eq!(form(&body), Ok(vec![field("a", "1")]), "{body:?}");
        }
        assert_eq!(form("--x--\r\n"), Ok(vec![]));
        assert_eq!(
            form("--x\r\nContent-Disposition: a; name=a\r\n\r\n--x--"),
            Ok(vec![field("a", "")])
        );
        assert_eq!(
            form("--x\r\nContent-Disposition: a; name=a\r\n\r\n\r\n--x--"),
            Ok(vec![field("a", "")])
        );
        assert_eq!(
            form("--x\r\n\r\nbody\r\n--x--"),
            Ok(vec![field("", "body")])
        );
        let like = "--x\r\nContent-Disposition: a; name=a\r\n\r\n--xq\r\n--x-q\r\n--x \t q\r\n--x\rq\r\n--x--";
        assert_eq!(
            form(like),
            Ok(vec![field("a", "--xq\r\n--x-q\r\n--x \t q\r\n--x\rq")])
        );
        let near =
            "--x\r\nContent-Disposition: a; name=a\r\n\r\n\r\n-x\n--x\r\r\n--\r\n--y\r\n--x--";
        assert_eq!(
            form(near),
            Ok(vec![field("a", "\r\n-x\n--x\r\r\n--\r\n--y")])
        );
    }

    #[test]
    fn a7_odd_boundaries_are_boundaries() {
        let long = "b".repeat(70);
        for boundary in [
            "----=_Part_0_1.2",
            "a b",
            "'()+_,-./:=?",
            &long,
            "=",
            "--",
            "\"q",
        ] {
            let body = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--{boundary}--\r\n"
            );
            let quoted = boundary.replace('"', "\\\"");
            let kind = format!("multipart/form-data; charset=utf-8; Boundary=\"{quoted}\"; x=y");
            assert_eq!(
                all(&kind, body.as_bytes()),
                Ok(vec![field("a", "1")]),
                "{boundary}"
            );
        }
        let bare = "multipart/form-data; boundary=----=_Part_0_1.2";
        let body = b"------=_Part_0_1.2\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n------=_Part_0_1.2--";
        assert_eq!(all(bare, body), Ok(vec![field("a", "1")]));
        let longer = "b".repeat(71);
        for wrong in ["", "\"\"", "\"a \"", &longer] {
            let kind = format!("multipart/form-data; boundary={wrong}");
            assert_eq!(read(&kind, b"").err(), Some(PartFault::Boundary), "{wrong}");
        }
        assert_eq!(
            read("multipart/form-data", b"").err(),
            Some(PartFault::Boundary)
        );
    }

    #[test]
    fn a8_heads_in_any_case_folded_and_with_anything_beside() {
        let body = "--x\r\nCONTENT-disposition: Form-Data;\r\n\tNAME=\"text\"\r\nX-Other: \r\n\r\n1\r\n--x--";
        assert_eq!(form(body), Ok(vec![field("text", "1")]));
        let body = "--x\r\nContent-Disposition: form-data; filename=\"a.txt\"; name=\"f\"\r\n\r\n1\r\n--x--";
        assert_eq!(form(body), Ok(vec![file("f", "a.txt", "1")]));
        let body = "--x\r\nContent-Disposition: attachment; name=f; filename*=iso-8859-1''caf%E9.pdf; filename=b\r\n\r\n\r\n--x--";
        assert_eq!(form(body), Ok(vec![file("f", "café.pdf", "")]));
        for wrong in [
            "no colon",
            ": x",
            "a<b: x",
            "X\r\nb: c",
            "Content-Type: a\r\nContent-Type: b",
            "X: \0",
            "X: a\rb",
        ] {
            let body =
                format!("--x\r\nContent-Disposition: a; name=a\r\n{wrong}\r\n\r\n1\r\n--x--");
            assert_eq!(form(&body), Err(PartFault::Head), "{wrong:?}");
        }
    }

    #[test]
    fn lines_may_end_in_lf_where_all_of_them_do() {
        let body = "--x\nContent-Disposition: form-data; name=a\n\none\r\ntwo\n--x\nContent-Disposition: a; name=b\n\n--x--\n";
        assert_eq!(
            form(body),
            Ok(vec![field("a", "one\r\ntwo"), field("b", "")])
        );
        // Where lines end in CRLF, a boundary behind LF alone is part of the bytes.
        let body = "--x\r\nContent-Disposition: form-data; name=a\r\n\r\none\n--x\ntwo\r\n--x--";
        assert_eq!(form(body), Ok(vec![field("a", "one\n--x\ntwo")]));
    }

    #[test]
    fn rfc_2388_4_2_files_in_a_nested_part_are_files_of_its_field() {
        let inner = "--in\r\nContent-Disposition: file; filename=\"1.txt\"\r\n\r\none\r\n--in\r\nContent-Disposition: file; \
                     filename=\"2.txt\"\r\nContent-Transfer-Encoding: base64\r\n\r\ndHdv\r\n--in--";
        let head = "Content-Disposition: form-data; name=\"files\"\r\nContent-Type: multipart/mixed; boundary=in";
        let body = format!(
            "--x\r\n{head}\r\n\r\n{inner}\r\n--x\r\nContent-Disposition: a; name=b\r\n\r\n2\r\n--x--"
        );
        let wanted = vec![
            file("files", "1.txt", "one"),
            file("files", "2.txt", "two"),
            field("b", "2"),
        ];
        assert_eq!(form(&body), Ok(wanted));
        assert_eq!(
            form(&body.replace("--in--", "--in")),
            Err(PartFault::NotWhole)
        );
        // A part that was given the type of the whole by mistake is a text.
        let mistaken = body.replace(
            "multipart/mixed; boundary=in",
            "multipart/form-data; charset=utf-8",
        );
        assert_eq!(form(&mistaken).map(|parts| parts.len()), Ok(2));
    }

    #[test]
    fn rfc_7578_4_7_transfer_encodings_are_undone_or_refused() {
        let of = |encoding: &str, text: &str| {
            form(&format!(
                "--x\r\nContent-Disposition: a; name=a\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{text}\r\n--x--"
            ))
        };
        assert_eq!(of("Base64", "aGVs\r\nbG8="), Ok(vec![field("a", "hello")]));
        assert_eq!(
            of("quoted-printable", "caf=C3=A9"),
            Ok(vec![field("a", "café")])
        );
        assert_eq!(of("8bit", "a=41"), Ok(vec![field("a", "a=41")]));
        assert_eq!(of("base64", "!"), Err(PartFault::Encoded));
        assert_eq!(of("x-own", "1"), Err(PartFault::Encoding));
    }

    #[test]
    fn t85_t86_what_is_cut_or_too_large_is_refused() {
        let whole = "--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--";
        for end in 0..whole.len() {
            assert_eq!(form(&whole[..end]), Err(PartFault::NotWhole), "{end}");
        }
        assert_eq!(
            form(&whole.replace("--x\r\n", "--xjunk\r\n")),
            Err(PartFault::NotWhole)
        );
        assert_eq!(form("--x-q\r\n"), Err(PartFault::NotWhole));
        assert_eq!(
            form(&format!("--x{}", " ".repeat(300))),
            Err(PartFault::NotWhole)
        );
        let long = format!("--x\r\nA: {}\r\n\r\n1\r\n--x--", "a".repeat(9000));
        assert_eq!(form(&long), Err(PartFault::HeadTooLarge));
        let many = format!("--x\r\n{}\r\n1\r\n--x--", "A: b\r\n".repeat(17));
        assert_eq!(form(&many), Err(PartFault::HeadTooLarge));
        let part = "--x\r\nContent-Disposition: a; name=a\r\n\r\n1\r\n";
        assert!(form(&(part.repeat(PARTS) + "--x--")).is_ok());
        assert_eq!(
            form(&(part.repeat(PARTS + 1) + "--x--")),
            Err(PartFault::Parts)
        );
    }

    #[test]
    fn a_part_of_a_kind_that_is_no_text_is_a_file_without_a_name() {
        let of = |kind: &str| {
            form(&format!(
                "--x\r\nContent-Disposition: a; name=a\r\nContent-Type: {kind}\r\n\r\n1\r\n--x--"
            ))
            .map(|parts| parts[0].1.is_some())
        };
        assert_eq!(
            (of("image/png"), of("application/pdf")),
            (Ok(true), Ok(true))
        );
        assert_eq!(
            (
                of("application/json"),
                of("application/octet-stream"),
                of("x")
            ),
            (Ok(false), Ok(false), Ok(false))
        );
    }

    #[test]
    fn another_languages_cases_are_read_as_it_reads_them() {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora/multipart-python");
        let cases = std::fs::read_to_string(folder.join("cases.json")).unwrap();
        let cases: Vec<serde_json::Value> = serde_json::from_str(&cases).unwrap();
        assert!(cases.len() >= 25, "saw {} cases", cases.len());
        for case in cases {
            let name = case["name"].as_str().unwrap();
            let bytes = |text: &serde_json::Value| -> Vec<u8> {
                text.as_str()
                    .unwrap()
                    .chars()
                    .map(|c| u8::try_from(u32::from(c)).unwrap())
                    .collect()
            };
            let kind = format!(
                "multipart/form-data; boundary=\"{}\"",
                case["boundary"].as_str().unwrap()
            );
            let found = all(&kind, &bytes(&case["body"]));
            match case["parts"].as_array() {
                None => assert!(found.is_err(), "{name}: {found:?}"),
                Some(parts) => {
                    let wanted: Vec<Simple> = parts
                        .iter()
                        .map(|part| {
                            let file = part["file_name"].as_str().map(str::to_owned);
                            let text = String::from_utf8_lossy(&bytes(&part["data"])).into_owned();
                            (part["name"].as_str().unwrap().to_owned(), file, text)
                        })
                        .collect();
                    assert_eq!(found, Ok(wanted), "{name}");
                }
            }
        }
    }
}
