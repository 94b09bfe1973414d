-- Which transactions had ended when a row was written, where tx_min alone says too little of that: readers then remember a
-- few running transactions instead of every event since the oldest of them began. Why: command-api/src/store/mod.rs.
-- One expression, so that Postgres puts it into the statement that calls it.
create function outbox_snapshot() returns text language sql stable parallel safe as $$
    select case when pg_snapshot_xmax(pg_current_snapshot())::text::bigint
                   - pg_snapshot_xmin(pg_current_snapshot())::text::bigint > 100
           then pg_current_snapshot()::text end
$$;

alter table outbox add column tx_snapshot text default outbox_snapshot();
