-- The append-only event store and the outbox. Why epoch, txid and tx_min are there: command-api/src/store/mod.rs.

-- Transaction ids repeat after a fail-over or a restore: the epoch says which life of the database they belong to.
create function outbox_epoch() returns text language sql stable parallel safe as $$
    select (select system_identifier from pg_control_system()) || '.'
        || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
$$;

create table events (
    -- has gaps and is not the order of commits
    global_position bigserial primary key,
    stream_id       text        not null,
    stream_position bigint      not null check (stream_position > 0),
    event_id        uuid        not null unique,
    aggregate_type  text        not null,
    aggregate_id    text        not null,
    event_type      text        not null,
    schema_version  integer     not null,
    -- for people, audits, time travel; payload is the event itself: jsonb is not Avro
    data            jsonb       not null,
    payload         bytea       not null,
    metadata        jsonb       not null default '{}',
    epoch           text        not null default outbox_epoch(),
    txid            bigint      not null default pg_current_xact_id()::text::bigint,
    tx_min          bigint      not null default pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
    created_at      timestamptz not null default now(),
    -- the optimistic lock: of two writers at one position, one fails
    constraint events_stream_position unique (stream_id, stream_position)
);

create table snapshots (
    stream_id       text        not null,
    stream_position bigint      not null,
    data            jsonb       not null,
    created_at      timestamptz not null default now(),
    primary key (stream_id, stream_position)
);

-- Every column but those of the connector's heartbeat has a default.
create table outbox (
    outbox_id      uuid primary key default gen_random_uuid(),
    aggregate_type text        not null,
    aggregate_id   text        not null,
    sequence       bigint      not null,
    event_type     text        not null,
    schema_version integer     not null default 1,
    payload        bytea       not null,
    occurred_at    timestamptz not null default clock_timestamp(),
    epoch          text        not null default outbox_epoch(),
    txid           bigint      not null default pg_current_xact_id()::text::bigint,
    tx_min         bigint      not null default pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
    metadata       jsonb       not null default '{}',
    -- null: not known to be published yet
    published_at   timestamptz
);
