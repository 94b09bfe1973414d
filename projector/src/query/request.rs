//! What a request asks: the query's own parameters, and how fresh the answer must be.

use super::freshness::{WAIT_MS_DEFAULT, WAIT_MS_MAX};
use super::problem::Problem;
use super::token::Token;
use axum::extract::Query;
use axum::http::{HeaderMap, Uri};

/// A command touches a few streams; a caller who remembers several commands passes a token each.
const TOKENS_MAX: usize = 16;

/// How fresh the answer must be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Freshness {
    pub(crate) tokens: Vec<Token>,
    /// The document's own sequence.
    pub(crate) min_seq: Option<i64>,
    /// All that is committed when the request comes.
    pub(crate) strong: bool,
    pub(crate) wait_ms: u64,
    /// At the time limit, rather what there is than nothing.
    pub(crate) stale_ok: bool,
    /// A subscriber: a search is refreshed for it, so that it sees what it was woken for.
    pub(crate) is_watching: bool,
}

impl Freshness {
    /// The same without what an earlier answer had already.
    pub(crate) fn already_met(&self) -> Self {
        Self { tokens: Vec::new(), min_seq: None, strong: false, ..self.clone() }
    }
}

/// A request's query string and headers, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) freshness: Freshness,
}

/// The query string's pairs.
pub(crate) fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    let Query(pairs) = Query::try_from_uri(uri).map_err(|e| Problem::bad_request(e.to_string()))?;
    Ok(pairs)
}

impl Asked {
    pub(crate) fn read(pairs: Vec<(String, String)>, headers: &HeaderMap) -> Result<Self, Problem> {
        let (mut parameters, mut tokens, mut sequences, mut waits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut levels = Vec::new();
        for (name, value) in pairs {
            match name.as_str() {
                "consistency_token" => tokens.extend(value.split(',').map(|token| token.trim().to_owned())),
                "consistency" => levels.push(value),
                "min_seq" | "after_version" => sequences.push((name, value)),
                "wait_ms" => waits.push((name, value)),
                _ => parameters.push((name, value)),
            }
        }
        for header in headers.get_all("consistency-token") {
            let text = header.to_str().map_err(|_| Problem::token("the header Consistency-Token is not plain text"))?;
            tokens.extend(text.split(',').map(|token| token.trim().to_owned()));
        }
        if tokens.len() > TOKENS_MAX {
            return Err(Problem::token(format!("more than {TOKENS_MAX} tokens; the latest of each stream is enough")));
        }
        let tokens = tokens.iter().map(|text| Token::parse(text).map_err(|e| Problem::token(e.to_string())));
        let wait_ms = number(&waits, 0, WAIT_MS_MAX.cast_signed())?;
        if let Some(level) = levels.iter().find(|level| !["strong", "eventual"].contains(&level.as_str())) {
            let shown: String = level.chars().take(80).collect();
            let detail = format!("`consistency` is `{shown}`, expected `strong` or, as without it, `eventual`");
            return Err(Problem::parameter("consistency", detail));
        }
        let freshness = Freshness {
            tokens: tokens.collect::<Result<_, _>>()?,
            min_seq: number(&sequences, 0, i64::MAX)?,
            strong: levels.iter().any(|level| level == "strong"),
            wait_ms: wait_ms.map_or(WAIT_MS_DEFAULT, i64::cast_unsigned),
            stale_ok: prefers_stale(headers),
            is_watching: false,
        };
        Ok(Self { parameters, freshness })
    }
}

/// `Prefer: stale-ok` (RFC 7240), perhaps among others.
fn prefers_stale(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
    preferences.flat_map(|text| text.split(',')).any(|one| one.trim().eq_ignore_ascii_case("stale-ok"))
}

/// The one number that was given, under whichever of its names.
fn number(given: &[(String, String)], min: i64, max: i64) -> Result<Option<i64>, Problem> {
    let Some((name, text)) = given.first() else { return Ok(None) };
    if let Some((other, _)) = given.get(1) {
        let detail = if other == name {
            format!("`{name}` is given twice")
        } else {
            format!("`{name}` and `{other}` are the same; give one")
        };
        return Err(Problem::parameter(name, detail));
    }
    let number = text.parse().ok().filter(|n| (min..=max).contains(n));
    let expected = || match max {
        i64::MAX => format!("expected a whole number of at least {min}"),
        max => format!("expected milliseconds from {min} to {max}"),
    };
    let shown: String = text.chars().take(80).collect();
    number.map(Some).ok_or_else(|| Problem::parameter(name, format!("`{name}` is `{shown}`, {}", expected())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn token(txid: u64) -> String {
        URL_SAFE_NO_PAD.encode(format!(r#"{{"v":1,"epoch":"e","txid":{txid},"streams":[["loan","l-1",1]]}}"#))
    }

    fn read(query: &str, header: &[&str]) -> Result<Asked, String> {
        let mut headers = HeaderMap::new();
        header.iter().for_each(|h| _ = headers.append("consistency-token", h.parse().unwrap()));
        let uri = format!("/x?{query}").parse().unwrap();
        pairs(&uri).and_then(|pairs| Asked::read(pairs, &headers)).map_err(|p| p.body().to_string())
    }

    #[test]
    fn what_the_caller_prefers_and_several_tokens_in_one() {
        let mut headers = HeaderMap::new();
        headers.append("prefer", "respond-async, Stale-OK".parse().unwrap());
        let uri = format!("/x?consistency_token={},{}&consistency=strong", token(1), token(2)).parse().unwrap();
        let asked = Asked::read(pairs(&uri).unwrap(), &headers).unwrap();
        assert_eq!((asked.freshness.stale_ok, asked.freshness.strong, asked.freshness.tokens.len()), (true, true, 2));
        assert!(!read("", &[]).unwrap().freshness.stale_ok);
    }

    #[test]
    fn freshness_is_told_from_the_querys_own_parameters() {
        let asked =
            read(&format!("q=a+b%26c&consistency_token={}&consistency_token={}&wait_ms=0", token(1), token(2)), &[])
                .unwrap();
        assert_eq!(asked.parameters, [("q".to_owned(), "a b&c".to_owned())]);
        assert_eq!(asked.freshness.tokens.iter().map(|t| t.txid).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((asked.freshness.min_seq, asked.freshness.wait_ms), (None, 0));
        let asked = read("after_version=7", &[&token(3), &format!("{}, {}", token(4), token(5))]).unwrap();
        assert_eq!(asked.freshness.tokens.len(), 3);
        assert_eq!((asked.freshness.min_seq, asked.freshness.wait_ms), (Some(7), WAIT_MS_DEFAULT));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("consistency_token=%21%21", "invalid-token"),
            ("consistency_token=", "it is empty"),
            ("consistency=total", "`consistency` is `total`"),
            ("min_seq=x", "`min_seq` is `x`"),
            ("min_seq=-1", "at least 0"),
            ("min_seq=1&after_version=1", "are the same"),
            ("wait_ms=5001", "from 0 to 5000"),
            ("wait_ms=1&wait_ms=2", "given twice"),
        ];
        for (query, said) in cases {
            let error = read(query, &[]).unwrap_err();
            assert!(error.contains(said), "{query}: {error}");
        }
        assert!(
            read(&vec![format!("consistency_token={}", token(1)); 17].join("&"), &[])
                .unwrap_err()
                .contains("more than 16")
        );
        assert!(read("", &["a,,b"]).is_err());
    }
}
