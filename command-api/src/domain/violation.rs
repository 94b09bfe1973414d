//! Every rule that can refuse a command, by name.

use uuid::Uuid;

/// A broken rule. The text is for people; [`Violation::name`] is stable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum Violation {
    #[error("customer {0} does not exist")]
    UnknownCustomer(Uuid),
    #[error("customer {0} is not active")]
    CustomerInactive(Uuid),
    #[error("unpaid orders would come to {would_owe_cents} cents, above the credit limit of {limit_cents} cents")]
    CreditLimitExceeded { would_owe_cents: i64, limit_cents: i64 },
    #[error("product {0} does not exist")]
    UnknownProduct(Uuid),
    #[error("product {product_id} costs {actual_cents} cents, not {sent_cents} cents")]
    PriceChanged { product_id: Uuid, sent_cents: i64, actual_cents: i64 },
    #[error("product {product_id} has {available} available, {wanted} wanted")]
    InsufficientStock { product_id: Uuid, available: i64, wanted: i64 },
    #[error("{delta} would leave {on_hand} on hand, fewer than the {reserved} that orders have reserved")]
    StockBelowReserved { delta: i64, on_hand: i64, reserved: i64 },
    #[error("an order needs at least one item")]
    NoItems,
    #[error("a quantity must be above 0, not {0}")]
    QuantityNotPositive(i64),
    #[error("an order's total must be at least {minimum_cents} cents, not {total_cents} cents")]
    TotalBelowMinimum { total_cents: i64, minimum_cents: i64 },
    #[error("account {0} does not exist")]
    UnknownAccount(String),
    #[error("account {0} exists already")]
    AccountExists(String),
    #[error("account {0} is locked")]
    AccountLocked(String),
    #[error("account {0} is not locked")]
    AccountNotLocked(String),
    #[error("account {0} is closed")]
    AccountClosed(String),
    #[error("account {account_id} is in {account}, not in {sent}")]
    AccountCurrency { account_id: String, account: String, sent: String },
    #[error("{amount_cents} cents are more than the balance of {balance_cents} cents")]
    InsufficientFunds { amount_cents: i64, balance_cents: i64 },
    #[error("only an empty account can be closed; there are {balance_cents} cents on it")]
    BalanceNotZero { balance_cents: i64 },
    #[error("a transfer needs two accounts")]
    TransferToItself,
    #[error("a rating is from 1 to 5, not {0}")]
    RatingOutOfRange(i64),
    #[error("the amount is larger than any that can be booked")]
    AmountTooLarge,
    #[error("all products of an order must have one currency: {0} and {1}")]
    MixedCurrencies(String, String),
    #[error("order {0} does not exist")]
    UnknownOrder(Uuid),
    #[error("an order that is {status} can't be {action}")]
    OrderStatus { status: &'static str, action: &'static str },
    #[error("the order has no item {0}")]
    UnknownItem(Uuid),
    #[error("without this item the order would be paid in full or overpaid; refund first")]
    PaidForItems,
    #[error("an amount must be above 0, not {0}")]
    AmountNotPositive(i64),
    #[error("the order is in {order}, the payment in {payment}")]
    CurrencyMismatch { order: String, payment: String },
    #[error("{amount_cents} cents are more than the {open_cents} cents that are still to pay")]
    Overpayment { amount_cents: i64, open_cents: i64 },
    #[error("payment {0} exists already")]
    PaymentExists(Uuid),
    #[error("the order has no confirmed payment {0}")]
    UnknownPayment(Uuid),
    #[error("{amount_cents} cents are more than the {left_cents} cents that can be refunded of one payment")]
    RefundExceedsPayment { amount_cents: i64, left_cents: i64 },
}

impl Violation {
    /// The rule's stable name, the last part of the problem's type.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::UnknownCustomer(_) => "unknown-customer",
            Self::CustomerInactive(_) => "customer-inactive",
            Self::CreditLimitExceeded { .. } => "credit-limit-exceeded",
            Self::UnknownProduct(_) => "unknown-product",
            Self::PriceChanged { .. } => "price-changed",
            Self::InsufficientStock { .. } => "insufficient-stock",
            Self::StockBelowReserved { .. } => "stock-below-reserved",
            Self::NoItems => "no-items",
            Self::QuantityNotPositive(_) => "quantity-not-positive",
            Self::TotalBelowMinimum { .. } => "total-below-minimum",
            Self::UnknownAccount(_) => "unknown-account",
            Self::AccountExists(_) => "account-exists",
            Self::AccountLocked(_) => "account-locked",
            Self::AccountNotLocked(_) => "account-not-locked",
            Self::AccountClosed(_) => "account-closed",
            Self::InsufficientFunds { .. } => "insufficient-funds",
            Self::BalanceNotZero { .. } => "balance-not-zero",
            Self::TransferToItself => "transfer-to-itself",
            Self::RatingOutOfRange(_) => "rating-out-of-range",
            Self::AmountTooLarge => "amount-too-large",
            Self::MixedCurrencies(..) => "mixed-currencies",
            Self::UnknownOrder(_) => "unknown-order",
            Self::OrderStatus { .. } => "order-status",
            Self::UnknownItem(_) => "unknown-item",
            Self::PaidForItems => "paid-for-items",
            Self::AmountNotPositive(_) => "amount-not-positive",
            Self::CurrencyMismatch { .. } | Self::AccountCurrency { .. } => "currency-mismatch",
            Self::Overpayment { .. } => "overpayment",
            Self::PaymentExists(_) => "payment-exists",
            Self::UnknownPayment(_) => "unknown-payment",
            Self::RefundExceedsPayment { .. } => "refund-exceeds-payment",
        }
    }
}
