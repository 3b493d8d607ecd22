//! Bodies of admin requests: JSON, read strictly and bounded in size and time. What cannot be read is said.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use super::error::AdminError;

/// The largest body where an event's own is not in it.
const MAX_BODY: u64 = 64 * 1024;

/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest complaint about a body.
const MAX_COMPLAINT: usize = 300;

/// A body, read into `T`. None at all is an empty object.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request, _: &S) -> Result<Self, AdminError> {
        read(request.into_body(), MAX_BODY).await.map(Self)
    }
}

/// Reads a body of at most so many bytes.
pub(super) async fn read<T: DeserializeOwned>(body: Body, most: u64) -> Result<T, AdminError> {
    let bytes = match tokio::time::timeout(BODY_TIMEOUT, whole(body, most)).await {
        Ok(bytes) => bytes?,
        Err(_) => return Err(AdminError::Body("it did not come in time.".into())),
    };
    let text: &[u8] = if bytes.trim_ascii().is_empty() {
        b"{}"
    } else {
        &bytes
    };
    serde_json::from_slice(text)
        .map_err(|error| AdminError::Body(error.to_string().chars().take(MAX_COMPLAINT).collect()))
}

async fn whole(mut body: Body, most: u64) -> Result<Bytes, AdminError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| AdminError::Body("it was cut off.".into()))?;
        if let Some(piece) = frame.data_ref() {
            if (whole.len() + piece.len()) as u64 > most {
                return Err(AdminError::TooLarge(most));
            }
            whole.extend_from_slice(piece);
        }
    }
    Ok(whole.freeze())
}
