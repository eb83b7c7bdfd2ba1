//! How much the schemas of one request may unfold to.
//!
//! Where a format has no references, or takes no `allOf`, copies stand in their places, and a few
//! references can stand for very many copies. All copies of a request share one budget.

use std::cell::Cell;

use serde_json::Value;

use crate::cancel;
use crate::error::ApiError;

/// Unless the config says otherwise: some megabytes. A request whose tools refer to hundreds of
/// definitions, each a few times, needs a tenth of it.
pub const MOST_NODES: usize = 100_000;

/// Long texts count as several nodes: one for each so many bytes.
const BYTES: usize = 64;

/// Nodes that may still be copied.
#[derive(Debug)]
pub struct Budget {
    most: usize,
    left: Cell<usize>,
}

/// The budget is used up, or nobody waits for the request any more.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge;

impl Budget {
    pub fn new(most: usize) -> Budget {
        Budget {
            most,
            left: Cell::new(most),
        }
    }

    /// A part of it, for an attempt that has an alternative. What it spends is spent.
    pub fn attempt<T>(&self, run: impl FnOnce(&Budget) -> T) -> T {
        let part = Budget::new(self.left.get() / 2);
        let outcome = run(&part);
        let spent = part.most - part.left.get();
        self.left.set(self.left.get() - spent);
        outcome
    }

    pub fn spend(&self, nodes: usize) -> Result<(), TooLarge> {
        /// Nodes between two looks at whether it is still wanted.
        const LOOK: usize = 4096;
        let left = self.left.get();
        if nodes > left || (left / LOOK != (left - nodes) / LOOK && cancel::is_pulled()) {
            self.left.set(0);
            return Err(TooLarge);
        }
        self.left.set(left - nodes);
        Ok(())
    }

    /// Pays for a copy of `value`, and for no more of it than the budget holds.
    pub fn pay(&self, value: &Value) -> Result<(), TooLarge> {
        self.spend(1)?;
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter().try_for_each(|item| self.pay(item)),
            Value::Object(members) => members.iter().try_for_each(|(name, value)| {
                self.text(name)?;
                self.pay(value)
            }),
            _ => Ok(()),
        }
    }

    fn text(&self, text: &str) -> Result<(), TooLarge> {
        match text.len() / BYTES {
            0 => Ok(()),
            more => self.spend(more),
        }
    }

    /// A copy, paid for.
    pub fn copy(&self, value: &Value) -> Result<Value, TooLarge> {
        self.pay(value)?;
        Ok(value.clone())
    }

    /// What the caller is told where it does not suffice.
    pub fn refusal(&self, param: String) -> ApiError {
        let message = format!(
            "{param}: the references and allOf of the request's schemas unfold to more than {} \
             nodes (max_schema_nodes)",
            self.most
        );
        ApiError::invalid(param, message).with_code("schema_too_large")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn copies_are_paid_for_by_nodes_and_by_text() {
        let budget = Budget::new(10);
        let value = json!({"a": [1, 2], "b": "x"});
        assert_eq!(budget.copy(&value), Ok(value));
        assert_eq!(budget.left.get(), 5);
        assert_eq!(budget.copy(&json!("x".repeat(BYTES * 5))), Err(TooLarge));
        assert_eq!(budget.spend(1), Err(TooLarge), "used up once and for all");
    }

    #[test]
    fn an_attempt_gets_half_and_what_it_spends_is_gone() {
        let budget = Budget::new(10);
        assert_eq!(budget.attempt(|part| part.spend(6)), Err(TooLarge));
        assert_eq!(budget.left.get(), 5);
        assert_eq!(budget.attempt(|part| part.spend(2)), Ok(()));
        assert_eq!(budget.spend(3), Ok(()));
    }
}
