//! A server between us and a store, which can be told to go away at an awkward moment.

use anyhow::Result;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// After this silence a store has answered all that it was sent.
const QUIET: Duration = Duration::from_millis(500);

/// What becomes of what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// All goes through.
    Pass,
    /// After this many bytes to the store, connections are cut, and new ones too.
    CutAfter(usize),
    /// After this many bytes to the store its answers are swallowed, and the connection is cut once it has answered.
    SwallowAfter(usize),
    /// As before, but the connection stays open.
    SilentAfter(usize),
}

struct Shared {
    mode: Mutex<Mode>,
    sent: AtomicUsize,
    cut: watch::Sender<()>,
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether answers are swallowed now.
    fn swallows(&self) -> bool {
        let sent = self.sent.load(Ordering::SeqCst);
        matches!(self.mode(), Mode::SwallowAfter(after) | Mode::SilentAfter(after) if sent > after)
    }
}

pub(super) struct Proxy {
    pub(super) port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts one in front of the store at `url`, with everything going through.
    pub(super) async fn start(url: &str) -> Result<Self> {
        let url = reqwest::Url::parse(url)?;
        let store = url.socket_addrs(|| None)?[0];
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let shared =
            Arc::new(Shared { mode: Mutex::new(Mode::Pass), sent: AtomicUsize::new(0), cut: watch::Sender::new(()) });
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, store, Arc::clone(&accepting)));
            }
        });
        Ok(Self { port, shared })
    }

    /// From now on.
    pub(super) fn set(&self, mode: Mode) {
        self.shared.sent.store(0, Ordering::SeqCst);
        *self.shared.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// Everything goes through again, on new connections.
    pub(super) fn heal(&self) {
        self.set(Mode::Pass);
        self.shared.cut.send_replace(());
    }
}

/// Passes bytes until one side ends, or the mode says so. Ends both sides.
async fn pass(mut client: TcpStream, store: SocketAddr, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut cut = shared.cut.subscribe();
    let mut store = TcpStream::connect(store).await?;
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut swallowed = false;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let n = read?;
                if n == 0 {
                    return Ok(());
                }
                let sent = shared.sent.fetch_add(n, Ordering::SeqCst) + n;
                match shared.mode() {
                    Mode::CutAfter(after) if sent > after => {
                        return store.write_all(&up[..n.saturating_sub(sent - after)]).await;
                    }
                    _ => store.write_all(&up[..n]).await?,
                }
            }
            read = store.read(&mut down) => {
                let n = read?;
                if n == 0 {
                    return Ok(());
                }
                if shared.swallows() {
                    swallowed = true;
                } else {
                    client.write_all(&down[..n]).await?;
                }
            }
            () = tokio::time::sleep(QUIET), if swallowed => {
                if !matches!(shared.mode(), Mode::SilentAfter(_)) {
                    return Ok(());
                }
            }
            _ = cut.changed() => return Ok(()),
        }
    }
}
