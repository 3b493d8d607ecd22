//! Variants of a document, an address or a secret, as other programs and people write them.

use serde_json::Value as JsonValue;

/// A document as other programs would write it: compact, with blanks behind commas and colons, indented, with escapes.
pub(super) fn rewritten(json: &JsonValue) -> Vec<String> {
    let compact = json.to_string();
    let mut spaced = String::with_capacity(compact.len() * 2);
    let (mut in_text, mut escaped) = (false, false);
    for letter in compact.chars() {
        spaced.push(letter);
        match letter {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            ',' | ':' if !in_text => spaced.push(' '),
            _ => {}
        }
    }
    let indented = serde_json::to_string_pretty(json).unwrap_or_default();
    let mut all = vec![compact, spaced, indented];
    for text in all.clone() {
        let mut plain = String::with_capacity(text.len());
        let mut units = [0; 2];
        for letter in text.chars() {
            if letter.is_ascii() {
                plain.push(letter);
            } else {
                for unit in letter.encode_utf16(&mut units) {
                    plain.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
        all.push(plain);
    }
    // Some write a slash with a backslash before it.
    all.push(all[0].replace('/', "\\/"));
    all
}

/// An address as it may have been meant.
pub(super) fn addresses(url: &str) -> Vec<(String, &'static str)> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Vec::new();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (path, query) = path
        .split_once('?')
        .map_or((path, None), |(path, query)| (path, Some(query)));
    let tail = |query: Option<&str>| query.map_or_else(String::new, |query| format!("?{query}"));
    let mut all = Vec::new();
    match path.strip_suffix('/') {
        Some(cut) => all.push((
            format!("{scheme}://{authority}{cut}{}", tail(query)),
            "without the slash at the end",
        )),
        None => all.push((
            format!("{scheme}://{authority}{path}/{}", tail(query)),
            "with a slash at the end",
        )),
    }
    match authority.rsplit_once(':') {
        Some((host, _)) => all.push((
            format!("{scheme}://{host}{path}{}", tail(query)),
            "without the port",
        )),
        None => {
            let port = if scheme == "http" { 80 } else { 443 };
            all.push((
                format!("{scheme}://{authority}:{port}{path}{}", tail(query)),
                "with the port",
            ));
        }
    }
    let (other, what) = if scheme == "https" {
        ("http", "with http")
    } else {
        ("https", "with https")
    };
    all.push((format!("{other}://{authority}{path}{}", tail(query)), what));
    if query.is_some() {
        all.push((format!("{scheme}://{authority}{path}"), "without the query"));
    }
    all
}

pub(super) fn path_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find(['/', '?'])
        .map_or("/", |at| &rest[at..])
        .to_owned()
}

/// A secret as it may have been meant.
pub(super) fn slips(secret: &[u8]) -> Vec<(Vec<u8>, &'static str)> {
    let mut all = Vec::new();
    let trimmed = secret.trim_ascii();
    if trimmed != secret {
        all.push((
            trimmed.to_vec(),
            "has blanks or a line end around it that do not belong to it",
        ));
    }
    all.push((
        [secret, b"\n"].concat(),
        "is used with a line end by the sender",
    ));
    if let Some(bare) = secret.strip_prefix(b"whsec_") {
        all.push((bare.to_vec(), "is used by the sender without its whsec_"));
    }
    if let Some(bare) = trimmed
        .strip_prefix(b"\"")
        .and_then(|secret| secret.strip_suffix(b"\""))
    {
        all.push((
            bare.to_vec(),
            "has quotation marks around it that do not belong to it",
        ));
    }
    all.push((
        secret.to_ascii_lowercase(),
        "is written in small letters by the sender",
    ));
    all
}
