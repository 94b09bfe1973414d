-- What a product's reviews come to; the reviews themselves are events.
alter table products
    add column review_count bigint not null default 0 check (review_count >= 0),
    add column rating_sum bigint not null default 0 check (rating_sum between review_count and review_count * 5);

-- What a command was answered with, by the id that makes its retries safe. Written in the command's own transaction, so
-- that after a crash either both are there or neither.
create table idempotency_keys (
    key         text primary key,
    -- of the request: a key that comes with another one is refused
    fingerprint uuid        not null,
    answer      jsonb       not null,
    created_at  timestamptz not null default now()
);
create index idempotency_keys_created on idempotency_keys (created_at);

grant select, insert, update, delete on idempotency_keys to app;
