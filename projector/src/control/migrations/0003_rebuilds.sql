-- Generations beside the live one: built by a rebuild, or kept for a way back.
alter table generation drop constraint generation_state_check;
alter table generation
    add constraint generation_state_check check (state in
        ('planned', 'replaying', 'catching_up', 'converged', 'verified', 'live', 'retired', 'dropped', 'abandoned')),
    -- Not fed while it is set; why says what happened.
    add paused boolean not null default false,
    add paused_why text,
    -- Until when a retired one is fed, for a rollback.
    add fed_until timestamptz,
    -- When its place in the store was removed.
    add removed_at timestamptz;

-- Which generations are live, as one version: it grows whenever one of them changes. One row.
create table catalog (
    one     boolean primary key default true check (one),
    version bigint not null
);
insert into catalog (version) values (1);

-- The version that each query service answers from. One that hasn't said so for a second asks anew before it answers.
-- Unlogged: after a crash of the database all of them say it again.
create unlogged table serve_lease (
    serve   uuid        primary key,
    version bigint      not null,
    seen_at timestamptz not null
);

-- Work on a read model that moves queries from one generation to another: one at a time. Whoever holds the lease with the
-- newest fence drives it.
create table rebuild (
    rebuild_id    bigint      generated always as identity primary key,
    read_model    text        not null,
    generation_id bigint      not null references generation on delete cascade,
    replaces      bigint      not null references generation on delete cascade,
    options       jsonb       not null,
    -- Where the topics ended when the replay began: [[topic, partition, offset], ...]
    ends          jsonb,
    -- What was found at the barrier, for people.
    finding       jsonb,
    -- An operator wants it to go live: see options for whether it waits for that.
    promote       boolean     not null default false,
    holder        uuid,
    holder_name   text,
    held_until    timestamptz,
    fence         bigint      not null default 0,
    asked_by      text        not null,
    outcome       text check (outcome in ('done', 'aborted')),
    created_at    timestamptz not null default now(),
    ended_at      timestamptz
);
create unique index rebuild_under_way on rebuild (read_model) where outcome is null;

-- Both generations of a rebuild stand still at the same place of each partition.
create table barrier (
    barrier_id  bigint      generated always as identity primary key,
    rebuild_id  bigint      not null references rebuild on delete cascade,
    generations bigint[]    not null,
    state       text        not null check (state in ('gathering', 'set', 'decided', 'released')),
    ends        jsonb,
    version     bigint,
    expires_at  timestamptz not null,
    opened_at   timestamptz not null default now()
);
create unique index barrier_open on barrier (rebuild_id) where state <> 'released';

-- What owners say of their partitions at a barrier: how far they are, and, once it is set, that they stand at it.
create table barrier_arrival (
    barrier_id    bigint  not null references barrier on delete cascade,
    generation_id bigint  not null,
    topic         text    not null,
    partition     integer not null,
    fence         bigint  not null,
    position      bigint  not null,
    arrived       boolean not null,
    primary key (barrier_id, generation_id, topic, partition)
);

-- Who did what to which generation, when and why. Outlives them.
create table generation_log (
    generation_log_id bigint generated always as identity primary key,
    at                timestamptz not null default now(),
    read_model        text        not null,
    generation        integer     not null,
    what              text        not null,
    who               text        not null,
    why               text
);
