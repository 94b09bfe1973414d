//! Events and outbox rows of any number of streams, in one statement.

use serde_json::Value as Json;
use sqlx::types::Json as Jsonb;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::codec::Encoded;
use crate::domain::Time;

/// An event at its place in its stream.
#[derive(Debug)]
pub(super) struct NewEvent {
    pub(super) event_id: Uuid,
    pub(super) aggregate_type: &'static str,
    pub(super) aggregate_id: String,
    pub(super) position: i64,
    pub(super) encoded: Encoded,
}

/// Of the transaction that appended.
#[derive(Debug)]
pub(super) struct Stamp {
    pub(super) epoch: String,
    pub(super) txid: i64,
}

/// Rows go in by `nth`: Debezium sends a transaction's rows as they were written, so each stream's in order.
const APPEND: &str = "
with stamp as materialized (
    select outbox_epoch() as epoch, pg_current_xact_id()::text::bigint as txid,
           pg_snapshot_xmin(pg_current_snapshot())::text::bigint as tx_min, outbox_snapshot() as tx_snapshot
), new as materialized (
    select * from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::int[], $7::jsonb[], $8::bytea[])
        with ordinality as new(event_id, aggregate_type, aggregate_id, position, event_type, schema_version, data, payload, nth)
), stored as (
    insert into events (stream_id, stream_position, event_id, aggregate_type, aggregate_id, event_type, schema_version,
                        data, payload, metadata, epoch, txid, tx_min, created_at)
    select aggregate_type || '-' || aggregate_id, position, event_id, aggregate_type, aggregate_id, event_type,
           schema_version, data, payload, $9, epoch, txid, tx_min, $10
    from new, stamp order by nth
), sent as (
    insert into outbox (outbox_id, aggregate_type, aggregate_id, sequence, event_type, schema_version, payload,
                        occurred_at, epoch, txid, tx_min, tx_snapshot, metadata)
    select event_id, aggregate_type, aggregate_id, position, event_type, schema_version, payload, $10, epoch, txid,
           tx_min, tx_snapshot, $9
    from new, stamp order by nth
)
select epoch, txid from stamp";

/// A command that changed nothing still answers with a token: every transaction below this had ended.
const STAMP_ONLY: &str =
    "select outbox_epoch() as epoch, pg_snapshot_xmin(pg_current_snapshot())::text::bigint as txid";

pub(super) async fn append(
    connection: &mut PgConnection,
    events: Vec<NewEvent>,
    metadata: &Json,
    at: Time,
) -> Result<Stamp, sqlx::Error> {
    let row = if events.is_empty() {
        sqlx::query(STAMP_ONLY).fetch_one(connection).await?
    } else {
        let (mut ids, mut aggregates, mut aggregate_ids, mut positions) = (vec![], vec![], vec![], vec![]);
        let (mut types, mut versions, mut data, mut payloads) = (vec![], vec![], vec![], vec![]);
        for event in events {
            ids.push(event.event_id);
            aggregates.push(event.aggregate_type);
            aggregate_ids.push(event.aggregate_id);
            positions.push(event.position);
            types.push(event.encoded.event_type);
            versions.push(event.encoded.schema_version);
            data.push(Jsonb(event.encoded.data));
            payloads.push(event.encoded.payload);
        }
        let query = sqlx::query(APPEND).bind(ids).bind(aggregates).bind(aggregate_ids).bind(positions).bind(types);
        let query = query.bind(versions).bind(data).bind(payloads).bind(Jsonb(metadata)).bind(at);
        query.fetch_one(connection).await?
    };
    Ok(Stamp { epoch: row.try_get("epoch")?, txid: row.try_get("txid")? })
}
