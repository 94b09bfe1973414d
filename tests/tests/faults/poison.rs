//! An event that nobody can read, and what comes behind it.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    eventually, letters,
    processes::log,
    shop::{Shop, TOTAL_CENTS},
    stores::Stores,
    var,
    write_side::WriteSide,
};
use uuid::Uuid;

/// Leaves a schema that exists, and a datum that isn't of it: its first string is said to be longer than all of it.
fn garble(payload: &mut Vec<u8>) {
    payload.truncate(5);
    payload.extend([0xfe, 0xff, 0xff, 0x0f, 0x13]);
}

/// The projections that read the event which is garbled.
fn read_models() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in std::fs::read_dir(var("PROJECTIONS_DIR")?)? {
        let path = file?.path();
        if std::fs::read_to_string(&path)?.contains("\n  OrderPlaced:") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(names)
}

const WHY: &str = "garbled on purpose";

/// An order that begins with a garbled event. No state table knows it, so the audit expects no documents of it.
pub(crate) struct Poison {
    order_id: Uuid,
    garbled: Uuid,
    behind: Uuid,
}

impl Poison {
    /// Writes both events, each with its outbox row in a transaction of its own, and waits until they are parked.
    pub(crate) async fn plant(order_id: Uuid, shop: &Shop, write_side: &WriteSide) -> Result<Self> {
        // samples to be written again
        let order = shop.place().await?;
        let failed =
            json!({"order_id": order.order_id, "amount_cents": TOTAL_CENTS, "currency": "USD", "status": "failed"});
        shop.post("/payments", &failed).await?;
        let mut placed = write_side.sample("OrderPlaced").await?;
        garble(&mut placed.payload);
        let failed = write_side.sample("PaymentFailed").await?;

        let garbled = write_side.append(order_id, 1, &placed).await?;
        let behind = write_side.append(order_id, 2, &failed).await?;
        let poison = Self { order_id, garbled, behind };
        letters::parked(&read_models()?, garbled).await?;
        Ok(poison)
    }

    /// [`Poison::plant`] with the second event garbled, too.
    pub(crate) async fn plant_two(order_id: Uuid, shop: &Shop, write_side: &WriteSide) -> Result<Self> {
        shop.place().await?;
        let mut placed = write_side.sample("OrderPlaced").await?;
        garble(&mut placed.payload);
        let garbled = write_side.append(order_id, 1, &placed).await?;
        let behind = write_side.append(order_id, 2, &placed).await?;
        let poison = Self { order_id, garbled, behind };
        letters::parked(&read_models()?, garbled).await?;
        Ok(poison)
    }

    /// Passes over both: nothing is left of them, so that a replay of the topic comes to the same.
    pub(crate) async fn skip_two(&self, write_side: &WriteSide) -> Result<()> {
        for read_model in &read_models()? {
            letters::skip(read_model, self.garbled, WHY).await?;
            letters::skip(read_model, self.behind, WHY).await?;
        }
        letters::are_of(&[]).await?;
        write_side.forget(self.order_id).await
    }

    /// Passes over the garbled event, in each read model, as an operator does; what waited behind it is applied.
    pub(crate) async fn skip(&self, stores: &Stores) -> Result<()> {
        for read_model in &read_models()? {
            let shown = letters::show(read_model, self.garbled).await?;
            ensure!(shown["behind"][0]["dead_letter_id"] == self.behind.to_string(), "nothing behind it: {shown}");
            ensure!(shown["data"].is_null() && shown["data_error"].is_string(), "it can be read: {shown}");
            letters::skip(read_model, self.garbled, WHY).await?;
        }
        let what = format!("no dead letters of {}, see {}", self.order_id, log("projector-run"));
        eventually(&what, Duration::from_secs(20), || async {
            letters::are_of(&[]).await?;
            Ok(Some(()))
        })
        .await?;
        let hash = stores.hash(&self.order_id.to_string()).await?;
        ensure!(hash.get("version").is_some_and(|version| version == "2"), "the second event isn't there: {hash:?}");
        ensure!(!hash.contains_key("status"), "the first event is there: {hash:?}");
        Ok(())
    }

    /// Removes what the second event made of it, and both events: the audit knows no such order.
    pub(crate) async fn forget(&self, stores: &Stores, write_side: &WriteSide) -> Result<()> {
        let id = self.order_id.to_string();
        stores.delete_hash(&id).await?;
        stores.delete_rows(&id).await?;
        let what = format!("search document {id}, see {}", log("projector-run"));
        let document = eventually(&what, Duration::from_secs(20), || stores.document(&id)).await?;
        stores.delete_document(&id, document.version).await?;
        write_side.forget(self.order_id).await
    }
}
