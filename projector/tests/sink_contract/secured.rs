//! Stores that are reached by TLS only and ask who is there: an authority and certificates made for the occasion; a Redis and a
//! Postgres of the test's own, which do both themselves; for the others a server in front of the real one.
//!
//! The tests of the queries' readers take this file too.

use anyhow::{Context as _, Result, bail, ensure};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub(crate) const USER: &str = "keeper";
/// Holds what must be encoded in a URL.
pub(crate) const PASSWORD: &str = "s3cr@t/w:rd";
/// The same for a URL.
pub(crate) const CREDENTIALS: &str = "keeper:s3cr%40t%2Fw%3Ard";

/// A certificate authority, and a certificate of its for 127.0.0.1; removed when it is dropped.
pub(crate) struct Authority {
    folder: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("authority-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder)?;
        let made = Self { folder };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let openssl = |arguments: &[&str]| run(Command::new("openssl").args(arguments).current_dir(&made.folder));
        let authority = ["req", "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"];
        openssl(&[&authority[..], &key].concat())?;
        let server = ["req", "-x509", "-subj", "/CN=store", "-keyout", "server.key", "-out", "server.pem"];
        let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"];
        let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
        openssl(&[&server[..], &key, &signed, &leaf].concat())?;
        Ok(made)
    }

    /// The authority's certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn acceptor(&self) -> Result<TlsAcceptor> {
        let chain = CertificateDer::pem_file_iter(self.folder.join("server.pem"))?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(self.folder.join("server.key"))?;
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Terminates TLS.
struct Listener {
    tcp: tokio::net::TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Listener {
    type Io = TlsStream<tokio::net::TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // A client that doesn't trust us goes away in the middle of it.
            if let Ok((stream, address)) = self.tcp.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// Whose words are used for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Elasticsearch,
    Clickhouse,
}

/// A server in front of the HTTP store at `store`, which lets [`USER`] alone pass. Gives its port.
pub(crate) async fn in_front_of(store: &str, authority: &Authority, speaks: Speaks) -> Result<u16> {
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = tcp.local_addr()?.port();
    let listener = Listener { tcp, acceptor: authority.acceptor()? };
    let (store, client) = (store.trim_end_matches('/').to_owned(), reqwest::Client::new());
    let pass = move |request| pass(client.clone(), store.clone(), speaks, request);
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(pass)).await });
    Ok(port)
}

/// Whether a request says the right user and password, in either of the two ways; both are taken out of it.
fn is_let_in(client: &reqwest::Client, headers: &mut header::HeaderMap) -> bool {
    let expected = client.get("http://store").basic_auth(USER, Some(PASSWORD)).build();
    let expected = expected.ok().and_then(|request| request.headers().get(header::AUTHORIZATION).cloned());
    let basic = headers.remove(header::AUTHORIZATION);
    let (user, key) = (headers.remove("x-clickhouse-user"), headers.remove("x-clickhouse-key"));
    (basic.is_some() && basic == expected)
        || (user.is_some_and(|user| user == USER) && key.is_some_and(|key| key == PASSWORD))
}

fn refusal(speaks: Speaks) -> Response {
    let (status, reason) = match speaks {
        Speaks::Elasticsearch => (
            StatusCode::UNAUTHORIZED,
            r#"{"error":{"type":"security_exception","reason":"unable to authenticate user"},"status":401}"#,
        ),
        Speaks::Clickhouse => (
            StatusCode::FORBIDDEN,
            "Code: 516. DB::Exception: keeper: Authentication failed: password is incorrect, or there is no user with such name. \
             (AUTHENTICATION_FAILED) (version 25.8.2.29 (official build))",
        ),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], reason).into_response()
}

async fn pass(client: reqwest::Client, store: String, speaks: Speaks, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    if !is_let_in(&client, &mut head.headers) {
        return refusal(speaks);
    }
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    head.headers.remove(header::HOST);
    head.headers.remove(header::TRANSFER_ENCODING);
    head.headers.remove(header::CONTENT_LENGTH);
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let sent = client.request(head.method, format!("{store}{path}")).headers(head.headers).body(body).send().await;
    let Ok(answer) = sent else { return StatusCode::BAD_GATEWAY.into_response() };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    match answer.bytes().await {
        Ok(bytes) => (status, headers, Body::from(bytes)).into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// A server of the test's own; stopped, and what it wrote removed, when it is dropped.
pub(crate) struct Server {
    child: Child,
    folder: Option<PathBuf>,
    /// Where it listens.
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Postgres ends its other processes and takes its memory back on this, but not on SIGKILL.
        let _ = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        std::thread::sleep(Duration::from_millis(200));
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Server {
    async fn started(self) -> Result<Self> {
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return Ok(self);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("nothing listens on port {}", self.port)
    }
}

/// A Redis that speaks TLS only and knows [`USER`] alone.
pub(crate) async fn redis(authority: &Authority) -> Result<Server> {
    let port = free_port()?;
    let (text, password) = (port.to_string(), format!(">{PASSWORD}"));
    let (certificate, key, ca) = (authority.file("server.pem"), authority.file("server.key"), authority.file("ca.pem"));
    let child = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", "0", "--tls-port", &text, "--save", "", "--dir", "/tmp"])
        .args(["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca])
        .args(["--tls-auth-clients", "no", "--user", "default", "off"])
        .args(["--user", USER, "on", &password, "~*", "&*", "+@all"])
        .stdout(Stdio::null())
        .spawn()
        .context("redis-server")?;
    Server { child, folder: None, port }.started().await
}

/// A Postgres that wants a password, and takes connections without TLS too.
pub(crate) async fn postgres(authority: &Authority) -> Result<Server> {
    let bin = ["/usr/lib/postgresql", "/usr/pgsql"].iter().filter_map(|root| std::fs::read_dir(root).ok()).flatten();
    let bin = bin.flatten().map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
    let bin = bin.context("no initdb below /usr/lib/postgresql")?;
    let port = free_port()?;
    let folder = std::env::temp_dir().join(format!("postgres-{}", uuid::Uuid::new_v4().simple()));
    let data = folder.join("data").display().to_string();
    run(as_postgres(Path::new("mkdir")).arg("-m").arg("700").arg(&folder))?;
    let password = folder.join("password");
    std::fs::write(&password, PASSWORD)?;
    for name in ["server.pem", "server.key"] {
        std::fs::copy(authority.folder.join(name), folder.join(name))?;
    }
    if is_root() {
        run(Command::new("chown").arg("-R").arg("postgres:").arg(&folder))?;
    }
    run(Command::new("chmod").arg("600").arg(folder.join("server.key")).arg(&password))?;
    let file = format!("--pwfile={}", password.display());
    run(as_postgres(&bin.join("initdb")).args([
        "-D",
        &data,
        "-U",
        USER,
        "-A",
        "scram-sha-256",
        "-E",
        "UTF8",
        "--no-sync",
        &file,
    ]))?;
    let set = |name: &str, value: &Path| ["-c".to_owned(), format!("{name}={}", value.display())];
    let child = as_postgres(&bin.join("postgres"))
        .args(["-D", &data, "-p", &port.to_string(), "-h", "127.0.0.1", "-c", "ssl=on", "-c", "fsync=off"])
        .args(set("unix_socket_directories", Path::new("")))
        .args(set("ssl_cert_file", &folder.join("server.pem")))
        .args(set("ssl_key_file", &folder.join("server.key")))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Server { child, folder: Some(folder), port }.started().await
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("\nUid:\t0\t"))
}

/// A program as a user whom Postgres accepts: it never runs as root. It takes the place of `setpriv`, so that its pid is known.
fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program).current_dir("/tmp");
    command
}
