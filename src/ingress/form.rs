//! Multipart bodies as fields, under their bounds. Files are not taken yet, and a call that brings one is told so.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use multer::{Constraints, Multipart, SizeLimit};

use crate::model::Refusal;

/// The most parts.
const PARTS: usize = 100;

/// The largest text field.
const FIELD: u64 = 1024 * 1024;

/// The most headers of a part, and their bytes.
const PART_HEADERS: usize = 16;
const PART_HEAD: usize = 8 * 1024;

/// The longest name of a field.
const NAME: usize = 255;

/// The longest boundary (RFC 2046, 5.1.1).
const BOUNDARY: usize = 70;

/// The text parts of a body, in order.
pub type Parts = Vec<(String, String)>;

/// Whether a type is that of a form in parts.
pub fn is_multipart(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("multipart/form-data")
}

/// Reads a body that is here already, within its own bounds.
pub async fn read(content_type: &str, body: Bytes) -> Result<Parts, Refusal> {
    let boundary = multer::parse_boundary(content_type)
        .ok()
        .filter(|boundary| (1..=BOUNDARY).contains(&boundary.len()))
        .ok_or_else(|| Refusal::Malformed("the multipart body has no good boundary".into()))?;
    let size = SizeLimit::new().whole_stream(body.len() as u64).per_field(FIELD);
    let pieces = stream::iter([Ok::<_, Infallible>(body)]);
    let mut form = Multipart::with_constraints(pieces, boundary, Constraints::new().size_limit(size));
    let mut parts = Parts::new();
    let mut seen = 0;
    while let Some(part) = form.next_field().await.map_err(|error| refusal(&error))? {
        seen += 1;
        if seen > PARTS {
            return Err(Refusal::Malformed(format!("the body has more than {PARTS} parts")));
        }
        let head: usize = part.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if part.headers().len() > PART_HEADERS || head > PART_HEAD {
            return Err(Refusal::Malformed("the head of a part is too large".into()));
        }
        if let Some(file) = part.file_name() {
            let is_named = !file.is_empty();
            let bytes = part.bytes().await.map_err(|error| refusal(&error))?;
            // What browsers send for a file that nobody chose.
            if !is_named && bytes.is_empty() {
                continue;
            }
            return Err(Refusal::NotYet("Files are not taken here yet. Send their addresses as fields."));
        }
        let name = match part.name() {
            Some(name) if !name.is_empty() && name.len() <= NAME => name.to_owned(),
            _ => return Err(Refusal::Malformed("a part of the body has no good name".into())),
        };
        let text = part.bytes().await.map_err(|error| refusal(&error))?;
        let text = String::from_utf8(text.into())
            .map_err(|_| Refusal::Malformed("a text field of the body is not UTF-8".into()))?;
        parts.push((name, text));
    }
    Ok(parts)
}

fn refusal(error: &multer::Error) -> Refusal {
    match error {
        multer::Error::FieldSizeExceeded { limit, .. } | multer::Error::StreamSizeExceeded { limit } => {
            Refusal::TooLarge(*limit)
        }
        _ => Refusal::Malformed("the multipart body is badly made or not whole".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parse(body: &str) -> Result<Parts, Refusal> {
        read("multipart/form-data; boundary=x", Bytes::copy_from_slice(body.as_bytes())).await
    }

    fn part(head: &str, text: &str) -> String {
        format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{text}\r\n")
    }

    #[tokio::test]
    async fn text_parts_are_fields_in_order() {
        let body = format!("{}{}--x--\r\n", part("name=\"prompt\"", "Look\r\nhere"), part("name=b", "é"));
        let wanted = [("prompt".to_owned(), "Look\r\nhere".to_owned()), ("b".to_owned(), "é".to_owned())];
        assert_eq!(parse(&body).await.unwrap(), wanted);
        assert!(is_multipart("Multipart/Form-Data; boundary=x") && !is_multipart("multipart/mixed"));
    }

    #[tokio::test]
    async fn a_file_is_told_that_it_is_not_taken() {
        let body = format!("{}--x--", part("name=\"f\"; filename=\"a.pdf\"", "%PDF"));
        assert!(matches!(parse(&body).await, Err(Refusal::NotYet(_))));
        let none = format!("{}--x--", part("name=\"f\"; filename=\"\"", ""));
        assert_eq!(parse(&none).await, Ok(Parts::new()));
    }

    #[tokio::test]
    async fn t85_t86_bad_boundaries_cut_bodies_and_too_much_are_refused() {
        let whole = part("name=a", "1");
        for wrong in
            [whole.clone(), "--x\r\n\r\n".into(), "nothing".into(), String::new(), part("name=\"\"", "1") + "--x--"]
        {
            assert!(matches!(parse(&wrong).await, Err(Refusal::Malformed(_))), "{wrong:?}: {:?}", parse(&wrong).await);
        }
        for kind in ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\"\""] {
            assert!(matches!(read(kind, Bytes::from_static(b"--\r\n")).await, Err(Refusal::Malformed(_))), "{kind}");
        }
        assert!(parse(&(whole.repeat(100) + "--x--")).await.is_ok());
        assert!(matches!(parse(&(whole.repeat(101) + "--x--")).await, Err(Refusal::Malformed(_))));
        let long = part(&format!("name={}", "n".repeat(256)), "1") + "--x--";
        assert!(matches!(parse(&long).await, Err(Refusal::Malformed(_))));
        let head =
            format!("--x\r\nA: {}\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--", "a".repeat(9000));
        assert!(matches!(parse(&head).await, Err(Refusal::Malformed(_))));
        let large = part("name=a", &"1".repeat(1024 * 1024 + 1)) + "--x--";
        assert!(matches!(parse(&large).await, Err(Refusal::TooLarge(_))));
    }
}
