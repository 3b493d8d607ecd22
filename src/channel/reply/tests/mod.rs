//! The state machine of a reply, step by step.

mod ways;
mod world;

use serde_json::json;

use super::*;
use crate::channel::call::{CallContext, CallMessage, CallOf, ChannelSecrets};
use crate::channel::spec::{ChannelSpec, ProofEnd};
use crate::channel::tests::{spec, telegram};
use crate::channel::verdict::{ChannelVerdict, Judgement, WaitScope};

const BEGIN: Timestamp = Timestamp::from_seconds(1_700_000_000);

const HOLD: ReplyPolicy = ReplyPolicy {
    has_secret: true,
    repeats_unknown: false,
    max_age: Duration::from_secs(3_600),
};

fn after(seconds: u64) -> Timestamp {
    BEGIN + Duration::from_secs(seconds)
}

fn parts(count: usize) -> Vec<ReplyPart> {
    let part = |number| ReplyPart {
        text: format!("<b>{number}</b>"),
        plain: format!("{number}"),
        entities: vec![json!({"type": "bold", "offset": 0, "length": 1})],
        html: None,
        source: format!("**{number}**"),
    };
    (0..count).map(part).collect()
}

fn reply(count: usize) -> ChannelReply {
    let start = ReplyStart {
        id: "r1".into(),
        event_id: "e1".into(),
        status: "completed".into(),
        received_at: BEGIN,
        address: ReplyAddress::of(json!({"chat": 7, "topic": 9, "message": 3}), json!({})),
        placeholder: None,
    };
    ChannelReply::new(start, parts(count))
}

fn answered(verdict: ChannelVerdict) -> CallEnd {
    CallEnd::Answered(Judgement {
        verdict,
        code: "code".into(),
        error: None,
        rest: None,
    })
}

fn sent(id: i64) -> CallEnd {
    answered(ChannelVerdict::Sent {
        id: Some(json!(id)),
    })
}

/// A channel with more in its ways to send, and tables behind them.
fn channel(way: &str, tables: &str) -> ChannelSpec {
    spec(&format!(
        "[reply]\napi = 'https://api.example.com'\nlimit = 100\nbatch = 5\nto.chat = 'json:chat'\nto.topic = 'json?:topic'\n[[reply.send]]\ntarget = '/send'\nbody = {{ to = '{{chat}}', topic = '{{topic?}}', text = '{{text}}', key = '{{key}}' }}\n{way}\n{tables}"
    ))
}

/// Takes the next step, which must be a send, and begins it.
fn begin(reply: &mut ChannelReply, spec: &ChannelSpec, now: Timestamp) -> NextStep {
    let step = reply.next(spec, HOLD, now);
    let is_call = matches!(step, NextStep::Send { .. } | NextStep::Edit { .. });
    assert!(is_call, "{step:?}");
    reply.begin(&step, spec, now);
    step
}

/// What a crash leaves: the payload as it was kept.
fn crash(reply: &ChannelReply) -> ChannelReply {
    ChannelReply::read(&reply.payload().unwrap()).unwrap()
}

#[test]
fn parts_go_out_in_order_and_the_reply_is_done() {
    let (spec, mut reply) = (telegram(), reply(3));
    for number in 0..3 {
        let step = begin(&mut reply, &spec, BEGIN);
        assert!(matches!(step, NextStep::Send { parts, .. } if parts == (number..number + 1)));
        reply.end(sent(number as i64), BEGIN);
    }
    assert_eq!(reply.next(&spec, HOLD, BEGIN), NextStep::Done);
    let ids: Vec<_> = reply.states().cloned().collect();
    assert_eq!(ids[2], PartState::Sent { id: Some(json!(2)) });
}

#[test]
fn a_crash_after_the_begin_leaves_the_part_unknown_and_the_rest_unsent() {
    let (spec, mut reply) = (telegram(), reply(2));
    begin(&mut reply, &spec, BEGIN);
    let mut reply = crash(&reply);
    assert_eq!(reply.next(&spec, HOLD, after(1)), NextStep::Unknown);
    let states: Vec<_> = reply.states().cloned().collect();
    assert_eq!(states, [PartState::Unknown, PartState::Skipped]);
    assert!(reply.settle(ReplyResolution::WasSent));
    let step = begin(&mut reply, &spec, after(2));
    assert!(matches!(step, NextStep::Send { parts, .. } if parts == (1..2)));
}

#[test]
fn what_is_kept_has_all_digits_of_ids_and_of_the_address() {
    let digits = "-100123456789012345678901234567890";
    let (spec, mut reply) = (telegram(), reply(1));
    let chat: Value = serde_json::from_str(digits).unwrap();
    assert!(reply.address.replace("chat", chat.clone()));
    begin(&mut reply, &spec, BEGIN);
    reply.end(answered(ChannelVerdict::Sent { id: Some(chat) }), BEGIN);
    let kept = crash(&reply);
    assert_eq!(kept, reply);
    assert_eq!(kept.address().text("chat").as_deref(), Some(digits));
    assert!(serde_json::to_string(&kept).unwrap().contains(digits));
}

#[test]
fn a_crash_before_the_begin_loses_nothing() {
    let (spec, mut reply) = (telegram(), reply(1));
    let step = reply.next(&spec, HOLD, BEGIN);
    assert_eq!(crash(&reply).next(&spec, HOLD, BEGIN), step);
}

#[test]
fn a_send_that_surely_did_not_happen_is_tried_again_with_the_same_key() {
    let (spec, mut reply) = (telegram(), reply(1));
    let first = begin(&mut reply, &spec, BEGIN);
    reply.end(CallEnd::NotSent, BEGIN);
    assert_eq!(
        reply.next(&spec, HOLD, BEGIN),
        NextStep::WaitUntil(after(1))
    );
    assert_eq!(begin(&mut reply, &spec, after(1)), first);
    reply.end(answered(ChannelVerdict::Retry), after(1));
    assert_eq!(
        reply.next(&spec, HOLD, after(1)),
        NextStep::WaitUntil(after(3))
    );
}

#[test]
fn a_doubtful_send_goes_again_with_its_key_inside_the_window_only() {
    let spec = channel("key = '{key}'\nkey_window = '60s'", "");
    let mut reply = reply(2);
    let first = begin(&mut reply, &spec, BEGIN);
    reply.end(CallEnd::Broken, after(2));
    let mut late = crash(&reply);
    assert_eq!(begin(&mut reply, &spec, after(10)), first);
    reply.end(sent(1), after(10));
    assert!(
        matches!(reply.next(&spec, HOLD, after(10)), NextStep::Send { parts, .. } if parts == (1..2))
    );
    assert_eq!(late.next(&spec, HOLD, after(61)), NextStep::Unknown);
}

#[test]
fn a_later_refusal_does_not_make_an_earlier_try_unsent() {
    let spec = channel("key = '{key}'\nkey_window = '60s'", "");
    for verdict in [
        ChannelVerdict::Dead,
        ChannelVerdict::Plain,
        ChannelVerdict::Next,
    ] {
        let mut reply = reply(1);
        begin(&mut reply, &spec, BEGIN);
        reply.end(CallEnd::Broken, BEGIN);
        begin(&mut reply, &spec, after(5));
        reply.end(answered(verdict), after(5));
        assert_eq!(reply.next(&spec, HOLD, after(30)), NextStep::Unknown);
    }
}

#[test]
fn a_question_is_asked_after_a_while_and_its_answer_ends_the_doubt() {
    let check =
        "[reply.check]\ntarget = '/messages'\neach = '*'\nsame = { key = '{key}' }\nafter = '5s'";
    let spec = channel("", check);
    let broken = || {
        let mut reply = reply(1);
        begin(&mut reply, &spec, BEGIN);
        reply.end(CallEnd::Broken, BEGIN);
        reply
    };
    let mut found = broken();
    assert_eq!(
        found.next(&spec, HOLD, after(1)),
        NextStep::WaitUntil(after(5))
    );
    assert!(matches!(
        found.next(&spec, HOLD, after(5)),
        NextStep::Check { .. }
    ));
    found.checked(CheckEnd::Found(Some(json!("m1"))), after(5));
    assert_eq!(found.next(&spec, HOLD, after(5)), NextStep::Done);
    let mut absent = broken();
    absent.checked(CheckEnd::Absent, after(5));
    begin(&mut absent, &spec, after(9));
    let mut silent = broken();
    for _ in 0..5 {
        silent.checked(CheckEnd::Unreadable, after(5));
    }
    assert_eq!(silent.next(&spec, HOLD, after(900)), NextStep::Unknown);
}

#[test]
fn a_question_that_cannot_be_asked_leaves_the_part_in_doubt_and_ends() {
    let check = "[reply.check]\ntarget = '/messages'\neach = '*'\nsame = { key = '{key}' }";
    let spec = channel("", check);
    let mut reply = reply(1);
    begin(&mut reply, &spec, BEGIN);
    let (mut reply, mut now, mut asked) = (crash(&reply), BEGIN, 0);
    loop {
        match reply.next(&spec, HOLD, now) {
            NextStep::WaitUntil(at) => now = at,
            NextStep::Check { .. } => {
                reply.checked(CheckEnd::Unreadable, now);
                asked += 1;
            }
            step => break assert_eq!(step, NextStep::Unknown),
        }
    }
    assert_eq!(asked, 5);
}

#[test]
fn a_message_that_went_out_without_its_key_is_not_asked_for() {
    let check = "[[reply.send]]\ntarget = '/other'\nbody = { text = '{text}' }\n[reply.check]\ntarget = '/messages'\neach = '*'\nsame = { key = '{key}' }";
    let spec = channel("when = { topic = '!' }", check);
    let mut reply = reply(1);
    let step = begin(&mut reply, &spec, BEGIN);
    assert!(matches!(step, NextStep::Send { way: 1, .. }));
    reply.end(CallEnd::Broken, BEGIN);
    assert_eq!(reply.next(&spec, HOLD, after(60)), NextStep::Unknown);
}

#[test]
fn a_clock_that_was_put_back_makes_no_key_young() {
    let spec = channel("key = '{key}'\nkey_window = '60s'", "");
    let mut reply = reply(1);
    begin(&mut reply, &spec, after(600));
    assert_eq!(crash(&reply).next(&spec, HOLD, BEGIN), NextStep::Unknown);
}

#[test]
fn a_proof_is_waited_for_and_settles_the_part_also_when_it_is_late() {
    let spec = channel("", "[reply.proof]\nkey = 'k'\nwithin = '2min'");
    let mut reply = reply(1);
    begin(&mut reply, &spec, BEGIN);
    reply.end(CallEnd::Broken, after(3));
    let mut silent = crash(&reply);
    let step = reply.next(&spec, HOLD, after(3));
    assert_eq!(step, NextStep::AwaitProof { until: after(120) });
    let key = reply.key(0);
    assert!(reply.prove(key, &ProofEnd::Sent(Some(json!("wamid")))));
    assert_eq!(reply.next(&spec, HOLD, after(3)), NextStep::Done);
    assert!(reply.prove(key, &ProofEnd::Failed("131026".into())));
    assert_eq!(
        reply.next(&spec, HOLD, after(4)),
        NextStep::Dead("131026".into())
    );
    assert!(!reply.prove(Uuid::nil(), &ProofEnd::Sent(None)));
    assert_eq!(silent.next(&spec, HOLD, after(121)), NextStep::Unknown);
    assert!(silent.prove(key, &ProofEnd::Sent(None)));
    assert_eq!(silent.next(&spec, HOLD, after(122)), NextStep::Done);
}

#[test]
fn with_retry_a_doubtful_part_goes_once_more_with_a_mark_in_front() {
    let policy = ReplyPolicy {
        repeats_unknown: true,
        ..HOLD
    };
    let (spec, mut reply) = (telegram(), reply(1));
    begin(&mut reply, &spec, BEGIN);
    let mut reply = crash(&reply);
    let step = reply.next(&spec, policy, after(1));
    assert!(matches!(step, NextStep::Send { .. }));
    let part = reply.outgoing(0..1).remove(0);
    assert_eq!(part.text, "\u{21bb} <b>0</b>");
    assert_eq!(part.entities[0]["offset"], json!(2));
    reply.begin(&step, &spec, after(1));
    assert_eq!(
        crash(&reply).next(&spec, policy, after(2)),
        NextStep::Unknown
    );
}

#[test]
fn a_placeholder_is_changed_again_and_never_sent_beside_the_answer() {
    let spec = telegram();
    let start = |count| {
        let mut reply = reply(count);
        reply.placeholder = Some(json!(55));
        reply
    };
    let mut doubtful = start(2);
    let step = begin(&mut doubtful, &spec, BEGIN);
    assert!(matches!(&step, NextStep::Edit { part: 0, sent, .. } if *sent == json!(55)));
    let mut doubtful = crash(&doubtful);
    assert_eq!(begin(&mut doubtful, &spec, after(1)), step);
    doubtful.end(answered(ChannelVerdict::Sent { id: None }), after(1));
    assert_eq!(
        doubtful.states().next(),
        Some(&PartState::Sent {
            id: Some(json!(55))
        })
    );
    assert!(matches!(
        doubtful.next(&spec, HOLD, after(1)),
        NextStep::Send { .. }
    ));
    let mut refused = start(2);
    begin(&mut refused, &spec, BEGIN);
    refused.end(answered(ChannelVerdict::Dead), BEGIN);
    assert_eq!(
        refused.next(&spec, HOLD, BEGIN),
        NextStep::Dead("code".into())
    );
}

#[test]
fn refused_markup_goes_once_more_as_plain_words() {
    let (spec, mut reply) = (telegram(), reply(1));
    begin(&mut reply, &spec, BEGIN);
    reply.end(answered(ChannelVerdict::Plain), BEGIN);
    begin(&mut reply, &spec, BEGIN);
    let part = reply.outgoing(0..1).remove(0);
    assert_eq!((part.text.as_str(), part.markup), ("0", None));
    assert!(part.entities.is_empty());
    reply.end(answered(ChannelVerdict::Plain), BEGIN);
    assert_eq!(
        reply.next(&spec, HOLD, BEGIN),
        NextStep::Dead("code".into())
    );
}

#[test]
fn a_part_that_is_too_long_is_cut_smaller_a_few_times() {
    let (spec, mut reply) = (telegram(), reply(2));
    let first = reply.key(0);
    let mut lengths = Vec::new();
    loop {
        match reply.next(&spec, HOLD, BEGIN) {
            NextStep::Smaller { part, length } => {
                lengths.push(length);
                reply.replace(part, parts(2));
                assert_ne!(reply.key(part), first, "a new piece has a key of its own");
            }
            NextStep::Dead(code) => break assert_eq!(code, "code"),
            step => {
                reply.begin(&step, &spec, BEGIN);
                reply.end(answered(ChannelVerdict::Smaller), BEGIN);
            }
        }
    }
    assert_eq!(lengths, [2_048, 1_024, 512, 256]);
}

#[test]
fn a_stale_thread_is_left_out_once_in_the_same_chat() {
    let (spec, mut reply) = (telegram(), reply(1));
    begin(&mut reply, &spec, BEGIN);
    reply.end(answered(ChannelVerdict::Without("topic".into())), BEGIN);
    begin(&mut reply, &spec, BEGIN);
    assert!(reply.without().contains("topic"));
    reply.end(answered(ChannelVerdict::Without("topic".into())), BEGIN);
    assert_eq!(
        reply.next(&spec, HOLD, BEGIN),
        NextStep::Dead("code".into())
    );
}

#[test]
fn a_chat_that_has_moved_is_followed_and_reported() {
    let (spec, mut reply) = (telegram(), reply(1));
    let moved = ChannelVerdict::With(vec![("chat".into(), json!(-100))]);
    begin(&mut reply, &spec, BEGIN);
    let effects = reply.end(answered(moved.clone()), BEGIN);
    assert_eq!(effects.moved, [("chat".to_owned(), json!(-100))]);
    begin(&mut reply, &spec, BEGIN);
    assert_eq!(reply.address().get("chat"), Some(&json!(-100)));
    for _ in 0..2 {
        reply.end(answered(moved.clone()), BEGIN);
        reply.next(&spec, HOLD, BEGIN);
        if let step @ NextStep::Send { .. } = reply.next(&spec, HOLD, BEGIN) {
            reply.begin(&step, &spec, BEGIN);
        }
    }
    assert_eq!(
        reply.next(&spec, HOLD, BEGIN),
        NextStep::Dead("code".into())
    );
}
