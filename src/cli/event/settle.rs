//! Deliveries by hand: settle what nobody could tell, call off what waits.

use std::io::Write;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use super::super::gateway::{Gateway, GatewayArgs, NOT_FOUND};
use super::super::print;
use crate::model::DeliveryId;

/// Which delivery to settle, and how.
#[derive(Debug, Args)]
pub(in crate::cli) struct Settle {
    /// The delivery, like dlv_0193…_0
    #[arg(value_name = "DELIVERY")]
    id: DeliveryId,
    /// It ran (delivered); it did not and is not to (dead); it did not and is sent again (again)
    #[arg(long, value_name = "HOW", value_parser = PossibleValuesParser::new(["delivered", "dead", "again"]))]
    r#as: String,
    /// Why, for whoever looks at it later
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) gateway: GatewayArgs,
}

/// Which delivery to call off.
#[derive(Debug, Args)]
pub(in crate::cli) struct Cancel {
    /// The delivery, like dlv_0193…_0; only a pending one can be called off
    #[arg(value_name = "DELIVERY")]
    id: DeliveryId,
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
        out: &mut impl Write,
        talk: &mut impl Write,
    ) -> anyhow::Result<u8> {
        let how = json!({ "as": self.r#as, "note": self.note });
        tell(gateway, (self.id, "settle", &how), self.json, out, talk).await
    }
}

impl Cancel {
    pub(super) async fn run(
        &self,
        gateway: &Gateway,
        out: &mut impl Write,
        talk: &mut impl Write,
    ) -> anyhow::Result<u8> {
        tell(gateway, (self.id, "cancel", &Value::Null), self.json, out, talk).await
    }
}

async fn tell(
    gateway: &Gateway,
    (id, verb, how): (DeliveryId, &str, &Value),
    json: bool,
    out: &mut impl Write,
    talk: &mut impl Write,
) -> anyhow::Result<u8> {
    let asked = gateway.tell(&format!("/deliveries/{id}/{verb}"), how).await?;
    let Some(answer) = asked.or_say(talk, &id.to_string()) else { return Ok(NOT_FOUND) };
    if json {
        print::json(out, &answer)?;
    } else {
        print::stands(out, &answer)?;
    }
    out.flush()?;
    Ok(0)
}
