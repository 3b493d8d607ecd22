//! Deliveries by hand: settle what nobody could tell, call off what waits.

use std::str::FromStr;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use super::super::gateway::{Gateway, GatewayArgs, NOT_FOUND};
use super::super::print;
use super::super::sheet::Paper;
use crate::model::DeliveryId;

/// The id of a delivery as typed: whole, or a beginning that only one has.
#[derive(Clone, Debug)]
pub(in crate::cli) struct DeliveryName(String);

impl FromStr for DeliveryName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_end_matches(['.', '…']);
        let good = text.parse::<DeliveryId>().is_ok() || DeliveryId::beginning(text).is_some();
        good.then(|| Self(text.to_owned()))
            .ok_or("a delivery's id is dlv_, 32 hex digits, _ and a number")
    }
}

/// Options of a settlement by hand.
#[derive(Debug, Args)]
pub(in crate::cli) struct Settle {
    /// The delivery, like dlv_0193ab12_0
    #[arg(value_name = "DELIVERY")]
    id: DeliveryName,
    /// It ran (delivered); it did not and is not to (dead); it did not and is sent again (again)
    #[arg(long, value_name = "HOW", value_parser = PossibleValuesParser::new(["delivered", "dead", "again"]))]
    r#as: String,
    /// Reason, for people who look at it later
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) gateway: GatewayArgs,
}

/// Options of a cancellation.
#[derive(Debug, Args)]
pub(in crate::cli) struct Cancel {
    /// The delivery, like dlv_0193ab12_0; only a pending one can be called off
    #[arg(value_name = "DELIVERY")]
    id: DeliveryName,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) gateway: GatewayArgs,
}

impl Settle {
    pub(super) async fn run(
        &self,
        gateway: &Gateway,
        out: &mut impl Paper,
        talk: &mut impl Paper,
    ) -> anyhow::Result<u8> {
        let how = json!({ "as": self.r#as, "note": self.note });
        tell(gateway, (&self.id.0, "settle", &how), self.json, out, talk).await
    }
}

impl Cancel {
    pub(super) async fn run(
        &self,
        gateway: &Gateway,
        out: &mut impl Paper,
        talk: &mut impl Paper,
    ) -> anyhow::Result<u8> {
        tell(
            gateway,
            (&self.id.0, "cancel", &Value::Null),
            self.json,
            out,
            talk,
        )
        .await
    }
}

async fn tell(
    gateway: &Gateway,
    (id, verb, how): (&str, &str, &Value),
    json: bool,
    out: &mut impl Paper,
    talk: &mut impl Paper,
) -> anyhow::Result<u8> {
    let asked = gateway
        .tell(&format!("/deliveries/{id}/{verb}"), how)
        .await?;
    let Some(answer) = asked.or_say(talk, id) else {
        return Ok(NOT_FOUND);
    };
    if json {
        print::json(out, &answer)?;
    } else {
        print::stands(out, &answer)?;
    }
    out.flush()?;
    Ok(0)
}
