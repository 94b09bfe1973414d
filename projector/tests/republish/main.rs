//! A lost topic refilled, against real servers: the order that Postgres gives, the bytes that Debezium gave, and what is
//! refused. Each test has an aggregate type (or a database) of its own and removes it, so that it can run beside a live system.

#![allow(clippy::unwrap_used, missing_docs)]

mod bytes;
mod order;
mod support;
mod verb;
