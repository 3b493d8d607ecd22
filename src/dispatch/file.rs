//! The files of a delivery: links to them, made anew for each attempt.

use super::Dispatcher;
use crate::inbox::Claimed;
use crate::model::{Attachment, EventId};
use crate::upstream::Call;

/// The call with links to the files of its event, and of those that go with it, in the order they came. The links are
/// good from now on, and the files stay at least as long.
pub(super) async fn attach(dispatcher: &Dispatcher, claimed: &Claimed, call: Call) -> Result<Call, String> {
    let mut links = Vec::new();
    for (event, files) in of_turn(claimed) {
        let store = dispatcher.files.as_ref().ok_or("there is no attachment store that can be used")?;
        let now = dispatcher.clock.now();
        links.append(&mut store.links(files, now).await.map_err(|error| error.to_string())?);
        let until = now + store.lifetime();
        dispatcher.inbox.extend_attachments(event, until).await.map_err(|error| error.to_string())?;
    }
    Ok(call.with_files(&links))
}

/// The events of a turn that brought files.
fn of_turn(claimed: &Claimed) -> impl Iterator<Item = (EventId, &[Attachment])> {
    let merged = claimed.merged.iter().map(|merged| (merged.id.event, merged.attachments.as_slice()));
    std::iter::once((claimed.id.event, claimed.attachments.as_slice()))
        .chain(merged)
        .filter(|(_, files)| !files.is_empty())
}
