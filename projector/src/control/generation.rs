//! Generations: rows that freeze a projection's file at the moment it was applied.

use super::{Control, ControlError};
use std::collections::BTreeMap;

/// One generation of a read model.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Generation {
    /// Its key in the control store.
    pub generation_id: i64,
    /// The read model's name.
    pub read_model: String,
    /// Its number within the read model, from 1.
    pub generation: i32,
    /// `live`: queries read it.
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
}

const COLUMNS: &str = "generation_id, read_model, generation, state, fingerprint, config, topics";

impl Control {
    /// The live generation of each read model, by name.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn live(&self) -> Result<Vec<Generation>, ControlError> {
        let sql = format!("select {COLUMNS} from generation where state = 'live' order by read_model");
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(self.pool()).await?)
    }

    /// Registers a read model's first generation as live.
    ///
    /// # Errors
    /// [`ControlError`]; among them that somebody else registered it at the same moment.
    pub async fn create_live(
        &self,
        read_model: &str,
        fingerprint: &str,
        config: &str,
        topics: &BTreeMap<String, i32>,
    ) -> Result<Generation, ControlError> {
        let sql = format!(
            "insert into generation (read_model, generation, state, fingerprint, config, topics)
             values ($1, 1 + coalesce((select max(generation) from generation where read_model = $1), 0), 'live', $2, $3, $4)
             returning {COLUMNS}"
        );
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql));
        Ok(query
            .bind(read_model)
            .bind(fingerprint)
            .bind(config)
            .bind(sqlx::types::Json(topics))
            .fetch_one(self.pool())
            .await?)
    }

    /// Replaces a generation's file by one of the same fingerprint: other queries, other prose.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn update_config(&self, generation_id: i64, config: &str) -> Result<(), ControlError> {
        sqlx::query("update generation set config = $2, updated_at = now() where generation_id = $1")
            .bind(generation_id)
            .bind(config)
            .execute(self.pool())
            .await?;
        Ok(())
    }
}
