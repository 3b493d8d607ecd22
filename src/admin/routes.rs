//! The routes of the operator's listener, one table for each guard. `docs/openapi.json` is made from the same tables.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};

use super::error::AdminError;
use super::{
    AdminState, attachment, auth, budget, delivery, destination, enrolment, event, health, hold,
    job, key, layers, loaded, reconcile, refused, replay, resend, secret, source, status,
};

/// Makes a router of rows with a method, a path and a handler. A test reads the types of the same handlers, so a route
/// without a description cannot exist.
macro_rules! routes {
    ($router:ident, $described:ident: $($method:ident $path:literal => $noun:ident::$verb:ident;)*) => {
        fn $router() -> Router<Arc<AdminState>> {
            Router::new()
                $(.route($path, $method($noun::$verb)))*
                .method_not_allowed_fallback(async || AdminError::Method)
        }

        #[cfg(test)]
        pub(super) fn $described(api: &mut super::openapi::Description) {
            $(api.add(
                (stringify!($method), $path),
                concat!(stringify!($noun), "_", stringify!($verb)),
                $noun::$verb,
            );)*
        }
    };
}

routes! { operator_routes, describe_operator_routes:
    get "/api/v1" => health::gateway;
    get "/api/v1/status" => status::show;
    post "/api/v1/reload" => loaded::reload;
    post "/api/v1/pause" => hold::pause_all;
    post "/api/v1/resume" => hold::resume_all;
    get "/api/v1/events" => event::list;
    get "/api/v1/events/{id}" => event::show;
    get "/api/v1/events/{id}/body" => event::body;
    post "/api/v1/events/{id}/replay" => replay::make;
    post "/api/v1/events/{id}/resend" => resend::make;
    get "/api/v1/replays" => job::list;
    post "/api/v1/replays" => job::begin;
    post "/api/v1/replays/plan" => job::plan;
    get "/api/v1/replays/{id}" => job::show;
    post "/api/v1/replays/{id}" => job::steer;
    post "/api/v1/deliveries/{id}/cancel" => delivery::cancel;
    post "/api/v1/deliveries/{id}/settle" => delivery::settle;
    get "/api/v1/attachments" => attachment::list;
    delete "/api/v1/attachments/{id}" => attachment::remove;
    get "/api/v1/sources" => source::list;
    get "/api/v1/sources/{name}/enrol" => enrolment::show;
    post "/api/v1/sources/{name}/enrol" => enrolment::open;
    post "/api/v1/sources/{name}/enrol/confirm" => enrolment::confirm;
    get "/api/v1/sources/{name}/secrets" => secret::list;
    post "/api/v1/sources/{name}/reconcile" => reconcile::run;
    post "/api/v1/sources/{name}/pause" => source::pause;
    post "/api/v1/sources/{name}/resume" => source::resume;
    get "/api/v1/destinations" => destination::list;
    post "/api/v1/destinations/{kind}/{id}/pause" => destination::pause;
    post "/api/v1/destinations/{kind}/{id}/resume" => destination::resume;
    post "/api/v1/destinations/{kind}/{id}/reset" => destination::reset;
    get "/api/v1/refused" => refused::list;
    get "/api/v1/refused/{id}" => refused::show;
    get "/api/v1/budgets" => budget::list;
    get "/api/v1/keys" => key::list;
}

routes! { metric_routes, describe_metric_routes:
    get "/api/v1/metrics" => health::metrics;
}

// Probes carry no token. They learn one word.
routes! { probe_routes, describe_probe_routes:
    get "/api/v1/health/live" => health::live;
    get "/api/v1/health/ready" => health::ready;
}

/// The router of a process with the admin role.
pub fn router(state: Arc<AdminState>) -> Router {
    let token = from_fn_with_state(state.clone(), auth::token);
    let routes = operator_routes()
        .merge(metric_routes())
        .route_layer(token)
        .merge(probe_routes())
        .fallback(async || AdminError::NoSuchPath);
    layers::around(routes, state)
}

/// The router of a process without the admin role: health and metrics.
pub fn probes(state: Arc<AdminState>) -> Router {
    let token = from_fn_with_state(state.clone(), auth::token);
    let routes = metric_routes()
        .route_layer(token)
        .merge(probe_routes())
        .fallback(async || AdminError::NoAdminRole);
    layers::around(routes, state)
}
