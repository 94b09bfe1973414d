-- The few rows that stamping asks for by kind; without it, each of its rounds reads every row that isn't stamped yet.
create index outbox_heartbeats on outbox (txid) where published_at is null and aggregate_type = 'heartbeat';
