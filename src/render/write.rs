//! Writing a text with marks in a dialect.

use std::fmt::Write as _;
use std::ops::Range;

use serde_json::Value;

use super::dialect::{Dialect, Escapes, LinkForm, Markup, MarkupSigns};
use super::entities::entities;
use super::lines::LineMarks;
use super::styled::{Mark, MarkStyle, Styled};

/// Breaks a word, a mention or a sign of markup without being seen.
const JOINER: char = '\u{200d}';

/// The same at a start of a line.
const ZERO_SPACE: char = '\u{200b}';

/// Names that notify more than one user.
const CROWDS: [&str; 7] = [
    "everyone", "here", "channel", "all", "topic", "room", "stream",
];

/// Way to write the words of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WordEscapes {
    Nothing,
    Entities,
    Broken,
    BrokenEntities,
    Backslash,
    Both,
}

impl From<Escapes> for WordEscapes {
    fn from(escapes: Escapes) -> Self {
        match escapes {
            Escapes::None => Self::Broken,
            Escapes::Entities => Self::BrokenEntities,
            Escapes::Backslash => Self::Backslash,
            Escapes::BackslashAndEntities => Self::Both,
        }
    }
}

/// A text as it is sent.
pub(super) struct Written {
    pub(super) text: String,
    pub(super) entities: Vec<Value>,
    pub(super) html: Option<String>,
}

/// Writes the words of a text without markup, for a channel that has refused it or shows them beside it: they notify nobody
/// either.
pub(super) fn plain(styled: &Styled, dialect: Dialect, mentions: bool) -> String {
    let writer = DialectWriter {
        styled,
        dialect,
        mentions,
    };
    writer.plain()
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
        let escapes = match self.dialect.markup() {
            Markup::Signs(signs) => match signs.escapes {
                Escapes::Entities | Escapes::BackslashAndEntities => WordEscapes::Entities,
                Escapes::Backslash | Escapes::None => WordEscapes::Nothing,
            },
            _ => WordEscapes::Nothing,
        };
        let mut out = String::with_capacity(self.styled.text.len());
        let mut at = 0;
        let mut links: Vec<(usize, &str)> = self.links().collect();
        links.sort_by_key(|(end, _)| *end);
        for (end, address) in links {
            self.words(&mut out, at..end, escapes);
            out.push_str(" (");
            match escapes {
                WordEscapes::Entities => out.push_str(&escaped(address)),
                _ => out.push_str(address),
            }
            out.push(')');
            at = end;
        }
        self.words(&mut out, at..self.styled.text.len(), escapes);
        out
    }

    fn links(&self) -> impl Iterator<Item = (usize, &str)> {
        self.styled
            .marks
            .iter()
            .filter_map(|mark| match &mark.style {
                MarkStyle::Link(address) => Some((mark.range.end, address.as_str())),
                _ => None,
            })
    }

    fn signs(&self, signs: &MarkupSigns) -> String {
        let mut out = String::with_capacity(self.styled.text.len() * 5 / 4);
        let mut lines = LineMarks::new(self.styled);
        let mut at = 0;
        for (block, language) in blocks(self.styled) {
            self.lines(&mut out, at..block.start, &mut lines, signs);
            fenced(&mut out, &self.styled.text[block.clone()], language, signs);
            at = block.end;
        }
        let rest = at..self.styled.text.len();
        self.lines(&mut out, rest, &mut lines, signs);
        out
    }

    /// Writes lines that are no code.
    fn lines(
        &self,
        out: &mut String,
        range: Range<usize>,
        lines: &mut LineMarks<'_>,
        signs: &MarkupSigns,
    ) {
        let mut at = range.start;
        for line in self.styled.text[range].split_inclusive('\n') {
            let end = at + line.trim_end_matches('\n').len();
            let is_start = at == 0 || self.styled.text[..at].ends_with('\n');
            if is_start && lines.is_quote(at) {
                out.push_str("> ");
            }
            let marks = lines.marks(at..end);
            self.run(out, at..end, &marks, signs);
            if line.ends_with('\n') {
                out.push('\n');
            }
            at += line.len();
        }
    }

    /// Writes a part of a line. Marks lie within each other, and each style is there once.
    fn run(&self, out: &mut String, range: Range<usize>, marks: &[Mark], signs: &MarkupSigns) {
        let mut at = range.start;
        let mut rest = marks;
        while let Some((mark, others)) = rest.split_first() {
            let inner = others.partition_point(|other| other.range.start < mark.range.end);
            self.words(out, at..mark.range.start, signs.escapes.into());
            self.marked(out, mark, &others[..inner], signs);
            at = mark.range.end;
            rest = &others[inner..];
        }
        self.words(out, at..range.end, signs.escapes.into());
    }

    fn marked(&self, out: &mut String, mark: &Mark, inner: &[Mark], signs: &MarkupSigns) {
        let range = mark.range.clone();
        let words = &self.styled.text[range.clone()];
        let sign = match &mark.style {
            MarkStyle::Bold => signs.bold,
            MarkStyle::Italic => signs.italic,
            MarkStyle::Strike => signs.strike,
            MarkStyle::Code => return code(out, words, signs),
            MarkStyle::Link(address) => {
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
                        self.words(out, range, signs.escapes.into());
                        out.push('>');
                    }
                    LinkForm::Angles | LinkForm::Behind => {
                        self.run(out, range, inner, signs);
                        let _ = write!(out, " ({address})");
                    }
                }
                return;
            }
            MarkStyle::Block(_) | MarkStyle::Quote => return self.run(out, range, inner, signs),
        };
        // Markup without escapes is read at the borders of words only.
        let needs_border = matches!(signs.escapes, Escapes::None | Escapes::Entities);
        let sign = match needs_border && self.is_within_word(&range) {
            true => "",
            false => sign,
        };
        out.push_str(sign);
        self.run(out, range, inner, signs);
        out.push_str(sign);
    }

    fn is_within_word(&self, range: &Range<usize>) -> bool {
        let text = &self.styled.text;
        let before = text[..range.start].chars().next_back();
        let behind = text[range.end..].chars().next();
        before.is_some_and(char::is_alphanumeric) || behind.is_some_and(char::is_alphanumeric)
    }

    /// Writes words: what would be markup, a mention or a command is broken or escaped. A web address stays as it is.
    fn words(&self, out: &mut String, range: Range<usize>, escapes: WordEscapes) {
        let whole = &self.styled.text;
        let mut before = whole[..range.start].chars().next_back();
        let mut is_start = before.is_none_or(|c| c == '\n');
        let mut is_number = false;
        let mut address_ends = 0;
        for (place, c) in whole[range.clone()].char_indices() {
            let at = range.start + place;
            let rest = &whole[at + c.len_utf8()..];
            if at >= address_ends && c == 'h' && !before.is_some_and(char::is_alphanumeric) {
                address_ends = at + address_length(&whole[at..range.end]);
            }
            if is_start && c == '/' && self.dialect.reads_commands() {
                out.push(ZERO_SPACE);
            }
            let is_address = at < address_ends;
            let ends_number = is_number && matches!(c, '.' | ')');
            match escapes {
                WordEscapes::Nothing => out.push(c),
                WordEscapes::Entities | WordEscapes::BrokenEntities | WordEscapes::Both
                    if entity(c).is_some() =>
                {
                    out.push_str(entity(c).unwrap_or_default());
                }
                WordEscapes::Entities => out.push(c),
                _ if is_address => out.push(c),
                WordEscapes::Broken | WordEscapes::BrokenEntities => broken(out, c, before, rest),
                WordEscapes::Backslash | WordEscapes::Both => {
                    backslashed(out, c, is_start, ends_number);
                }
            }
            if c == '@' && self.breaks_mention(before, rest, is_address) {
                out.push(JOINER);
            }
            is_number = c.is_ascii_digit() && (is_start || is_number);
            is_start = c == '\n' || is_start && matches!(c, ' ' | '\u{a0}');
            before = Some(c);
        }
    }

    fn breaks_mention(&self, before: Option<char>, rest: &str, is_address: bool) -> bool {
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '*' | '"');
        let begins = !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let is_mention = begins && !is_address && rest.starts_with(is_word);
        let name = rest.trim_start_matches(['*', '"']);
        let name = name.split(|c: char| !c.is_alphanumeric()).next();
        let name = name.unwrap_or_default().to_lowercase();
        let behind = rest.get(name.len()..).unwrap_or_default();
        let mut behind = behind.chars();
        let is_host =
            behind.next() == Some('.') && behind.next().is_some_and(char::is_alphanumeric);
        // Discord reads these two wherever they stand.
        let is_read_anywhere = ["everyone", "here"]
            .iter()
            .any(|crowd| name.starts_with(crowd));
        let is_crowd = is_read_anywhere || !is_host && CROWDS.contains(&name.as_str());
        self.dialect.reads_mentions() && (is_crowd || is_mention && !self.mentions)
    }

    fn html(&self) -> String {
        let mut out = String::with_capacity(self.styled.text.len() * 5 / 4);
        let mut lines = LineMarks::new(self.styled);
        let mut at = 0;
        for (block, language) in blocks(self.styled) {
            self.html_lines(&mut out, at..block.start, &mut lines);
            let class = match language {
                "" => String::new(),
                language => format!(" class=\"language-{language}\""),
            };
            let words = escaped(&self.styled.text[block.clone()]);
            let _ = write!(out, "<pre><code{class}>{words}</code></pre>");
            at = block.end;
        }
        self.html_lines(&mut out, at..self.styled.text.len(), &mut lines);
        out
    }

    fn html_lines(&self, out: &mut String, range: Range<usize>, lines: &mut LineMarks<'_>) {
        let mut at = range.start;
        let mut quoted = false;
        for line in self.styled.text[range].split_inclusive('\n') {
            let end = at + line.trim_end_matches('\n').len();
            if lines.is_quote(at) != quoted {
                out.push_str(if quoted {
                    "</blockquote>"
                } else {
                    "<blockquote>"
                });
                quoted = !quoted;
            }
            let marks = lines.marks(at..end);
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
            self.words(&mut plain, range, WordEscapes::Nothing);
            out.push_str(&escaped(&plain));
        };
        let mut at = range.start;
        let mut rest = marks;
        while let Some((mark, others)) = rest.split_first() {
            let inner = others.partition_point(|other| other.range.start < mark.range.end);
            words(out, at..mark.range.start);
            let (open, close) = match &mark.style {
                MarkStyle::Bold => ("<b>".to_owned(), "</b>"),
                MarkStyle::Italic => ("<i>".to_owned(), "</i>"),
                MarkStyle::Strike => ("<s>".to_owned(), "</s>"),
                MarkStyle::Code => ("<code>".to_owned(), "</code>"),
                MarkStyle::Link(address) => (format!("<a href=\"{}\">", escaped(address)), "</a>"),
                MarkStyle::Block(_) | MarkStyle::Quote => (String::new(), ""),
            };
            out.push_str(&open);
            match mark.style {
                MarkStyle::Code => out.push_str(&escaped(&self.styled.text[mark.range.clone()])),
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
        MarkStyle::Block(language) => Some((mark.range.clone(), language.as_str())),
        _ => None,
    })
}

/// Length of the web address that a text begins with; 0 if it begins with none.
fn address_length(text: &str) -> usize {
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return 0;
    }
    let ends = |c: char| c.is_whitespace() || "<>[]()|\"`*\\".contains(c);
    text.find(ends).unwrap_or(text.len())
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
fn backslashed(out: &mut String, c: char, is_start: bool, ends_number: bool) {
    match c {
        '.' | ')' if ends_number => {
            out.push('\\');
            out.push(c);
        }
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
