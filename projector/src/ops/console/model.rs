//! One read model: how it is, who feeds which of its partitions, what it is made of, what was done to it, one document's history.

use super::super::admin::{Admin, Caller, opened};
use super::super::lag::{Line, Placed};
use super::page::{Here, Page, Wrong};
use super::{document, overview, picture, trouble, words};
use crate::verbs::explain::{Lineage, explain};
use crate::verbs::report;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// The document's.
    key: Option<String>,
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Wrong> {
    let (generation, compiled) = opened(&admin, &name).await?;
    let lineage = Lineage::of(&compiled, &admin.site.catalog);
    let text = explain(&compiled, &format!("{} as applied", generation.id()), None);
    let log = report::report(&admin.site, Some(&name)).await.map(|report| report.log);
    let key = asked.key.as_deref().filter(|key| !key.is_empty());
    let found = match key {
        Some(key) => document::history_of(&admin, &name, key).await,
        None => html! {},
    };
    let live = Some((format!("/live?page=read-model&name={}", words::in_path(&name)), fragment(&admin, &name).await));
    let below = html! {
        section aria-labelledby="made" {
            h2 id="made" { "What it is made of" }
            (picture::lineage(&lineage))
            details { summary { "Each field, and where it comes from" } pre tabindex="0" { (text) } }
        }
        section aria-labelledby="document" {
            h2 id="document" { "A document" }
            form .act method="get" action="#document" {
                label for="key" { "Key" }
                input id="key" name="key" required value=[key] autocomplete="off";
                button type="submit" { "Show how it came to be" }
            }
            (found)
        }
        section aria-labelledby="done" {
            h2 id="done" { "What was done" }
            @match log {
                Err(error) => (overview::unknown(&error.to_string())),
                Ok(log) => table .cards {
                    thead { tr { th scope="col" { "When" } th scope="col" { "Generation" } th scope="col" { "What" } th scope="col" { "Who" } th scope="col" { "Why" } } }
                    tbody {
                        @for line in &log {
                            tr {
                                td data-label="When" { (words::clock(line.at)) }
                                td data-label="Generation" { (line.generation) }
                                td data-label="What" { (line.what) }
                                td data-label="Who" { (line.who) }
                                td data-label="Why" { (line.why.as_deref().unwrap_or("")) }
                            }
                        }
                    }
                },
            }
        }
    };
    let above = html! {};
    Ok(Page { title: &name, here: Here::Overview, caller: &caller, above, live, below }.into_response())
}

pub(super) async fn fragment(admin: &Admin, name: &str) -> Markup {
    let seen = match admin.board.now() {
        Ok(seen) => seen,
        Err(reason) => return overview::unknown(&reason),
    };
    let report = &seen.report;
    let lines: Vec<&Line> = report.read_models.iter().filter(|line| line.read_model == name).collect();
    let mut troubles = trouble::all(report);
    // Nothing reaches it either.
    troubles.retain(|trouble| trouble.read_models.is_empty() || trouble.read_models.iter().any(|of| of == name));
    html! {
        (trouble::shown(&troubles, report.at))
        @for line in lines {
            section aria-label={ "Generation " (line.generation) } {
                h2 { "Generation " (line.generation) ", " (line.generation_state.name()) " " (overview::state(line)) }
                dl {
                    dt { "Lag" } dd { (overview::lag(line, &seen.lags(line.generation_id))) }
                    dt { "Late above" } dd { (words::count(i64::try_from(line.lag_ms_max).unwrap_or(i64::MAX))) " ms" }
                    dt { "Events waiting" } dd { (line.behind_events.map_or_else(|| "not known".to_owned(), words::count)) }
                    dt { "Handled" } dd { (format!("{:.0}/s of {:.0}/s published", line.handled_per_s, line.published_per_s)) }
                    dt { "Failing" } dd { (format!("{:.2} % of the last minute's events", line.error_rate * 100.0)) }
                    dt { "Dead letters" } dd {
                        a id={ "letters-" (line.generation) } href="/dead-letters" { (line.parked) } ", " (line.parked_behind) " events wait behind them"
                    }
                    dt { "Last applied event" } dd {
                        @match line.last_applied { Some(at) => (words::ago(at, report.at)), None => "none" }
                    }
                    @if let Some(error) = &line.last_error { dt { "Last error" } dd .wrong { (error) } }
                }
                (partitions(line))
            }
        }
    }
}

/// Who feeds which partition, and how far each is.
fn partitions(line: &Line) -> Markup {
    let mut hosts: BTreeMap<_, Vec<&Placed>> = BTreeMap::new();
    for placed in &line.positions {
        hosts.entry(placed.host).or_default().push(placed);
    }
    html! {
        details id={ "partitions-" (line.generation) } {
            summary {
                (line.positions.len()) " partitions on " (hosts.len()) " hosts"
                @if line.partitions_unowned > 0 { ", " strong .wrong { (line.partitions_unowned) " without a host" } }
            }
            @for (host, places) in &hosts {
                h3 { "Host " (host) }
                table .dense {
                    thead { tr { th scope="col" { "Partition" } th scope="col" { "Next offset" } th scope="col" { "Waiting" } } }
                    tbody {
                        @for Placed { position, .. } in places {
                            tr {
                                td { (position.topic) "/" (position.partition) }
                                td { (words::count(position.next_offset)) }
                                td { (words::count(position.behind)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
