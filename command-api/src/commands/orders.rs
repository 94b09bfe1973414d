//! Commands on orders, with the stock that they move.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Quantities, move_stock};
use crate::domain::order::{self, NewItem, NewPayment, Order, OrderEvent, PaymentOutcome, PlaceOrder, check_items};
use crate::domain::{Aggregate, Customer, Product, Time, Violation};
use crate::store::streams::stream_id;
use crate::store::{Command, CommandError, UnitOfWork};
use crate::tables::{customers, orders, products};

/// A customer orders.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Place {
    pub customer_id: Uuid,
    pub order: PlaceOrder,
}

impl Command for Place {
    type Answer = Order;

    fn streams(&self) -> Vec<String> {
        let products = self.order.items.iter().map(|item| product(item.product_id));
        products.chain([stream_id(Customer::TYPE, &self.customer_id.to_string())]).collect()
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Order, CommandError> {
        // Before anything is locked: what is wrong in any case.
        check_items(&self.order.items)?;
        let mut quantities = Quantities::new();
        for item in &self.order.items {
            let sum = quantities.entry(item.product_id).or_default();
            *sum = i64::checked_add(*sum, item.quantity).ok_or(Violation::AmountTooLarge)?;
        }
        let customer = customers::lock(unit.connection(), self.customer_id).await?;
        let customer = customer.ok_or(Violation::UnknownCustomer(self.customer_id))?;
        let unpaid_cents = customers::unpaid_cents(unit.connection(), self.customer_id).await?;
        let ids: Vec<Uuid> = quantities.keys().copied().collect();
        let products = products::lock(unit.connection(), &ids).await?;
        let event = order::place(self.order.clone(), &customer, unpaid_cents, &products, unit.now())?;
        let placed: Order = unit.begin_stream(&event)?;
        move_stock(unit, products, &quantities, |product, quantity| product.reserve(placed.order_id, quantity)).await?;
        orders::insert(unit.connection(), &placed).await?;
        Ok(placed)
    }
}

/// A line joins an order.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct AddItem {
    pub order_id: Uuid,
    pub item: NewItem,
}

impl Command for AddItem {
    type Answer = Order;

    fn streams(&self) -> Vec<String> {
        vec![stream(self.order_id), product(self.item.product_id)]
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Order, CommandError> {
        check_items(std::slice::from_ref(&self.item))?;
        let owner = orders::customer_of(unit.connection(), self.order_id).await?.ok_or(not_found(self.order_id))?;
        let customer = customers::lock(unit.connection(), owner).await?.ok_or(Violation::UnknownCustomer(owner))?;
        let before = existing(unit, self.order_id).await?;
        let unpaid_cents = customers::unpaid_cents(unit.connection(), owner).await?;
        let products = products::lock(unit.connection(), &[self.item.product_id]).await?;
        let event = before.add_item(&self.item, &customer, unpaid_cents, &products)?;
        let after = write(unit, before, &event).await?;
        let quantities = BTreeMap::from([(self.item.product_id, self.item.quantity)]);
        move_stock(unit, products, &quantities, |product, quantity| product.reserve(self.order_id, quantity)).await?;
        Ok(after)
    }
}

/// A line leaves an order.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct RemoveItem {
    pub order_id: Uuid,
    pub item_id: Uuid,
}

impl Command for RemoveItem {
    type Answer = Order;

    fn streams(&self) -> Vec<String> {
        vec![stream(self.order_id)]
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Order, CommandError> {
        let before = existing(unit, self.order_id).await?;
        // The path names the item too, so one that isn't there is not found rather than a broken rule.
        let line = before.items.iter().find(|line| line.item.item_id == self.item_id);
        let item = &line.ok_or(CommandError::NotFound { aggregate: "item", id: self.item_id })?.item;
        let quantities = BTreeMap::from([(item.product_id, i64::from(item.quantity))]);
        let event = before.remove_item(self.item_id)?;
        let after = write(unit, before, &event).await?;
        release(unit, self.order_id, &quantities).await?;
        Ok(after)
    }
}

/// An order is called off.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Cancel {
    pub order_id: Uuid,
    pub reason: String,
}

impl Command for Cancel {
    type Answer = Order;

    fn streams(&self) -> Vec<String> {
        vec![stream(self.order_id)]
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Order, CommandError> {
        let before = existing(unit, self.order_id).await?;
        let quantities = before.quantities();
        let event = before.cancel(self.reason.clone(), unit.now())?;
        let after = write(unit, before, &event).await?;
        release(unit, self.order_id, &quantities).await?;
        Ok(after)
    }
}

/// The goods leave.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Ship {
    pub order_id: Uuid,
    pub tracking_number: String,
}

impl Command for Ship {
    type Answer = Order;

    fn streams(&self) -> Vec<String> {
        vec![stream(self.order_id)]
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Order, CommandError> {
        decide(unit, self.order_id, |order, now| order.ship(self.tracking_number.clone(), now)).await
    }
}

/// The goods arrive.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Deliver {
    pub order_id: Uuid,
}

impl Command for Deliver {
    type Answer = Order;

    fn streams(&self) -> Vec<String> {
        vec![stream(self.order_id)]
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Order, CommandError> {
        decide(unit, self.order_id, Order::deliver).await
    }
}

/// A payment is made, tried or given back.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Pay {
    pub order_id: Uuid,
    pub payment: NewPayment,
    /// The payment's id if it came without one.
    pub minted: Uuid,
}

/// What became of a payment.
#[derive(Clone, Debug)]
pub struct Paid {
    /// The payment, or the one that was given back.
    pub payment_id: Uuid,
    /// The order after it.
    pub order: Order,
}

impl Command for Pay {
    type Answer = Paid;

    fn streams(&self) -> Vec<String> {
        vec![stream(self.order_id)]
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Paid, CommandError> {
        // The id stands in the body, so an unknown one is a broken rule.
        let before = orders::lock(unit.connection(), self.order_id).await?;
        let before = before.ok_or(Violation::UnknownOrder(self.order_id))?;
        unit.check_expected(&before)?;
        if let (Some(id), false) = (self.payment.payment_id, self.payment.outcome == PaymentOutcome::Refunded)
            && orders::payment_elsewhere(unit.connection(), id, self.order_id).await?
        {
            return Err(Violation::PaymentExists(id).into());
        }
        let event = before.pay(self.payment.clone(), self.minted, unit.now())?;
        let order = write(unit, before, &event).await?;
        let payment_id = match event {
            OrderEvent::PaymentConfirmed { payment_id, .. }
            | OrderEvent::PaymentFailed { payment_id, .. }
            | OrderEvent::PaymentRefunded { payment_id, .. } => payment_id,
            _ => self.minted,
        };
        Ok(Paid { payment_id, order })
    }
}

fn stream(order: Uuid) -> String {
    stream_id(Order::TYPE, &order.to_string())
}

fn product(id: Uuid) -> String {
    stream_id(Product::TYPE, &id.to_string())
}

fn not_found(id: Uuid) -> CommandError {
    CommandError::NotFound { aggregate: "order", id }
}

async fn existing(unit: &mut UnitOfWork<'_>, id: Uuid) -> Result<Order, CommandError> {
    let order = orders::lock(unit.connection(), id).await?.ok_or(not_found(id))?;
    unit.check_expected(&order)?;
    Ok(order)
}

async fn write(unit: &mut UnitOfWork<'_>, before: Order, event: &OrderEvent) -> Result<Order, CommandError> {
    let after = unit.record(before, std::slice::from_ref(event))?;
    orders::update(unit.connection(), &after).await?;
    Ok(after)
}

async fn decide(
    unit: &mut UnitOfWork<'_>,
    id: Uuid,
    decision: impl Fn(&Order, Time) -> Result<OrderEvent, Violation>,
) -> Result<Order, CommandError> {
    let before = existing(unit, id).await?;
    let event = decision(&before, unit.now())?;
    write(unit, before, &event).await
}

async fn release(unit: &mut UnitOfWork<'_>, order_id: Uuid, quantities: &Quantities) -> Result<(), CommandError> {
    let ids: Vec<Uuid> = quantities.keys().copied().collect();
    let products = products::lock(unit.connection(), &ids).await?;
    move_stock(unit, products, quantities, |product, quantity| Ok(product.release(order_id, quantity))).await
}
