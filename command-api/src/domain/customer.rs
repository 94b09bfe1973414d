//! Customers: who may order, and how much they may owe.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::{Aggregate, Time, Violation};

/// A customer as they are now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the columns of `customers`
pub struct Customer {
    pub customer_id: Uuid,
    pub first_name: String,
    pub last_name: String,
    pub name: String,
    pub email: String,
    pub active: bool,
    pub credit_limit_cents: Option<i64>,
    pub version: i64,
    pub created_at: Time,
    pub updated_at: Time,
    pub deactivated_at: Option<Time>,
}

/// The events of `events.customer`; their fields are documented in `schemas/customer/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data")]
#[allow(missing_docs)]
pub enum CustomerEvent {
    #[serde(rename = "CustomerRegistered.v1")]
    RegisteredV1 { customer_id: Uuid, name: String, email: String, credit_limit_cents: Option<i64> },
    #[serde(rename = "CustomerRegistered.v2")]
    Registered {
        customer_id: Uuid,
        first_name: String,
        last_name: String,
        email: String,
        credit_limit_cents: Option<i64>,
    },
    #[serde(rename = "CustomerRenamed")]
    Renamed { customer_id: Uuid, first_name: String, last_name: String, name: String, previous_name: String },
    #[serde(rename = "CustomerEmailChanged")]
    EmailChanged { customer_id: Uuid, email: String, previous_email: String },
    #[serde(rename = "CustomerDeactivated")]
    Deactivated { customer_id: Uuid, reason: Option<String>, deactivated_at: Time },
    #[serde(rename = "CreditLimitChanged")]
    CreditLimitChanged { customer_id: Uuid, credit_limit_cents: Option<i64>, previous_credit_limit_cents: Option<i64> },
}

/// A name, as clients know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// One text.
    Whole(String),
    /// First and last name apart.
    Parts(String, String),
}

impl Name {
    /// First and last name. A whole is split as `schemas/upcasters/CustomerRegistered.v1.yaml` splits it.
    fn parts(&self) -> (String, String) {
        match self {
            Self::Parts(first, last) => (first.clone(), last.clone()),
            Self::Whole(name) => {
                let (first, last) = name.trim().split_once(' ').unwrap_or((name.trim(), ""));
                (first.to_owned(), last.trim().to_owned())
            }
        }
    }

    fn whole(&self) -> String {
        match self {
            Self::Whole(name) => name.clone(),
            Self::Parts(first, last) => format!("{first} {last}").trim().to_owned(),
        }
    }
}

/// What may change about a customer; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct CustomerChange {
    /// Another name.
    pub name: Option<Name>,
    /// Another e-mail address.
    pub email: Option<String>,
    /// Another credit limit, or none at all.
    pub credit_limit_cents: Option<Option<i64>>,
    /// Deactivates the customer, with a reason.
    pub deactivate: Option<Option<String>>,
}

/// A new customer. A whole name is written as version 1 of the event, one in parts as version 2.
#[must_use]
pub fn register(customer_id: Uuid, name: Name, email: String, credit_limit_cents: Option<i64>) -> CustomerEvent {
    match name {
        Name::Whole(name) => CustomerEvent::RegisteredV1 { customer_id, name, email, credit_limit_cents },
        Name::Parts(first_name, last_name) => {
            CustomerEvent::Registered { customer_id, first_name, last_name, email, credit_limit_cents }
        }
    }
}

impl Customer {
    /// An event for each thing that is another than before.
    ///
    /// # Errors
    /// The customer is not active.
    pub fn change(&self, change: CustomerChange, now: Time) -> Result<Vec<CustomerEvent>, Violation> {
        if !self.active {
            return Err(Violation::CustomerInactive(self.customer_id));
        }
        let customer_id = self.customer_id;
        let mut events = Vec::new();
        if let Some(name) = change.name {
            let ((first_name, last_name), name) = (name.parts(), name.whole());
            if (&first_name, &last_name, &name) != (&self.first_name, &self.last_name, &self.name) {
                let previous_name = self.name.clone();
                events.push(CustomerEvent::Renamed { customer_id, first_name, last_name, name, previous_name });
            }
        }
        if let Some(email) = change.email.filter(|email| *email != self.email) {
            events.push(CustomerEvent::EmailChanged { customer_id, email, previous_email: self.email.clone() });
        }
        if let Some(credit_limit_cents) = change.credit_limit_cents.filter(|limit| *limit != self.credit_limit_cents) {
            let previous_credit_limit_cents = self.credit_limit_cents;
            events.push(CustomerEvent::CreditLimitChanged {
                customer_id,
                credit_limit_cents,
                previous_credit_limit_cents,
            });
        }
        if let Some(reason) = change.deactivate {
            events.push(CustomerEvent::Deactivated { customer_id, reason, deactivated_at: now });
        }
        Ok(events)
    }

    /// Whether this customer may order for so much more.
    ///
    /// # Errors
    /// Not active, or above the credit limit together with what is unpaid.
    pub fn check_order(&self, unpaid_cents: i64, more_cents: i64) -> Result<(), Violation> {
        if !self.active {
            return Err(Violation::CustomerInactive(self.customer_id));
        }
        let would_owe_cents = unpaid_cents.checked_add(more_cents).ok_or(Violation::AmountTooLarge)?;
        match self.credit_limit_cents {
            Some(limit_cents) if would_owe_cents > limit_cents => {
                Err(Violation::CreditLimitExceeded { would_owe_cents, limit_cents })
            }
            _ => Ok(()),
        }
    }
}

impl Aggregate for Customer {
    const TYPE: &'static str = "customer";
    type Event = CustomerEvent;

    fn upcast(event_type: &str, version: i32, mut data: Json) -> (i32, Json) {
        if (event_type, version) == ("CustomerRegistered", 1)
            && let Some(fields) = data.as_object_mut()
            && let Some(Json::String(name)) = fields.remove("name")
        {
            let (first_name, last_name) = Name::Whole(name).parts();
            fields.insert("first_name".to_owned(), json!(first_name));
            fields.insert("last_name".to_owned(), json!(last_name));
            return (2, data);
        }
        (version, data)
    }

    fn evolve(state: Option<Self>, event: &CustomerEvent, at: Time) -> Option<Self> {
        // Version 1 is folded as what it is upcast to when it is read again, or replays would differ.
        let registered = |customer_id: Uuid, name: &Name, email: &String, credit_limit_cents| {
            let (first_name, last_name) = name.parts();
            let name = Name::Parts(first_name.clone(), last_name.clone()).whole();
            Some(Self {
                customer_id,
                first_name,
                last_name,
                name,
                email: email.clone(),
                active: true,
                credit_limit_cents,
                version: 1,
                created_at: at,
                updated_at: at,
                deactivated_at: None,
            })
        };
        let mut next = match event {
            CustomerEvent::RegisteredV1 { customer_id, name, email, credit_limit_cents } => {
                return registered(*customer_id, &Name::Whole(name.clone()), email, *credit_limit_cents);
            }
            CustomerEvent::Registered { customer_id, first_name, last_name, email, credit_limit_cents } => {
                let name = Name::Parts(first_name.clone(), last_name.clone());
                return registered(*customer_id, &name, email, *credit_limit_cents);
            }
            _ => state?,
        };
        match event {
            CustomerEvent::Renamed { first_name, last_name, name, .. } => {
                next.first_name.clone_from(first_name);
                next.last_name.clone_from(last_name);
                next.name.clone_from(name);
            }
            CustomerEvent::EmailChanged { email, .. } => next.email.clone_from(email),
            CustomerEvent::CreditLimitChanged { credit_limit_cents, .. } => {
                next.credit_limit_cents = *credit_limit_cents
            }
            CustomerEvent::Deactivated { deactivated_at, .. } => {
                next.active = false;
                next.deactivated_at = Some(*deactivated_at);
            }
            CustomerEvent::RegisteredV1 { .. } | CustomerEvent::Registered { .. } => {}
        }
        next.version += 1;
        next.updated_at = at;
        Some(next)
    }

    fn id(&self) -> String {
        self.customer_id.to_string()
    }

    fn version(&self) -> i64 {
        self.version
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::domain::replay;

    fn given(name: Name, limit: Option<i64>) -> Customer {
        let registered = register(Uuid::nil(), name, "ada@example.com".to_owned(), limit);
        replay([(&registered, Time::UNIX_EPOCH)]).unwrap()
    }

    fn ada() -> Customer {
        given(Name::Parts("Ada".to_owned(), "Lamport".to_owned()), Some(5_000))
    }

    #[test]
    fn a_whole_name_is_split_at_its_first_space() {
        for (name, first, last) in
            [("Ada Lamport", "Ada", "Lamport"), ("Ada B. Lamport", "Ada", "B. Lamport"), ("Ada", "Ada", "")]
        {
            let customer = given(Name::Whole(name.to_owned()), None);
            assert_eq!(
                (customer.first_name.as_str(), customer.last_name.as_str(), customer.name.as_str()),
                (first, last, name)
            );
        }
        assert_eq!(ada().name, "Ada Lamport");
    }

    #[test]
    fn only_what_changes_gives_an_event() {
        let same = CustomerChange {
            email: Some("ada@example.com".to_owned()),
            credit_limit_cents: Some(Some(5_000)),
            ..Default::default()
        };
        assert_eq!(ada().change(same, Time::UNIX_EPOCH), Ok(vec![]));
        let name = Some(Name::Whole("Ada King".to_owned()));
        let events = ada()
            .change(CustomerChange { name, credit_limit_cents: Some(None), ..Default::default() }, Time::UNIX_EPOCH)
            .unwrap();
        let evolve = |state, event| Customer::evolve(Some(state), event, Time::UNIX_EPOCH);
        let after = events.iter().try_fold(ada(), evolve).unwrap();
        assert_eq!(
            (after.name.as_str(), after.last_name.as_str(), after.credit_limit_cents, after.version),
            ("Ada King", "King", None, 3)
        );
    }

    #[test]
    fn a_deactivated_customer_neither_changes_nor_orders() {
        let events =
            ada().change(CustomerChange { deactivate: Some(None), ..Default::default() }, Time::UNIX_EPOCH).unwrap();
        let gone = Customer::evolve(Some(ada()), &events[0], Time::UNIX_EPOCH).unwrap();
        assert_eq!(gone.check_order(0, 1), Err(Violation::CustomerInactive(Uuid::nil())));
        assert_eq!(
            gone.change(CustomerChange::default(), Time::UNIX_EPOCH),
            Err(Violation::CustomerInactive(Uuid::nil()))
        );
    }

    #[test]
    fn unpaid_orders_stay_within_the_credit_limit() {
        assert_eq!(ada().check_order(3_000, 2_000), Ok(()));
        let broken = Violation::CreditLimitExceeded { would_owe_cents: 5_001, limit_cents: 5_000 };
        assert_eq!(ada().check_order(3_000, 2_001), Err(broken));
        assert_eq!(given(Name::Whole("Ada".to_owned()), None).check_order(i64::MAX - 1, 1), Ok(()));
        assert_eq!(ada().check_order(i64::MAX, 1), Err(Violation::AmountTooLarge));
    }
}
