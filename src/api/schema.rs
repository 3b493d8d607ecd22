//! JSON schemas of the model's ids and times, which are texts of a fixed form. They are for the API's description alone.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::model::{AttachmentId, DeliveryId, EventId, Timestamp};

/// Gives a type the schema of a text: with a pattern, or with a format.
macro_rules! text_schema {
    ($type:ty, $name:literal, $key:literal: $form:literal) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", $key: $form })
            }
        }
    };
}

text_schema!(EventId, "EventId", "pattern": "^evt_[0-9a-f]{32}$");
text_schema!(DeliveryId, "DeliveryId", "pattern": "^dlv_[0-9a-f]{32}_[0-9]+$");
text_schema!(AttachmentId, "AttachmentId", "pattern": "^att_[0-9a-f]{32}$");
text_schema!(Timestamp, "Timestamp", "format": "date-time");
