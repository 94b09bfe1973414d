//! Pictures, drawn here: how a lag went, and what a read model is made of.

use crate::verbs::explain::Lineage;
use maud::{Markup, html};

const SPARK_WIDTH: f32 = 120.0;
const SPARK_HEIGHT: f32 = 24.0;

/// The lag of the last minutes in seconds, the oldest first, beside the threshold.
pub(super) fn sparkline(lags: &[f32], threshold_s: f32) -> Markup {
    let worst = lags.iter().copied().fold(0.0, f32::max);
    let top = worst.max(threshold_s) * 1.05 + f32::EPSILON;
    let y = |lag: f32| SPARK_HEIGHT - 1.0 - lag / top * (SPARK_HEIGHT - 2.0);
    #[allow(clippy::cast_precision_loss, reason = "some hundred points")]
    let step = SPARK_WIDTH / (lags.len().max(2) - 1) as f32;
    #[allow(clippy::cast_precision_loss, reason = "some hundred points")]
    let points: Vec<String> =
        lags.iter().enumerate().map(|(n, lag)| format!("{:.1},{:.1}", n as f32 * step, y(*lag))).collect();
    let label =
        format!("lag of the last {} s: at most {worst:.1} s, now {:.1} s", lags.len(), lags.last().unwrap_or(&0.0));
    html! {
        svg .spark viewBox={ "0 0 " (SPARK_WIDTH) " " (SPARK_HEIGHT) } role="img" aria-label=(label) {
            line .threshold x1="0" x2=(SPARK_WIDTH) y1=(format!("{:.1}", y(threshold_s))) y2=(format!("{:.1}", y(threshold_s))) {}
            polyline points=(points.join(" ")) {}
        }
    }
}

const ROW: usize = 18;
const GAP: usize = 14;
const BOX_WIDTH: usize = 250;
const COLUMN: usize = 330;

/// A box of a picture: its title, then its lines.
struct Node {
    class: &'static str,
    title: String,
    lines: Vec<String>,
}

impl Node {
    fn height(&self) -> usize {
        ROW * (self.lines.len() + 1) + 10
    }
}

/// Topics with their events and what is looked up, the read model, its queries: from left to right.
pub(super) fn lineage(lineage: &Lineage) -> Markup {
    let topics = lineage.topics.iter().map(|(aggregate, events)| {
        let title = format!("events.{aggregate}");
        Node { class: "topic", title, lines: events.clone() }
    });
    let lookups = lineage.lookups.iter().map(|lookup| {
        let title = format!("{} {}", if lookup.table { "table" } else { "read model" }, lookup.from);
        Node { class: "lookup", title, lines: vec![format!("looked up as {}", lookup.name)] }
    });
    let left: Vec<Node> = topics.chain(lookups).collect();
    let about = vec![format!("{}, {}", lineage.store, lineage.kind)];
    let middle = vec![Node { class: "model", title: lineage.name.clone(), lines: about }];
    let query = |path: &String| Node { class: "query", title: format!("GET {path}"), lines: Vec::new() };
    let right: Vec<Node> = lineage.queries.iter().map(query).collect();
    let tall = |nodes: &[Node]| nodes.iter().map(|node| node.height() + GAP).sum::<usize>();
    let height = [&left, &middle, &right].map(|nodes| tall(nodes)).into_iter().max().unwrap_or_default() + GAP;
    let places = |nodes: &[Node]| {
        let mut y = (height - tall(nodes)) / 2 + GAP / 2;
        let mut all = Vec::new();
        for node in nodes {
            all.push(y);
            y += node.height() + GAP;
        }
        all
    };
    let columns: Vec<(usize, &[Node], Vec<usize>)> = [&left, &middle, &right]
        .into_iter()
        .enumerate()
        .map(|(n, nodes)| (n * COLUMN + 1, &nodes[..], places(nodes)))
        .collect();
    let center = columns[1].2.first().copied().unwrap_or_default() + middle[0].height() / 2;
    let width = 2 * COLUMN + BOX_WIDTH + 2;
    let link = |column: usize, n: usize, node: &Node| columns[column].2[n] + node.height() / 2;
    html! {
        div .wide tabindex="0" role="group" aria-label="Lineage" {
            svg .lineage viewBox={ "0 0 " (width) " " (height) } width=(width) height=(height) role="img"
                aria-label={ "what feeds " (lineage.name) " and what reads it" } {
                @for (n, node) in left.iter().enumerate() {
                    (arc(BOX_WIDTH + 1, link(0, n, node), COLUMN + 1, center, node.class))
                }
                @for (n, node) in right.iter().enumerate() {
                    (arc(COLUMN + BOX_WIDTH + 1, center, 2 * COLUMN + 1, link(2, n, node), node.class))
                }
                @for (x, nodes, places) in &columns {
                    @for (node, y) in nodes.iter().zip(places) { (drawn(node, *x, *y)) }
                }
            }
        }
    }
}

fn drawn(node: &Node, x: usize, y: usize) -> Markup {
    html! {
        g .(node.class) {
            rect x=(x) y=(y) width=(BOX_WIDTH) height=(node.height()) rx="6" {}
            text .title x=(x + 10) y=(y + ROW) { (node.title) }
            @for (n, line) in node.lines.iter().enumerate() {
                text x=(x + 10) y=(y + ROW * (n + 2)) { (line) }
            }
        }
    }
}

fn arc(x1: usize, y1: usize, x2: usize, y2: usize, class: &str) -> Markup {
    let middle = usize::midpoint(x1, x2);
    html! { path .(class) d={ "M" (x1) "," (y1) " C" (middle) "," (y1) " " (middle) "," (y2) " " (x2) "," (y2) } {} }
}
