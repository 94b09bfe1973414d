-- What exists: one row a generation of a read model, with the projection it was made from, frozen.
create table generation (
    generation_id bigint generated always as identity primary key,
    read_model    text        not null,
    generation    integer     not null,
    state         text        not null check (state in ('live', 'dropped')),
    fingerprint   text        not null,
    config        text        not null,
    topics        jsonb       not null,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    unique (read_model, generation)
);
create unique index generation_live on generation (read_model) where state = 'live';

-- A copy of the progress that lives in each read store, for waiting queries and status. Unlogged: the truth is elsewhere,
-- and the hosts write it anew when they start.
create unlogged table progress (
    generation_id bigint      not null,
    topic         text        not null,
    partition     integer     not null,
    progress      jsonb       not null,
    updated_at    timestamptz not null default now(),
    primary key (generation_id, topic, partition)
) with (fillfactor = 50);

-- What each host says of each generation it feeds, every second.
create table host_status (
    host           uuid        not null,
    generation_id  bigint      not null references generation on delete cascade,
    events_applied bigint      not null,
    duplicates     bigint      not null,
    errors         bigint      not null,
    behind         bigint      not null,
    last_error     text,
    lag_histogram  bytea       not null,
    updated_at     timestamptz not null default now(),
    primary key (host, generation_id)
);
