//! Bodies of admin requests: JSON, read strictly and bounded in size and time. An error says what cannot be read.

use std::marker::PhantomData;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, LengthLimitError};
use serde::de::DeserializeOwned;

use super::error::AdminError;

/// Largest body of a request that does not hold the body of an event.
pub(super) const MAX_BODY: u64 = 64 * 1024;

/// Time limit for the whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest error message about a body, in characters.
const MAX_COMPLAINT: usize = 300;

/// A body that was read into `T`. An empty body counts as an empty object.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request, _: &S) -> Result<Self, AdminError> {
        read(request.into_body(), MAX_BODY).await.map(Self)
    }
}

/// Bytes of a body that a handler reads into `T` itself, in order to word the errors.
pub(super) struct JsonBytes<T>(pub(super) Bytes, pub(super) PhantomData<T>);

impl<T, S: Send + Sync> FromRequest<S> for JsonBytes<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request, _: &S) -> Result<Self, AdminError> {
        let bytes = in_time(request.into_body(), MAX_BODY).await?;
        Ok(Self(bytes, PhantomData))
    }
}

/// Reads a body of at most `most` bytes into `T`.
pub(super) async fn read<T: DeserializeOwned>(body: Body, most: u64) -> Result<T, AdminError> {
    let bytes = in_time(body, most).await?;
    let text: &[u8] = if bytes.trim_ascii().is_empty() {
        b"{}"
    } else {
        &bytes
    };
    serde_json::from_slice(text)
        .map_err(|error| AdminError::Body(error.to_string().chars().take(MAX_COMPLAINT).collect()))
}

/// Reads a body of at most `most` bytes to its end, within the time limit.
async fn in_time(body: Body, most: u64) -> Result<Bytes, AdminError> {
    tokio::time::timeout(BODY_TIMEOUT, whole(body, most))
        .await
        .unwrap_or_else(|_| Err(AdminError::Body("it did not come in time.".into())))
}

async fn whole(mut body: Body, most: u64) -> Result<Bytes, AdminError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if is_over_limit(&error) {
                AdminError::TooLarge(most)
            } else {
                AdminError::Body("it was cut off.".into())
            }
        })?;
        if let Some(piece) = frame.data_ref() {
            if (whole.len() + piece.len()) as u64 > most {
                return Err(AdminError::TooLarge(most));
            }
            whole.extend_from_slice(piece);
        }
    }
    Ok(whole.freeze())
}

/// True if the layer around all routes ended the body because of its length.
fn is_over_limit(error: &axum::Error) -> bool {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source())
        .any(|error| error.is::<LengthLimitError>())
}
