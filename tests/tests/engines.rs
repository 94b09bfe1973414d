//! Searches answer alike from Elasticsearch 7.17 and from OpenSearch: the same events are projected into both, and every query of the
//! search read models is asked of both with the tokens of what was just written.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    binary, eventually, own_database,
    shop::{Shop, text},
    var,
};
use tokio::process::{Child, Command};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(120);

/// A host and a query service whose search engine is Elasticsearch, with the reference's search read models under other names.
struct Other {
    _host: Child,
    _serve: Child,
    queries: String,
}

impl Other {
    async fn start() -> Result<Self> {
        let control = own_database("engines").await?;
        let suffix = control.rsplit_once('_').context("no suffix")?.1.to_owned();
        let folder = PathBuf::from(var("DEV_RUN_DIR")?).join(format!("engines-{suffix}"));
        fs::create_dir_all(&folder)?;
        let mut searched = 0;
        for file in fs::read_dir(var("PROJECTIONS_DIR")?)? {
            let (path, text) = (file.as_ref().unwrap().path(), fs::read_to_string(file?.path())?);
            if text.contains("\n  elasticsearch:") {
                // Consumer groups and indexes bear the name.
                let (first, rest) = text.split_once('\n').context("a file of one line")?;
                ensure!(first.starts_with("name: "), "{}: {first}", path.display());
                fs::write(folder.join(path.file_name().unwrap()), format!("{first}_{suffix}\n{rest}"))?;
                searched += 1;
            }
        }
        ensure!(searched == 4, "{searched} read models are in the search engine");
        let free = || Ok::<_, anyhow::Error>(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string());
        let (admin, listen, search) = (free()?, free()?, var("ELASTICSEARCH7_URL")?);
        let command = |verb: &str| {
            let mut command = Command::new(binary("projector"));
            command
                .arg(verb)
                .env("CONTROL_DATABASE_URL", &control)
                .env("PROJECTIONS_DIR", &folder)
                .env("ELASTICSEARCH_URL", &search)
                .env("PROJECTOR_ADMIN_LISTEN", &admin)
                .env("PROJECTOR_INSTANCE_ID", format!("engines-{suffix}"))
                .env("QUERY_LISTEN", &listen)
                .kill_on_drop(true);
            command
        };
        let applied = command("apply").output().await?;
        ensure!(applied.status.success(), "apply: {}", String::from_utf8_lossy(&applied.stderr));
        let started = |verb: &str| -> Result<Child> {
            let log = fs::File::create(folder.join(format!("{verb}.log")))?;
            Ok(command(verb).stdout(Stdio::null()).stderr(log).spawn()?)
        };
        let queries = format!("http://{listen}");
        let other = Self { _host: started("run")?, _serve: started("serve")?, queries };
        eventually(&format!("queries at {listen}, see {}", folder.display()), SOON, || async {
            let ready = reqwest::get(format!("{}/health/ready", other.queries)).await?;
            Ok(ready.status().is_success().then_some(()))
        })
        .await?;
        Ok(other)
    }
}

/// What is asked about: words and ids that nothing else has.
struct Goods {
    word: String,
    customer_id: String,
    account: String,
    token: String,
}

/// Three products, some orders of them in all states, and money that moves.
async fn goods(shop: &Shop) -> Result<Goods> {
    let word = format!("q{}", &Uuid::new_v4().simple().to_string()[..7]);
    let mut products = Vec::new();
    for (name, category, price, stock, tags) in [
        ("Brass lantern", "Light", 3_000, 5, json!(["brass", "light"])),
        ("Lantern oil", "Oils", 450, 0, json!(["light"])),
        ("Folding chair", "Chairs", 9_900, 7, json!([])),
    ] {
        let body = json!({"name": format!("{name} {word}"), "description": format!("A {name} that <b>lasts</b> & shines."),
            "category": category, "price_cents": price, "currency": "USD", "stock": stock, "tags": tags});
        products.push(text(&shop.post("/products", &body).await?, "product_id")?);
    }
    for (product, rating) in [(0, 5), (0, 4), (2, 4)] {
        let body = json!({"rating": rating, "customer_id": shop.customer_id});
        shop.post(&format!("/products/{}/reviews", products[product]), &body).await?;
    }
    let customer = json!({"first_name": "Grace", "last_name": word, "email": format!("{word}@example.com"),
        "credit_limit_cents": 100_000_000});
    let customer_id = text(&shop.post("/customers", &customer).await?, "customer_id")?;
    let mut tokens = Vec::new();
    for (n, lines) in [&[(0, 1)][..], &[(2, 1)], &[(0, 1), (2, 2)], &[(2, 3)]].into_iter().enumerate() {
        let items: Vec<Value> =
            lines.iter().map(|(product, n)| json!({"product_id": products[*product], "quantity": n})).collect();
        let body =
            json!({"customer_id": customer_id, "items": items, "shipping_address": {"city": "Bern", "zip": "3011"}});
        let placed = shop.post("/orders", &body).await?;
        let (id, total) = (text(&placed, "order_id")?, placed["total_amount_cents"].clone());
        tokens.push(text(&placed, "consistency_token")?);
        match n {
            0 => tokens.push(shop.act(&id, "cancel", &json!({"reason": "changed her mind"})).await?.token),
            1 => {
                let body = json!({"order_id": id, "amount_cents": total, "currency": "USD", "status": "confirmed"});
                tokens.push(text(&shop.post("/payments", &body).await?, "consistency_token")?);
            }
            _ => {}
        }
    }
    let account = format!("acc-{word}");
    for (n, (verb, command_type, payload)) in [
        ("open", "OPEN_ACCOUNT", json!({"currency": "USD"})),
        ("deposit", "DEPOSIT_FUNDS", json!({"amount_cents": 5_000, "currency": "USD", "reference": "Payroll May"})),
        ("deposit", "DEPOSIT_FUNDS", json!({"amount_cents": 700, "currency": "USD", "reference": "Payroll June"})),
        ("withdraw", "WITHDRAW_FUNDS", json!({"amount_cents": 1_200, "currency": "USD", "description": "Rent"})),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({"command_id": format!("{account}-{n}"), "command_type": command_type, "aggregate_id": account,
            "payload": payload, "created_at": "2026-05-23T10:00:00Z"});
        let answer = shop.post(&format!("/v1/commands/accounts/{verb}"), &body).await?;
        tokens.push(text(&answer, "consistency_token")?);
    }
    // The last change of each product, for the read model of products.
    for product in &products {
        let answer = shop.patch(&format!("/products/{product}"), &json!({"subcategory": "of the test"})).await?;
        tokens.push(text(&answer, "consistency_token")?);
    }
    Ok(Goods { word, customer_id, account, token: tokens.join(",") })
}

fn questions(goods: &Goods) -> Vec<String> {
    let Goods { word, customer_id, account, .. } = goods;
    let mut all: Vec<String> = [
        "sort=newest",
        "sort=oldest",
        "sort=largest",
        "sort=relevance",
        "status=cancelled",
        "status=pending&min_amount=5000",
        "max_amount=9900",
        "interval=week",
        "interval=month",
        "from=2020-01-01&to=2100-01-01",
        "from=2100-01-01",
        "size=1",
        "size=2&page=2",
    ]
    .iter()
    .map(|more| format!("/orders/search?q={word}&{more}"))
    .collect();
    all.extend(["lantern", "chair%20grace", "folding"].map(|words| format!("/orders/search?q={words}%20{word}")));
    // A beginning, a word of two, a slip of the pen, nothing at all.
    let slip = format!("{}x{}", &word[..4], &word[5..]);
    all.extend([&word[..5], word, &slip, "zzzzzzz"].map(|q| format!("/orders/suggest?q={q}")));
    all.push(format!("/orders/suggest?q=lantern%20{}", &word[..4]));
    all.extend(
        ["", "q=chair", "q=chair%20lantern", "status=pending", "size=1"]
            .map(|more| format!("/customers/{customer_id}/orders?{more}")),
    );
    all.extend(
        [
            "sort=rating",
            "sort=relevance",
            "sort=cheapest",
            "sort=dearest",
            "sort=newest",
            "sort=name",
            "category=Light",
            "tag=light",
            "min_price=500&max_price=5000",
            "in_stock=true",
            "in_stock=false",
            "size=1",
        ]
        .map(|more| format!("/products/search?q={word}&{more}")),
    );
    all.extend(["lantern", "light", "shines", "nothing"].map(|words| format!("/products/search?q={words}%20{word}")));
    all.extend(
        ["", "q=payroll", "q=june%20payroll", "q=rent", "size=1"]
            .map(|more| format!("/v1/queries/accounts/{account}/transactions?{more}")),
    );
    all.push(format!("/v1/queries/accounts/{account}/summary"));
    all
}

/// An answer without what may differ: how long it took, and what a cursor looks like. Gives the cursor too.
async fn ask(queries: &str, path: &str, token: &str) -> Result<(Value, Option<String>)> {
    let url = format!("{queries}{path}{}wait_ms=5000", if path.contains('?') { "&" } else { "?" });
    let answer = reqwest::Client::new().get(&url).header("Consistency-Token", token).send().await?;
    let status = answer.status();
    let mut body: Value = answer.json().await?;
    ensure!(status.is_success(), "{url}: {status} {body}");
    let fields = body.as_object_mut().context("no object")?;
    fields.remove("took_ms");
    let cursor = fields.remove("next_cursor").and_then(|cursor| cursor.as_str().map(str::to_owned));
    Ok((body, cursor))
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn both_engines_answer_alike() -> Result<()> {
    let shop = Shop::open().await?;
    let goods = goods(&shop).await?;
    let (opensearch, other) = (var("QUERY_URL")?, Other::start().await?);
    // Until the other host has read all topics from their beginning.
    eventually("Elasticsearch has what was written", SOON, || async {
        for path in
            ["/orders/search?q=x", "/products/search?q=x", &format!("/v1/queries/accounts/{}/summary", goods.account)]
        {
            ask(&other.queries, path, &goods.token).await?;
        }
        Ok(Some(()))
    })
    .await?;
    let (mut differ, mut found, mut pages) = (Vec::new(), 0, 0);
    for path in questions(&goods) {
        let (mut left, mut right) = (None, None);
        loop {
            let next = |cursor: &Option<String>| match cursor {
                Some(cursor) => format!("{path}&cursor={cursor}"),
                None => path.clone(),
            };
            let (a, after_a) = ask(&opensearch, &next(&left), &goods.token).await?;
            let (b, after_b) = ask(&other.queries, &next(&right), &goods.token).await?;
            found += usize::from(a.to_string().contains(&goods.word));
            pages += 1;
            if a != b || after_a.is_some() != after_b.is_some() {
                differ.push(format!("{path}\n  OpenSearch    {a}\n  Elasticsearch {b}"));
                break;
            }
            (left, right) = (after_a, after_b);
            if left.is_none() || !path.contains("size=1") {
                break;
            }
        }
    }
    ensure!(found > 30, "only {found} of {pages} answers hold what was written: that proves little");
    ensure!(differ.is_empty(), "{} of {pages} answers differ:\n{}", differ.len(), differ.join("\n"));
    Ok(())
}
