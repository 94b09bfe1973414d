//! Dead letters looked at, retried, passed over. The owner does it; this asks, and waits for the answer.

use super::VerbError;
use crate::control::{Control, DeadLetter, DeadLetterLine, Fate};
use crate::event::{Decoder, Envelope, Raw};
use crate::expr::json::{time_text, to_json};
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How long an owner's answer is waited for.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Letters behind one that are listed.
const BEHIND_SHOWN: i64 = 20;

/// One letter, whole.
pub(crate) struct Whole {
    pub(crate) line: DeadLetterLine,
    pub(crate) letter: DeadLetter,
    /// The next letters of its aggregate.
    pub(crate) behind: Vec<DeadLetter>,
    /// Its payload in the newest version of its type, as the projection's program would see it; or why that can't be read.
    pub(crate) data: Result<Json, String>,
}

/// All that is known of a letter, one for each read model that parked it. `decoder`: or why there is none.
///
/// # Errors
/// There is no such letter, or the control store doesn't answer.
pub(crate) async fn show(
    control: &Control,
    id: Uuid,
    read_model: Option<&str>,
    decoder: Result<&Decoder, String>,
) -> Result<Vec<Whole>, VerbError> {
    let lines = control.dead_letter_lines(&[id], read_model).await?;
    let mut all = Vec::new();
    for line in lines {
        let Some(letter) = control.letter(line.generation_id, line.dead_letter_id).await? else { continue };
        let data = match &decoder {
            Ok(decoder) => decode(decoder, &letter).await,
            Err(reason) => Err(reason.clone()),
        };
        let behind = behind(control, &letter).await?;
        all.push(Whole { line, letter, behind, data });
    }
    if all.is_empty() {
        return Err(VerbError::NotFound(format!("there is no dead letter {id}; see `projector dlq list`")));
    }
    Ok(all)
}

async fn decode(decoder: &Decoder, letter: &DeadLetter) -> Result<Json, String> {
    let raw = Raw::new(letter.key.as_deref(), &letter.headers, None);
    let envelope = Envelope::read(&raw).map_err(|error| error.to_string())?;
    let data = decoder.decode(&envelope, letter.payload.as_deref().unwrap_or_default()).await;
    Ok(to_json(&data.map_err(|error| error.to_string())?))
}

async fn behind(control: &Control, letter: &DeadLetter) -> Result<Vec<DeadLetter>, VerbError> {
    let aggregate =
        control.letters(letter.generation_id, &letter.partition, &letter.aggregate_id, BEHIND_SHOWN + 1).await?;
    let me = (letter.offset, letter.dead_letter_id);
    Ok(aggregate.into_iter().filter(|other| (other.offset, other.dead_letter_id) > me).collect())
}

/// What the owner made of what was asked.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    pub(crate) dead_letter_id: Uuid,
    pub(crate) read_model: String,
    /// `applied`, `skipped`, `gone`, `parked` again, or still `asked`.
    pub(crate) state: &'static str,
    pub(crate) reason: Option<String>,
    /// Whether there is nothing left to be done about it.
    #[serde(skip)]
    pub(crate) fine: bool,
}

/// What has become of a letter that was asked about; `wait`: until the deadline, at the latest.
///
/// # Errors
/// The control store doesn't answer.
pub(crate) async fn answer(
    control: &Control,
    line: &DeadLetterLine,
    deadline: Option<Instant>,
) -> Result<Answer, VerbError> {
    let (state, reason, fine) = match fate(control, line, deadline.unwrap_or_else(Instant::now)).await? {
        Fate::Applied => ("applied", None, true),
        Fate::Skipped => ("skipped", None, true),
        Fate::Gone => ("gone", Some("its generation was dropped".to_owned()), true),
        Fate::Parked(reason, tries) => {
            ("parked", Some(format!("after {tries} tries: {}", reason.unwrap_or_default())), false)
        }
        Fate::Asked if deadline.is_none() => ("asked", None, true),
        Fate::Asked => {
            let seconds = ANSWER_WITHIN.as_secs();
            let why = format!(
                "no answer within {seconds} s: see `projector status`; it stays asked for, and is done as soon as the owner runs"
            );
            ("asked", Some(why), false)
        }
    };
    Ok(Answer { dead_letter_id: line.dead_letter_id, read_model: line.read_model.clone(), state, reason, fine })
}

async fn fate(control: &Control, line: &DeadLetterLine, deadline: Instant) -> Result<Fate, VerbError> {
    loop {
        let fate = control.dead_letter_fate(line.generation_id, line.dead_letter_id).await?;
        if fate != Fate::Asked || Instant::now() >= deadline {
            return Ok(fate);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A letter without its message.
pub(crate) fn line_json(line: &DeadLetterLine) -> Json {
    json!({
        "dead_letter_id": line.dead_letter_id,
        "read_model": line.read_model,
        "generation": line.generation,
        "topic": &*line.partition.topic,
        "partition": line.partition.number,
        "offset": line.offset,
        "aggregate_id": line.aggregate_id,
        "sequence": line.sequence,
        "event_type": line.event_type,
        "reason": line.reason,
        "tries": line.tries,
        "state": line.state,
        "asked_by": line.asked_by,
        "asked_why": line.asked_why,
        "asked_at": line.asked_at.as_ref().map(time_text),
        "parked_at": time_text(&line.parked_at),
        "updated_at": time_text(&line.updated_at),
        "waits_for": (line.first != line.dead_letter_id).then_some(line.first),
        "waiting": line.waiting,
    })
}

impl Whole {
    /// For machines, message and all.
    pub(crate) fn json(&self) -> Json {
        let Self { line, letter, behind, data } = self;
        let headers: Vec<_> =
            letter.headers.iter().map(|(name, value)| json!([name, String::from_utf8_lossy(value)])).collect();
        let mut whole = line_json(line);
        whole["done"] = json!(letter.done);
        whole["headers"] = json!(headers);
        whole["key_hex"] = json!(letter.key.as_deref().map(hex));
        whole["payload_hex"] = json!(letter.payload.as_deref().map(hex));
        whole["payload_bytes"] = json!(letter.payload.as_ref().map(Vec::len));
        whole["data"] = json!(data.as_ref().ok());
        whole["data_error"] = json!(data.as_ref().err());
        whole["behind"] = behind.iter().map(|l| json!({ "dead_letter_id": l.dead_letter_id, "offset": l.offset, "sequence": l.sequence, "event_type": l.event_type })).collect();
        whole
    }
}

/// Bytes, for people who compare them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
