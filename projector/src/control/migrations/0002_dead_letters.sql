-- Who owns each partition of a generation: the owner whose fence is the newest. Whoever holds an older one may park and settle
-- nothing any more.
create table partition_owner (
    generation_id bigint      not null references generation on delete cascade,
    topic         text        not null,
    partition     integer     not null,
    fence         bigint      not null,
    claimed_at    timestamptz not null default now(),
    primary key (generation_id, topic, partition)
);

-- Messages that couldn't be applied, and those of the same aggregate that wait behind them. Whole, so that a retry needs no
-- topic. `headers` ([[name, base64], ...]) and `done` are json, not jsonb: jsonb refuses \u0000, which a key may hold.
create table dead_letter (
    generation_id  bigint      not null references generation on delete cascade,
    dead_letter_id uuid        not null,
    topic          text        not null,
    partition      integer     not null,
    message_offset bigint      not null,
    aggregate_id   text        not null,
    sequence       bigint,
    event_type     text,
    headers        json        not null,
    key            bytea,
    payload        bytea,
    reason         text,
    tries          integer     not null,
    done           json        not null,
    state          text        not null check (state in ('parked', 'retry', 'skip')),
    asked_by       text,
    asked_why      text,
    asked_at       timestamptz,
    parked_at      timestamptz not null,
    updated_at     timestamptz not null default now(),
    primary key (generation_id, dead_letter_id)
);
create index dead_letter_in_order on dead_letter (generation_id, topic, partition, aggregate_id, message_offset);
create index dead_letter_by_id on dead_letter (dead_letter_id);

-- What became of them. Outlives the generation: it is the audit.
create table dead_letter_log (
    dead_letter_log_id bigint generated always as identity primary key,
    generation_id      bigint      not null,
    dead_letter_id     uuid        not null,
    topic              text        not null,
    partition          integer     not null,
    message_offset     bigint      not null,
    aggregate_id       text        not null,
    sequence           bigint,
    event_type         text,
    reason             text,
    tries              integer     not null,
    outcome            text        not null check (outcome in ('applied', 'skipped')),
    asked_by           text,
    asked_why          text,
    parked_at          timestamptz not null,
    settled_at         timestamptz not null default now()
);
create index dead_letter_log_by_id on dead_letter_log (dead_letter_id, generation_id);

-- Epochs (source and timeline) that an operator declared to be the continuation of those before.
create table accepted_epoch (
    epoch       text        not null primary key,
    accepted_at timestamptz not null default now(),
    accepted_by text        not null,
    why         text        not null
);
