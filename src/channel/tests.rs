//! Channels for tests.

use super::ChannelSpec;
use crate::config::reply::ReplyConfig;
use crate::config::{Problems, Section, Table};

/// The problems of a `[reply]` section, one a line.
pub(crate) fn problems(text: &str) -> Vec<String> {
    compile(text).err().unwrap_or_default()
}

pub(crate) fn compile(text: &str) -> Result<ChannelSpec, Vec<String>> {
    let problems = Problems::default();
    let table = Table::parse("channel.toml", text, &problems);
    let spec = {
        let file = Section::new(&table, "", &problems);
        let written = file
            .section("reply")
            .and_then(|reply| ReplyConfig::read(&reply));
        written.and_then(|written| ChannelSpec::compile(&written, &problems))
    };
    let list = problems.into_sorted();
    match spec {
        Some(spec) if list.is_empty() => Ok(spec),
        _ => Err(list.iter().map(ToString::to_string).collect()),
    }
}

pub(crate) fn spec(text: &str) -> ChannelSpec {
    compile(text).unwrap_or_else(|problems| panic!("{}", problems.join("\n")))
}

/// A channel with this address and nothing else of interest.
pub(crate) fn rule(to: &str) -> ChannelSpec {
    spec(&format!(
        "[reply]\napi = 'https://api.example.com'\nlimit = 100\n{to}\n[[reply.send]]\ntarget = '/send'\nbody = {{ text = '{{text}}' }}\n"
    ))
}

/// The channel of the description in the documentation.
pub(crate) fn telegram() -> ChannelSpec {
    spec(TELEGRAM)
}

pub(crate) const TELEGRAM: &str = r#"
[reply]
api    = "https://api.telegram.org"
to.chat     = ["json:*.chat.id", "json:callback_query.message.chat.id"]
to.topic    = { from = "json?:*.message_thread_id", when = { "json:*.is_topic_message" = "true" }, not = "1" }
to.message  = "json?:*.message_id"
to.business = "json?:*.business_connection_id"
format = "telegram"
quote  = "message"
limit  = 4096
unit   = "utf16"
over   = "text"
pace   = [{ per = "chat", rate = "1/s" }, { per = "chat", rate = "20/min", when = { chat = "/^-/" } }, { per = "token", rate = "30/s" }]

[[reply.send]]
target = "/bot{token}/sendMessage"
body   = { chat_id = "{chat}", message_thread_id = "{topic?}", business_connection_id = "{business?}", text = "{text}", entities = "{entities?}", link_preview_options = { is_disabled = true }, reply_parameters = { message_id = "{message?}", allow_sending_without_reply = true } }

[reply.sent]
ok    = "ok"
id    = "result.message_id"
code  = "error_code"
error = "description"
wait  = { at = "parameters.retry_after", unit = "s" }

[[reply.verdict]]
error = "message thread not found"
then  = { without = "topic" }
[[reply.verdict]]
error = "upgraded to a supergroup"
then  = { with = { chat = "parameters.migrate_to_chat_id" } }

[reply.edit]
target = "/bot{token}/editMessageText"
body   = { chat_id = "{chat}", message_id = "{sent}", text = "{text}", entities = "{entities?}" }

[reply.typing]
target = "/bot{token}/sendChatAction"
body   = { chat_id = "{chat}", message_thread_id = "{topic?}", action = "typing" }
every  = "4s"
"#;
