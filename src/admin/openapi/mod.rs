//! The description of the admin API, `docs/openapi.json`, made from the routes and the types of their handlers.
//!
//! A test compares the file with the code. When a difference is meant, write the file anew and read the difference:
//!
//! ```sh
//! SLUICEGATE_SNAPSHOTS=write cargo test --lib admin::openapi
//! ```

mod handler;
mod summaries;

use std::collections::BTreeSet;
use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use self::handler::Handler;
use super::routes;
use crate::api::error::ErrorView;

/// Place of the components that schemas refer to.
const COMPONENTS: &str = "/components/schemas";

/// The operations of the API, as they are added route by route.
pub(super) struct Description {
    /// Schemas of what a caller sends, and of what it gets.
    requests: SchemaGenerator,
    answers: SchemaGenerator,
    paths: Map<String, Value>,
    /// Methods and paths in the order of the routes.
    pub(super) rows: Vec<(&'static str, &'static str)>,
    /// True while routes are added that need the token.
    token: bool,
}

/// One operation, as the parts of its handler describe it.
#[derive(Default)]
struct Operation {
    parameters: Vec<Value>,
    body: Option<Value>,
    /// Statuses, with a media type and a schema.
    answers: Vec<(u16, &'static str, Value)>,
}

impl Description {
    /// All routes of the listener.
    pub(super) fn whole() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = COMPONENTS.into();
            settings.meta_schema = None;
        });
        let mut api = Self {
            requests: settings.clone().for_deserialize().into_generator(),
            answers: settings.for_serialize().into_generator(),
            paths: Map::new(),
            rows: Vec::new(),
            token: true,
        };
        routes::describe_operator_routes(&mut api);
        routes::describe_metric_routes(&mut api);
        api.token = false;
        routes::describe_probe_routes(&mut api);
        api
    }

    /// Adds a route: its method and path, an id, and the handler.
    #[expect(
        private_bounds,
        reason = "the routes name handlers, not the trait that describes them"
    )]
    pub(super) fn add<Parts, H: Handler<Parts>>(
        &mut self,
        (method, path): (&'static str, &'static str),
        id: &str,
        _: H,
    ) {
        let mut operation = Operation::default();
        H::describe(&mut operation, self);
        let names = path.split('{').skip(1);
        let names = names.filter_map(|rest| rest.split_once('}'));
        let in_path = names.map(|(name, _)| {
            json!({
                "name": name, "in": "path", "required": true, "description": summaries::path_part(path, name),
                "schema": { "type": "string" },
            })
        });
        let parameters: Vec<Value> = in_path.chain(operation.parameters).collect();
        let mut described = Map::new();
        described.insert("operationId".into(), id.into());
        described.insert(
            "summary".into(),
            summaries::of(method, path).unwrap_or_default().into(),
        );
        if !parameters.is_empty() {
            described.insert("parameters".into(), parameters.into());
        }
        if let Some(schema) = operation.body {
            let content = json!({ "application/json": { "schema": schema } });
            described.insert("requestBody".into(), json!({ "content": content }));
        }
        let mut answers = Map::new();
        for (status, kind, schema) in operation.answers {
            let content = json!({ kind: { "schema": schema } });
            let reason = axum::http::StatusCode::from_u16(status)
                .ok()
                .and_then(|status| status.canonical_reason());
            let answer = json!({ "description": reason, "content": content });
            answers.insert(status.to_string(), answer);
        }
        answers.insert(
            "default".into(),
            json!({ "$ref": "#/components/responses/error" }),
        );
        described.insert("responses".into(), answers.into());
        if !self.token {
            described.insert("security".into(), json!([]));
        }
        self.rows.push((method, path));
        let of_path = self.paths.entry(path).or_insert_with(|| json!({}));
        of_path[method] = described.into();
    }

    /// Gives the schema of a type that answers hold.
    fn answer<T: JsonSchema>(&mut self) -> Value {
        self.answers.subschema_for::<T>().into()
    }

    /// The document as JSON. Schemas are in the order of their names.
    fn document(mut self) -> Value {
        let error = self.answer::<ErrorView>();
        let mut schemas = self.requests.take_definitions(true);
        for (name, schema) in self.answers.take_definitions(true) {
            let other = schemas.insert(name.clone(), schema.clone());
            assert!(
                other.is_none_or(|other| other == schema),
                "{name} has one form in requests and another in answers"
            );
        }
        schemas.sort_keys();
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Sluicegate admin API",
                "description": "The operator's listener. Every route but health needs the admin token.",
                "version": "v1",
            },
            "security": [{ "token": [] }],
            "paths": self.paths,
            "components": {
                "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
                "responses": { "error": {
                    "description": "The request failed",
                    "content": { "application/json": { "schema": error } },
                } },
                "schemas": schemas,
            },
        })
    }
}

#[test]
fn the_description_of_the_api_is_that_of_the_code() {
    let api = Description::whole();
    let rows: BTreeSet<_> = api.rows.iter().copied().collect();
    let summarised: BTreeSet<_> = summaries::SUMMARIES
        .iter()
        .map(|(method, path, _)| (*method, *path))
        .collect();
    assert_eq!(rows, summarised, "each route has one summary");
    assert!(rows.len() > 30, "saw {} routes", rows.len());

    let mut text = serde_json::to_string_pretty(&api.document()).expect("it is JSON");
    text.push('\n');
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if std::env::var("SLUICEGATE_SNAPSHOTS").is_ok_and(|word| word == "write") {
        std::fs::write(&file, &text).expect("the folder takes files");
        return;
    }
    let kept = std::fs::read_to_string(&file).expect("docs/openapi.json is there");
    let differs = text.lines().zip(kept.lines()).find(|(new, old)| new != old);
    assert!(
        text == kept,
        "docs/openapi.json is not that of the code: {differs:?}"
    );
}
