-- What is known of the slot that publishes the outbox, to notice when it isn't the one that it was: command-api/src/outbox/mod.rs.
create table outbox_watch (
    slot          text primary key,
    epoch         text   not null,
    -- bytes from the beginning of the WAL
    confirmed_lsn bigint not null,
    -- transactions that the slot has decoded; one made anew begins at 0
    decoded       bigint not null,
    -- rows of earlier transactions may never have been published, and stay until an operator says otherwise
    keep_below    bigint
);
grant select, insert, update, delete on outbox_watch to app;

-- Only what is not stamped yet, hence small: a stamped row leaves it.
create index outbox_unpublished on outbox (txid) where published_at is null;
create index outbox_published on outbox (published_at) where published_at is not null;
