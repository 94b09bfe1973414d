//! Ports in use are found before anything starts: which one, whose, and how to move ours.

use std::fs;
use std::net::TcpListener;

use anyhow::bail;

use super::Component;
use crate::process;
use crate::settings::Instance;

/// Fails with every conflict at once.
pub(crate) fn check<'a>(
    instance: &Instance,
    components: impl IntoIterator<Item = &'a Component>,
) -> anyhow::Result<()> {
    let mut conflicts = Vec::new();
    for component in components {
        if process::alive(instance, component.name).is_some() {
            continue;
        }
        for port in component.ports {
            let number = instance.port(*port);
            let Err(error) = TcpListener::bind(("127.0.0.1", number)) else { continue };
            let reason = if error.kind() == std::io::ErrorKind::AddrInUse {
                holder(number)
                    .map_or_else(|| "in use by a process of another user".to_owned(), |who| format!("in use by {who}"))
            } else {
                error.to_string()
            };
            conflicts.push(format!(
                "  port {number} for {}: {reason}; move it with {port}=<free port> in compose/.env or the environment",
                component.name
            ));
        }
    }
    if !conflicts.is_empty() {
        bail!("nothing was started, because ports are taken:\n{}", conflicts.join("\n"));
    }
    Ok(())
}

/// The process that listens on a port, found through the socket's inode in /proc.
fn holder(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|path| {
        let table = fs::read_to_string(path).ok()?;
        table.lines().skip(1).find_map(|line| listening_inode(line, port))
    })?;
    let wanted = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
        let holds = descriptors
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()));
        if holds {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&line).replace('\0', " ");
            let short: String = command.trim().chars().take(80).collect();
            return Some(format!("pid {pid} ({short})"));
        }
    }
    None
}

/// The inode in a line of /proc/net/tcp, if the line is a socket that listens on `port` (state 0A).
fn listening_inode(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, hexadecimal) = fields.get(1)?.rsplit_once(':')?;
    (u16::from_str_radix(hexadecimal, 16).ok()? == port && *fields.get(3)? == "0A")
        .then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found_by_pid() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let who = holder(port).unwrap();
        assert!(who.starts_with(&format!("pid {} (", std::process::id())), "{who}");
    }

    #[test]
    fn a_free_port_has_no_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert_eq!(holder(port), None);
    }
}
