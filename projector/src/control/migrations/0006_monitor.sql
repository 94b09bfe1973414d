-- What a host says of a generation as it is now: what it waits for, how old the oldest event is that nobody sees yet, its places.
alter table host_status add present jsonb not null default '{}';

-- The newest heartbeat of the outbox that was read back from Kafka. One row; unlogged: it is read again at once.
create unlogged table heartbeat (
    one         boolean     primary key default true check (one),
    epoch       text        not null,
    txid        bigint      not null,
    occurred_at timestamptz not null,
    read_at     timestamptz not null default now()
);

-- The one host that raises alerts, until then.
create unlogged table monitor_lease (
    one         boolean     primary key default true check (one),
    holder      uuid        not null,
    holder_name text        not null,
    held_until  timestamptz not null
);

-- What is wrong, and what was until lately: whoever takes over the lease goes on from here.
create table alert (
    name        text        not null,
    -- empty where it is about no single read model
    read_model  text        not null,
    severity    text        not null check (severity in ('warning', 'critical')),
    since       timestamptz not null,
    text        text        not null,
    remedy      text        not null,
    resolved_at timestamptz,
    primary key (name, read_model)
);
