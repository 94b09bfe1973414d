//! The admin API and the console over HTTP, against a control store on a real Postgres, each test in a database of its own.
//! No host runs: what an owner would answer isn't waited for.

#![allow(clippy::unwrap_used, missing_docs)]

mod desk;

use desk::{Desk, HOSTILE};
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_is_there_can_be_looked_at() {
    let desk = Desk::open(Some(desk::TOKEN)).await;
    let id = desk.park("l-1").await;
    let report = desk.json("/v1/lag").await;
    assert_eq!(report["read_models"][0]["read_model"], "loans", "{report}");
    let status = desk.json("/v1/status").await;
    assert_eq!(
        (&status["read_models"][0]["name"], &status["read_models"][0]["state"]),
        (&json!("loans"), &json!("live"))
    );
    let listed = desk.json("/v1/dead-letters?read_model=loans").await;
    assert_eq!(listed["dead_letters"][0]["dead_letter_id"], id.to_string());
    let shown = desk.json(&format!("/v1/dead-letters/{id}")).await;
    assert_eq!(
        (&shown["dead_letters"][0]["key_hex"], &shown["dead_letters"][0]["tries"]),
        (&json!("6c2d31"), &json!(3))
    );
    let explained = desk.json("/v1/read-models/loans/explain").await;
    assert_eq!(explained["lineage"]["topics"]["loan"], json!(["Borrowed", "Renewed", "Returned"]), "{explained}");
    let rebuilds = desk.json("/v1/rebuilds?read_model=loans").await;
    assert_eq!(rebuilds["generations"][0]["state"], "live");
    assert_eq!((&rebuilds["log"][0]["what"], &rebuilds["log"][0]["who"]), (&json!("created, live"), &json!("tests")));
    let plan = desk.json("/v1/plan").await;
    let what =
        |name: &str| plan["changes"].as_array().unwrap().iter().find(|c| c["read_model"] == name).unwrap().clone();
    assert_eq!(what("members")["what"], "create", "{plan}");
    assert_eq!(desk.json("/v1/epochs").await, json!({"epochs": []}));

    for (path, status, says) in [
        ("/v1/nothing", 404, "/openapi.json"),
        ("/v1/read-models/none/explain", 404, "no read model `none`"),
        ("/v1/dead-letters/6c2d31", 400, "UUID"),
        ("/v1/dead-letters?limit=many", 400, "limit"),
        ("/v1/read-models/loans/trace", 400, "key"),
        ("/v1/read-models/loans/trace?key=l-1", 409, "--schema-registry-url"),
        ("/v1/connectors", 409, "CONNECT_URL"),
    ] {
        let answer = desk.get(path).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"] == "application/problem+json"),
            (status, true),
            "{path}"
        );
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(says), "{path}: {problem}");
        assert!(problem["type"].as_str().unwrap().starts_with("/problems/"), "{problem}");
    }
    desk.close().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_is_changed_says_who_and_why_and_is_in_the_log() {
    let desk = Desk::open(Some(desk::TOKEN)).await;
    let id = desk.park("l-1").await;
    let skip = format!("/v1/dead-letters/{id}/skip");
    for body in
        [json!({"by": "ann"}), json!({"by": "ann", "reason": " "}), json!({"by": "ann", "reason": "x", "why": 1})]
    {
        let (status, problem) = desk.post(&skip, &body).await;
        assert!([400, 422].contains(&status) && problem["detail"].is_string(), "{body}: {status} {problem}");
    }
    let body = json!({"by": "ann", "reason": "a misprint", "no_wait": true});
    let (status, answer) = desk.post(&skip, &body).await;
    assert_eq!((status, &answer["dead_letters"][0]["state"]), (200, &json!("asked")), "{answer}");
    let asked = desk.json(&format!("/v1/dead-letters/{id}")).await;
    let asked = &asked["dead_letters"][0];
    assert_eq!((&asked["asked_by"], &asked["asked_why"]), (&json!("ann"), &json!("a misprint")));
    let (status, refused) =
        desk.post("/v1/dead-letters/retry", &json!({"ids": [id], "by": "ben", "reason": "mended"})).await;
    assert_eq!(status, 409, "a skip can't be taken back: {refused}");

    let (_, accepted) =
        desk.post("/v1/epochs/accept", &json!({"epoch": "a/2", "by": "ann", "reason": "a restore"})).await;
    assert_eq!(accepted["new"], true);
    let known = desk.json("/v1/epochs").await;
    assert_eq!((&known["epochs"][0]["accepted_by"], &known["epochs"][0]["why"]), (&json!("ann"), &json!("a restore")));

    let why = json!({"by": "ann", "reason": "to see"});
    for (path, says) in [
        ("/v1/rebuilds/loans/abort", "isn't being rebuilt"),
        ("/v1/rebuilds/loans/promote", "isn't being rebuilt"),
        ("/v1/read-models/loans/retire", "no former generation"),
    ] {
        let (status, problem) = desk.post(path, &why).await;
        assert!(status == 409 && problem["detail"].as_str().unwrap().contains(says), "{path}: {status} {problem}");
    }
    desk.close().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_form_needs_its_session_and_its_secret() {
    let desk = Desk::open(Some(desk::TOKEN)).await;
    let id = desk.park(HOSTILE).await;
    let wrong = [("name", "ann"), ("token", "another token, as long")];
    let refused = desk.send("/login", "", &wrong).await;
    assert_eq!((refused.status().as_u16(), refused.headers().get("set-cookie")), (401, None));
    let away = desk.http.get(format!("{}/", desk.url)).send().await.unwrap();
    assert_eq!((away.status().as_u16(), away.headers()["location"].to_str().unwrap()), (303, "/login"));

    let (cookie, secret) = desk.log_in("ann").await;
    let letters = desk.page("/dead-letters", &cookie).await;
    assert!(letters.contains("&lt;script&gt;") && !letters.contains("<script>alert"), "{letters}");
    let one = desk.page(&format!("/dead-letters/{id}?read_model=loans"), &cookie).await;
    assert!(one.contains("Skip for good") && !one.contains("<script>alert"), "{one}");

    let send = async |csrf: &str, cookie: &str| {
        let form = [("csrf", csrf), ("reason", "a misprint"), ("read_model", "loans")];
        desk.send(&format!("/dead-letters/{id}/retry"), cookie, &form).await
    };
    let state = async || desk.json(&format!("/v1/dead-letters/{id}")).await["dead_letters"][0]["state"].clone();
    let (_, others) = desk.log_in("ben").await;
    for csrf in ["", "0", &others] {
        assert_eq!(send(csrf, &cookie).await.status(), 403, "{csrf:?}");
    }
    assert_eq!(send(&secret, "").await.status(), 303, "to the login");
    assert_eq!(state().await, "parked", "something was asked for");
    let api = desk.http.post(format!("{}/v1/dead-letters/retry", desk.url)).header("cookie", &cookie);
    let api = api.json(&json!({"ids": [id], "by": "ann", "reason": "x"})).send().await.unwrap();
    assert_eq!((api.status().as_u16(), state().await), (403, json!("parked")), "a session is no bearer");

    // Nobody owns the partition: the answer says that it stays asked for.
    assert_eq!(send(&secret, &cookie).await.status(), 303);
    assert_eq!(state().await, "retry");
    let after = desk.page(&format!("/dead-letters/{id}?read_model=loans"), &cookie).await;
    assert!(after.contains("stays asked for") && after.contains("asked by ann"), "{after}");
    assert!(!desk.page("/", &cookie).await.contains("stays asked for"), "it is said twice");
    desk.close().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn without_a_token_this_machine_may_look_only() {
    let desk = Desk::open(None).await;
    let looks = desk.http.get(format!("{}/v1/lag", desk.url)).send().await.unwrap();
    assert_eq!(looks.status(), 200);
    let page = desk.http.get(format!("{}/rebuilds", desk.url)).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("to look at only") && !page.contains("<form"), "{page}");
    let elsewhere = desk.http.get(format!("{}/v1/lag", desk.url)).header("host", "evil.example").send().await.unwrap();
    assert_eq!(elsewhere.status(), 403, "a name that somebody else made lead here");
    let body = json!({"read_models": ["loans"], "by": "ann", "reason": "x"});
    let acts = desk.http.post(format!("{}/v1/rebuilds", desk.url)).json(&body).send().await.unwrap();
    let (status, problem) = (acts.status(), acts.json::<Value>().await.unwrap());
    assert!(status == 403 && problem["detail"].as_str().unwrap().contains("ADMIN_TOKEN"), "{problem}");
    desk.close().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn all_routes_are_described_and_all_that_change_something_ask_who_and_why() {
    let desk = Desk::open(Some(desk::TOKEN)).await;
    let answer = desk.http.get(format!("{}/openapi.json", desk.url)).send().await.unwrap();
    let document: Value = answer.json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let (mut looks, mut acts) = (0, 0);
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (verb, operation) in operations.as_object().unwrap() {
            if verb == "get" {
                looks += 1;
                continue;
            }
            acts += 1;
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let required = schema["required"].as_array().unwrap();
            assert!(required.contains(&json!("by")) && required.contains(&json!("reason")), "{verb} {path}: {schema}");
            // An empty body is refused before anything is done.
            let path = path.replace("{id}", &Uuid::nil().to_string());
            let (status, problem) = desk.change(&verb.to_uppercase(), &path, &json!({})).await;
            assert_eq!((status, problem["title"].is_string()), (422, true), "{path}: {problem}");
        }
    }
    assert_eq!((looks, acts), (11, 15), "{:?}", document["paths"].as_object().unwrap().keys());
    desk.close().await;
}
