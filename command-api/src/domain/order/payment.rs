//! Payments of an order, as the payment provider reports them.

use uuid::Uuid;

use super::{Order, OrderEvent, Payment, PaymentStatus, Status};
use crate::domain::{Time, Violation};

/// A payment that was made, was tried, or is given back.
#[derive(Clone, Debug)]
pub struct NewPayment {
    /// The payment. For a refund the one to give back; without it, the last one that is large enough.
    pub payment_id: Option<Uuid>,
    /// How much.
    pub amount_cents: i64,
    /// Must be the order's.
    pub currency: String,
    /// What came of it.
    pub outcome: PaymentOutcome,
}

/// What came of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaymentOutcome {
    /// The money is here.
    Confirmed,
    /// It didn't work, and perhaps why.
    Failed(Option<String>),
    /// The money goes back.
    Refunded,
}

impl Order {
    /// Books a payment. `minted` is the id of a payment that came without one.
    ///
    /// # Errors
    /// The first rule that forbids it.
    pub fn pay(&self, payment: NewPayment, minted: Uuid, now: Time) -> Result<OrderEvent, Violation> {
        if payment.amount_cents <= 0 {
            return Err(Violation::AmountNotPositive(payment.amount_cents));
        }
        if payment.currency != self.currency {
            return Err(Violation::CurrencyMismatch { order: self.currency.clone(), payment: payment.currency });
        }
        match payment.outcome {
            PaymentOutcome::Refunded => self.refund(payment.payment_id, payment.amount_cents, now),
            PaymentOutcome::Confirmed => {
                let payment_id = self.new_payment(payment.payment_id, minted)?;
                self.confirm_payment(payment_id, payment.amount_cents, now)
            }
            PaymentOutcome::Failed(reason) => {
                self.must_not_be_cancelled()?;
                Ok(OrderEvent::PaymentFailed {
                    order_id: self.order_id,
                    payment_id: self.new_payment(payment.payment_id, minted)?,
                    amount_cents: payment.amount_cents,
                    currency: payment.currency,
                    reason,
                    processed_at: now,
                })
            }
        }
    }

    fn confirm_payment(&self, payment_id: Uuid, amount_cents: i64, now: Time) -> Result<OrderEvent, Violation> {
        self.must_not_be_cancelled()?;
        let open_cents = self.total_amount_cents - self.paid_cents;
        if amount_cents > open_cents {
            return Err(Violation::Overpayment { amount_cents, open_cents });
        }
        let complete = amount_cents == open_cents && self.status == Status::Pending;
        Ok(OrderEvent::PaymentConfirmed {
            order_id: self.order_id,
            payment_id,
            amount_cents,
            currency: self.currency.clone(),
            paid_cents: self.paid_cents + amount_cents,
            order_status: if complete { Status::Confirmed } else { self.status },
            processed_at: now,
        })
    }

    fn refund(&self, payment_id: Option<Uuid>, amount_cents: i64, now: Time) -> Result<OrderEvent, Violation> {
        let payment =
            match payment_id {
                Some(id) => {
                    let known = self.payments.iter().find(|p| p.payment_id == id && p.status != PaymentStatus::Failed);
                    known.ok_or(Violation::UnknownPayment(id))?
                }
                None => self.payments.iter().rev().find(|p| p.left_cents() >= amount_cents).ok_or_else(|| {
                    Violation::RefundExceedsPayment { amount_cents, left_cents: self.left_cents_max() }
                })?,
            };
        let left_cents = payment.left_cents();
        if amount_cents > left_cents {
            return Err(Violation::RefundExceedsPayment { amount_cents, left_cents });
        }
        // A cancellation took all the revenue there was.
        let cancelled = self.status == Status::Cancelled;
        Ok(OrderEvent::PaymentRefunded {
            order_id: self.order_id,
            payment_id: payment.payment_id,
            amount_cents,
            currency: self.currency.clone(),
            revenue_reversed_cents: if cancelled { 0 } else { amount_cents },
            order_status: self.status,
            placed_at: self.placed_at,
            processed_at: now,
        })
    }

    fn new_payment(&self, sent: Option<Uuid>, minted: Uuid) -> Result<Uuid, Violation> {
        match sent {
            Some(id) if self.payments.iter().any(|known| known.payment_id == id) => Err(Violation::PaymentExists(id)),
            Some(id) => Ok(id),
            None => Ok(minted),
        }
    }

    fn must_not_be_cancelled(&self) -> Result<(), Violation> {
        self.must_be(&[Status::Pending, Status::Confirmed, Status::Shipped, Status::Delivered], "paid")
    }

    fn left_cents_max(&self) -> i64 {
        self.payments.iter().map(Payment::left_cents).max().unwrap_or(0)
    }
}
