//! An HTTP response as an [`AttemptResult`](crate::model::AttemptResult) or a lookup.
