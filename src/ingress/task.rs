//! The task object of a delivery that has ended, as callers who wait for a run are shown it.

use bytes::Bytes;

use crate::inbox::{Answer, DeliveryDetail};

/// The upstream's own task object, or one made of what is kept where the upstream's was too large.
pub(super) fn task_of(delivery: &DeliveryDetail) -> Bytes {
    match &delivery.answer {
        Some(Answer {
            task: Some(task), ..
        }) => task.clone(),
        answer => {
            let (status, result, finished_at) = match answer {
                Some(answer) => (
                    Some(&answer.status),
                    answer.result.as_ref(),
                    answer.finished_at.as_ref(),
                ),
                None => (None, None, None),
            };
            let task = serde_json::json!({
                "id": delivery.upstream_id, "status": status, "result": result, "finished_at": finished_at,
            });
            task.to_string().into()
        }
    }
}
