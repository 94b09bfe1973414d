//! The API's routes, each with its description.

use super::openapi::{Api, act, flag, list, look, text, thing};
use super::{Admin, Problem, act as does, ask as asks, look as shows};
use axum::Router;
use axum::http::Uri;
use serde_json::json;
use std::sync::Arc;

/// All of them, and the description at `/openapi.json`.
pub(super) fn api() -> Router<Arc<Admin>> {
    let api = log(rebuilds(reads(Api::default())));
    letters(api).finish().fallback(async |uri: Uri| Problem::no_such_path(uri.path()))
}

fn reads(api: Api) -> Api {
    let report =
        [("at", text()), ("read_models", list(&thing())), ("before_kafka", thing()), ("alerts", list(&thing()))];
    let of = "of this read model only";
    api.get("/v1/lag", shows::lag, look("How late everything is, and why: as `projector lag`", &report))
        .get(
            "/v1/status",
            shows::status,
            look(
                "Each live read model: how far, who has which partition, what it has done: as `projector status`",
                &[("read_models", list(&thing()))],
            ),
        )
        .get(
            "/v1/plan",
            shows::plan,
            look("What `apply` would do with the host's folder of projections", &[("changes", list(&thing()))]),
        )
        .get(
            "/v1/rebuilds",
            shows::rebuilds,
            look(
                "What is under way, what is kept for a way back and, of one read model, what was done",
                &[("rebuilds", list(&thing())), ("generations", list(&thing())), ("log", list(&thing()))],
            )
            .query("read_model", of),
        )
        .get(
            "/v1/dead-letters",
            shows::dead_letters,
            look("The dead letters that block an aggregate, the oldest first", &[("dead_letters", list(&thing()))])
                .query("read_model", of)
                .query("limit", "at most so many; 100"),
        )
        .get(
            "/v1/dead-letters/{id}",
            shows::dead_letter,
            look(
                "One, whole: cause, what it has done already, what waits behind it, its message",
                &[("dead_letters", list(&thing()))],
            )
            .query("read_model", of),
        )
        .get("/v1/epochs", shows::epochs, look("The epochs of the sources", &[("epochs", list(&thing()))]))
        .get(
            "/v1/read-models/{name}/explain",
            shows::explained,
            look("What feeds a live read model and what each event does", &[("lineage", thing()), ("text", text())]),
        )
        .get(
            "/v1/read-models/{name}/trace",
            shows::traced,
            look(
                "How one document came to be: each event that changed it, before and after",
                &[("steps", list(&thing())), ("stored", json!({})), ("same", flag())],
            )
            .needs("key", "the document's key"),
        )
        .get(
            "/v1/connectors",
            shows::all_connectors,
            look(
                "Kafka Connect's connectors, and who restarted one",
                &[("connectors", list(&thing())), ("actions", list(&thing()))],
            ),
        )
}

fn rebuilds(api: Api) -> Api {
    let begun = [("rebuilds", list(&thing()))];
    let done = [("read_model", text()), ("done", text())];
    let names = || json!({"type": "array", "items": {"type": "string"}, "minItems": 1});
    let from = || json!({"enum": ["kafka", "event-store", null], "description": "where its history is read; null: wherever it is"});
    let number =
        |meaning: &str| json!({"type": ["integer", "null"], "minimum": 0, "maximum": u32::MAX, "description": meaning});
    let verify = json!({
        "description": "what is compared before it goes live: all documents, or so many",
        "anyOf": [
            {"enum": ["all", null]},
            {"type": "object", "required": ["sample"], "additionalProperties": false,
             "properties": {"sample": {"type": "integer", "minimum": 0, "maximum": u32::MAX}}},
        ],
    });
    api.post(
        "/v1/apply",
        does::apply_all,
        act(
            "Make what the host's folder of projections says live; rebuilds are left to the hosts",
            &[("applied", list(&thing())), ("rebuilds", list(&thing()))],
        )
        .may("prune", flag()),
    )
    .post(
        "/v1/rebuilds",
        does::start,
        act("Build another generation of read models, and make it live once it is as far as the live one", &begun)
            .with("read_models", names())
            .may("together", flag())
            .may("verify", verify)
            .may("promote", flag())
            .may("from", from())
            .may("throttle", number("events a second that the replay may take on each host, at most"))
            .may("rollback_s", number("how long the replaced generation is fed, for a way back; 3600")),
    )
    .post("/v1/rebuilds/{name}/pause", does::pause, act("Stop feeding the new generation for now", &done))
    .post("/v1/rebuilds/{name}/resume", does::resume, act("Feed it again", &done))
    .post("/v1/rebuilds/{name}/abort", does::abort, act("End a rebuild before it is live", &done))
    .post(
        "/v1/rebuilds/{name}/promote",
        does::promote,
        act("Let a verified generation go live", &begun).may("despite_differences", flag()),
    )
    .post(
        "/v1/rollback",
        does::roll_back,
        act("Go back to the generations that were live before, all at one barrier, or none", &begun)
            .with("read_models", names()),
    )
    .post(
        "/v1/read-models/{name}/retire",
        does::retire,
        act("Give up the former generation before its time for a rollback is over", &done),
    )
    .post(
        "/v1/read-models/{name}/repair",
        does::repair,
        act("Build a read model anew whose place was lost or spoilt", &begun).may("from", from()),
    )
    .post(
        "/v1/read-models/{name}/make-anew",
        does::make_anew,
        act("Make one document anew from its aggregate's events", &[("outcome", json!({})), ("answer", json!({}))])
            .with("key", text()),
    )
}

fn log(api: Api) -> Api {
    let shown = [("filter", text())];
    api.get("/v1/log", shows::log, look("Which log lines this host prints, as RUST_LOG says it", &shown)).put(
        "/v1/log",
        does::log,
        act("Print other log lines on this host, until it is started again", &shown).with(
            "filter",
            json!({"type": "string", "description": "such as `info`, or `info,projector::host=debug`"}),
        ),
    )
}

fn letters(api: Api) -> Api {
    let answers = [("dead_letters", list(&thing()))];
    let name = || json!({"type": ["string", "null"], "description": "needed where several have parked the same event"});
    let uuids = json!({"type": "array", "items": {"type": "string", "format": "uuid"}});
    api.post(
        "/v1/dead-letters/retry",
        asks::retry,
        act("Try dead letters again: those named, or all of a read model", &answers)
            .may("ids", uuids)
            .may("read_model", name())
            .may("no_wait", flag()),
    )
    .post(
        "/v1/dead-letters/{id}/skip",
        asks::skip,
        act("Pass over one for good; kept in the log, with the reason", &answers)
            .may("read_model", name())
            .may("no_wait", flag()),
    )
    .post(
        "/v1/epochs/accept",
        asks::accept_epoch,
        act(
            "Let read models go on with events of a new epoch",
            &[("epoch", text()), ("accepted", flag()), ("new", flag())],
        )
        .with("epoch", text()),
    )
    .post(
        "/v1/connectors/{name}/restart",
        asks::restart,
        act("Start a connector and its tasks again", &[("connector", text()), ("done", text())]),
    )
}
