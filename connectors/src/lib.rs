//! Deploys the outbox connector: topics first, then the connector's configuration, then waiting until it streams.
//!
//! Every step compares what is there with what is wanted, so that `apply` may be run at any time. The configuration
//! itself is `outbox.json`; what differs between environments is named there as `${env:OUTBOX_…}` and read by the
//! Connect worker, so no secret passes through this program or is stored in Kafka.

pub mod apply;
pub mod connect;
pub mod defaults;
pub mod remove;
pub mod slot;
pub mod topics;
