//! A receiver of traces that is away, or that never answers, costs spans: neither time nor memory. One test, since a process is traced
//! once.
#![allow(clippy::unwrap_used, missing_docs)]

use clap::Parser;
use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use telemetry::{KeyValue, Leg, SpanContext, TracesArgs, record, sampled};

const SPANS: usize = 100_000;
/// A receiver has 10 s to answer; whoever waited for it would wait that long.
const ONE_TAKES_MAX: Duration = Duration::from_secs(2);
const SAID_WITHIN: Duration = Duration::from_secs(30);
const MEMORY_MAX: u64 = 24 << 20;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    traces: TracesArgs,
}

#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Printed {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

fn leg(n: usize) -> Leg {
    let text = format!("{n:-^256}");
    let now = SystemTime::now();
    Leg::new("apply loans", now, now).about(vec![KeyValue::new("event.id", text.clone()), KeyValue::new("place", text)])
}

/// Records them all; gives what memory grew by, and the longest that one took.
fn flood(parent: &SpanContext) -> (u64, Duration) {
    let (before, mut longest) = (resident_bytes(), Duration::ZERO);
    for n in 0..SPANS {
        let leg = leg(n);
        let began = Instant::now();
        record(parent, leg);
        longest = longest.max(began.elapsed());
    }
    (resident_bytes().saturating_sub(before), longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_costs_neither_time_nor_memory() {
    let printed = Printed::default();
    let to = printed.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone()).init();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://otel:hush-password@{address}");
    let words = ["test", "--otlp-endpoint", &endpoint, "--traces-sampler", "always_on"];
    let traces = Args::parse_from(words).traces.start("test").unwrap();
    let parent = sampled("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();

    // So much it would be if they were kept.
    let before = resident_bytes();
    let kept: Vec<Leg> = (0..SPANS).map(leg).collect();
    let all = resident_bytes().saturating_sub(before);
    assert!(all > 2 * MEMORY_MAX, "{} spans take {all} bytes: this test shows nothing", kept.len());
    drop(kept);

    flood(&parent);
    let (grown, longest) = flood(&parent);
    println!("closed: {grown} bytes more, the longest took {longest:?}; kept they would take {all}");
    assert!(grown < MEMORY_MAX && longest < ONE_TAKES_MAX, "closed: {grown} bytes more, the longest took {longest:?}");
    let began = Instant::now();
    while !printed.text().contains("spans can't be sent: they are lost") {
        assert!(began.elapsed() < SAID_WITHIN, "nobody says that spans are lost: {}", printed.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("said after {:?}", began.elapsed());

    // Connections are taken into its backlog, and nobody ever answers.
    let silent = TcpListener::bind(address).unwrap();
    let (grown, longest) = flood(&parent);
    println!("silent: {grown} bytes more, the longest took {longest:?}");
    assert!(grown < MEMORY_MAX && longest < ONE_TAKES_MAX, "silent: {grown} bytes more, the longest took {longest:?}");
    let began = Instant::now();
    traces.stop().await;
    assert!(began.elapsed() < Duration::from_secs(20), "stopping took {:?}", began.elapsed());
    drop(silent);
    let text = printed.text();
    println!("{text}");
    assert!(!text.contains("hush-password"), "{text}");
}
