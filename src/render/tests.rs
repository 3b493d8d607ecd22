use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Dialect, LengthUnit, MessageLimits, RenderedPart, Rendering};

fn rendering(dialect: Dialect, length: usize) -> Rendering {
    Rendering {
        dialect,
        limits: MessageLimits {
            length,
            unit: LengthUnit::Utf16,
            is_after_parsing: dialect == Dialect::Telegram,
            entities: Some(100),
            parts: usize::MAX,
        },
        mentions: false,
    }
}

fn one(dialect: Dialect, markdown: &str) -> RenderedPart {
    let mut parts = rendering(dialect, 4096).parts(markdown);
    assert_eq!(parts.len(), 1, "{parts:?}");
    parts.remove(0)
}

fn text(dialect: Dialect, markdown: &str) -> String {
    one(dialect, markdown).text
}

const SAMPLE: &str = "# Report\n\nAll is **well**, _nearly_; see `make test` and [the log](https://example.com/a).\n\n- one\n- two\n  1. deep\n\n> said ~~she~~ he\n\n```rust\nlet a = 1 < 2;\n```\n\n| name | n |\n|---|---|\n| ada | 1 |";

#[test]
fn one_answer_in_several_dialects() {
    assert_eq!(
        text(Dialect::Plain, SAMPLE),
        "Report\n\nAll is well, nearly; see make test and the log (https://example.com/a).\n\n• one\n• two\n  1. deep\n\nsaid she he\n\nlet a = 1 < 2;\n\nname | n\n-----+--\nada  | 1"
    );
    assert_eq!(
        text(Dialect::SlackMrkdwn, SAMPLE),
        "*Report*\n\nAll is *well*, _nearly_; see `make test` and <https://example.com/a|the log>.\n\n• one\n• two\n  1. deep\n\n> said ~she~ he\n\n```\nlet a = 1 &lt; 2;\n```\n\n```\nname | n\n-----+--\nada  | 1\n```"
    );
    assert_eq!(
        text(Dialect::Whatsapp, SAMPLE),
        "*Report*\n\nAll is *well*, _nearly_; see `make test` and the log (https://example.com/a).\n\n• one\n• two\n  1. deep\n\n> said ~she~ he\n\n```\nlet a = 1 < 2;\n```\n\n```\nname | n\n-----+--\nada  | 1\n```"
    );
    assert_eq!(
        text(
            Dialect::Discord,
            "**a** _b_ [c](https://e.com) `d` snake_case\n\n```py\nx\n```"
        ),
        "**a** *b* [c](https://e.com) `d` snake\\_case\n\n```py\nx\n```"
    );
    assert_eq!(
        text(
            Dialect::Html,
            "**a** < b & [c](https://e.com/?a=1&b=2)\n\n> q\n\n```js\n<x>\n```"
        ),
        "<b>a</b> &lt; b &amp; <a href=\"https://e.com/?a=1&amp;b=2\">c</a><br><br><blockquote>q<br></blockquote><br><pre><code class=\"language-js\">&lt;x&gt;</code></pre>"
    );
}

#[test]
fn telegram_gets_marks_in_units_of_utf_16() {
    let part = one(
        Dialect::Telegram,
        "😀 **bold _both_** `c` [l](https://e.com)\n\n> quote\n\n```sh\nls\n```",
    );
    assert_eq!(part.text, "😀 bold both c l\n\nquote\n\nls");
    assert_eq!(
        Value::from(part.entities),
        json!([
            { "type": "bold", "offset": 3, "length": 9 },
            { "type": "italic", "offset": 8, "length": 4 },
            { "type": "code", "offset": 13, "length": 1 },
            { "type": "text_link", "offset": 15, "length": 1, "url": "https://e.com" },
            { "type": "blockquote", "offset": 18, "length": 5 },
            { "type": "pre", "offset": 25, "length": 2, "language": "sh" },
        ])
    );
}

#[test]
fn a_text_notifies_nobody_and_runs_no_command() {
    let joined = "@\u{200d}everyone, mail a@b.com, `@code`, see @\u{200d}ann";
    let said = "@everyone, mail a@b.com, `@code`, see @ann";
    assert_eq!(text(Dialect::Discord, said), joined);
    let allowed = Rendering {
        mentions: true,
        ..rendering(Dialect::Discord, 4096)
    };
    let parts = allowed.parts(said);
    assert!(parts[0].text.contains("@\u{200d}everyone") && parts[0].text.ends_with("@ann"));
    assert_eq!(
        text(Dialect::Gitlab, "/close\n\n`/merge`"),
        "\u{200b}/close\n\n`/merge`"
    );
    assert_eq!(
        text(Dialect::SlackMrkdwn, "<!channel> &"),
        "&lt;!channel&gt; &amp;"
    );
    for address in ["javascript:alert(1)", "tg://user?id=1", "data:text/html,x"] {
        let part = one(Dialect::Telegram, &format!("[click]({address})"));
        assert_eq!(part.entities, Vec::<Value>::new(), "{address}");
    }
    assert_eq!(
        text(Dialect::Plain, "![a cat](https://e.com/cat.png)"),
        "a cat (https://e.com/cat.png)",
        "nothing is fetched"
    );
}

#[test]
fn what_a_chat_cannot_say_degrades() {
    assert_eq!(text(Dialect::Plain, "a\n\n---\n\nb"), "a\n\nb");
    assert_eq!(
        text(Dialect::Plain, "- [x] done\n- [ ] open"),
        "• ☑ done\n• ☐ open"
    );
    assert_eq!(text(Dialect::Plain, "<b>x</b> <user>"), "<b>x</b> <user>");
    assert_eq!(
        text(Dialect::Plain, "1. a\n\n   b\n2. c"),
        "1. a\n  b\n2. c"
    );
    let wide = "| name | text |\n|---|---|\n| ada | a very long cell that makes the table far too wide for the display of a phone |";
    assert_eq!(
        text(Dialect::Telegram, wide),
        "name: ada\ntext: a very long cell that makes the table far too wide for the display of a phone"
    );
    assert_eq!(text(Dialect::Plain, "a\u{0}b\u{7}c"), "abc");
}

#[test]
fn it_is_cut_at_the_best_place_and_code_is_closed_and_opened_again() {
    let markdown = "First paragraph here.\n\nSecond one is here. It has two sentences.";
    let parts = rendering(Dialect::Plain, 45).parts(markdown);
    let texts: Vec<&str> = parts.iter().map(|part| &*part.text).collect();
    assert_eq!(
        texts,
        [
            "First paragraph here.",
            "Second one is here. It has two sentences."
        ]
    );
    let parts =
        rendering(Dialect::Discord, 30).parts("```rust\nline one\nline two\nline three\n```");
    let texts: Vec<&str> = parts.iter().map(|part| &*part.text).collect();
    assert_eq!(
        texts,
        [
            "```rust\nline one\nline two\n```",
            "```rust\nline three\n```"
        ]
    );
    let mut bounded = rendering(Dialect::Plain, 200);
    bounded.limits.parts = 2;
    let parts = bounded.parts(&"word ".repeat(500));
    assert_eq!(parts.len(), 2);
    assert!(
        parts[1]
            .text
            .ends_with("(The rest of the answer is left out: it is too long for this chat.)")
    );
    assert!(parts.iter().all(|part| part.text.len() <= 200));
}

#[test]
fn words_that_stand_beside_the_markup_notify_nobody_either() {
    let part = one(
        Dialect::SlackMarkdown,
        "to <!channel>: [log](https://e.com/?a=1&b=2)",
    );
    assert_eq!(
        part.plain,
        "to &lt;!channel&gt;: log (https://e.com/?a=1&amp;b=2)"
    );
    assert!(
        one(Dialect::Github, "**x** .@ann")
            .plain
            .contains(".@\u{200d}ann")
    );
}

#[test]
fn addresses_emphasis_and_numbers_stay_what_they_are() {
    let said = "see https://e.com/a_b_c?x=1&y=@ann and 2*3*4";
    assert_eq!(text(Dialect::Discord, said), said);
    assert_eq!(
        text(Dialect::Whatsapp, "https://e.com/_next/~ann 2*3*4"),
        "https://e.com/_next/~ann 234"
    );
    assert_eq!(
        text(Dialect::Github, "1\\. a\n\n5\\. b"),
        "1\\. a\n\n5\\. b"
    );
    assert_eq!(
        text(Dialect::Discord, "- ```py\n  x\n  ```\n- b"),
        "•\n```py\nx\n```\n• b"
    );
    let part = one(
        Dialect::Telegram,
        "[![a](https://e.com/i)](https://e.com/u) *a *b* c*",
    );
    let kinds: Vec<_> = part
        .entities
        .iter()
        .map(|one| one["type"].as_str())
        .collect();
    assert_eq!(kinds, [Some("text_link"), Some("italic")]);
    let allowed = Rendering {
        mentions: true,
        ..rendering(Dialect::Zulip, 4096)
    };
    assert!(
        allowed.parts("@**stream** @all.")[0]
            .text
            .contains("@\u{200d}all.")
    );
}

#[test]
fn a_part_is_made_smaller_from_its_source() {
    let part = one(
        Dialect::Telegram,
        "**bold** and [a link](https://e.com) with `code` and _more_ words",
    );
    let smaller = rendering(Dialect::Telegram, 4096).smaller(&part.source, 30);
    assert!(smaller.len() > 1);
    let words = |parts: &[RenderedPart]| {
        let text: Vec<&str> = parts.iter().map(|part| &*part.text).collect();
        text.join(" ")
    };
    assert_eq!(words(&smaller), part.text);
    assert_eq!(smaller[0].entities[0]["type"], "bold");
}

#[test]
fn a_megabyte_in_one_line_is_cut_and_ends() {
    let begun = Instant::now();
    let text = "x".repeat(1 << 20);
    let parts = rendering(Dialect::Telegram, 4096).parts(&text);
    assert_eq!(
        parts.iter().map(|part| part.text.len()).sum::<usize>(),
        1 << 20
    );
    for nasty in [
        "> ".repeat(10_000),
        "*a ".repeat(20_000),
        "[".repeat(50_000),
        "- ".repeat(5_000),
        "`".repeat(40_000),
        format!("a{}", "\u{301}".repeat(20_000)),
        format!(
            "[{}](https://e.com/{})",
            "t".repeat(9_000),
            "u".repeat(9_000)
        ),
    ] {
        for dialect in [Dialect::Telegram, Dialect::SlackMarkdown, Dialect::Html] {
            for part in rendering(dialect, 500).parts(&nasty) {
                check(dialect, &part, 500);
            }
        }
    }
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

/// What each channel demands of a message, by its documentation.
fn check(dialect: Dialect, part: &RenderedPart, length: usize) {
    let measured = LengthUnit::Utf16.length(&part.text);
    assert!(
        measured <= length,
        "{dialect:?} {measured} > {length}: {:?}",
        part.text
    );
    assert!(!part.text.trim().is_empty());
    match dialect {
        Dialect::Telegram => telegram(part),
        Dialect::Html | Dialect::Matrix => {
            html(part.html.as_deref().unwrap_or(&part.text));
        }
        Dialect::SlackMrkdwn => slack(&part.text),
        Dialect::Discord | Dialect::Markdown | Dialect::Github => {
            assert!(
                !part.text.contains("@everyone") || part.text.contains('`'),
                "{:?}",
                part.text
            );
        }
        _ => {}
    }
}

/// Entities lie within the text, on borders of characters, and code holds and meets no other.
fn telegram(part: &RenderedPart) {
    assert!(part.entities.len() <= 100);
    let units: Vec<u16> = part.text.encode_utf16().collect();
    let mut last = 0;
    let mut code = Vec::new();
    let mut all = Vec::new();
    for entity in &part.entities {
        let of = |name: &str| entity[name].as_u64().unwrap() as usize;
        let (start, end) = (of("offset"), of("offset") + of("length"));
        assert!(
            start >= last && end <= units.len() && end > start,
            "{part:?}"
        );
        last = start;
        assert!(String::from_utf16(&units[start..end]).is_ok());
        let kind = entity["type"].as_str().unwrap();
        if matches!(kind, "code" | "pre") {
            code.push((start, end));
        } else {
            all.push((start, end));
        }
        if kind == "text_link" {
            assert!(entity["url"].as_str().unwrap().contains(':'));
        }
    }
    for (number, (start, end)) in code.iter().enumerate() {
        let meets = |other: &(usize, usize)| other.0 < *end && other.1 > *start;
        assert!(!all.iter().any(meets), "{part:?}");
        assert!(!code[number + 1..].iter().any(meets), "{part:?}");
    }
}

/// Elements are known, closed in order, and nothing else is markup.
fn html(text: &str) {
    const KNOWN: [&str; 9] = ["b", "i", "s", "code", "pre", "a", "blockquote", "br", "u"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{text}"),
            None => {
                let name = tag.split(' ').next().unwrap_or_default();
                assert!(KNOWN.contains(&name), "{tag} in {text}");
                if name != "br" {
                    open.push(name);
                }
            }
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{text}");
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        rest = &rest[start + 1..];
        assert!(
            ["amp;", "lt;", "gt;", "quot;"]
                .iter()
                .any(|name| rest.starts_with(name)),
            "{text}"
        );
    }
}

/// Every `<` begins a link with an address and a text; `>` ends it or a quote's sign.
fn slack(text: &str) {
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a link ends");
        let link = &rest[start + 1..end];
        let (address, words) = link.split_once('|').expect("a text");
        assert!(
            ["http://", "https://", "mailto:"]
                .iter()
                .any(|scheme| address.to_lowercase().starts_with(scheme))
        );
        assert!(!words.contains('<'), "{text}");
        rest = &rest[end + 1..];
    }
}

fn words(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}

fn markdown() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z]{1,8}",
        2 => Just(" ".to_owned()),
        1 => Just("\n".to_owned()),
        1 => Just("\n\n".to_owned()),
        1 => prop::sample::select(vec![
            "**", "*", "_", "~~", "`", "```", "\n```\n", "\n> ", "\n- ", "\n1. ", "\n# ", "[", "](https://e.com/a)",
            "![", "<", ">", "&", "@everyone", "@", "|", "\n|---|---|\n", "\\", "😀", "é", "👩‍👩‍👧", "漢字", "~", "---",
            "\n    ", "/", "#", "\t", "&lt;", "<b>", "https://example.com/x?a=b&c=d", "\u{301}", "=", "\n===\n",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_good_in_every_dialect_and_every_word_arrives(
        markdown in markdown(),
        length in 20_usize..200,
    ) {
        let whole = words(&super::markdown::read(&markdown).text);
        for (_, dialect) in Dialect::WORDS {
            let parts = rendering(dialect, length).parts(&markdown);
            for part in &parts {
                check(dialect, part, length);
            }
            // Addresses of links and written entities stand between the words.
            let pieces: String = parts.iter().map(|part| words(&part.plain)).collect();
            let mut rest = pieces.chars();
            let arrives = whole.chars().all(|wanted| rest.any(|c| c == wanted));
            prop_assert!(arrives, "{dialect:?}: {whole} in {pieces}");
        }
    }
}
