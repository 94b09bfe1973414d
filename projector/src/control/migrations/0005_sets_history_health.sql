-- Rebuilds that go live at one barrier, all or none: the others name the one that leads them.
alter table rebuild
    add leader bigint references rebuild on delete cascade,
    -- How far the event store was read, where a generation is built from there: {"done", "total", "finished"}. None: from Kafka.
    add history jsonb;

-- Since when a generation is live; what is watched after a swap counts from here.
alter table generation add live_since timestamptz;

-- What each query service says of the generations it answers from, in the last seconds. Unlogged: said again soon.
create unlogged table serve_report (
    serve         uuid        not null,
    generation_id bigint      not null,
    answered      bigint      not null,
    failed        bigint      not null,
    p99_ms        bigint      not null,
    updated_at    timestamptz not null default now(),
    primary key (serve, generation_id)
);

-- Documents that somebody wants to be made anew from their aggregate's events, by the partition's owner. Its own audit.
create table remake (
    remake_id bigint      generated always as identity primary key,
    generation_id     bigint      not null references generation on delete cascade,
    key               text        not null,
    asked_by          text        not null,
    why               text,
    asked_at          timestamptz not null default now(),
    -- What came of it; none while it waits.
    outcome           text check (outcome in ('done', 'failed')),
    answer            text,
    settled_at        timestamptz
);
create index remake_open on remake (generation_id) where outcome is null;
