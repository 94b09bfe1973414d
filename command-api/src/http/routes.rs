//! Every endpoint, with what it takes and gives.

use axum::extract::State;
use serde_json::{Value as Json, json};

use super::openapi::schema::{array, currency, example, filled, integer, object, one_of, or_null, text, time, uuid};
use super::openapi::{Api, Operation, Verb};
use super::request::{Ask, CENTS_MAX, TEXT_CHARS_MAX};
use super::{accounts, customers, health, orders, products, streams};
use crate::store::Store;

const ID: &str = "0198a5c0-0000-7000-8000-000000000001";

fn words() -> Json {
    filled(TEXT_CHARS_MAX)
}

fn cents() -> Json {
    integer(0, CENTS_MAX)
}

fn any_integer() -> Json {
    integer(i64::MIN, i64::MAX)
}

pub(super) fn api() -> Api {
    streams(accounts(payments(orders(products(customers(Api::default()))))))
        .on(
            Verb::Get,
            "/health/live",
            health::live,
            Operation::look("Whether the process runs", json!({"type": "object"})),
        )
        .on(
            Verb::Get,
            "/health/ready",
            health::ready,
            Operation::look("Whether it reaches its database", json!({"type": "object"})),
        )
}

fn customers(api: Api) -> Api {
    let reply = [("customer_id", uuid()), ("name", text()), ("active", json!({"type": "boolean"}))];
    let names = [("name", words()), ("first_name", words()), ("last_name", text())];
    let mut body = object(&[("email", words())], &[&names[..], &[("credit_limit_cents", cents())]].concat());
    body["oneOf"] = json!([{"required": ["name"]}, {"required": ["first_name", "last_name"]}]);
    let new = example(
        body,
        json!({"first_name": "Ada", "last_name": "King", "email": "ada@example.org", "credit_limit_cents": 500_000}),
    );
    let more = [
        ("email", words()),
        ("credit_limit_cents", cents()),
        ("active", json!({"type": "boolean", "description": "can only become false"})),
        ("reason", text()),
    ];
    let patch = example(object(&[], &[&names[..], &more[..]].concat()), json!({"email": "king@example.org"}));
    api.on(
        Verb::Post,
        "/customers",
        customers::register,
        Operation::command("Register a customer", 201, &reply).body(new),
    )
    .on(
        Verb::Patch,
        "/customers/{id}",
        customers::change,
        Operation::command("Change or deactivate a customer", 200, &reply).body(patch),
    )
}

fn products(api: Api) -> Api {
    let reply = [("product_id", uuid()), ("price_cents", cents()), ("available", any_integer())];
    let details = [("subcategory", text()), ("description", text()), ("image_url", text())];
    let tags = array(&words(), products::TAGS_MAX);
    let new = example(
        object(
            &[("name", words()), ("category", words()), ("price_cents", cents()), ("currency", currency())],
            &details,
        ),
        json!({"name": "Copper kettle", "category": "Kitchen", "price_cents": 4_900, "currency": "USD", "tags": ["copper"], "stock": 12}),
    );
    let mut new = new;
    // Absent or a value: null is neither.
    new["properties"]["tags"] = tags.clone();
    new["properties"]["stock"] = cents();
    let more = [("name", words()), ("category", words()), ("tags", tags), ("price_cents", cents())];
    let patch = example(object(&[], &[&details[..], &more[..]].concat()), json!({"price_cents": 5_200}));
    let stock = example(
        object(&[("delta", any_integer()), ("reason", words())], &[]),
        json!({"delta": -2, "reason": "broken"}),
    );
    let review = example(
        object(&[("customer_id", uuid()), ("rating", integer(1, 5))], &[("text", text())]),
        json!({"customer_id": ID, "rating": 5, "text": "boils"}),
    );
    let reviewed = [("product_id", uuid()), ("review_id", uuid()), ("review_count", any_integer())];
    api.on(Verb::Post, "/products", products::create, Operation::command("Create a product", 201, &reply).body(new))
        .on(
            Verb::Patch,
            "/products/{id}",
            products::change,
            Operation::command("Describe or price a product anew", 200, &reply).body(patch),
        )
        .on(
            Verb::Post,
            "/products/{id}/stock",
            products::adjust_stock,
            Operation::command("Add or take pieces", 200, &reply).body(stock),
        )
        .on(
            Verb::Post,
            "/products/{id}/reviews",
            products::review,
            Operation::command("Review a product", 201, &reviewed).body(review),
        )
}

fn orders(api: Api) -> Api {
    let reply = [
        ("order_id", uuid()),
        ("status", text()),
        ("item_count", any_integer()),
        ("total_amount_cents", any_integer()),
        ("currency", currency()),
    ];
    let item = object(&[("product_id", uuid()), ("quantity", any_integer())], &[("price_cents", any_integer())]);
    let address = object(&[("city", words()), ("zip", words())], &[("street", text()), ("country", text())]);
    let placed = example(
        object(
            &[("customer_id", uuid()), ("items", array(&item, orders::ITEMS_MAX)), ("shipping_address", address)],
            &[],
        ),
        json!({"customer_id": ID, "items": [{"product_id": ID, "quantity": 2}],
               "shipping_address": {"city": "Zurich", "zip": "8001"}}),
    );
    let item = example(item, json!({"product_id": ID, "quantity": 1}));
    let added: Vec<_> = reply.iter().cloned().chain([("item_id", uuid())]).collect();
    let reason = example(object(&[("reason", words())], &[]), json!({"reason": "changed my mind"}));
    let tracking = example(object(&[("tracking_number", words())], &[]), json!({"tracking_number": "TRK1"}));
    let post = |summary, status| Operation::command(summary, status, &reply);
    api.on(Verb::Post, "/orders", orders::place, post("Place an order", 201).body(placed))
        .on(
            Verb::Post,
            "/orders/{id}/items",
            orders::add_item,
            Operation::command("Add a line to a pending order", 201, &added).body(item),
        )
        .on(
            Verb::Delete,
            "/orders/{id}/items/{item_id}",
            orders::remove_item,
            post("Take a line out of a pending order", 200),
        )
        .on(Verb::Post, "/orders/{id}/cancel", orders::cancel, post("Call an order off", 200).body(reason))
        .on(Verb::Post, "/orders/{id}/ship", orders::ship, post("Hand a paid order to the carrier", 200).body(tracking))
        .on(Verb::Post, "/orders/{id}/deliver", orders::deliver, post("The customer has it", 200))
}

fn payments(api: Api) -> Api {
    let reply = [
        ("payment_id", uuid()),
        ("order_id", uuid()),
        ("status", text()),
        ("order_status", text()),
        ("paid_cents", any_integer()),
    ];
    let mut body = object(
        &[("order_id", uuid()), ("amount_cents", any_integer()), ("currency", currency())],
        &[("payment_id", uuid()), ("reason", text())],
    );
    body["properties"]["status"] = one_of(&["confirmed", "failed", "refunded"]);
    let body = example(body, json!({"order_id": ID, "amount_cents": 4_900, "currency": "USD", "status": "confirmed"}));
    api.on(
        Verb::Post,
        "/payments",
        orders::pay,
        Operation::command("Book a payment, a failed one, or a refund", 201, &reply).body(body),
    )
}

fn accounts(mut api: Api) -> Api {
    let reply = [("aggregate_id", text()), ("last_updated_sequence", any_integer())];
    let money = [("amount_cents", any_integer()), ("currency", currency())];
    let about = [("description", text()), ("reference", text())];
    let reason = object(&[], &[("reason", text())]);
    for (verb, command_type) in accounts::VERBS {
        let (payload, sample) = match verb {
            "open" => (object(&[("currency", currency())], &[("owner_name", text())]), json!({"currency": "USD"})),
            "deposit" | "withdraw" => (
                object(&money, &about),
                json!({"amount_cents": 50_000, "currency": "USD", "reference": "Payroll deposit"}),
            ),
            "transfer" => (
                object(&[&money[..], &[("to_account_id", filled(accounts::ID_CHARS_MAX))]].concat(), &about),
                json!({"amount_cents": 50_000, "currency": "USD", "to_account_id": "acc-998812"}),
            ),
            _ => (or_null(reason.clone()), json!({})),
        };
        let id = || filled(accounts::ID_CHARS_MAX);
        let mut required = vec![
            ("command_id", id()),
            ("command_type", json!({"type": "string", "const": command_type})),
            ("aggregate_id", id()),
            ("created_at", time()),
        ];
        let bare = payload["type"].is_array();
        let mut body = if bare {
            let mut body = object(&required, &[]);
            body["properties"]["payload"] = payload;
            body
        } else {
            required.push(("payload", payload));
            object(&required, &[])
        };
        body = example(
            body,
            json!({"command_id": format!("cmd-880099-{verb}"), "command_type": command_type,
                   "aggregate_id": "acc-998811", "payload": sample, "created_at": "2026-05-23T10:00:00.123Z"}),
        );
        let status = if verb == "open" { 201 } else { 200 };
        let operation = Operation::command(accounts::summary(verb), status, &reply).body(body);
        let path = format!("/v1/commands/accounts/{verb}");
        let handler = move |State(store): State<Store>, ask: Ask<accounts::Envelope>| async move {
            accounts::command(&store, verb, command_type, ask).await
        };
        api = api.on(Verb::Post, &path, handler, operation);
    }
    api
}

fn streams(api: Api) -> Api {
    let state = json!({"type": "object", "required": ["stream_id", "position", "occurred_at", "state"]});
    let events = json!({"type": "object", "required": ["stream_id", "events", "next_after"]});
    api.on(
        Verb::Get,
        "/v1/streams/{id}/events",
        streams::events,
        Operation::look("A stream's history: what, when, by whom", events)
            .query("after", "the position after which to begin, 0 by default")
            .query("limit", "how many at most, 100 by default, 1,000 at most"),
    )
    .on(
        Verb::Get,
        "/v1/streams/{id}/state",
        streams::state,
        Operation::look("A stream's state, now or then", state)
            .query("at", "a position, or a time such as 2026-05-23T10:00:00Z"),
    )
}
