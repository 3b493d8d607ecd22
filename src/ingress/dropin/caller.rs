//! Caller of the drop-in: the key that is presented, and how far it is proved.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::HeaderValue;
use http::request::Parts;

use super::Dropin;
use crate::config::{GatewayKey, Secret};
use crate::ingress::Ingress;
use crate::ingress::form::FileGate;
use crate::ingress::request_log::RequestLog;
use crate::model::{Account, HostedCall, Name, Refusal, UpstreamIds, is_agent_id};
use crate::upstream::hosted;

/// Time that the upstream may take to say if it knows a key.
const ASK_TIME: Duration = Duration::from_secs(10);

/// A key, as the head shows it.
pub(super) enum Presented<'d> {
    /// One of the gateway's own.
    Own(&'d GatewayKey),
    /// Any other. It goes upstream as it is.
    Foreign(Secret),
}

/// Proof of a caller's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyStanding {
    /// Its key is one of the gateway's own.
    Own,
    /// The upstream took its key for this agent lately.
    Foreign,
    /// Its key is not proved.
    Unproved,
}

/// A caller, once its agent is known.
pub(super) struct Caller {
    /// The key that goes upstream.
    pub(super) key: Secret,
    pub(super) account: Account,
    pub(super) standing: KeyStanding,
}

/// Gate between the store and the files of a caller whose key is not proved.
pub(super) struct Gate<'d> {
    ingress: &'d Ingress,
    dropin: &'d Dropin,
    key: Secret,
    /// The agent, where the head names it.
    agent: Option<String>,
    peer: IpAddr,
}

impl Presented<'_> {
    /// The upstream's name for a run that the caller with a gateway key begins or goes on with: of the key alone, so
    /// that no caller gets into a conversation of others by its name. Absent where the key's table turns this off.
    pub(super) fn chosen_id(&self, ids: &UpstreamIds, call: &HostedCall) -> Option<String> {
        let Self::Own(own) = self else { return None };
        own.isolate.then(|| match call.params.get(Name::TaskId) {
            Some(task) => ids.of_key(&own.name, task),
            None => ids.new_of_key(&own.name),
        })
    }
}

impl Dropin {
    /// The key that a head presents.
    pub(super) fn presented(
        &self,
        ingress: &Ingress,
        head: &Parts,
        log: &mut RequestLog,
    ) -> Result<Presented<'_>, Refusal> {
        let peer = log.peer.0;
        let key = presented(head).ok_or(Refusal::NoKey)?;
        if let Some(own) = self.keyring.find(&key) {
            log.key = Some(own.name.clone());
            if own.is_over(log.at) {
                return Err(Refusal::KeyRefused(format!(
                    "the key {} has expired",
                    own.name
                )));
            }
            if let Some(name) = self.keyring.name_of(own, &key) {
                ingress.uses.key(&own.name, name, log.at);
            }
            return Ok(Presented::Own(own));
        }
        if self.own_only {
            return Err(Refusal::KeyRefused(
                "not a key of [keys], and dropin.require_key demands one".into(),
            ));
        }
        if HeaderValue::from_bytes(&key).is_err() {
            return Err(Refusal::KeyRefused(
                "the key cannot stand in a header".into(),
            ));
        }
        if !self.known.is_known(&key) {
            self.known.may_try(peer)?;
        }
        Ok(Presented::Foreign(Secret::new("the caller's key", key)))
    }

    /// The caller of a call.
    pub(super) fn caller(
        &self,
        ingress: &Ingress,
        presented: Presented<'_>,
        call: &HostedCall,
        log: &mut RequestLog,
    ) -> Result<Caller, Refusal> {
        match presented {
            Presented::Own(own) => {
                log.agent = Some(call.agent_id.clone()).filter(|agent| is_agent_id(agent));
                if own.is_limited() && !own.agents.contains(&call.agent_id) {
                    return Err(Refusal::KeyRefused(format!(
                        "the key {} is not good for this agent",
                        own.name
                    )));
                }
                ingress.limits.key(&own.name, &mut log.limits)?;
                let key = own
                    .upstream_key
                    .as_ref()
                    .or(self.upstream_key.as_ref())
                    .cloned()
                    .ok_or_else(|| {
                        let what = format!(
                            "keys.{} has no upstream_key, and there is no upstream.api_key",
                            own.name
                        );
                        Refusal::Internal(what)
                    })?;
                Ok(Caller {
                    key,
                    account: Account::Key(own.name.clone()),
                    standing: KeyStanding::Own,
                })
            }
            Presented::Foreign(key) if self.known.is_proved(key.expose(), &call.agent_id) => {
                ingress.limits.dropin_foreign(&mut log.limits)?;
                Ok(Caller {
                    key,
                    account: Account::Foreign,
                    standing: KeyStanding::Foreign,
                })
            }
            Presented::Foreign(key) => {
                self.known.may_try(log.peer.0)?;
                ingress.limits.dropin_others()?;
                // A call that waits for its answer has always had the upstream's own word.
                if call.asynchronous || call.params.get(Name::TaskId).is_some() {
                    self.known.judge(key.expose(), &call.agent_id)?;
                }
                Ok(Caller {
                    key,
                    account: Account::Foreign,
                    standing: KeyStanding::Unproved,
                })
            }
        }
    }

    /// Asks the upstream whether it knows the key of a caller. The question costs no run.
    pub(super) async fn prove(
        &self,
        ingress: &Ingress,
        caller: &mut Caller,
        agent: &str,
        peer: IpAddr,
    ) -> Result<(), Refusal> {
        if caller.standing == KeyStanding::Unproved {
            Gate {
                ingress,
                dropin: self,
                key: caller.key.clone(),
                agent: Some(agent.to_owned()),
                peer,
            }
            .open()
            .await?;
            caller.standing = KeyStanding::Foreign;
        }
        Ok(())
    }

    /// The gate that a caller's files have to pass first; absent where its key is known.
    pub(super) fn gate<'d>(
        &'d self,
        ingress: &'d Ingress,
        presented: &Presented<'_>,
        head: &Parts,
        peer: IpAddr,
    ) -> Option<Gate<'d>> {
        let Presented::Foreign(key) = presented else {
            return None;
        };
        if self.known.is_known(key.expose()) {
            return None;
        }
        Some(Gate {
            ingress,
            dropin: self,
            key: key.clone(),
            agent: agent(head),
            peer,
        })
    }
}

impl FileGate for Gate<'_> {
    fn open(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(self.ask())
    }
}

impl Gate<'_> {
    /// Asks the upstream whether it knows the key. The question costs no run: the list of the caller's own tasks.
    async fn ask(&self) -> Result<(), Refusal> {
        let (known, key) = (&self.dropin.known, self.key.expose());
        let agent = self.agent.as_deref().unwrap_or_default();
        known.judge(key, agent)?;
        let asked = self
            .dropin
            .upstream
            .ask_raw(self.agent.as_deref(), &self.key, ASK_TIME)
            .await;
        let answer = asked.map_err(|error| Refusal::UpstreamFailed(error.to_string()))?;
        match answer.status().as_u16() {
            200..=299 => {
                known.proved(key, None);
                Ok(())
            }
            status @ (401 | 403) => {
                known.refused(key, agent, status);
                known.failed(self.peer);
                Err(hosted::refusal(&answer, self.ingress.intake.clock.now()))
            }
            429 => Err(hosted::refusal(&answer, self.ingress.intake.clock.now())),
            status => Err(Refusal::UpstreamFailed(format!(
                "files are kept for good keys only, and the upstream did not say whether this one is: {status}"
            ))),
        }
    }
}

/// The key: the header's, or else the query's.
fn presented(head: &Parts) -> Option<Vec<u8>> {
    const KEY: &str = "x-api-key";
    let header = head
        .headers
        .get(KEY)
        .map(|value| value.as_bytes().to_vec())
        .filter(|key| !key.is_empty());
    header.or_else(|| last_of_query(head, KEY).map(String::into_bytes))
}

/// The agent that a head names.
fn agent(head: &Parts) -> Option<String> {
    let path = head.uri.path().strip_prefix('/').unwrap_or_default();
    let path = percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .ok()
        .filter(|agent| !agent.is_empty());
    path.map(std::borrow::Cow::into_owned)
        .or_else(|| last_of_query(head, "agent_id"))
}

/// The last value of a name in the query that is not empty.
fn last_of_query(head: &Parts, name: &str) -> Option<String> {
    let query = head.uri.query().unwrap_or_default().as_bytes();
    let found = form_urlencoded::parse(query)
        .filter(|(key, value)| key == name && !value.is_empty())
        .last();
    found.map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_headers_key_goes_before_the_querys() {
        let key = |target: &str, headers: &[(&str, &str)]| {
            presented(&head(target, headers)).map(|key| String::from_utf8(key).unwrap())
        };
        assert_eq!(
            key("/?x-api-key=q", &[("x-api-key", "h")]).as_deref(),
            Some("h")
        );
        assert_eq!(
            key("/?x-api-key=a&x-api-key=q%2B1", &[]).as_deref(),
            Some("q+1")
        );
        assert_eq!(
            key("/?x-api-key=q", &[("x-api-key", "")]).as_deref(),
            Some("q")
        );
        assert_eq!(
            key("/?x-api-key=&key=1", &[("authorization", "Bearer k")]),
            None
        );
    }

    #[test]
    fn the_path_names_the_agent_before_the_query() {
        assert_eq!(
            agent(&head("/a%20b?agent_id=c", &[])).as_deref(),
            Some("a b")
        );
        assert_eq!(agent(&head("/?agent_id=c", &[])).as_deref(), Some("c"));
        assert_eq!(agent(&head("/", &[])), None);
    }
}
