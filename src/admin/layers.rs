//! The layers of the operator's listener, in one list. The token is not in the list: it guards known routes only, and the
//! routes are the place that says which.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response_with_state};
use axum::response::{IntoResponse as _, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

use super::error::AdminError;
use super::{AdminState, auth, resend};
use crate::net::HeadFault;

/// Time limit of a request. It is longer than the longest reconciliation, which takes five minutes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(6 * 60);

/// Puts the layers around the routes, outermost first.
pub(super) fn around(routes: Router<Arc<AdminState>>, state: Arc<AdminState>) -> Router {
    let max_body = usize::try_from(state.largest_request()).unwrap_or(usize::MAX);
    let header =
        |name, value| SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value));
    let layers = tower::ServiceBuilder::new()
        // Outermost, so that every answer has these headers, also one of a layer: no cache keeps it, and no browser takes it
        // for another type.
        .layer(header(CACHE_CONTROL, "no-store"))
        .layer(header(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // Before everything that could write a header to the log.
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION]))
        // Around the other layers, so that a bug in one of them does not cut the connection either.
        .layer(CatchPanicLayer::custom(panicked))
        // Gives the bare statuses of the time limit and the body limit a body.
        .layer(map_response_with_state(state.clone(), explained))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            REQUEST_TIMEOUT,
        ))
        // An invalid request has neither a host nor a token.
        .layer(from_fn(valid_head))
        // Before the origin, which is compared with the host.
        .layer(from_fn_with_state(state.clone(), auth::host))
        // Before the token, so that another site's page cannot use up the attempts of this address.
        .layer(from_fn(auth::origin))
        // Innermost, because no layer reads a body. The largest request is a resend; other routes set smaller limits where
        // they read theirs.
        .layer(RequestBodyLimitLayer::new(max_body));
    routes.layer(layers).with_state(state)
}

impl AdminState {
    /// The largest body of a request.
    pub(super) fn largest_request(&self) -> u64 {
        let own = self.compiled.iter().filter_map(|source| source.max_body);
        resend::max_request(own.fold(self.max_body, u64::max))
    }
}

/// The answer to a request whose handler panicked. The hook for panics has logged the panic itself.
fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    AdminError::Panic.into_response()
}

/// Layer: replaces a bare status of the time limit or the body limit by an error of this API.
async fn explained(State(state): State<Arc<AdminState>>, answer: Response) -> Response {
    if is_json(answer.headers()) {
        return answer;
    }
    match answer.status() {
        StatusCode::SERVICE_UNAVAILABLE => AdminError::TimedOut.into_response(),
        StatusCode::PAYLOAD_TOO_LARGE => {
            AdminError::TooLarge(state.largest_request()).into_response()
        }
        _ => answer,
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/json")
}

/// Layer: refuses a request whose head is invalid.
async fn valid_head(request: Request, next: Next) -> Result<Response, AdminError> {
    match request.extensions().get::<HeadFault>() {
        Some(fault) => Err(AdminError::InvalidHead(*fault)),
        None => Ok(next.run(request).await),
    }
}
