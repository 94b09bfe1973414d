//! Commands on customers.

use uuid::Uuid;

use crate::domain::Aggregate;
use crate::domain::customer::{self, Customer, CustomerChange, Name};
use crate::store::streams::stream_id;
use crate::store::{Command, CommandError, UnitOfWork};
use crate::tables::customers;

/// Someone joins.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Register {
    pub customer_id: Uuid,
    pub name: Name,
    pub email: String,
    pub credit_limit_cents: Option<i64>,
}

impl Command for Register {
    type Answer = Customer;

    fn streams(&self) -> Vec<String> {
        Vec::new()
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Customer, CommandError> {
        let event =
            customer::register(self.customer_id, self.name.clone(), self.email.clone(), self.credit_limit_cents);
        let customer = unit.begin_stream(&event)?;
        customers::insert(unit.connection(), &customer).await?;
        Ok(customer)
    }
}

/// Something about a customer changes.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Change {
    pub customer_id: Uuid,
    pub change: CustomerChange,
}

impl Command for Change {
    type Answer = Customer;

    fn streams(&self) -> Vec<String> {
        vec![stream_id(Customer::TYPE, &self.customer_id.to_string())]
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Customer, CommandError> {
        let id = self.customer_id;
        let before = customers::lock(unit.connection(), id).await?;
        let before = before.ok_or(CommandError::NotFound { aggregate: "customer", id })?;
        unit.check_expected(&before)?;
        let events = before.change(self.change.clone(), unit.now())?;
        let after = unit.record(before, &events)?;
        if !events.is_empty() {
            customers::update(unit.connection(), &after).await?;
        }
        Ok(after)
    }
}
