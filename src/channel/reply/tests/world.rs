//! The state machine of a reply in a made-up world, under every order of failures and crashes.

use proptest::prelude::*;
use serde_json::json;

use super::{BEGIN, HOLD, answered, channel, crash, parts, reply, sent};
use crate::channel::reply::*;
use crate::channel::spec::{ChannelSpec, ProofEnd};
use crate::channel::verdict::{ChannelVerdict, WaitScope};

/// The events of a made-up world, in any order.
#[derive(Clone, Copy, Debug)]
enum Fortune {
    Crash { written: bool },
    Broken { arrived: bool },
    NotSent,
    Sent,
    Refused(u8),
    Wait(u8),
}

fn fortune() -> impl Strategy<Value = Fortune> {
    prop_oneof![
        1 => any::<bool>().prop_map(|written| Fortune::Crash { written }),
        1 => any::<bool>().prop_map(|arrived| Fortune::Broken { arrived }),
        1 => Just(Fortune::NotSent),
        4 => Just(Fortune::Sent),
        1 => (0..9_u8).prop_map(Fortune::Refused),
        1 => (0..200_u8).prop_map(Fortune::Wait),
    ]
}

/// A channel that remembers what arrived: keys with their times, and the texts that its readers see.
#[derive(Default)]
struct World {
    seen: Vec<(Uuid, String, Timestamp)>,
    messages: Vec<(Uuid, String)>,
}

impl World {
    fn arrive(&mut self, key: Uuid, texts: &[OutgoingPart], now: Timestamp, memory: Option<u64>) {
        let drops = memory.is_some_and(|seconds| {
            self.seen.iter().any(|(known, _, at)| {
                *known == key && now.since(*at) < Duration::from_secs(seconds)
            })
        });
        if !drops {
            self.seen.push((key, String::new(), now));
            self.messages
                .extend(texts.iter().map(|part| (key, part.plain.clone())));
        }
    }

    fn has(&self, key: Uuid) -> bool {
        self.messages.iter().any(|(known, _)| *known == key)
    }
}

fn refusal(kind: u8) -> ChannelVerdict {
    match kind {
        0 => ChannelVerdict::Plain,
        1 => ChannelVerdict::Smaller,
        2 => ChannelVerdict::Without("topic".into()),
        3 => ChannelVerdict::With(vec![("chat".into(), json!(8))]),
        4 => ChannelVerdict::Next,
        5 => ChannelVerdict::Dead,
        6 => ChannelVerdict::Alarm,
        7 => ChannelVerdict::Gone,
        _ => ChannelVerdict::Retry,
    }
}

/// Runs a reply to its end. Returns the world and the reply.
fn live(
    spec: &ChannelSpec,
    policy: ReplyPolicy,
    memory: Option<u64>,
    fortunes: &[Fortune],
) -> (World, ChannelReply, NextStep) {
    let (mut world, mut reply, mut now) = (World::default(), reply(3), BEGIN);
    let mut fortunes = fortunes.iter().copied();
    for _ in 0..2_000 {
        let step = reply.next(spec, policy, now);
        // A crash at any step before a call leaves the same step.
        assert_eq!(crash(&reply).next(spec, policy, now), step);
        match &step {
            NextStep::Done | NextStep::Unknown | NextStep::Dead(_) => return (world, reply, step),
            NextStep::WaitUntil(at) => {
                assert!(*at > now, "time moves on");
                now = *at;
            }
            NextStep::AwaitProof { until } => {
                assert!(*until > now);
                // The proof comes if the message is there, in every second run.
                let key = reply.key(reply.flight.as_ref().map_or(0, |flight| flight.first));
                match world.has(key) && fortunes.len() % 2 == 0 {
                    true => assert!(reply.prove(key, &ProofEnd::Sent(None))),
                    false => now = *until,
                }
            }
            NextStep::Check { key, since } => {
                assert!(*since < now);
                let end = match fortunes.next() {
                    Some(Fortune::NotSent | Fortune::Crash { .. }) => CheckEnd::Unreadable,
                    _ if world.has(*key) => CheckEnd::Found(None),
                    _ => CheckEnd::Absent,
                };
                reply.checked(end, now);
            }
            NextStep::Smaller { part, .. } => reply.replace(*part, parts(2)),
            NextStep::Send { parts, key, .. } => {
                reply.begin(&step, spec, now);
                let outgoing = reply.outgoing(parts.clone());
                now = now + Duration::from_secs(1);
                let mut arrive = || world.arrive(*key, &outgoing, now, memory);
                let end = match fortunes.next().unwrap_or(Fortune::Sent) {
                    Fortune::Crash { written } => {
                        if written {
                            arrive();
                        }
                        reply = crash(&reply);
                        continue;
                    }
                    Fortune::Broken { arrived } => {
                        if arrived {
                            arrive();
                        }
                        CallEnd::Broken
                    }
                    Fortune::NotSent => CallEnd::NotSent,
                    Fortune::Sent => {
                        arrive();
                        sent(1)
                    }
                    Fortune::Refused(kind) => answered(refusal(kind)),
                    Fortune::Wait(pause) => answered(ChannelVerdict::Wait {
                        pause: Some(Duration::from_secs(u64::from(pause))),
                        scope: WaitScope::Chat,
                    }),
                };
                reply.end(end, now);
            }
            NextStep::Edit { .. } => panic!("there is no placeholder"),
        }
    }
    panic!("the reply does not end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn no_part_is_there_twice_whatever_happens(
        fortunes in proptest::collection::vec(fortune(), 0..24),
        kind in 0..4_usize,
    ) {
        let (spec, memory) = match kind {
            0 => (channel("", ""), None),
            1 => (channel("key = '{key}'\nkey_window = '60s'", ""), Some(61)),
            2 => (channel("", "[reply.check]\ntarget = '/m'\neach = '*'\nsame = { k = '{key}' }"), None),
            _ => (channel("", "[reply.proof]\nkey = 'k'\nwithin = '2min'"), None),
        };
        let (world, reply, end) = live(&spec, HOLD, memory, &fortunes);
        let mut keys: Vec<Uuid> = world.messages.iter().map(|(key, _)| *key).collect();
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        prop_assert_eq!(keys.len(), all, "twice: {:?}", world.messages);
        // The messages stand in the order of the parts, and those that count as sent are there.
        let order: Vec<Uuid> = (0..reply.parts.len()).map(|part| reply.key(part)).collect();
        let places: Vec<usize> = world
            .messages
            .iter()
            .filter_map(|(key, _)| order.iter().position(|known| known == key))
            .collect();
        prop_assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", places);
        for (part, state) in reply.states().enumerate() {
            match state {
                PartState::Sent { .. } => prop_assert!(world.has(reply.key(part))),
                PartState::Pending => prop_assert!(false, "a part is still pending"),
                PartState::Dead { .. } | PartState::Skipped => {
                    prop_assert!(!world.has(reply.key(part)), "{:?} of {:?}", state, end);
                }
                PartState::Unknown => {}
            }
        }
    }

    #[test]
    fn a_repeat_that_the_source_allows_has_a_mark_and_happens_once(
        fortunes in proptest::collection::vec(fortune(), 0..24),
    ) {
        let policy = ReplyPolicy { repeats_unknown: true, ..HOLD };
        let (world, _, _) = live(&channel("", ""), policy, None, &fortunes);
        for (key, _) in &world.messages {
            let same: Vec<&String> =
                world.messages.iter().filter(|(other, _)| other == key).map(|(_, text)| text).collect();
            prop_assert!(same.len() <= 2, "{:?}", same);
            prop_assert!(same.iter().skip(1).all(|text| text.starts_with(REPEAT_MARK)));
        }
    }
}
