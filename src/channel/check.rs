//! Reading the answer to a question: is a message with our key there?

use serde_json::Value;

use super::call::{CallContext, CallMessage, CallValues};
use super::path::text_of;
use super::reply::CheckEnd;
use super::spec::{ChannelSpec, CheckRule};
use super::template::FillEncoding;
use super::verdict::{ChannelAnswer, json};

/// Most messages of one answer that are looked at.
const MESSAGES: usize = 1_000;

impl ChannelSpec {
    /// Reads the answer to [`super::CallOf::Check`]. An answer that may not be whole, or that cannot be read, proves nothing.
    pub fn checked(
        &self,
        answer: &ChannelAnswer<'_>,
        context: &CallContext<'_>,
        message: CallMessage<'_>,
    ) -> CheckEnd {
        let values = CallValues {
            quote: None,
            context,
            message,
        };
        let is_success = (200..300).contains(&answer.status);
        let body = is_success.then(|| json(answer.body)).flatten();
        let (Some(rule), Some(body)) = (&self.check, body) else {
            return CheckEnd::Unreadable;
        };
        rule.read(&body, &values).unwrap_or(CheckEnd::Unreadable)
    }
}

impl CheckRule {
    fn read(&self, body: &Value, values: &CallValues<'_>) -> Option<CheckEnd> {
        let mut wanted = Vec::with_capacity(self.same.len());
        for (path, text) in &self.same {
            wanted.push((path, text.fill(values, 0, FillEncoding::Whole).ok()??));
        }
        // A list that is not there is no empty list: the answer is of another kind.
        let list = match &self.list {
            Some(list) => list.find(body)?,
            None => body,
        };
        let messages = self.each.all(list, MESSAGES);
        let is_ours = |message: &Value| {
            wanted.iter().all(|(path, wanted)| {
                let text = path.find(message).and_then(text_of);
                text.is_some_and(|text| text.contains(wanted.as_str()))
            })
        };
        let found = messages.iter().find(|message| is_ours(message));
        match found {
            Some(message) => {
                let id = self.id.as_ref().and_then(|id| id.find(message)).cloned();
                Some(CheckEnd::Found(id))
            }
            None => {
                let is_whole = self.page.is_none_or(|page| messages.len() < page);
                (is_whole && messages.len() < MESSAGES).then_some(CheckEnd::Absent)
            }
        }
    }
}
