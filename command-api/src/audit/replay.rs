//! A stream's history, step by step, with the state before and after each event.

use serde_json::Value as Json;
use sqlx::PgConnection;

use super::{AuditError, Condition, aggregate_type};
use crate::domain::{Account, Aggregate, Customer, Order, Product};
use crate::store::CommandError;
use crate::store::read::{Recorded, history};

/// Events read at once: bounds memory on long streams.
const PAGE: i64 = 1_000;

/// One event and what it did.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What happened, when, and by whom.
    pub event: Recorded,
    /// The state it met; null before the first.
    pub before: Json,
    /// The state it left.
    pub after: Json,
}

/// Where a replay begins and ends.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// The first position that is shown; what comes before is folded all the same.
    pub from: i64,
    /// The last one.
    pub to: Option<i64>,
    /// A VRL program that ends the replay where it first gives `true`.
    pub until: Option<String>,
}

/// Why a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// There is no more.
    End,
    /// The condition holds after this position.
    Condition(i64),
}

/// Shows a stream's steps in order, and says why it stopped.
///
/// # Errors
/// [`AuditError`].
pub async fn replay(
    connection: &mut PgConnection,
    stream_id: &str,
    options: &Replay,
    mut show: impl FnMut(&Step),
) -> Result<Stop, AuditError> {
    let to = options.to.unwrap_or(i64::MAX);
    // Types first: a program is compiled against what this stream's states and events were made of.
    let condition = match &options.until {
        None => None,
        Some(source) => {
            let mut types = Condition::types();
            walk(connection, stream_id, to, |step| {
                types.learn(step);
                Ok(true)
            })
            .await?;
            Some(types.compile(source)?)
        }
    };
    let mut stop = Stop::End;
    let mut known = false;
    walk(connection, stream_id, to, |step| {
        known = true;
        if step.event.position < options.from {
            return Ok(true);
        }
        show(step);
        match &condition {
            Some(condition) if condition.holds(step)? => {
                stop = Stop::Condition(step.event.position);
                Ok(false)
            }
            _ => Ok(true),
        }
    })
    .await?;
    if known { Ok(stop) } else { Err(AuditError::NoStream(stream_id.to_owned())) }
}

type See<'a> = dyn FnMut(&Step) -> Result<bool, AuditError> + 'a;

async fn walk(
    connection: &mut PgConnection,
    stream_id: &str,
    to: i64,
    mut see: impl FnMut(&Step) -> Result<bool, AuditError>,
) -> Result<(), AuditError> {
    match aggregate_type(stream_id) {
        Order::TYPE => walk_as::<Order>(connection, stream_id, to, &mut see).await,
        Customer::TYPE => walk_as::<Customer>(connection, stream_id, to, &mut see).await,
        Product::TYPE => walk_as::<Product>(connection, stream_id, to, &mut see).await,
        Account::TYPE => walk_as::<Account>(connection, stream_id, to, &mut see).await,
        _ => Err(AuditError::NoStream(stream_id.to_owned())),
    }
}

/// Until there is no more, or `see` has seen enough.
async fn walk_as<A: Aggregate>(
    connection: &mut PgConnection,
    stream_id: &str,
    to: i64,
    see: &mut See<'_>,
) -> Result<(), AuditError> {
    let (mut state, mut before): (Option<A>, Json) = (None, Json::Null);
    loop {
        let position = state.as_ref().map_or(0, Aggregate::version);
        let page = history(connection, stream_id, position, PAGE.min(to - position)).await?;
        let full = page.len() == PAGE as usize;
        for event in page {
            let next = event.evolve(state.take()).map_err(CommandError::from)?;
            let after = serde_json::to_value(&next).map_err(CommandError::from)?;
            let step = Step { event, before, after };
            if !see(&step)? {
                return Ok(());
            }
            (state, before) = (Some(next), step.after);
        }
        if !full {
            return Ok(());
        }
    }
}
