//! Dialects of chats: the marks that each knows, and the characters that mean something in it.

/// A dialect of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// No markup.
    Plain,
    /// Markdown, as most chats for developers read it.
    Markdown,
    /// Text and a list of marks (Bot API, "Formatting options", entities).
    Telegram,
    /// Markdown of `sendRichMessage`.
    TelegramRich,
    /// Slack's markdown block.
    SlackMarkdown,
    /// Slack's own markup.
    SlackMrkdwn,
    /// WhatsApp's markup.
    Whatsapp,
    /// Discord's Markdown.
    Discord,
    /// Markdown of Teams: no headings, lists or tables.
    Teams,
    /// Markup of Google Chat.
    GoogleChat,
    /// HTML with few elements.
    Html,
    /// A plain text, with HTML beside it.
    Matrix,
    /// Zulip's Markdown.
    Zulip,
    /// GitHub's Markdown.
    Github,
    /// GitLab's Markdown, without its quick actions.
    Gitlab,
}

impl Dialect {
    /// Dialects by their words in provider files.
    pub const WORDS: [(&'static str, Self); 15] = [
        ("plain", Self::Plain),
        ("markdown", Self::Markdown),
        ("telegram", Self::Telegram),
        ("telegram-rich", Self::TelegramRich),
        ("slack-markdown", Self::SlackMarkdown),
        ("slack-mrkdwn", Self::SlackMrkdwn),
        ("whatsapp", Self::Whatsapp),
        ("discord", Self::Discord),
        ("teams", Self::Teams),
        ("google-chat", Self::GoogleChat),
        ("html", Self::Html),
        ("matrix", Self::Matrix),
        ("zulip", Self::Zulip),
        ("github", Self::Github),
        ("gitlab", Self::Gitlab),
    ];

    /// The dialect of a word.
    pub fn parse(word: &str) -> Option<Self> {
        let mut words = Self::WORDS.into_iter();
        words
            .find(|(known, _)| *known == word)
            .map(|(_, dialect)| dialect)
    }

    /// The family of the dialect's markup.
    pub(super) const fn markup(self) -> Markup {
        match self {
            Self::Plain => Markup::None,
            Self::Telegram => Markup::Entities,
            Self::Matrix => Markup::Matrix,
            Self::Html => Markup::Html,
            Self::SlackMrkdwn => Markup::Signs(MarkupSigns {
                bold: "*",
                italic: "_",
                strike: "~",
                link: LinkForm::Angles,
                escapes: Escapes::Entities,
                language: false,
            }),
            Self::GoogleChat => Markup::Signs(MarkupSigns {
                bold: "*",
                italic: "_",
                strike: "~",
                link: LinkForm::Angles,
                escapes: Escapes::None,
                language: false,
            }),
            Self::Whatsapp => Markup::Signs(MarkupSigns {
                bold: "*",
                italic: "_",
                strike: "~",
                link: LinkForm::Behind,
                escapes: Escapes::None,
                language: false,
            }),
            Self::SlackMarkdown => Markup::Signs(MarkupSigns {
                escapes: Escapes::BackslashAndEntities,
                ..MARKDOWN
            }),
            Self::Markdown
            | Self::TelegramRich
            | Self::Discord
            | Self::Teams
            | Self::Zulip
            | Self::Github
            | Self::Gitlab => Markup::Signs(MARKDOWN),
        }
    }

    /// True if an `@` outside of code has to be broken, because the channel reads mentions out of the text.
    pub(super) const fn reads_mentions(self) -> bool {
        matches!(
            self,
            Self::Markdown
                | Self::TelegramRich
                | Self::Discord
                | Self::Teams
                | Self::Zulip
                | Self::Github
                | Self::Gitlab
                | Self::Matrix
                | Self::GoogleChat
        )
    }

    /// True if a slash at the start of a line may be a command.
    pub(super) const fn reads_commands(self) -> bool {
        matches!(
            self,
            Self::Gitlab | Self::Zulip | Self::SlackMarkdown | Self::SlackMrkdwn
        )
    }
}

/// Family of markup.
#[derive(Clone, Copy, Debug)]
pub(super) enum Markup {
    None,
    Entities,
    Html,
    Matrix,
    Signs(MarkupSigns),
}

/// MarkupSigns before and behind a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct MarkupSigns {
    pub(super) bold: &'static str,
    pub(super) italic: &'static str,
    pub(super) strike: &'static str,
    pub(super) link: LinkForm,
    pub(super) escapes: Escapes,
    /// True if a code block names its language.
    pub(super) language: bool,
}

const MARKDOWN: MarkupSigns = MarkupSigns {
    bold: "**",
    italic: "*",
    strike: "~~",
    link: LinkForm::Brackets,
    escapes: Escapes::Backslash,
    language: true,
};

/// Form of a link with a text of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkForm {
    /// `[text](address)`
    Brackets,
    /// `<address|text>`
    Angles,
    /// `text (address)`
    Behind,
}

/// Way to write characters that would be markup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escapes {
    /// They have none: a zero-width character breaks what would be markup.
    None,
    /// `&amp;`, `&lt;`, `&gt;`; the rest as with none.
    Entities,
    /// A backslash.
    Backslash,
    /// Both.
    BackslashAndEntities,
}
