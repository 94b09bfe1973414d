-- The same text as before, in one expression without a query inside: so Postgres puts it into the statement that calls it,
-- instead of planning it anew for every command. (For that it must be as volatile as pg_control_system says it is.)
create or replace function outbox_epoch() returns text language sql volatile parallel safe as $$
    select (pg_control_system()).system_identifier || '.' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
$$;
