-- Who owns a generation's partition: what an owner with a smaller fence still wants to park or settle is refused.
create table partition_owner (
    generation_id bigint  not null references generation on delete cascade,
    topic         text    not null,
    partition     integer not null,
    fence         bigint  not null,
    primary key (generation_id, topic, partition)
);

-- Messages that can't be folded, and those of the same aggregate that wait behind them (reason is null).
create table dead_letter (
    generation_id  bigint      not null references generation on delete cascade,
    dead_letter_id uuid        not null,
    topic          text        not null,
    partition      integer     not null,
    "offset"       bigint      not null,
    aggregate_id   text        not null,
    sequence       bigint,
    event_type     text,
    header_names   text[]      not null,
    header_values  bytea[]     not null,
    key            bytea,
    payload        bytea,
    reason         text,
    tries          integer     not null,
    done           text[]      not null,
    state          text        not null check (state in ('parked', 'retry', 'skip')),
    asked_by       text,
    asked_why      text,
    -- The order of parking: an aggregate's letters are folded in it.
    position       bigint      not null generated always as identity,
    parked_at      timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    primary key (generation_id, dead_letter_id)
);
create index dead_letter_order on dead_letter (generation_id, topic, partition, aggregate_id, position);

-- What became of them.
create table dead_letter_log (
    generation_id  bigint      not null,
    dead_letter_id uuid        not null,
    aggregate_id   text        not null,
    event_type     text,
    reason         text,
    outcome        text        not null check (outcome in ('applied', 'skipped')),
    by             text,
    why            text,
    settled_at     timestamptz not null default now()
);

-- Epochs of the write database that an operator has accepted after a fail-over or a restore.
create table accepted_epoch (
    epoch       text primary key,
    by          text        not null,
    why         text        not null,
    accepted_at timestamptz not null default now()
);
