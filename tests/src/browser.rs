//! A real browser, Debian's Chromium, with one page: driven over its DevTools protocol, which it speaks on a pipe. What is typed
//! and clicked is typed and clicked, as a person's hands would; what is read is what the page shows.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};
use uuid::Uuid;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between press and release, as a person's finger.
const PRESS: Duration = Duration::from_millis(50);

/// What it looks like.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// In CSS pixels.
    pub width: u32,
    /// In CSS pixels.
    pub height: u32,
    /// Whether the user prefers dark pages.
    pub dark: bool,
}

/// A desk's screen.
pub const DESK: Look = Look { width: 1_180, height: 900, dark: false };
/// The same at night.
pub const NIGHT: Look = Look { dark: true, ..DESK };
/// A phone's.
pub const PHONE: Look = Look { width: 390, height: 844, dark: false };

/// See the module. Ends when it is dropped.
pub struct Browser {
    _process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    last: u64,
    session: Option<String>,
    folder: std::path::PathBuf,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Browser {
    /// Starts one with an empty page.
    ///
    /// # Errors
    /// When there is no Chromium, or it doesn't answer.
    pub async fn open(look: Look) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("chromium-{}", Uuid::new_v4().simple()));
        // Its commands come in at 3, and its answers go out at 4: here its own standard streams.
        let script = "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars \
                      --no-proxy-server --user-data-dir=\"$0\" --remote-debugging-pipe 3<&0 4>&1 >/dev/null 2>&1 </dev/null";
        let mut process = Command::new("sh")
            .args(["-c", script])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("can't start chromium: apt install chromium")?;
        let commands = process.stdin.take().context("no stdin")?;
        let answers = BufReader::new(process.stdout.take().context("no stdout")?);
        let mut browser = Self { _process: process, commands, answers, last: 0, session: None, folder };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await?;
        let attached =
            browser.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true})).await?;
        browser.session = Some(attached["sessionId"].as_str().context("no session")?.to_owned());
        browser.look(look).await?;
        Ok(browser)
    }

    /// Changes what it looks like.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn look(&mut self, look: Look) -> Result<()> {
        let Look { width, height, dark } = look;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await?;
        let scheme = json!({"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }});
        self.call("Emulation.setEmulatedMedia", json!({"features": [scheme]})).await.map(drop)
    }

    /// Goes to a page, and waits until it is there.
    ///
    /// # Errors
    /// When it isn't.
    pub async fn go(&mut self, url: &str) -> Result<()> {
        let gone = self.call("Page.navigate", json!({"url": url})).await?;
        ensure!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        self.eventually(&format!("{url} loaded"), ANSWER_WITHIN, "document.readyState === 'complete'").await
    }

    /// The value of an expression in the page.
    ///
    /// # Errors
    /// When it throws.
    pub async fn value(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", asked).await?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// All text that the page shows.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn text(&mut self) -> Result<String> {
        Ok(self.value("document.body.innerText").await?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the page shows all of these texts. Gives how long that took.
    ///
    /// # Errors
    /// When it doesn't within `limit`, with what it shows.
    pub async fn says(&mut self, texts: &[&str], limit: Duration) -> Result<Duration> {
        let began = Instant::now();
        loop {
            // Between two pages there is none.
            let shown = self.text().await.unwrap_or_default();
            if texts.iter().all(|text| shown.contains(text)) {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < limit, "{texts:?} is not shown within {limit:?}, but:\n{shown}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until an expression is true in the page.
    ///
    /// # Errors
    /// When it isn't within `limit`.
    pub async fn eventually(&mut self, what: &str, limit: Duration, expression: &str) -> Result<()> {
        let began = Instant::now();
        while self.value(expression).await.ok() != Some(Value::Bool(true)) {
            ensure!(began.elapsed() < limit, "{what}: not within {limit:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Clicks at the middle of an element.
    ///
    /// # Errors
    /// When there is no such element to be seen.
    pub async fn click(&mut self, selector: &str) -> Result<()> {
        let place = format!(
            "(() => {{ const e = document.querySelector({}); if (!e) return null; e.scrollIntoView({{block: 'center'}});
               const r = e.getBoundingClientRect(); return {{x: r.x + r.width / 2, y: r.y + r.height / 2}}; }})()",
            json!(selector)
        );
        let place = self.value(&place).await?;
        ensure!(place.is_object(), "there is no `{selector}` on the page:\n{}", self.text().await?);
        let event = |kind| json!({"type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1});
        self.call("Input.dispatchMouseEvent", event("mousePressed")).await?;
        tokio::time::sleep(PRESS).await;
        self.call("Input.dispatchMouseEvent", event("mouseReleased")).await?;
        Ok(())
    }

    /// Clicks into a field and types.
    ///
    /// # Errors
    /// When there is no such field.
    pub async fn type_into(&mut self, selector: &str, text: &str) -> Result<()> {
        self.click(selector).await?;
        self.call("Input.insertText", json!({"text": text})).await.map(drop)
    }

    /// Presses a key, such as `Tab` or `Enter`, where the focus is.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn press(&mut self, key: &str) -> Result<()> {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            other => bail!("no key `{other}`"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event).await?;
        }
        Ok(())
    }

    /// Chooses an option of a list.
    ///
    /// # Errors
    /// When there is none.
    pub async fn choose(&mut self, selector: &str, value: &str) -> Result<()> {
        let choice = format!(
            "(() => {{ const e = document.querySelector({}); e.value = {}; e.dispatchEvent(new Event('change')); return e.value; }})()",
            json!(selector),
            json!(value)
        );
        let chosen = self.value(&choice).await?;
        ensure!(chosen == value, "`{selector}` has no option `{value}`");
        Ok(())
    }

    /// Whether the page is wider than the screen.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn is_too_wide(&mut self) -> Result<bool> {
        Ok(self.value("document.documentElement.scrollWidth > window.innerWidth").await? == Value::Bool(true))
    }

    /// Keeps a picture of what is seen.
    ///
    /// # Errors
    /// When it can't be written.
    pub async fn picture(&mut self, path: &Path) -> Result<()> {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png", "optimizeForSpeed": false})).await?;
        let data = shot["data"].as_str().context("no picture")?;
        Ok(std::fs::write(path, STANDARD.decode(data)?)?)
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).await.with_context(|| format!("{method}: chromium has ended"))?;
        let answered = async {
            loop {
                let mut bytes = Vec::new();
                self.answers.read_until(0, &mut bytes).await?;
                ensure!(bytes.pop() == Some(0), "chromium has ended");
                let answer: Value = serde_json::from_slice(&bytes)?;
                if answer["id"] == self.last {
                    ensure!(answer["error"].is_null(), "{}", answer["error"]);
                    return Ok(answer["result"].clone());
                }
            }
        };
        tokio::time::timeout(ANSWER_WITHIN, answered).await.with_context(|| format!("{method}: no answer"))?
    }
}
