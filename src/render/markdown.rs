//! Markdown as a text with marks: what a chat cannot say degrades to what it can.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::styled::{Mark, MarkStyle, Styled};
use super::table::AnswerTable;

/// Longest answer that is read, in bytes. Longer ones are longer than the inbox keeps.
const LONGEST: usize = 4 << 20;

/// Deepest nesting that is shown; what is deeper stands at this depth.
const DEEPEST: usize = 16;

/// Reads an answer.
pub(super) fn read(markdown: &str) -> Styled {
    let cleaned: String = cut(markdown)
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut reader = MarkdownReader::default();
    for event in Parser::new_ext(&cleaned, options) {
        reader.event(event);
    }
    reader.end()
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[derive(Default)]
struct MarkdownReader {
    out: Styled,
    /// Beginnings of styles that are open; without a style where the same is open already.
    open: Vec<(usize, Option<MarkStyle>)>,
    /// Lists that are open: the number of the next item, or none for bullets.
    lists: Vec<Option<u64>>,
    /// Depth of quotes.
    quotes: usize,
    table: Option<AnswerTable>,
    /// True if a block has ended, so that the next one begins on a line of its own.
    is_after_block: bool,
    /// True at the begin of a quote, and right behind the sign of an item: the first block inside needs no line of its own.
    is_begun: bool,
}

impl MarkdownReader {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(end) => self.finish(end),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.text(&text),
            Event::InlineMath(text) | Event::DisplayMath(text) => self.text(&text),
            Event::Code(text) => match &mut self.table {
                Some(table) => table.text(&text),
                None => {
                    self.begin_inline();
                    let start = self.out.text.len();
                    self.out.text.push_str(&text.replace('\n', " "));
                    self.mark(start, MarkStyle::Code);
                }
            },
            Event::SoftBreak | Event::HardBreak => self.text("\n"),
            Event::Rule => self.begin_block(),
            Event::TaskListMarker(done) => self.text(if done { "☑ " } else { "☐ " }),
            Event::FootnoteReference(name) => self.text(&format!("[{name}]")),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph | Tag::HtmlBlock => self.begin_block(),
            Tag::Heading { .. } => {
                self.begin_block();
                self.open(MarkStyle::Bold);
            }
            Tag::BlockQuote(_) => {
                self.begin_block();
                self.quotes += 1;
                // One level is shown: no dialect of all can nest them.
                if self.quotes == 1 {
                    self.open(MarkStyle::Quote);
                }
                self.is_begun = true;
            }
            Tag::CodeBlock(kind) => {
                self.begin_code();
                let language = match kind {
                    CodeBlockKind::Fenced(info) => language(&info),
                    CodeBlockKind::Indented => String::new(),
                };
                self.open(MarkStyle::Block(language));
            }
            Tag::List(first) => {
                if self.lists.is_empty() {
                    self.begin_block();
                }
                self.lists.push(first);
            }
            Tag::Item => self.item(),
            Tag::Emphasis => self.open_inline(MarkStyle::Italic),
            Tag::Strong => self.open_inline(MarkStyle::Bold),
            Tag::Strikethrough => self.open_inline(MarkStyle::Strike),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.open_inline(MarkStyle::Link(dest_url.into_string()));
            }
            Tag::Table(_) => {
                self.begin_code();
                self.table = Some(AnswerTable::default());
            }
            Tag::TableHead | Tag::TableRow => {
                if let Some(table) = &mut self.table {
                    table.begin_row();
                }
            }
            Tag::TableCell => {
                if let Some(table) = &mut self.table {
                    table.begin_cell();
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, end: TagEnd) {
        match end {
            TagEnd::Paragraph | TagEnd::HtmlBlock => self.is_after_block = true,
            TagEnd::Heading(_) => {
                self.close();
                self.is_after_block = true;
            }
            TagEnd::BlockQuote(_) => {
                self.is_begun = false;
                self.quotes = self.quotes.saturating_sub(1);
                if self.quotes == 0 {
                    self.trim_end();
                    self.close();
                }
                self.is_after_block = true;
            }
            TagEnd::CodeBlock => {
                self.trim_end();
                self.close();
                self.is_after_block = true;
            }
            TagEnd::List(_) => {
                self.lists.pop();
                self.is_after_block = true;
            }
            TagEnd::Item => self.is_begun = false,
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => self.close_inline(),
            TagEnd::Link | TagEnd::Image => self.close_link(),
            TagEnd::Table => self.end_table(),
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(table) = &mut self.table {
            table.text(text);
            return;
        }
        self.begin_inline();
        if text == "\n" && !self.lists.is_empty() {
            self.out.text.push('\n');
            let indent = self.indent();
            self.out.text.push_str(&indent);
            return;
        }
        self.out.text.push_str(text);
    }

    /// Begins a block on a line of its own, with an empty line before it outside of lists.
    fn begin_block(&mut self) {
        if std::mem::take(&mut self.is_begun) {
            self.is_after_block = false;
            return;
        }
        if self.out.text.is_empty() {
            return;
        }
        self.trim_end();
        self.out.text.push('\n');
        if self.lists.is_empty() {
            self.out.text.push('\n');
        } else {
            let indent = self.indent();
            self.out.text.push_str(&indent);
        }
        self.is_after_block = false;
    }

    /// Begins a block of code at the start of a line: behind an indent its fence would be none.
    fn begin_code(&mut self) {
        self.is_begun = false;
        self.is_after_block = false;
        if self.out.text.is_empty() {
            return;
        }
        self.trim_end();
        self.out.text.push('\n');
        if self.lists.is_empty() && self.quotes == 0 {
            self.out.text.push('\n');
        }
    }

    /// Text that follows a block without a block of its own, as in a tight list.
    fn begin_inline(&mut self) {
        if self.is_after_block && !self.is_begun {
            self.begin_block();
        }
        self.is_begun = false;
        self.is_after_block = false;
    }

    fn item(&mut self) {
        if !self.out.text.is_empty() && !self.out.text.ends_with('\n') {
            self.trim_end();
            self.out.text.push('\n');
        }
        let depth = self.lists.len().saturating_sub(1).min(DEEPEST);
        self.out.text.push_str(&"  ".repeat(depth));
        match self.lists.last_mut() {
            Some(Some(number)) => {
                let sign = format!("{number}. ");
                *number = number.saturating_add(1);
                self.out.text.push_str(&sign);
            }
            _ => self.out.text.push_str("• "),
        }
        self.is_begun = true;
        self.is_after_block = false;
    }

    fn indent(&self) -> String {
        "  ".repeat(self.lists.len().min(DEEPEST))
    }

    fn open(&mut self, style: MarkStyle) {
        let kind = std::mem::discriminant(&style);
        let mut styles = self.open.iter().filter_map(|(_, style)| style.as_ref());
        let is_open = styles.any(|open| std::mem::discriminant(open) == kind);
        let style = (!is_open).then_some(style);
        self.open.push((self.out.text.len(), style));
    }

    fn open_inline(&mut self, style: MarkStyle) {
        if self.table.is_none() {
            self.begin_inline();
        }
        self.open(style);
    }

    fn close(&mut self) {
        if let Some((start, Some(style))) = self.open.pop() {
            self.mark(start, style);
        }
    }

    fn close_inline(&mut self) {
        match self.table {
            Some(_) => drop(self.open.pop()),
            None => self.close(),
        }
    }

    /// Ends a link. An address that no chat should lead to is not kept as one: it stands as text.
    fn close_link(&mut self) {
        let Some((start, Some(MarkStyle::Link(address)))) = self.open.pop() else {
            return;
        };
        if let Some(table) = &mut self.table {
            table.text(&format!(" ({address})"));
            return;
        }
        let start = start.min(self.out.text.len());
        let text = self.out.text[start..].to_owned();
        let is_web = ["https://", "http://", "mailto:"]
            .iter()
            .any(|scheme| starts_with(&address, scheme));
        let is_fit = !address.contains(|c: char| c.is_whitespace() || "<>|()\"\\`".contains(c));
        if text.trim().is_empty() {
            self.out.text.push_str(&address);
        } else if !is_web || !is_fit {
            if text != address && !address.is_empty() {
                self.out.text.push_str(&format!(" ({address})"));
            }
        } else if text != address {
            self.mark(start, MarkStyle::Link(address));
        }
    }

    fn end_table(&mut self) {
        self.is_after_block = true;
        let Some(table) = self.table.take() else {
            return;
        };
        let start = self.out.text.len();
        match table.aligned() {
            Some(text) => {
                self.out.text.push_str(&text);
                self.mark(start, MarkStyle::Block(String::new()));
            }
            None => self.out.text.push_str(&table.lines()),
        }
    }

    fn mark(&mut self, start: usize, style: MarkStyle) {
        let end = self.out.text.len();
        self.out.marks.push(Mark {
            range: start.min(end)..end,
            style,
        });
    }

    /// Drops blanks at the end; marks that reached into them end before them.
    fn trim_end(&mut self) {
        let end = self.out.text.trim_end_matches(['\n', ' ']).len();
        let least = self.open.last().map_or(0, |(start, _)| *start);
        self.out
            .text
            .truncate(end.max(least.min(self.out.text.len())));
    }

    fn end(mut self) -> Styled {
        while !self.open.is_empty() {
            self.close();
        }
        let end = self.out.text.trim_end().len();
        self.out.text.truncate(end);
        for mark in &mut self.out.marks {
            mark.range.end = mark.range.end.min(end);
            mark.range.start = mark.range.start.min(mark.range.end);
        }
        self.out.sorted()
    }
}

/// The language of a code block: letters, digits and a few signs of the first word.
fn language(info: &str) -> String {
    let word = info.split_whitespace().next().unwrap_or_default();
    let is_fit = |c: &char| c.is_ascii_alphanumeric() || "+-#._".contains(*c);
    word.chars().take_while(is_fit).take(30).collect()
}

fn starts_with(address: &str, scheme: &str) -> bool {
    let start = address.get(..scheme.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(scheme)) && address.len() > scheme.len()
}
