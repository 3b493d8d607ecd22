//! The secrets of a source: end and use. No answer has a secret.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};

use super::AdminState;
use super::error::AdminError;
use crate::api::key::UseView;
use crate::api::page::PageView;
use crate::api::secret::SecretView;
use crate::config::{Located, Secret};
use crate::model::Timestamp;

/// Time before the end of a secret in which its use needs attention.
const SOON: Duration = Duration::from_secs(3 * 24 * 3600);

/// A secret that is in use and ends soon.
pub(super) struct EndingSecret<'s> {
    pub(super) source: &'s str,
    pub(super) secret: &'s str,
    pub(super) until: Timestamp,
}

/// `GET /sources/{name}/secrets`: lists the secrets by their names.
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
) -> Result<Json<PageView<SecretView>>, AdminError> {
    let now = state.clock.now();
    let Some(source) = state.source(&name) else {
        state.check_source(Some(&name)).await?;
        return Err(AdminError::NotFound("configured source"));
    };
    let view = |secret: &Located<Secret>| SecretView {
        name: secret.name().to_owned(),
        until: secret.until(),
        ended: secret.until().is_some_and(|until| until <= now),
        used: state
            .uses
            .of_secret(&name, secret.name())
            .map(UseView::from),
        counted_since: state.loaded.started_at(),
    };
    Ok(Json(PageView::whole(
        source.config.secrets.iter().map(view).collect(),
    )))
}

impl AdminState {
    /// Lists the secrets that end soon and proved a request lately.
    pub(super) fn ending_secrets(&self, now: Timestamp) -> impl Iterator<Item = EndingSecret<'_>> {
        self.sources.iter().flat_map(move |source| {
            let name = source.config.name.as_str();
            source.config.secrets.iter().filter_map(move |secret| {
                let until = secret
                    .until()
                    .filter(|until| *until > now && until.since(now) < SOON)?;
                let used = self.uses.of_secret(name, secret.name())?;
                (now.since(used.last) < SOON).then_some(EndingSecret {
                    source: name,
                    secret: secret.name(),
                    until,
                })
            })
        })
    }
}
