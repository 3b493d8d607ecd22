//! Every parser with inputs that nobody would write: 20,000 each, made from sound ones. `fuzz/run` does the same under
//! libFuzzer, for longer.

#[path = "../../fuzz/src/lib.rs"]
mod parsers;

use std::panic::{AssertUnwindSafe, catch_unwind};

use parsers::{LARGEST, PARSERS, Parser};

const INPUTS: u32 = 20_000;

/// What parsers have a soft spot for.
const WORDS: &[&[u8]] = &[
    b"\xff",
    b"\0",
    b"\r\n",
    b"\"",
    b"\\",
    b"{{",
    b"}}",
    b"{%",
    b"%}",
    b"[",
    b"{",
    b"]",
    b"}",
    b"'''",
    b"\"\"\"",
    b"=",
    b",",
    b";",
    b"%",
    b"%00",
    b"%zz",
    b"--",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x92\xa9",
    b"\\ud800",
    b"1e999999",
    b"-0",
    b"18446744073709551616",
    b"null",
    b"true",
    b"..",
    b".0.",
    b"$..*",
    b"*",
    b"sha256=",
    b"t=",
    b"v1=",
    b"data:",
    b"\n\n",
    b"Content-Disposition: form-data; name=\"a\"; filename=\"b\"\r\n",
    b"boundary=",
    b"chunked",
    b"Bearer ",
    b"Basic ",
];

/// The next input: a sound one with a few changes.
fn changed(random: &mut fastrand::Rng, seeds: &[&[u8]], input: &mut Vec<u8>) {
    input.clear();
    input.extend_from_slice(seeds[random.usize(..seeds.len())]);
    for _ in 0..random.u32(1..=8) {
        let at = random.usize(..=input.len());
        let end = (at + random.usize(..=16)).min(input.len());
        match random.u32(..8) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..end)),
            2 => drop(input.splice(at..at, WORDS[random.usize(..WORDS.len())].iter().copied())),
            3 if at < input.len() => input[at] ^= 1 << random.u32(..8),
            4 => drop(
                input.splice(
                    at..end,
                    std::iter::repeat_with(|| random.u8(..))
                        .take(4)
                        .collect::<Vec<_>>(),
                ),
            ),
            5 => {
                let word = WORDS[random.usize(..WORDS.len())].repeat(random.usize(..=200));
                drop(input.splice(at..at, word));
            }
            6 => {
                let piece = input[at..end].to_vec();
                drop(input.splice(at..at, piece.repeat(random.usize(..=20))));
            }
            _ => {
                let other = seeds[random.usize(..seeds.len())];
                let from = random.usize(..=other.len());
                drop(input.splice(at..end, other[from..].iter().copied()));
            }
        }
    }
    input.truncate(LARGEST);
}

fn fuzz(parser: &Parser) {
    let seed = std::env::var("SLUICEGATE_FUZZ_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut input = Vec::new();
    for seed in parser.seeds {
        parser.feed(seed);
    }
    for number in 0..INPUTS {
        changed(&mut random, parser.seeds, &mut input);
        let fed = catch_unwind(AssertUnwindSafe(|| parser.feed(&input)));
        assert!(
            fed.is_ok(),
            "{} with input {number}: {}",
            parser.name,
            input.escape_ascii()
        );
    }
}

#[test]
fn no_parser_panics_or_takes_long() {
    let others = std::thread::available_parallelism().map_or(1, usize::from);
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(|| {
                while let Some(parser) =
                    PARSERS.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    fuzz(parser);
                }
            });
        }
    });
    assert!(PARSERS.len() >= 12);
}
