//! Given an order, when a command comes, then these events or this rule.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;
use crate::domain::Aggregate;
use crate::domain::customer::{self, Name};
use crate::domain::product::tests::product;

const T: Time = Time::UNIX_EPOCH;

fn customer(limit: Option<i64>) -> Customer {
    let registered =
        customer::register(Uuid::nil(), Name::Whole("Ada".to_owned()), "ada@example.com".to_owned(), limit);
    Customer::evolve(None, &registered, T).unwrap()
}

fn catalogue() -> Vec<Product> {
    vec![product(1, 400, 100), product(2, 300, 100)]
}

fn item(product: u128, quantity: i64) -> NewItem {
    NewItem {
        item_id: Uuid::from_u128(product * 10),
        product_id: Uuid::from_u128(product),
        quantity,
        price_cents: None,
    }
}

fn place_with(items: Vec<NewItem>, customer: &Customer, unpaid_cents: i64) -> Result<OrderEvent, Violation> {
    let shipping_address =
        ShippingAddress { street: None, city: "Zurich".to_owned(), zip: "8001".to_owned(), country: None };
    place(PlaceOrder { order_id: Uuid::from_u128(7), items, shipping_address }, customer, unpaid_cents, &catalogue(), T)
}

/// 2 × 400 + 1 × 300 = 1,100 cents.
fn placed() -> Order {
    let event = place_with(vec![item(1, 2), item(2, 1)], &customer(None), 0).unwrap();
    Order::evolve(None, &event, T).unwrap()
}

fn when(order: &Order, event: Result<OrderEvent, Violation>) -> Order {
    Order::evolve(Some(order.clone()), &event.unwrap(), T).unwrap()
}

fn money(amount_cents: i64, outcome: PaymentOutcome) -> NewPayment {
    NewPayment { payment_id: None, amount_cents, currency: "USD".to_owned(), outcome }
}

fn pay(order: &Order, amount_cents: i64, id: u128) -> Order {
    when(order, order.pay(money(amount_cents, PaymentOutcome::Confirmed), Uuid::from_u128(id), T))
}

fn refund(order: &Order, amount_cents: i64) -> Result<OrderEvent, Violation> {
    order.pay(money(amount_cents, PaymentOutcome::Refunded), Uuid::nil(), T)
}

fn broken(action: &'static str, status: &'static str) -> Violation {
    Violation::OrderStatus { status, action }
}

#[test]
fn an_order_totals_its_lines_and_reserves_by_product() {
    let order = placed();
    assert_eq!((order.total_amount_cents, order.status, order.version), (1_100, Status::Pending, 1));
    assert_eq!(order.items.iter().map(|line| line.position).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(order.quantities().into_iter().collect::<Vec<_>>(), [(Uuid::from_u128(1), 2), (Uuid::from_u128(2), 1)]);
}

#[test]
fn placing_follows_every_rule() {
    let anyone = customer(None);
    let seen = |price| NewItem { price_cents: Some(price), ..item(1, 3) };
    let changed = Violation::PriceChanged { product_id: Uuid::from_u128(1), sent_cents: 399, actual_cents: 400 };
    let credit = Violation::CreditLimitExceeded { would_owe_cents: 1_201, limit_cents: 1_200 };
    for (items, customer, unpaid, rule) in [
        (vec![], &anyone, 0, Violation::NoItems),
        (vec![item(1, 0)], &anyone, 0, Violation::QuantityNotPositive(0)),
        (vec![item(1, 5), item(2, -1)], &anyone, 0, Violation::QuantityNotPositive(-1)),
        (vec![item(9, 5)], &anyone, 0, Violation::UnknownProduct(Uuid::from_u128(9))),
        (vec![seen(399)], &anyone, 0, changed),
        (
            vec![item(1, 1), item(2, 1)],
            &anyone,
            0,
            Violation::TotalBelowMinimum { total_cents: 700, minimum_cents: 1_000 },
        ),
        (vec![item(1, i64::MAX)], &anyone, 0, Violation::AmountTooLarge),
        (vec![item(1, 3)], &customer(Some(1_200)), 1, credit),
    ] {
        assert_eq!(place_with(items, customer, unpaid).unwrap_err(), rule);
    }
    place_with(vec![seen(400)], &customer(Some(1_200)), 0).unwrap();
}

#[test]
fn products_of_two_currencies_do_not_share_an_order() {
    let mut products = catalogue();
    products[1].currency = "EUR".to_owned();
    assert!(matches!(items::currency(&[item(1, 1), item(2, 1)], &products), Err(Violation::MixedCurrencies(..))));
}

#[test]
fn an_order_is_paid_in_parts_and_never_overpaid() {
    let order = pay(&placed(), 500, 1);
    assert_eq!((order.status, order.paid_cents), (Status::Pending, 500));
    let overpaid = Violation::Overpayment { amount_cents: 601, open_cents: 600 };
    assert_eq!(order.pay(money(601, PaymentOutcome::Confirmed), Uuid::nil(), T), Err(overpaid));
    let order = pay(&order, 600, 2);
    assert_eq!((order.status, order.paid_cents, order.version), (Status::Confirmed, 1_100, 3));
    let overpaid = Violation::Overpayment { amount_cents: 1, open_cents: 0 };
    assert_eq!(order.pay(money(1, PaymentOutcome::Confirmed), Uuid::nil(), T), Err(overpaid));
}

#[test]
fn payments_are_checked_for_amount_currency_and_id() {
    let order = pay(&placed(), 500, 1);
    assert_eq!(order.pay(money(0, PaymentOutcome::Confirmed), Uuid::nil(), T), Err(Violation::AmountNotPositive(0)));
    let euros = NewPayment { currency: "EUR".to_owned(), ..money(100, PaymentOutcome::Confirmed) };
    assert_eq!(order.pay(euros, Uuid::nil(), T).unwrap_err().name(), "currency-mismatch");
    let again = NewPayment { payment_id: Some(Uuid::from_u128(1)), ..money(100, PaymentOutcome::Confirmed) };
    assert_eq!(order.pay(again, Uuid::nil(), T), Err(Violation::PaymentExists(Uuid::from_u128(1))));
}

#[test]
fn a_failed_payment_changes_nothing_but_is_remembered() {
    let order = placed();
    let order = when(&order, order.pay(money(1_100, PaymentOutcome::Failed(None)), Uuid::from_u128(1), T));
    assert_eq!((order.status, order.paid_cents, order.payments.len(), order.version), (Status::Pending, 0, 1, 2));
    assert_eq!(refund(&order, 1).unwrap_err(), Violation::RefundExceedsPayment { amount_cents: 1, left_cents: 0 });
}

#[test]
fn revenue_is_reversed_once_whether_refund_or_cancellation_comes_first() {
    let paid = pay(&placed(), 1_100, 1);
    let refunded = when(&paid, refund(&paid, 300));
    assert_eq!((refunded.revenue_reversed_cents, refunded.status), (300, Status::Confirmed));
    let cancelled = when(&refunded, refunded.cancel("no".to_owned(), T));
    assert_eq!(cancelled.revenue_reversed_cents, 1_100);
    let OrderEvent::OrderCancelled { revenue_reversed_cents, .. } = refunded.cancel("no".to_owned(), T).unwrap() else {
        panic!()
    };
    assert_eq!(revenue_reversed_cents, 800);

    let cancelled = when(&paid, paid.cancel("no".to_owned(), T));
    let refunded = when(&cancelled, refund(&cancelled, 1_100));
    assert_eq!((refunded.revenue_reversed_cents, refunded.payments[0].status), (1_100, PaymentStatus::Refunded));
    assert_eq!(refunded.payments[0].revenue_reversed_cents, 0);
    assert_eq!(refund(&refunded, 1).unwrap_err().name(), "refund-exceeds-payment");
}

#[test]
fn a_refund_names_its_payment_or_takes_the_last_that_is_large_enough() {
    let order = pay(&pay(&placed(), 700, 1), 400, 2);
    let OrderEvent::PaymentRefunded { payment_id, .. } = refund(&order, 500).unwrap() else { panic!() };
    assert_eq!(payment_id, Uuid::from_u128(1));
    let named = |id| NewPayment { payment_id: Some(Uuid::from_u128(id)), ..money(500, PaymentOutcome::Refunded) };
    assert_eq!(order.pay(named(9), Uuid::nil(), T), Err(Violation::UnknownPayment(Uuid::from_u128(9))));
    let broken = Violation::RefundExceedsPayment { amount_cents: 500, left_cents: 400 };
    assert_eq!(order.pay(named(2), Uuid::nil(), T), Err(broken));
}

#[test]
fn only_a_paid_order_ships_and_only_a_shipped_one_arrives() {
    let order = placed();
    assert_eq!(order.ship("T".to_owned(), T), Err(broken("shipped", "pending")));
    assert_eq!(order.deliver(T), Err(broken("delivered", "pending")));
    let order = pay(&order, 1_100, 1);
    let order = when(&order, order.ship("T".to_owned(), T));
    assert_eq!((order.status, order.tracking_number.as_deref()), (Status::Shipped, Some("T")));
    assert_eq!(order.cancel("late".to_owned(), T), Err(broken("cancelled", "shipped")));
    let order = when(&order, order.deliver(T));
    assert_eq!(order.deliver(T), Err(broken("delivered", "delivered")));
}

#[test]
fn a_cancelled_order_is_neither_paid_nor_cancelled_again() {
    let order = placed();
    let order = when(&order, order.cancel("no".to_owned(), T));
    assert_eq!(order.pay(money(1_100, PaymentOutcome::Confirmed), Uuid::nil(), T), Err(broken("paid", "cancelled")));
    assert_eq!(order.cancel("no".to_owned(), T), Err(broken("cancelled", "cancelled")));
    assert_eq!(order.remove_item(Uuid::from_u128(10)), Err(broken("changed", "cancelled")));
}

#[test]
fn items_change_while_pending_only_and_keep_every_rule() {
    let (order, anyone, limited) = (placed(), customer(None), customer(Some(1_500)));
    let order = when(
        &order,
        order.add_item(&NewItem { item_id: Uuid::from_u128(30), ..item(2, 2) }, &anyone, 1_100, &catalogue()),
    );
    assert_eq!((order.total_amount_cents, order.items.len(), order.items[2].position), (1_700, 3, 3));
    let credit = Violation::CreditLimitExceeded { would_owe_cents: 2_000, limit_cents: 1_500 };
    assert_eq!(order.add_item(&item(2, 1), &limited, 1_700, &catalogue()), Err(credit));
    assert_eq!(order.remove_item(Uuid::from_u128(99)), Err(Violation::UnknownItem(Uuid::from_u128(99))));
    assert_eq!(order.remove_item(Uuid::from_u128(10)).unwrap_err().name(), "total-below-minimum");

    let part = pay(&order, 1_200, 1);
    assert_eq!(part.remove_item(Uuid::from_u128(30)), Err(Violation::PaidForItems));
    let order = when(&order, order.remove_item(Uuid::from_u128(30)));
    assert_eq!((order.total_amount_cents, order.items.len()), (1_100, 2));
    let paid = pay(&order, 1_100, 1);
    assert_eq!(paid.add_item(&item(2, 1), &anyone, 0, &catalogue()), Err(broken("changed", "confirmed")));
}

proptest! {
    /// Whatever is tried, in whatever order.
    #[test]
    fn totals_are_the_lines_and_money_is_bounded(steps in prop::collection::vec((0..7u8, 1..900i64), 0..40)) {
        let mut order = placed();
        for (n, (what, amount)) in (100_u128..).zip(steps) {
            let event = match what {
                0 => order.add_item(&NewItem { item_id: Uuid::from_u128(n), ..item(1, amount % 5) }, &customer(None), 0, &catalogue()),
                1 => order.remove_item(order.items[usize::try_from(amount).unwrap() % order.items.len()].item.item_id),
                2 => order.pay(money(amount, PaymentOutcome::Confirmed), Uuid::from_u128(n), T),
                3 => refund(&order, amount),
                4 => order.cancel(String::new(), T),
                5 => order.ship(String::new(), T),
                _ => order.deliver(T),
            };
            if let Ok(event) = event { order = when(&order, Ok(event)); }
            let lines: i64 = order.items.iter().map(|line| line.item.line_total_cents).sum();
            prop_assert_eq!(order.total_amount_cents, lines);
            prop_assert!(order.total_amount_cents >= TOTAL_CENTS_MIN && !order.items.is_empty());
            prop_assert!((0..=order.total_amount_cents).contains(&order.paid_cents));
            prop_assert!((0..=order.total_amount_cents).contains(&order.revenue_reversed_cents));
            let paid: i64 = order.payments.iter().filter(|p| p.status != PaymentStatus::Failed).map(|p| p.amount_cents).sum();
            prop_assert_eq!(order.paid_cents, paid);
            prop_assert!(order.status != Status::Pending || order.paid_cents < order.total_amount_cents);
        }
    }
}
