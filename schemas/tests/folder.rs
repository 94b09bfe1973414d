//! What this repository's folder of schemas must keep.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use apache_avro::Schema;

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_major_is_compatible_within_itself() {
    schemas::check(&schemas::load(folder()).unwrap()).unwrap();
}

#[test]
fn every_older_major_has_an_upcaster() {
    let files = schemas::load(folder()).unwrap();
    assert_eq!(schemas::missing_upcasters(folder(), &files), Vec::<PathBuf>::new());
    let elsewhere = schemas::missing_upcasters(Path::new("elsewhere"), &files);
    assert_eq!(elsewhere, [Path::new("elsewhere/upcasters/CustomerRegistered.v1.yaml")]);
}

#[test]
fn every_event_of_the_specification_is_here() {
    let files = schemas::load(folder()).unwrap();
    let events: BTreeSet<String> = files.iter().map(|f| format!("{}.{}", f.aggregate, f.event)).collect();
    let expected = [
        (
            "order",
            "OrderPlaced ItemAdded ItemRemoved PaymentConfirmed PaymentFailed PaymentRefunded OrderShipped OrderDelivered OrderCancelled",
        ),
        ("customer", "CustomerRegistered CustomerRenamed CustomerEmailChanged CustomerDeactivated CreditLimitChanged"),
        (
            "product",
            "ProductCreated ProductDetailsChanged PriceChanged StockAdjusted InventoryReserved InventoryReleased ReviewAdded",
        ),
        (
            "account",
            "AccountOpened FundsDeposited FundsWithdrawn AccountLocked AccountUnlocked AccountClosed TransferCompleted",
        ),
    ];
    let expected = expected.iter().flat_map(|(a, events)| events.split(' ').map(move |e| format!("{a}.{e}"))).collect();
    assert_eq!(events, expected);
}

#[test]
fn fields_that_look_personal_are_marked() {
    for file in schemas::load(folder()).unwrap() {
        let Schema::Record(record) = &file.schema else { panic!("{} is no record", file.path.display()) };
        for field in &record.fields {
            let looks = ["email", "customer_name", "first_name", "last_name", "owner_name", "shipping_address"];
            let looks = looks.iter().any(|name| field.name.ends_with(name))
                || file.aggregate == "customer" && field.name.ends_with("name");
            let marked = field.custom_attributes.contains_key("personal");
            assert!(marked || !looks, "{}: {} is not marked", file.path.display(), field.name);
        }
    }
}

#[test]
fn a_planted_incompatible_schema_is_refused_with_the_field_named() {
    let mut files = schemas::load(folder()).unwrap();
    let mut planted = files.iter().find(|file| file.event == "OrderPlaced").unwrap().clone();
    planted.text = planted.text.replace(r#""quantity", "type": "int""#, r#""quantity", "type": "long""#);
    planted.schema = Schema::parse_str(&planted.text).unwrap();
    (planted.minor, planted.path) = (1, "OrderPlaced.v1.1.avsc".into());
    files.push(planted);
    let error = schemas::check(&files).unwrap_err().to_string();
    let expected = "OrderPlaced.v1.1.avsc: OrderPlaced 1.1 isn't compatible with 1.0: `items[].quantity`: type changed from int to long";
    assert_eq!(error, expected);
}
