use serde_json::json;

use super::*;

fn call(query: &str, kind: &str, body: &str) -> Result<HostedCall, Refusal> {
    read(&CallRequest {
        path_agent: "",
        query,
        content_type: kind,
        body: CallBody::Whole(body.as_bytes()),
    })
}

fn json(query: &str, body: &str) -> HostedCall {
    call(query, "application/json", body).unwrap()
}

fn get(call: &HostedCall, name: Name) -> Option<&str> {
    call.params.get(name)
}

fn invalid(result: Result<HostedCall, Refusal>) -> Vec<Value> {
    match result {
        Err(Refusal::Invalid(list)) => serde_json::from_str::<Vec<Value>>(&list)
            .unwrap()
            .into_iter()
            .map(|mut one| one["loc"].take())
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_query_goes_before_the_body_and_the_mapping_before_both() {
    let call = json("agent_id=A&prompt=Query", r#"{"prompt":"Body","data":"x"}"#);
    assert_eq!(
        (get(&call, Name::Prompt), call.extra.as_deref()),
        (Some("Query"), Some(r#"{"data":"x"}"#))
    );
    let prompt = call.params.iter().next().unwrap();
    assert_eq!(
        (&prompt.origin, &prompt.over),
        (&Origin::Query, &vec![Origin::Body])
    );
    let call = json(
        "agent_id=A&prompt=Query&params_mapping={\"prompt\":\"m.t\"}",
        r#"{"prompt":"Body","m":{"t":"M"}}"#,
    );
    let prompt = call.params.iter().next().unwrap();
    assert_eq!(
        (prompt.value.as_str(), &prompt.origin),
        ("M", &Origin::Mapping("m.t".into()))
    );
    assert_eq!(prompt.over, [Origin::Query, Origin::Body]);
    assert_eq!(call.extra.as_deref(), Some(r#"{"m":{"t":"M"}}"#));
    assert_eq!(
        json("agent_id=A&prompt=a&prompt=b", "")
            .params
            .get(Name::Prompt),
        Some("b")
    );
    assert_eq!(
        get(
            &json("agent_id=A&prompt=", r#"{"prompt":"Body"}"#),
            Name::Prompt
        ),
        Some("Body")
    );
}

#[test]
fn without_a_prompt_the_body_is_the_message() {
    let text = "{ \"action\": \"opened\",\n \"n\": 1.50, \"e\": \"\\u00e9\" }";
    let call = json("agent_id=A&asynchronous=true", text);
    assert_eq!(
        call.extra.as_deref(),
        Some(text),
        "nothing taken out: byte for byte"
    );
    assert_eq!(call.params.iter().next().unwrap().origin, Origin::Event);
    assert!(call.asynchronous);
    let call = json(
        "",
        r#"{"agent_id":"A", "b":1.50, "a":12345678901234567890,"e":"\u00e9", "X-Api-Key":"k"}"#,
    );
    assert_eq!(
        call.extra.as_deref(),
        Some(r#"{"b":1.50,"a":12345678901234567890,"e":"é"}"#)
    );
    for body in ["", " ", "{}", r#"{"agent_id":"A"}"#] {
        let call = json("agent_id=A", body);
        assert_eq!(
            (get(&call, Name::Prompt), call.extra.as_deref()),
            (Some(""), None),
            "{body}"
        );
    }
}

#[test]
fn bodies_are_read_by_content() {
    let form = "application/x-www-form-urlencoded";
    let call_ = call(
        "agent_id=A",
        form,
        r#"{"prompt":"Hi","user_email":"a@b.c"}"#,
    )
    .unwrap();
    assert_eq!(
        (get(&call_, Name::Prompt), get(&call_, Name::UserEmail)),
        (Some("Hi"), Some("a@b.c"))
    );
    let call_ = call(
        "agent_id=A",
        form,
        "prompt=Analyze feedback&rating=5&comment=Great service&a=1&a=%2b+",
    )
    .unwrap();
    assert_eq!(get(&call_, Name::Prompt), Some("Analyze feedback"));
    assert_eq!(
        call_.extra.as_deref(),
        Some(r#"{"rating":"5","comment":"Great service","a":["1","+ "]}"#)
    );
    let call_ = call("agent_id=A", "text/plain", "hello").unwrap();
    assert_eq!(
        (get(&call_, Name::Prompt), call_.extra.as_deref()),
        (Some("hello"), None)
    );
    let call_ = call("agent_id=A&prompt=p", "", "hello").unwrap();
    assert_eq!(
        (get(&call_, Name::Prompt), call_.extra.as_deref()),
        (Some("p"), Some("hello"))
    );
    let call_ = call("agent_id=A", "", "[1, 2]").unwrap();
    assert_eq!(get(&call_, Name::Prompt), Some("[1, 2]"));
    for (kind, body) in [("application/json", "{"), ("a/b+json", "nope")] {
        assert!(
            matches!(call("agent_id=A", kind, body), Err(Refusal::Malformed(_))),
            "{kind} {body}"
        );
    }
    let raw = |kind, body| {
        read(&CallRequest {
            path_agent: "A",
            query: "",
            content_type: kind,
            body: CallBody::Whole(body),
        })
    };
    assert!(matches!(raw("", b"\xff"), Err(Refusal::Unsupported(_))));
    assert!(matches!(
        raw("application/json", b"\"\xff\""),
        Err(Refusal::Malformed(_))
    ));
    assert_eq!(
        get(&raw("", b"a\0b").unwrap(), Name::Prompt),
        Some("a\u{fffd}b")
    );
    assert_eq!(
        get(&raw(form, b"prompt=%ff").unwrap(), Name::Prompt),
        Some("\u{fffd}")
    );
    assert_eq!(
        get(
            &raw("text/plain; charset=latin1", b"caf\xe9").unwrap(),
            Name::Prompt
        ),
        Some("café")
    );
    for json in [
        &b"\xef\xbb\xbf{\"prompt\":\"x\\ud83d\"}"[..],
        b"{\"prompt\":\"x\\ud83d\"}",
    ] {
        assert_eq!(
            get(&raw("application/json", json).unwrap(), Name::Prompt),
            Some("x\u{fffd}")
        );
    }
    let extra = raw("application/json", b"\xef\xbb\xbf{\"a\": \"\\ud83d\"}")
        .unwrap()
        .extra;
    assert_eq!(extra.as_deref(), Some("{\"a\": \"\\ufffd\"}"));
    let parts = [
        ("prompt".to_owned(), "Look".to_owned()),
        ("n".to_owned(), "1".to_owned()),
    ];
    let asked = CallRequest {
        path_agent: "A%2Db",
        query: "",
        content_type: "",
        body: CallBody::Parts(&parts),
    };
    let call_ = read(&asked).unwrap();
    assert_eq!(
        (call_.agent_id.as_str(), call_.extra.as_deref()),
        ("A-b", Some(r#"{"n":"1"}"#))
    );
}

#[test]
fn ids_keep_their_digits_and_lists_are_refused_where_a_text_is_wanted() {
    let call_ = json(
        "agent_id=A",
        r#"{"task_id":-1001234567890123456789,"user_id":1.50,"prompt":{"a":[1, 2]},"user_email":true}"#,
    );
    assert_eq!(get(&call_, Name::TaskId), Some("-1001234567890123456789"));
    assert_eq!(
        (get(&call_, Name::UserId), get(&call_, Name::UserEmail)),
        (Some("1.50"), Some("true"))
    );
    assert_eq!(get(&call_, Name::Prompt), Some(r#"{"a":[1,2]}"#));
    let wrong = call(
        "agent_id=A",
        "",
        r#"{"task_id":[1],"user_id":{},"getter":[],"json":"maybe"}"#,
    );
    assert_eq!(
        invalid(wrong),
        [
            json!(["body", "task_id"]),
            json!(["body", "user_id"]),
            json!(["body", "json"]),
            json!(["body", "getter"])
        ]
    );
}

#[test]
fn booleans_are_taken_as_such_servers_take_them() {
    for (text, wanted) in [
        ("TRUE", true),
        ("1", true),
        ("yes", true),
        ("On", true),
        ("t", true),
        ("y", true),
        ("", false),
        ("oFF", false),
    ] {
        assert_eq!(
            json(&format!("agent_id=A&json={text}"), "").json,
            wanted,
            "{text}"
        );
    }
    for (value, wanted) in [
        ("true", true),
        ("1", true),
        ("0", false),
        ("null", false),
        ("\"No\"", false),
    ] {
        assert_eq!(
            json("agent_id=A", &format!("{{\"asynchronous\":{value}}}")).asynchronous,
            wanted,
            "{value}"
        );
    }
    assert_eq!(
        invalid(call("agent_id=A&json=2", "", "")),
        [json!(["query", "json"])]
    );
    for value in ["2", "1.0", "[]", "{}", "\"maybe\""] {
        let wrong = call("agent_id=A", "", &format!("{{\"asynchronous\":{value}}}"));
        assert_eq!(invalid(wrong), [json!(["body", "asynchronous"])], "{value}");
    }
}

#[test]
fn tokens_are_an_object_and_are_never_printed() {
    for body in [
        r#"{"user_tokens":"{\"item-1\":\"tok\"}"}"#,
        r#"{"user_tokens":{"item-1":"tok"}}"#,
    ] {
        let call = json("agent_id=A", body);
        assert_eq!(
            call.user_tokens.as_ref().unwrap().expose(),
            r#"{"item-1":"tok"}"#
        );
        assert!(!format!("{call:?}").contains("tok\""), "{call:?}");
        assert_eq!(call.extra, None);
    }
    assert_eq!(
        invalid(call("agent_id=A&user_tokens=[1]", "", "")),
        [json!(["query", "user_tokens"])]
    );
    assert_eq!(
        invalid(call("agent_id=A", "", r#"{"user_tokens":7}"#)),
        [json!(["body", "user_tokens"])]
    );
}

#[test]
fn a_mapping_reaches_into_lists_and_forms_and_is_judged() {
    let mapping = |mapping: &str, kind: &str, body: &str| {
        let query: String = form_urlencoded::Serializer::new("agent_id=A&user_id=q".to_owned())
            .append_pair("params_mapping", mapping)
            .finish();
        call(&query, kind, body)
    };
    let body =
        r#"{"message":{"chat":{"id":-1001234567890},"from":{"username":"dana"},"text":"Hello"}}"#;
    let asked = r#"{"task_id":"message.chat.id","prompt":"message.text","user_id":"message.from.username"}"#;
    let found = mapping(asked, "", body).unwrap();
    assert_eq!(get(&found, Name::TaskId), Some("-1001234567890"));
    assert_eq!(
        (get(&found, Name::Prompt), get(&found, Name::UserId)),
        (Some("Hello"), Some("dana"))
    );
    assert_eq!(found.extra.as_deref(), Some(body));
    let whats = r#"{"entry":[{"changes":[{"value":{"messages":[{"text":{"body":"W"}}]}}]}]}"#;
    let found = mapping(
        r#"{"prompt":"entry.0.changes.0.value.messages.0.text.body"}"#,
        "",
        whats,
    )
    .unwrap();
    assert_eq!(get(&found, Name::Prompt), Some("W"));
    let found = mapping(r#"{"prompt":"a.b"}"#, "", r#"{"a":{"b":1},"a.b":2}"#).unwrap();
    assert_eq!(get(&found, Name::Prompt), Some("2"), "an exact key wins");
    let found = mapping(
        r#"{"prompt":"text"}"#,
        "application/x-www-form-urlencoded",
        "text=Hi&x=1",
    )
    .unwrap();
    assert_eq!(
        (get(&found, Name::Prompt), found.extra.as_deref()),
        (Some("Hi"), Some(r#"{"text":"Hi","x":"1"}"#))
    );
    for nowhere in ["no.such", "n", "e"] {
        let found = mapping(
            &format!("{{\"user_id\":\"{nowhere}\"}}"),
            "",
            r#"{"n":null,"e":""}"#,
        )
        .unwrap();
        assert_eq!(get(&found, Name::UserId), Some("q"), "{nowhere}");
    }
    for wrong in ["[]", "no", "\"x\"", "{\"a\":"] {
        assert!(
            matches!(mapping(wrong, "", "{}"), Err(Refusal::Malformed(_))),
            "{wrong}"
        );
    }
    assert_eq!(
        invalid(mapping(r#"{"agent_id":"x"}"#, "", "{}")),
        [json!(["query", "params_mapping"])]
    );
    assert_eq!(
        invalid(mapping(r#"{"prompt":1}"#, "", "{}")),
        [json!(["query", "params_mapping", "prompt"])]
    );
    assert_eq!(
        invalid(mapping(r#"{"task_id":"a"}"#, "", r#"{"a":[1]}"#)),
        [json!(["query", "params_mapping", "task_id"])]
    );
    let long = vec!["a"; 200].join(".");
    assert_eq!(
        invalid(mapping(&format!("{{\"prompt\":\"{long}\"}}"), "", "{}")).len(),
        1
    );
}

#[test]
fn without_an_agent_nothing_is_called() {
    assert_eq!(
        call("", "", r#"{"prompt":"x","agent_id":""}"#),
        Err(Refusal::NoAgent)
    );
    assert_eq!(
        invalid(call("", "", r#"{"agent_id":[1]}"#)),
        [json!(["body", "agent_id"])]
    );
    assert_eq!(json("agent_id=Q", r#"{"agent_id":"B"}"#).agent_id, "Q");
    assert_eq!(json("", r#"{"agent_id":7}"#).agent_id, "7");
}
