//! What a process takes of the machine, as the kernel counts it.

/// The kernel's unit of CPU time, on every Linux that there is.
pub const TICKS_A_SECOND: f64 = 100.0;

/// CPU seconds of a process, with its threads and children.
#[must_use]
pub fn cpu_s(pid: u32) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0.0 };
    // Behind the name, which may have anything in it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.iter().skip(11).take(4).filter_map(|text| text.parse::<f64>().ok()).sum::<f64>();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let children: String = children.collect::<Vec<_>>().join(" ");
    ticks / TICKS_A_SECOND + children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(cpu_s).sum::<f64>()
}
