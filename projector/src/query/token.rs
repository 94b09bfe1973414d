//! The consistency token: what a command wrote, as its answer told the caller.
//!
//! base64url of `{"v":1,"epoch":"…","txid":123,"streams":[["order","<id>",1],…]}`. It is not signed: a forged one can only make
//! its owner wait.

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};
use serde::Deserialize;
use std::sync::Arc;

/// Longer ones are refused: a command touches a handful of streams.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
const STREAMS_MAX: usize = 256;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What one command wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Source and timeline within which `txid` means something.
    pub epoch: Arc<str>,
    /// The transaction.
    pub txid: u64,
    /// Every stream it touched.
    pub streams: Vec<Stream>,
}

/// One stream's last event of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its topic is `events.<aggregate_type>`.
    pub aggregate_type: String,
    /// The key of its events.
    pub aggregate_id: Arc<str>,
    /// The event's place in the aggregate.
    pub sequence: i64,
}

/// Why a text is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing was given.
    #[error("it is empty")]
    Empty,
    /// Not a token of any command.
    #[error("it is longer than {TOKEN_BYTES_MAX} characters")]
    TooLong,
    /// Not in its alphabet, or cut.
    #[error("it is not base64url; pass it on as the command gave it, unchanged")]
    NotBase64,
    /// Text of another kind.
    #[error("its content is not a token: {0}")]
    NotAToken(String),
    /// Of another release.
    #[error("it is of version {0}; this service reads version 1")]
    Version(u64),
    /// Not a token of any command.
    #[error("it names more than {STREAMS_MAX} streams")]
    TooManyStreams,
}

#[derive(Deserialize)]
struct Version {
    v: u64,
}

#[derive(Deserialize)]
struct Wire {
    epoch: String,
    txid: u64,
    streams: Vec<(String, String, i64)>,
}

impl Token {
    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError`] in words for the caller.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let bytes = BASE64.decode(text).map_err(|_| TokenError::NotBase64)?;
        let not_a_token = |e: serde_json::Error| TokenError::NotAToken(e.to_string());
        // The version first: another one may have another shape.
        let Version { v } = serde_json::from_slice(&bytes).map_err(not_a_token)?;
        if v != 1 {
            return Err(TokenError::Version(v));
        }
        let wire: Wire = serde_json::from_slice(&bytes).map_err(not_a_token)?;
        if wire.streams.len() > STREAMS_MAX {
            return Err(TokenError::TooManyStreams);
        }
        let stream = |(aggregate_type, id, sequence): (String, String, i64)| Stream {
            aggregate_type,
            aggregate_id: id.into(),
            sequence,
        };
        Ok(Self { epoch: wire.epoch.into(), txid: wire.txid, streams: wire.streams.into_iter().map(stream).collect() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};

    const TEXT: &str = r#"{"v":1,"epoch":"74.1","txid":123,"streams":[["order","o-1",1],["product","p-7",7]]}"#;

    fn parse(json: &str) -> Result<Token, TokenError> {
        Token::parse(&URL_SAFE_NO_PAD.encode(json))
    }

    #[test]
    fn reads_what_commands_give_padded_or_not() {
        let token = parse(TEXT).unwrap();
        assert_eq!((&*token.epoch, token.txid, token.streams.len()), ("74.1", 123, 2));
        assert_eq!(&*token.streams[1].aggregate_id, "p-7");
        assert_eq!(Token::parse(&URL_SAFE.encode(TEXT)).unwrap(), token);
    }

    #[test]
    fn says_why_a_text_is_no_token() {
        let good = URL_SAFE_NO_PAD.encode(TEXT);
        let said = |text: &str| Token::parse(text).unwrap_err().to_string();
        assert!(said("").contains("empty"));
        assert!(said("not base64!").contains("base64url"));
        assert!(said(&good[..good.len() / 2]).contains("not a token"), "a cut token");
        assert!(said(&"A".repeat(20_000)).contains("longer"));
        assert!(parse(r#"{"v":2,"other":"shape"}"#).unwrap_err().to_string().contains("version 2"));
        assert!(parse(r#"{"v":1,"epoch":"e","txid":-1,"streams":[]}"#).unwrap_err().to_string().contains("-1"));
        assert!(parse("[1,2]").is_err());
        let many = vec![r#"["order","o",1]"#; 300].join(",");
        let many = format!(r#"{{"v":1,"epoch":"e","txid":1,"streams":[{many}]}}"#);
        assert_eq!(parse(&many).unwrap_err(), TokenError::TooManyStreams);
    }
}
