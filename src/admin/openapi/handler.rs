//! The description of a handler, read from the types of its arguments and of its answer.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde_json::{Value, json};

use super::{Description, Operation};
use crate::admin::destination::PathDestination;
use crate::admin::error::AdminError;
use crate::admin::json::{JsonBody, JsonBytes};
use crate::admin::name::PathId;
use crate::admin::page::StrictQuery;
use crate::api::gateway::HealthView;
use crate::api::job::JobView;
use crate::api::replay::{DryRunOr, DryRunView, EventChanges};
use crate::api::source::EnrolmentWindow;

const JSON: &str = "application/json";

/// A handler with arguments of these types.
pub(super) trait Handler<Parts> {
    /// Describes the arguments and the answer.
    fn describe(operation: &mut Operation, api: &mut Description);
}

/// An argument of a handler.
trait Argument {
    /// Adds its part of a request, if it has one that the path does not say.
    fn describe(_operation: &mut Operation, _api: &mut Description) {}
}

/// An answer of a handler.
trait Answer {
    /// Adds its statuses and schemas.
    fn describe(operation: &mut Operation, api: &mut Description);
}

macro_rules! handlers {
    ($($argument:ident)*) => {
        impl<H, F, A, $($argument),*> Handler<($($argument,)*)> for H
        where
            H: Fn($($argument),*) -> F,
            F: Future<Output = A>,
            A: Answer,
            $($argument: Argument),*
        {
            fn describe(operation: &mut Operation, api: &mut Description) {
                $($argument::describe(operation, api);)*
                A::describe(operation, api);
            }
        }
    };
}

handlers! {}
handlers! { A1 }
handlers! { A1 A2 }
handlers! { A1 A2 A3 }
handlers! { A1 A2 A3 A4 }

impl<S> Argument for State<S> {}
impl<T> Argument for Path<T> {}
impl<T> Argument for PathId<T> {}
impl Argument for PathDestination {}

impl<T: JsonSchema> Argument for StrictQuery<T> {
    fn describe(operation: &mut Operation, api: &mut Description) {
        let schema: Value = T::json_schema(&mut api.requests).into();
        let fields = schema["properties"]
            .as_object()
            .expect("a query has fields");
        for (name, field) in fields {
            operation.parameters.push(json!({
                "name": name, "in": "query", "description": field["description"], "schema": { "type": "string" },
            }));
        }
    }
}

impl<T: JsonSchema> Argument for JsonBody<T> {
    fn describe(operation: &mut Operation, api: &mut Description) {
        operation.body = Some(api.requests.subschema_for::<T>().into());
    }
}

impl<T: JsonSchema> Argument for JsonBytes<T> {
    fn describe(operation: &mut Operation, api: &mut Description) {
        JsonBody::<T>::describe(operation, api);
    }
}

/// The one handler that takes a whole request is the resend, because its body may be as large as an event.
impl Argument for Request {
    fn describe(operation: &mut Operation, api: &mut Description) {
        JsonBody::<EventChanges>::describe(operation, api);
    }
}

impl<A: Answer> Answer for Result<A, AdminError> {
    fn describe(operation: &mut Operation, api: &mut Description) {
        A::describe(operation, api);
    }
}

impl<T: JsonSchema> Answer for Json<T> {
    fn describe(operation: &mut Operation, api: &mut Description) {
        operation.answers.push((200, JSON, api.answer::<T>()));
    }
}

/// Bytes without a schema: metrics, and the body of an event.
impl Answer for Response {
    fn describe(operation: &mut Operation, _: &mut Description) {
        operation.answers.push((200, "*/*", json!({})));
    }
}

impl<T: JsonSchema> Answer for (StatusCode, Json<DryRunOr<T>>) {
    fn describe(operation: &mut Operation, api: &mut Description) {
        operation
            .answers
            .push((200, JSON, api.answer::<DryRunView>()));
        operation.answers.push((202, JSON, api.answer::<T>()));
    }
}

macro_rules! statuses {
    ($($answer:ty => $($status:literal)*;)*) => {
        $(impl Answer for (StatusCode, Json<$answer>) {
            fn describe(operation: &mut Operation, api: &mut Description) {
                $(operation.answers.push(($status, JSON, api.answer::<$answer>()));)*
            }
        })*
    };
}

statuses! {
    JobView => 202;
    EnrolmentWindow => 202;
    HealthView => 200 503;
}
