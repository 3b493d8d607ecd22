//! The body, read for the fields a signature covers or stands in: JSON, form fields, the parts of a multipart form.
//!
//! Strict, because two readers that understand a document differently are a way around a signature: a key that
//! stands twice in an object, or nesting past the bound, refuses the whole document. A byte order mark or half a
//! character somewhere in it does not: the sender signed the bytes, and those are what is digested.

pub(crate) use crate::json::Json;
use crate::text::multipart::HeldPart;
use crate::text::{fields, multipart};

/// The fields of a form: names and values, as bytes.
pub(crate) type FormBytes = Vec<(Vec<u8>, Vec<u8>)>;

/// True if a content type says that a body is JSON and not a form.
pub(crate) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// The fields of a form body, in order: urlencoded, or the parts of a multipart form. Their values are the bytes that were
/// sent, in whatever character set.
pub(crate) fn form(content_type: &str, body: &[u8]) -> Result<FormBytes, String> {
    if multipart::is_form(content_type) {
        return Ok(parts(content_type, body)?
            .into_iter()
            .map(|(name, bytes)| (name.into_bytes(), bytes))
            .collect());
    }
    let fields =
        fields::split(body).map_err(|error| format!("the form cannot be read: {error}"))?;
    Ok(fields
        .into_iter()
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect())
}

/// One part of a multipart body, by its field name; none where it is missing or there twice.
pub(crate) fn part(content_type: &str, body: &[u8], field: &str) -> Option<Vec<u8>> {
    let mut found = parts(content_type, body)
        .ok()?
        .into_iter()
        .filter(|(name, _)| name == field);
    let (_, bytes) = found.next()?;
    found.next().is_none().then_some(bytes)
}

/// The parts of a multipart form: field names and bytes.
fn parts(content_type: &str, body: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let parts = multipart::read(content_type, body)
        .map_err(|fault| format!("the form cannot be read: {fault}"))?;
    let named = |part: HeldPart| (part.head.name(None).unwrap_or_default().0, part.bytes);
    Ok(parts.into_iter().map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipart_fields_are_found_by_name() {
        let kind = "multipart/form-data; boundary=\"xyz\"";
        let body = b"--xyz\r\nContent-Disposition: form-data; name=\"json\"\r\n\r\n{\"a\":1}\r\n--xyz\r\ncontent-disposition: form-data; name=\"b\"; filename=\"x\"\r\nX: y\r\n\r\n\r\n--xyz--\r\n";
        assert_eq!(part(kind, body, "json").as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(part(kind, body, "b").as_deref(), Some(&b""[..]));
        assert_eq!(part(kind, body, "c"), None);
        assert_eq!(form(kind, body).unwrap().len(), 2);
        assert_eq!(
            form("application/x-www-form-urlencoded", b"a=1&b=%41+c").unwrap()[1].1,
            b"A c"
        );
        // In another character set the bytes are what was signed.
        assert_eq!(
            form("application/x-www-form-urlencoded", b"a=caf%E9").unwrap()[0].1,
            b"caf\xe9"
        );
        let odd = b"--=_1\r\nContent-Disposition: form-data; NAME=a\r\n\r\n1\r\n--=_1--";
        assert_eq!(
            form("multipart/form-data; boundary==_1", odd).unwrap(),
            [(b"a".to_vec(), b"1".to_vec())]
        );
    }

    #[test]
    fn broken_multipart_ends_quietly() {
        let kind = "multipart/form-data; boundary=x";
        for body in ["", "--x", "--x\r\n", "--x\r\n\r\n--x", "--x\r\na\r\n--x--"] {
            assert!(form(kind, body.as_bytes()).is_err(), "{body:?}");
            assert_eq!(part(kind, body.as_bytes(), "a"), None, "{body:?}");
        }
    }
}
