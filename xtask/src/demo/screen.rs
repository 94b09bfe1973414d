//! The demo's one screen.

use std::{fmt::Write, time::Duration};

use crate::{
    audit,
    lag::{self, Progress},
    load::{self, Sample},
    settings::{Instance, Port},
};

/// All that the screen shows.
pub(super) struct Run<'a> {
    pub(super) instance: &'a Instance,
    pub(super) up_s: f64,
    pub(super) total_s: f64,
    pub(super) caught_up_after: Duration,
    pub(super) load: &'a load::Report,
    /// What the first orders met, where the stack had just started.
    pub(super) warm_up: Option<&'a [Progress]>,
    pub(super) read_models: &'a [Progress],
    pub(super) audit: &'a audit::Report,
}

impl Run<'_> {
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        // writing to a String can't fail
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nRead models, this run (lag: commit → visible)")?;
        lag::table(out, self.read_models)?;
        let duplicates: u64 = self.read_models.iter().map(|model| model.duplicates).sum();
        writeln!(
            out,
            "  caught up {:.1} s after the last command; {duplicates} duplicates skipped",
            self.caught_up_after.as_secs_f64()
        )?;

        if let Some(warm_up) = self.warm_up {
            let worst = |model: &Progress| {
                let max = model.lag.as_ref().map_or(0.0, |lag| lag.max);
                format!("{} {max:.0} ms", model.name)
            };
            let worst = warm_up.iter().map(worst).collect::<Vec<_>>().join(" · ");
            writeln!(
                out,
                "  before that, the first orders after the start warmed the JVMs; their largest lag: {worst}"
            )?;
        }

        writeln!(out, "\nLoad\n{}", indented(&self.load.to_string()))?;

        let verdict =
            if self.audit.agrees { "every document is as the write database has it" } else { "THE READ MODELS DIFFER" };
        writeln!(out, "\nAudit: {verdict}\n{}", indented(&self.audit.to_string()))?;

        self.next_steps(out)?;
        write!(
            out,
            "\nEverything keeps running ({:.0} s to start, {:.0} s in all). `./dev status` · `./dev down` · `./dev reset`",
            self.up_s, self.total_s
        )
    }

    fn next_steps(&self, out: &mut String) -> std::fmt::Result {
        let instance = self.instance;
        let (command, query) = (instance.http(Port::CommandApi), instance.http(Port::Query));
        writeln!(out, "\nTry next")?;
        if let Some(Sample { order_id, customer_id, sequence_number, consistency_token, .. }) = &self.load.sample {
            writeln!(out, "  # an order of this run, from Redis; then its customer's orders, from the search engine")?;
            writeln!(out, "  curl -s '{query}/orders/{order_id}?min_seq={sequence_number}'")?;
            writeln!(
                out,
                "  curl -s '{query}/customers/{customer_id}/orders?size=5' -H 'Consistency-Token: {consistency_token}'"
            )?;
            writeln!(out, "  redis-cli -p {} hgetall order:{order_id}", instance.port(Port::Redis))?;
            writeln!(out, "  # cancel it, and see the revenue of its day change")?;
            writeln!(
                out,
                "  curl -s -X POST {command}/orders/{order_id}/cancel -H 'Content-Type: application/json' -d '{{\"reason\":\"just trying\"}}'"
            )?;
        }
        writeln!(
            out,
            "  curl -s \"{query}/reports/revenue?from=$(date -u +%F)&to=$(date -u -d tomorrow +%F)&granularity=day\""
        )?;
        writeln!(out, "  # the stores themselves")?;
        writeln!(
            out,
            "  curl -s '{}/customer_order_history/_search?q=products.name:chocolate&size=1&pretty'",
            instance.http(Port::Search)
        )?;
        writeln!(
            out,
            "  curl -s '{}' -d 'select day, currency, sum(amount_cents) from read_models.daily_revenue group by all'",
            instance.http(Port::Clickhouse)
        )?;
        writeln!(out, "  ./dev audit · ./dev logs projector-run · ./dev demo   # adds to what is there")
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
