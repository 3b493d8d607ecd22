//! Writing a text with marks in a dialect.

use std::fmt::Write as _;
use std::ops::Range;

use serde_json::{Value, json};

use super::dialect::{Dialect, Escapes, LinkForm, Markup, MarkupSigns};
use super::styled::{Mark, Style, Styled};

/// Breaks a word, a mention or a sign of markup without being seen.
const JOINER: char = '\u{200d}';

/// The same at a start of a line.
const ZERO_SPACE: char = '\u{200b}';

/// Names that notify more than one user.
const CROWDS: [&str; 5] = ["everyone", "here", "channel", "all", "topic"];

/// A text as it is sent.
pub(super) struct Written {
    pub(super) text: String,
    pub(super) entities: Vec<Value>,
    pub(super) html: Option<String>,
}

/// Writes a text.
pub(super) fn write(styled: &Styled, dialect: Dialect, mentions: bool) -> Written {
    let writer = DialectWriter {
        styled,
        dialect,
        mentions,
    };
    let text = |text: String| Written {
        text,
        entities: Vec::new(),
        html: None,
    };
    match dialect.markup() {
        Markup::None => text(writer.plain()),
        Markup::Entities => Written {
            text: styled.text.clone(),
            entities: entities(styled),
            html: None,
        },
        Markup::Html => text(writer.html()),
        Markup::Matrix => Written {
            text: writer.plain(),
            entities: Vec::new(),
            html: Some(writer.html()),
        },
        Markup::Signs(signs) => text(writer.signs(&signs)),
    }
}

struct DialectWriter<'a> {
    styled: &'a Styled,
    dialect: Dialect,
    mentions: bool,
}

impl DialectWriter<'_> {
    /// Words alone; the address of a link stands behind its text.
    fn plain(&self) -> String {
        let mut out = String::with_capacity(self.styled.text.len());
        let mut at = 0;
        let mut links: Vec<(usize, &str)> = self.links().collect();
        links.sort_by_key(|(end, _)| *end);
        for (end, address) in links {
            self.words(&mut out, at..end, None);
            let _ = write!(out, " ({address})");
            at = end;
        }
        self.words(&mut out, at..self.styled.text.len(), None);
        out
    }

    fn links(&self) -> impl Iterator<Item = (usize, &str)> {
        self.styled
            .marks
            .iter()
            .filter_map(|mark| match &mark.style {
                Style::Link(address) => Some((mark.range.end, address.as_str())),
                _ => None,
            })
    }

    fn signs(&self, signs: &MarkupSigns) -> String {
        let mut out = String::with_capacity(self.styled.text.len() * 5 / 4);
        let mut at = 0;
        for (block, language) in blocks(self.styled) {
            self.lines(&mut out, at..block.start, signs);
            fenced(&mut out, &self.styled.text[block.clone()], language, signs);
            at = block.end;
        }
        self.lines(&mut out, at..self.styled.text.len(), signs);
        out
    }

    /// Writes lines that are no code.
    fn lines(&self, out: &mut String, range: Range<usize>, signs: &MarkupSigns) {
        let mut at = range.start;
        for line in self.styled.text[range].split_inclusive('\n') {
            let end = at + line.trim_end_matches('\n').len();
            let is_start = at == 0 || self.styled.text[..at].ends_with('\n');
            if is_start && self.is_quote(at) {
                out.push_str("> ");
            }
            let marks = inline(self.styled, at..end);
            self.run(out, at..end, &marks, signs);
            if line.ends_with('\n') {
                out.push('\n');
            }
            at += line.len();
        }
    }

    fn is_quote(&self, at: usize) -> bool {
        self.styled
            .marks
            .iter()
            .any(|mark| mark.style == Style::Quote && mark.range.contains(&at))
    }

    /// Writes a part of a line. Marks lie within each other, and each style is there once.
    fn run(&self, out: &mut String, range: Range<usize>, marks: &[Mark], signs: &MarkupSigns) {
        let mut at = range.start;
        let mut rest = marks;
        while let Some((mark, others)) = rest.split_first() {
            let inner = others.partition_point(|other| other.range.start < mark.range.end);
            self.words(out, at..mark.range.start, Some(signs));
            self.marked(out, mark, &others[..inner], signs);
            at = mark.range.end;
            rest = &others[inner..];
        }
        self.words(out, at..range.end, Some(signs));
    }

    fn marked(&self, out: &mut String, mark: &Mark, inner: &[Mark], signs: &MarkupSigns) {
        let range = mark.range.clone();
        let words = &self.styled.text[range.clone()];
        let sign = match &mark.style {
            Style::Bold => signs.bold,
            Style::Italic => signs.italic,
            Style::Strike => signs.strike,
            Style::Code => return code(out, words, signs),
            Style::Link(address) => {
                let is_simple = !words.contains('|');
                match signs.link {
                    LinkForm::Brackets => {
                        out.push('[');
                        self.run(out, range, inner, signs);
                        let _ = write!(out, "]({address})");
                    }
                    LinkForm::Angles if is_simple => {
                        let address = match signs.escapes {
                            Escapes::Entities => address.replace('&', "&amp;"),
                            _ => address.clone(),
                        };
                        let _ = write!(out, "<{address}|");
                        self.words(out, range, Some(signs));
                        out.push('>');
                    }
                    LinkForm::Angles | LinkForm::Behind => {
                        self.run(out, range, inner, signs);
                        let _ = write!(out, " ({address})");
                    }
                }
                return;
            }
            Style::Block(_) | Style::Quote => return self.run(out, range, inner, signs),
        };
        out.push_str(sign);
        self.run(out, range, inner, signs);
        out.push_str(sign);
    }

    /// Writes words: what would be markup, a mention or a command is broken or escaped.
    fn words(&self, out: &mut String, range: Range<usize>, signs: Option<&MarkupSigns>) {
        let whole = &self.styled.text;
        let escapes = signs.map(|signs| signs.escapes);
        let mut before = whole[..range.start].chars().next_back();
        let mut is_start = before.is_none_or(|c| c == '\n');
        for (place, c) in whole[range.clone()].char_indices() {
            let at = range.start + place;
            let rest = &whole[at + c.len_utf8()..];
            if is_start && c == '/' && self.dialect.reads_commands() {
                out.push(ZERO_SPACE);
            }
            match escapes {
                Some(Escapes::Backslash) => backslashed(out, c, is_start),
                Some(Escapes::BackslashAndEntities) => match entity(c) {
                    Some(entity) => out.push_str(entity),
                    None => backslashed(out, c, is_start),
                },
                Some(Escapes::Entities) => match entity(c) {
                    Some(entity) => out.push_str(entity),
                    None => broken(out, c, before, rest),
                },
                Some(Escapes::None) => broken(out, c, before, rest),
                None => out.push(c),
            }
            if c == '@' && self.breaks_mention(before, rest) {
                out.push(JOINER);
            }
            is_start = c == '\n' || is_start && matches!(c, ' ' | '\u{a0}');
            before = Some(c);
        }
    }

    fn breaks_mention(&self, before: Option<char>, rest: &str) -> bool {
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '*' | '"');
        let begins = !before.is_some_and(|c| c.is_alphanumeric() || "._-+/".contains(c));
        let is_mention = begins && rest.starts_with(is_word);
        let name = rest
            .split(|c: char| !c.is_alphanumeric())
            .next()
            .unwrap_or_default();
        let is_host = rest[name.len()..].starts_with('.');
        let name = name.to_lowercase();
        // Discord reads these two wherever they stand.
        let is_read_anywhere = ["everyone", "here"]
            .iter()
            .any(|crowd| name.starts_with(crowd));
        let is_crowd = is_read_anywhere || !is_host && CROWDS.contains(&name.as_str());
        self.dialect.reads_mentions() && (is_crowd || is_mention && !self.mentions)
    }

    fn html(&self) -> String {
        let mut out = String::with_capacity(self.styled.text.len() * 5 / 4);
        let mut at = 0;
        for (block, language) in blocks(self.styled) {
            self.html_lines(&mut out, at..block.start);
            let class = match language {
                "" => String::new(),
                language => format!(" class=\"language-{language}\""),
            };
            let words = escaped(&self.styled.text[block.clone()]);
            let _ = write!(out, "<pre><code{class}>{words}</code></pre>");
            at = block.end;
        }
        self.html_lines(&mut out, at..self.styled.text.len());
        out
    }

    fn html_lines(&self, out: &mut String, range: Range<usize>) {
        let mut at = range.start;
        let mut quoted = false;
        for line in self.styled.text[range].split_inclusive('\n') {
            let end = at + line.trim_end_matches('\n').len();
            if self.is_quote(at) != quoted {
                out.push_str(if quoted {
                    "</blockquote>"
                } else {
                    "<blockquote>"
                });
                quoted = !quoted;
            }
            let marks = inline(self.styled, at..end);
            self.html_run(out, at..end, &marks);
            if line.ends_with('\n') {
                out.push_str("<br>");
            }
            at += line.len();
        }
        if quoted {
            out.push_str("</blockquote>");
        }
    }

    fn html_run(&self, out: &mut String, range: Range<usize>, marks: &[Mark]) {
        let words = |out: &mut String, range: Range<usize>| {
            let mut plain = String::new();
            self.words(&mut plain, range, None);
            out.push_str(&escaped(&plain));
        };
        let mut at = range.start;
        let mut rest = marks;
        while let Some((mark, others)) = rest.split_first() {
            let inner = others.partition_point(|other| other.range.start < mark.range.end);
            words(out, at..mark.range.start);
            let (open, close) = match &mark.style {
                Style::Bold => ("<b>".to_owned(), "</b>"),
                Style::Italic => ("<i>".to_owned(), "</i>"),
                Style::Strike => ("<s>".to_owned(), "</s>"),
                Style::Code => ("<code>".to_owned(), "</code>"),
                Style::Link(address) => (format!("<a href=\"{}\">", escaped(address)), "</a>"),
                Style::Block(_) | Style::Quote => (String::new(), ""),
            };
            out.push_str(&open);
            match mark.style {
                Style::Code => out.push_str(&escaped(&self.styled.text[mark.range.clone()])),
                _ => self.html_run(out, mark.range.clone(), &others[..inner]),
            }
            out.push_str(close);
            at = mark.range.end;
            rest = &others[inner..];
        }
        words(out, at..range.end);
    }
}

/// Blocks of code with their languages, in order.
fn blocks(styled: &Styled) -> impl Iterator<Item = (Range<usize>, &str)> {
    styled.marks.iter().filter_map(|mark| match &mark.style {
        Style::Block(language) => Some((mark.range.clone(), language.as_str())),
        _ => None,
    })
}

/// Marks within a line, without blanks at their ends, each style once at a place.
fn inline(styled: &Styled, line: Range<usize>) -> Vec<Mark> {
    let mut found: Vec<Mark> = Vec::new();
    for mark in &styled.marks {
        if matches!(mark.style, Style::Block(_) | Style::Quote) {
            continue;
        }
        let (start, end) = (
            mark.range.start.max(line.start),
            mark.range.end.min(line.end),
        );
        if start >= end {
            continue;
        }
        let words = &styled.text[start..end];
        let front = words.len() - words.trim_start().len();
        let end = start + words.trim_end().len();
        let start = (start + front).min(end);
        let is_open = |other: &&Mark| other.range.start <= start && other.range.end >= end;
        let lies_within =
            |kind: fn(&Style) -> bool| found.iter().filter(is_open).any(|other| kind(&other.style));
        let is_double = found.iter().filter(is_open).any(|other| {
            std::mem::discriminant(&other.style) == std::mem::discriminant(&mark.style)
        });
        let crosses = found.iter().any(|other| {
            other.range.start < start && other.range.end > start && other.range.end < end
        });
        if start < end && !is_double && !crosses && !lies_within(|style| *style == Style::Code) {
            found.push(Mark {
                range: start..end,
                style: mark.style.clone(),
            });
        }
    }
    found.sort_by_key(|mark| (mark.range.start, usize::MAX - mark.range.end));
    found
}

/// Writes a block of code between fences.
fn fenced(out: &mut String, code: &str, language: &str, signs: &MarkupSigns) {
    let longest = code.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let is_markdown = matches!(
        signs.escapes,
        Escapes::Backslash | Escapes::BackslashAndEntities
    );
    let (fence, code) = match longest {
        0..3 => ("```".to_owned(), code.to_owned()),
        _ if is_markdown => ("`".repeat(longest + 1), code.to_owned()),
        // A fence cannot be longer there: the backticks of the code are parted.
        _ => (
            "```".to_owned(),
            code.replace("```", &format!("``{ZERO_SPACE}`")),
        ),
    };
    let code = match signs.escapes {
        Escapes::Entities => escaped(&code),
        _ => code,
    };
    let language = if signs.language { language } else { "" };
    let _ = write!(out, "{fence}{language}\n{code}\n{fence}");
}

/// Writes code within a line.
fn code(out: &mut String, code: &str, signs: &MarkupSigns) {
    let is_markdown = matches!(
        signs.escapes,
        Escapes::Backslash | Escapes::BackslashAndEntities
    );
    let words = match signs.escapes {
        Escapes::Entities => escaped(code),
        _ => code.to_owned(),
    };
    if !code.contains('`') {
        let _ = write!(out, "`{words}`");
    } else if is_markdown {
        let longest = code.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(longest + 1);
        let _ = write!(out, "{fence} {words} {fence}");
    } else {
        out.push_str(&words);
    }
}

/// A character that Markdown would take for markup, behind a backslash.
fn backslashed(out: &mut String, c: char, is_start: bool) {
    match c {
        '\\' | '`' | '*' | '_' | '~' | '[' | ']' | '<' | '>' | '|' | '&' | '$' => {
            out.push('\\');
            out.push(c);
        }
        '#' | '-' | '+' | '=' | ':' if is_start => {
            out.push('\\');
            out.push(c);
        }
        // Four blanks would begin a block of code.
        ' ' if is_start => out.push('\u{a0}'),
        '\t' => out.push_str("\u{a0}\u{a0}"),
        c => out.push(c),
    }
}

const fn entity(c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    }
}

/// A character, with something behind it that breaks markup which it would begin.
fn broken(out: &mut String, c: char, before: Option<char>, rest: &str) {
    out.push(c);
    let begins = !before.is_some_and(char::is_alphanumeric)
        && rest.starts_with(|next: char| !next.is_whitespace());
    if matches!(c, '*' | '_' | '~' | '`') && begins || c == '<' {
        out.push(ZERO_SPACE);
    }
    if c == '>' && before.is_none_or(|c| c == '\n') {
        // A quote that nobody has quoted.
        out.pop();
        out.push(ZERO_SPACE);
        out.push('>');
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("&quot;"),
            c => match entity(c) {
                Some(entity) => out.push_str(entity),
                None => out.push(c),
            },
        }
    }
    out
}

/// Marks as entities of Telegram: offsets and lengths in units of UTF-16. Code lies in no other mark, and no other in it.
fn entities(styled: &Styled) -> Vec<Value> {
    let code: Vec<Range<usize>> = styled
        .marks
        .iter()
        .filter(|mark| matches!(mark.style, Style::Code | Style::Block(_)))
        .map(|mark| mark.range.clone())
        .collect();
    let mut found: Vec<(Range<usize>, &Style)> = Vec::new();
    for mark in &styled.marks {
        if matches!(mark.style, Style::Code | Style::Block(_)) {
            found.push((mark.range.clone(), &mark.style));
            continue;
        }
        let mut at = mark.range.start;
        for range in &code {
            if range.end > at && range.start < mark.range.end {
                found.push((at..range.start.max(at), &mark.style));
                at = range.end;
            }
        }
        found.push((at..mark.range.end.max(at), &mark.style));
    }
    found.retain(|(range, _)| !styled.text[range.clone()].trim().is_empty());
    found.sort_by_key(|(range, _)| (range.start, usize::MAX - range.end));
    let mut offsets = Offsets::new(&styled.text);
    found
        .into_iter()
        .map(|(range, style)| {
            let (offset, end) = (offsets.of(range.start), offsets.of(range.end));
            let mut entity =
                json!({ "type": kind(style), "offset": offset, "length": end - offset });
            match style {
                Style::Link(address) => entity["url"] = Value::from(address.as_str()),
                Style::Block(language) if !language.is_empty() => {
                    entity["language"] = Value::from(language.as_str());
                }
                _ => {}
            }
            entity
        })
        .collect()
}

const fn kind(style: &Style) -> &'static str {
    match style {
        Style::Bold => "bold",
        Style::Italic => "italic",
        Style::Strike => "strikethrough",
        Style::Code => "code",
        Style::Block(_) => "pre",
        Style::Quote => "blockquote",
        Style::Link(_) => "text_link",
    }
}

/// Places of a text in units of UTF-16. Asked mostly in order, so it goes on from the last place.
struct Offsets<'a> {
    text: &'a str,
    bytes: usize,
    units: usize,
}

impl<'a> Offsets<'a> {
    const fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: 0,
            units: 0,
        }
    }

    fn of(&mut self, place: usize) -> usize {
        if place < self.bytes {
            (self.bytes, self.units) = (0, 0);
        }
        self.units += self.text[self.bytes..place].encode_utf16().count();
        self.bytes = place;
        self.units
    }
}
