#![allow(clippy::unwrap_used)]

use super::*;
use axum::http::{HeaderName, HeaderValue, StatusCode};

const TOKEN: &str = "a token that is long enough";

fn loopback() -> SocketAddr {
    "127.0.0.1:18020".parse().unwrap()
}

fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
}

fn status(admitted: Result<Caller, Problem>) -> StatusCode {
    admitted.unwrap_err().status
}

#[test]
fn without_a_token_this_machine_may_look_and_nobody_may_act() {
    let access = Access::new(None, loopback()).unwrap();
    for host in ["localhost:18020", "127.0.0.1:18020", "[::1]:18020", "localhost"] {
        assert!(matches!(access.admit(&Method::GET, &headers(&[(HOST, host)])), Ok(Caller::Anybody)), "{host}");
        assert_eq!(status(access.admit(&Method::POST, &headers(&[(HOST, host)]))), 403, "{host}");
    }
    // A name of somebody else's that leads to this machine.
    for host in ["evil.example:18020", "127.0.0.1.evil.example", "localhost.evil.example"] {
        assert_eq!(status(access.admit(&Method::GET, &headers(&[(HOST, host)]))), 403, "{host}");
    }
    let open = Access::new(None, "0.0.0.0:18020".parse().unwrap()).unwrap();
    let refused = open.admit(&Method::GET, &headers(&[(HOST, "localhost")])).unwrap_err();
    assert!(refused.status == 403 && refused.detail.contains("--admin-token"), "{refused:?}");
    let said = access.admit(&Method::POST, &headers(&[(HOST, "localhost")])).unwrap_err().detail;
    assert!(said.contains("ADMIN_TOKEN"), "{said}");
}

#[test]
fn with_a_token_nothing_goes_without_it() {
    let access = Access::new(Some(TOKEN.to_owned()), loopback()).unwrap();
    let bearer = |token: &str| headers(&[(HOST, "localhost"), (AUTHORIZATION, &format!("Bearer {token}"))]);
    for method in [Method::GET, Method::POST] {
        assert!(matches!(access.admit(&method, &bearer(TOKEN)), Ok(Caller::Bearer)));
        for wrong in ["", "a token that is long enougi", "a token that is long enough ", "A TOKEN THAT IS LONG ENOUGH"]
        {
            assert_eq!(status(access.admit(&method, &bearer(wrong))), 401, "{wrong:?}");
        }
        assert_eq!(status(access.admit(&method, &headers(&[(HOST, "localhost")]))), 401);
        let basic = headers(&[(AUTHORIZATION, TOKEN)]);
        assert_eq!(status(access.admit(&method, &basic)), 401);
    }
    assert!(Access::new(Some("short".to_owned()), loopback()).is_err());
}

#[tokio::test]
async fn a_session_is_given_for_the_token_alone_and_ends() {
    let access = Access::new(Some(TOKEN.to_owned()), loopback()).unwrap();
    assert_eq!(access.log_in("ann", "another token, as long as it").await, None);
    let set = access.log_in("ann", TOKEN).await.unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    let pair = set.split(';').next().unwrap();
    let mine = headers(&[(COOKIE, &format!("theme=dark; {pair}"))]);
    let Ok(Caller::Session(session)) = access.admit(&Method::POST, &mine) else { panic!("not admitted") };
    assert_eq!(session.name, "ann");
    assert!(session.owns(&session.csrf.clone()) && !session.owns("") && !session.owns("0"));
    let other = access.log_in("ben", TOKEN).await.unwrap();
    let other = headers(&[(COOKIE, other.split(';').next().unwrap())]);
    let Ok(Caller::Session(other)) = access.admit(&Method::GET, &other) else { panic!("not admitted") };
    assert!(!session.owns(&other.csrf), "a form of another session");
    // A wrong bearer isn't saved by a session.
    let mut both = mine.clone();
    both.insert(AUTHORIZATION, HeaderValue::from_static("Bearer nonsense"));
    assert_eq!(status(access.admit(&Method::GET, &both)), 401);
    access.log_out(&mine);
    assert_eq!(status(access.admit(&Method::GET, &mine)), 401);
}
