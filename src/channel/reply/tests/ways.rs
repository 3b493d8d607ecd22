//! Ways that open and close: by time, by number, by the channel's word, by a changed file.

use super::*;

#[test]
fn a_way_that_is_closed_by_time_or_number_hands_over_to_the_next() {
    let second = "[[reply.send]]\ntarget = '/push'\nbody = { to = '{chat}', text = '{text}' }";
    let spec = channel("until = '25s'\nuses = 1", second);
    let way = |step| match step {
        NextStep::Send { way, .. } => way,
        step => panic!("{step:?}"),
    };
    let mut used = reply(2);
    assert_eq!(way(begin(&mut used, &spec, BEGIN)), 0);
    used.end(sent(1), BEGIN);
    assert_eq!(way(begin(&mut used, &spec, BEGIN)), 1);
    let mut late = reply(1);
    assert_eq!(way(begin(&mut late, &spec, after(25))), 1);
    let mut closed = reply(1);
    begin(&mut closed, &spec, BEGIN);
    closed.end(answered(ChannelVerdict::Next), BEGIN);
    assert_eq!(way(begin(&mut closed, &spec, BEGIN)), 1);
    closed.end(answered(ChannelVerdict::Next), BEGIN);
    assert_eq!(
        closed.next(&spec, HOLD, BEGIN),
        NextStep::Dead("window".into())
    );
    let mut unsent = reply(1);
    begin(&mut unsent, &spec, BEGIN);
    unsent.end(CallEnd::NotSent, BEGIN);
    assert_eq!(
        way(begin(&mut unsent, &spec, after(1))),
        0,
        "a call that was not sent uses nothing up"
    );
}

#[test]
fn after_the_window_of_the_channel_nothing_is_tried() {
    let spec = spec(
        "[reply]\napi = 'https://api.example.com'\nlimit = 100\nto.chat = 'json:chat'\nwindow = { open = '24min', of = 'received' }\n[[reply.send]]\ntarget = '/send'\nbody = { text = '{text}' }",
    );
    let mut reply = reply(2);
    assert_eq!(
        reply.next(&spec, HOLD, after(1_440)),
        NextStep::Dead("window".into())
    );
    assert!(reply.states().all(|state| *state != PartState::Pending));
}

#[test]
fn one_call_carries_as_many_parts_as_the_channel_takes() {
    let spec = spec(
        "[reply]\napi = 'https://api.example.com'\nlimit = 100\nbatch = 5\nto.chat = 'json:chat'\n[[reply.send]]\ntarget = '/push'\nbody = { to = '{chat}', messages = [{ type = 'text', text = '{text}' }] }",
    );
    let mut reply = reply(7);
    let step = begin(&mut reply, &spec, BEGIN);
    let NextStep::Send { way, parts, key } = step else {
        panic!("no send");
    };
    assert_eq!(parts, 0..5);
    let outgoing = reply.outgoing(parts.clone());
    let context = CallContext {
        address: reply.address(),
        without: reply.without(),
        values: &[],
        secrets: ChannelSecrets::default(),
        event_id: "e",
        status: "completed",
        now: BEGIN,
    };
    let message = CallMessage {
        parts: &outgoing,
        key: Some(key),
        total: 7,
        ..CallMessage::default()
    };
    let context = CallContext {
        secrets: ChannelSecrets {
            token: Some("t"),
            ..ChannelSecrets::default()
        },
        ..context
    };
    let call = spec.call(CallOf::Send(way), &context, message).unwrap();
    let body: Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(body["messages"].as_array().map(Vec::len), Some(5));
    assert_eq!(
        body["messages"][4],
        json!({"type": "text", "text": "<b>4</b>"})
    );
    reply.end(sent(1), BEGIN);
    assert!(
        matches!(reply.next(&spec, HOLD, BEGIN), NextStep::Send { parts, .. } if parts == (5..7))
    );
}

#[test]
fn a_channel_whose_file_has_changed_gets_no_repeat() {
    let old = channel("key = '{key}'", "");
    let mut reply = reply(1);
    begin(&mut reply, &old, BEGIN);
    let new = spec(
        "[reply]\napi = 'https://api.example.com'\nlimit = 100\nto.chat = 'json:chat'\n[[reply.send]]\ntarget = '/v2/send'\nbody = { text = '{text}', key = '{key}' }\nkey = '{key}'",
    );
    assert_eq!(crash(&reply).next(&new, HOLD, after(9)), NextStep::Unknown);
}

#[test]
fn waits_are_kept_and_refused_tokens_raise_an_alarm() {
    let (spec, mut reply) = (telegram(), reply(1));
    begin(&mut reply, &spec, BEGIN);
    let wait = ChannelVerdict::Wait {
        pause: Some(Duration::from_secs(1_200)),
        scope: WaitScope::Token,
    };
    let effects = reply.end(answered(wait), BEGIN);
    assert_eq!(effects.rest, Some((WaitScope::Token, after(1_200))));
    let mut reply = crash(&reply);
    assert_eq!(
        reply.next(&spec, HOLD, after(5)),
        NextStep::WaitUntil(after(1_200))
    );
    begin(&mut reply, &spec, after(1_200));
    let effects = reply.end(answered(ChannelVerdict::Alarm), after(1_200));
    assert_eq!(effects.alarm.as_deref(), Some("code"));
    assert_eq!(
        reply.next(&spec, HOLD, after(4_000)),
        NextStep::Dead("max_age".into())
    );
}
