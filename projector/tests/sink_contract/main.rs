//! The contract of [`projector::sink`], run against every store: in memory always, on the real servers with `./dev test`.
//! Each run makes places of its own names and removes them, so that it can run beside a live system.

mod away;
mod clickhouse;
mod documents;
mod elasticsearch;
mod facts;
mod fixtures;
mod generations;
mod memory;
mod outages;
mod postgres;
mod progress;
mod proxy;
mod redis;
mod redis_full;
mod rollup;
mod secured;
mod stubs;
mod tls;
