//! Generations: rows that freeze a projection's file at the moment it was applied, and the states that each goes through.
//!
//! One row a step: a state changes by one update that names the states it may come from, with a line in the log, in one
//! transaction. So a step that is done twice is done once, and of two who do different steps one is refused.

use super::{Control, ControlError};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use std::collections::BTreeMap;

/// Notified whenever a generation, a barrier or the catalog changed.
pub const GENERATIONS_CHANNEL: &str = "projector_generations";

/// One generation of a read model.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Generation {
    /// Its key in the control store.
    pub generation_id: i64,
    /// The read model's name.
    pub read_model: String,
    /// Its number within the read model, from 1.
    pub generation: i32,
    /// A [`State`]'s name; `live`: queries read it.
    pub state: String,
    /// Tells whether a changed file asks for a new generation: all but queries and prose goes into it.
    pub fingerprint: String,
    /// The projection's file as it was applied.
    pub config: String,
    /// The topics it reads with their number of partitions, which is frozen.
    #[sqlx(json)]
    pub topics: BTreeMap<String, i32>,
}

impl Generation {
    /// `name-g1`: consumer group, index, marker.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}-g{}", self.read_model, self.generation)
    }

    /// Whether queries read it.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state == State::Live.name()
    }
}

/// Where a generation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its row is there; its place isn't yet.
    Planned,
    /// It is fed from the beginning, up to where the topics ended when that began.
    Replaying,
    /// It has that, and follows what came meanwhile.
    CatchingUp,
    /// It is as far as the live one, give or take what flows.
    Converged,
    /// It stood at a barrier with the live one, and was compared.
    Verified,
    /// Queries read it.
    Live,
    /// It was live, and is fed for a while, for a way back.
    Retired,
    /// It was retired; its place is removed.
    Dropped,
    /// It was given up before it was live; its place is removed.
    Abandoned,
}

impl State {
    const ALL: [Self; 9] = [
        Self::Planned,
        Self::Replaying,
        Self::CatchingUp,
        Self::Converged,
        Self::Verified,
        Self::Live,
        Self::Retired,
        Self::Dropped,
        Self::Abandoned,
    ];

    /// Its name, in the store and for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Replaying => "replaying",
            Self::CatchingUp => "catching_up",
            Self::Converged => "converged",
            Self::Verified => "verified",
            Self::Live => "live",
            Self::Retired => "retired",
            Self::Dropped => "dropped",
            Self::Abandoned => "abandoned",
        }
    }

    /// The state of this name.
    ///
    /// # Errors
    /// A newer release wrote it.
    pub fn parse(name: &str) -> Result<Self, ControlError> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| ControlError::Unreadable {
            what: "a generation's state".into(),
            reason: format!("`{name}` is not one that this release knows; use a newer projector"),
        })
    }

    /// Whether it is on its way to be live for the first time.
    #[must_use]
    pub fn is_shadow(self) -> bool {
        matches!(self, Self::Planned | Self::Replaying | Self::CatchingUp | Self::Converged | Self::Verified)
    }
}

/// A generation with what is known of its life.
#[derive(Clone, Debug)]
pub struct Member {
    /// The generation.
    pub generation: Generation,
    /// Its state.
    pub state: State,
    /// Whether it isn't fed for now.
    pub paused: bool,
    /// Why, if that is known.
    pub paused_why: Option<String>,
    /// Until when it is fed, if it is retired.
    pub fed_until: Option<DateTime<Utc>>,
    /// Whether its place was removed.
    pub removed: bool,
}

impl FromRow<'_, PgRow> for Member {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let generation = Generation::from_row(row)?;
        let state = State::parse(&generation.state).map_err(|e| sqlx::Error::Decode(e.into()))?;
        Ok(Self {
            state,
            generation,
            paused: row.try_get("paused")?,
            paused_why: row.try_get("paused_why")?,
            fed_until: row.try_get("fed_until")?,
            removed: row.try_get::<Option<DateTime<Utc>>, _>("removed_at")?.is_some(),
        })
    }
}

pub(super) const COLUMNS: &str = "generation_id, read_model, generation, state, fingerprint, config, topics";

impl Control {
    /// The live generation of each read model, by name.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn live(&self) -> Result<Vec<Generation>, ControlError> {
        let sql = format!("select {COLUMNS} from generation where state = 'live' order by read_model");
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(self.pool()).await?)
    }

    /// All generations that are something still: shadows, live and retired ones, and those whose place isn't removed yet.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn members(&self) -> Result<Vec<Member>, ControlError> {
        let sql = format!(
            "select {COLUMNS}, paused, paused_why, fed_until, removed_at from generation
             where removed_at is null order by read_model, generation"
        );
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(self.pool()).await?)
    }

    /// Those that may be live soon: shadows that are nearly there, and what is kept for a way back.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn upcoming(&self) -> Result<Vec<Generation>, ControlError> {
        let sql = format!(
            "select {COLUMNS} from generation
             where state in ('catching_up', 'converged', 'verified', 'retired') and not paused and removed_at is null"
        );
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(self.pool()).await?)
    }

    /// One of them.
    ///
    /// # Errors
    /// [`ControlError`]; among them that there is none.
    pub async fn member(&self, generation_id: i64) -> Result<Member, ControlError> {
        let sql = format!(
            "select {COLUMNS}, paused, paused_why, fed_until, removed_at from generation where generation_id = $1"
        );
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(generation_id).fetch_one(self.pool()).await?)
    }
}
