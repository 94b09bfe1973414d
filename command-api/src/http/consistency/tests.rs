#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use super::*;
use crate::http::answer::{answer, reply};
use crate::store::{Done, Receipt};

/// What the query service was asked: read model, wait, token.
type Asked = Arc<Mutex<Vec<(String, String, String)>>>;

async fn listen(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    url
}

/// A query service of which `there` is current, `slow` after 150 ms, and all else behind.
async fn queries(asked: &Asked) -> String {
    let asked = Arc::clone(asked);
    let handler = move |Path(name): Path<String>, Query(query): Query<BTreeMap<String, String>>, headers: HeaderMap| async move {
        let token = headers["consistency-token"].to_str().unwrap().to_owned();
        asked.lock().unwrap().push((name.clone(), query["wait_ms"].clone(), token));
        match name.as_str() {
            "there" => (StatusCode::OK, axum::Json(json!({}))),
            "slow" => {
                tokio::time::sleep(Duration::from_millis(150)).await;
                (StatusCode::OK, axum::Json(json!({})))
            }
            _ => {
                let behind = json!({"type": "/problems/read-model-behind", "detail": "wait longer", "lag_ms": 1234});
                (StatusCode::SERVICE_UNAVAILABLE, axum::Json(behind))
            }
        }
    };
    listen(Router::new().route("/freshness/{read_model}", get(handler))).await
}

/// Commands that happen, and one that doesn't.
async fn commands(consistency: Consistency) -> String {
    let done = || {
        let receipt = Receipt { epoch: "e".to_owned(), txid: 7, streams: vec![("order".into(), "o".to_owned(), 1)] };
        Done { reply: reply(StatusCode::CREATED, json!({"order_id": "o"}), 1), receipt, append: None }
    };
    let api = Router::new()
        .route("/payments", post(async move || answer(&done())))
        .route("/orders", post(async move || answer(&done())))
        .route("/orders/{id}/cancel", post(async || StatusCode::CONFLICT));
    let both = Router::new().merge(api.clone()).nest("/api", api);
    listen(both.layer(from_fn_with_state(consistency, wait))).await
}

async fn ask(url: &str, path: &str, prefer: &str) -> (u16, Option<String>, Json) {
    let request = reqwest::Client::new().post(format!("{url}{path}"));
    let request = if prefer.is_empty() { request } else { request.header("prefer", prefer) };
    let answer = request.send().await.unwrap();
    let applied = answer.headers().get("preference-applied").map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), applied, answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn an_answer_says_of_each_read_model_whether_it_shows_the_command() {
    let asked = Asked::default();
    let url = commands(Consistency::new(Some(&queries(&asked).await), &[]).unwrap()).await;
    let (status, applied, body) = ask(&url, "/orders", "").await;
    assert_eq!((status, applied, body.get("read_models")), (201, None, None), "async is the default");
    assert!(asked.lock().unwrap().is_empty());

    let began = Instant::now();
    let (status, applied, body) = ask(&url, "/orders", "wait=there,slow,late; wait_ms=300").await;
    assert!(began.elapsed() >= Duration::from_millis(150), "it didn't wait for the slow one");
    assert_eq!((status, applied.as_deref()), (201, Some("wait=\"there,slow\"")));
    assert_eq!(body["order_id"], "o");
    assert_eq!(body["read_models"]["slow"], json!({"visible": true}));
    let late = json!({"visible": false, "reason": "read-model-behind", "detail": "wait longer", "lag_ms": 1234});
    assert_eq!(body["read_models"]["late"], late);
    let token = body["consistency_token"].as_str().unwrap().to_owned();
    assert!(asked.lock().unwrap().contains(&("slow".to_owned(), "300".to_owned(), token)));

    asked.lock().unwrap().clear();
    assert_eq!(ask(&url, "/orders/o/cancel", "wait=there").await.0, 409);
    assert_eq!(ask(&url, "/orders", "wait=").await.0, 400);
    assert!(asked.lock().unwrap().is_empty(), "what didn't happen isn't waited for");
}

#[tokio::test]
async fn some_commands_wait_by_themselves_unless_the_client_says_otherwise() {
    let asked = Asked::default();
    let queries = queries(&asked).await;
    let settings = ["POST /payments = there".to_owned(), "POST /orders/{id}/cancel=there, slow".to_owned()];
    let url = commands(Consistency::new(Some(&queries), &settings).unwrap()).await;
    for path in ["/payments", "/api/payments"] {
        assert_eq!(ask(&url, path, "").await.2["read_models"]["there"], json!({"visible": true}), "{path}");
    }
    assert_eq!(ask(&url, "/payments", "respond-async").await.2.get("read_models"), None);
    assert_eq!(ask(&url, "/payments", "wait=slow").await.2["read_models"], json!({"slow": {"visible": true}}));
    assert_eq!(ask(&url, "/orders", "").await.2.get("read_models"), None);
    for (wrong, said) in [
        ("POST /nowhere=there", "no command `POST /nowhere`"),
        ("GET /health/live=there", "no command"),
        ("POST /payments", "not of the form"),
        ("POST /payments=", "not of the form"),
    ] {
        let error = Consistency::new(Some(&queries), &[wrong.to_owned()]).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let nobody = Consistency::new(None, &settings).unwrap_err().to_string();
    assert!(nobody.contains("QUERY_URL"), "{nobody}");
}

#[tokio::test]
async fn a_query_service_that_is_not_there_delays_nothing_and_is_said() {
    for (consistency, said) in [
        (Consistency::none(), "no query service"),
        (Consistency::new(Some("http://127.0.0.1:9"), &[]).unwrap(), "can't be reached"),
    ] {
        let url = commands(consistency).await;
        let (status, applied, body) = ask(&url, "/orders", "wait=there; wait_ms=5000").await;
        assert_eq!((status, applied), (201, None));
        let there = &body["read_models"]["there"];
        assert_eq!((&there["visible"], &there["reason"]), (&json!(false), &json!("not-asked")));
        assert!(there["detail"].as_str().unwrap().contains(said), "{there}");
    }
}
