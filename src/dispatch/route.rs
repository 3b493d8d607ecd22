//! Route of an event: its destination, its lane, and the upstream `id` of its conversation.

use crate::config::{SourceConfig, TaskIdForm};
use crate::model::{Account, DeliveryId, NewDelivery, UpstreamIds};

/// The delivery that an event of a source owes. None where the source has no destination, which a checked configuration
/// does not allow.
pub fn owed_delivery(
    source: &SourceConfig,
    id: DeliveryId,
    thread: Option<&str>,
    ids: &UpstreamIds,
) -> Option<NewDelivery> {
    let destination = source.destination.clone()?;
    let upstream_id = match (thread, source.task_id_form) {
        (None, _) => id.as_uuid().to_string(),
        (Some(thread), TaskIdForm::Uuid) => ids
            .of_thread(&source.name, &destination, thread)
            .to_string(),
        (Some(thread), TaskIdForm::AsGiven) => thread.to_owned(),
    };
    let account = Account::Operator;
    let lane = destination.lane(&account, &upstream_id);
    Some(NewDelivery {
        destination,
        lane,
        upstream_id,
        account,
        class: source.class,
        sealed: None,
    })
}
