//! Tool arguments that the enterprise platform streams as (path, value) pairs, put together.

use serde_json::{Map, Value};

use super::wire::PartialArg;

/// How deep a path may lead. Deeper arguments could not be read back by a JSON parser.
const DEPTH: usize = 100;

/// How much one call's arguments may hold.
const MOST_BYTES: usize = 8 << 20;

/// The arguments of one call between two of its events.
#[derive(Debug, Default)]
pub struct Partial {
    args: Value,
    bytes: usize,
}

/// The pieces do not make up one object, or too large a one.
#[derive(Debug, PartialEq)]
pub struct Unfit;

enum Step {
    Key(String),
    Index(usize),
}

impl Partial {
    /// About how many bytes they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a piece, and says how many bytes more they take with it.
    pub fn take(&mut self, piece: &PartialArg<'_>) -> Result<usize, Unfit> {
        let steps = steps(&piece.json_path).ok_or(Unfit)?;
        let text = piece.string_value.as_deref().unwrap_or_default();
        let kept = piece.json_path.len() + text.len() + size_of::<Value>() * steps.len();
        self.bytes += kept;
        if self.bytes > MOST_BYTES {
            return Err(Unfit);
        }
        let slot = slot(&mut self.args, steps).ok_or(Unfit)?;
        // A string comes in pieces, one after the other at the same path.
        match (&mut *slot, &piece.string_value) {
            (Value::String(known), Some(more)) => known.push_str(more),
            (_, Some(first)) => *slot = Value::String(first.to_string()),
            (_, None) => {
                *slot = match (&piece.number_value, piece.bool_value) {
                    (Some(number), _) => Value::Number(number.clone()),
                    (None, Some(flag)) => Value::Bool(flag),
                    (None, None) => Value::Null,
                };
            }
        }
        Ok(kept)
    }

    /// The arguments as compact JSON.
    pub fn to_json(&self) -> String {
        match &self.args {
            Value::Null => "{}".into(),
            args => args.to_string(),
        }
    }
}

/// `$.a[0]['b']` as its steps, if it is a plain path that leads somewhere.
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if steps.len() == DEPTH {
            return None;
        }
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            steps.push(Step::Key(after[..end].to_owned()));
            rest = &after[end..];
        } else {
            let inside = rest.strip_prefix('[')?;
            let quote = inside.chars().next().filter(|c| matches!(c, '\'' | '"'));
            let (step, after) = match quote {
                Some(quote) => {
                    let end = inside[1..].find([quote])? + 1;
                    (Step::Key(inside[1..end].to_owned()), &inside[end + 1..])
                }
                None => {
                    let end = inside.find(']')?;
                    (Step::Index(inside[..end].parse().ok()?), &inside[end..])
                }
            };
            steps.push(step);
            rest = after.strip_prefix(']')?;
        }
    }
    (!steps.is_empty()).then_some(steps)
}

/// The place that `steps` lead to, made on the way. Arrays grow by one at a time.
fn slot(root: &mut Value, steps: Vec<Step>) -> Option<&mut Value> {
    let mut place = root;
    for step in steps {
        place = match step {
            Step::Key(key) => {
                if place.is_null() {
                    *place = Value::Object(Map::new());
                }
                place.as_object_mut()?.entry(key).or_insert(Value::Null)
            }
            Step::Index(index) => {
                if place.is_null() {
                    *place = Value::Array(Vec::new());
                }
                let items = place.as_array_mut()?;
                if index == items.len() {
                    items.push(Value::Null);
                }
                items.get_mut(index)?
            }
        };
    }
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&str], expected: Result<&str, Unfit>) {
        let mut partial = Partial::default();
        let taken: Result<Vec<usize>, Unfit> = pieces
            .iter()
            .map(|piece| partial.take(&serde_json::from_str(piece).unwrap()))
            .collect();
        let seen = taken.map(|_| partial.to_json());
        assert_eq!(seen, expected.map(str::to_owned), "{pieces:?}");
    }

    #[test]
    fn pieces_make_up_one_object() {
        check(&[], Ok("{}"));
        check(
            &[
                r#"{"jsonPath":"$.a[0].b","stringValue":"x","willContinue":true}"#,
                r#"{"jsonPath":"$.a[0].b","stringValue":"y"}"#,
                r#"{"jsonPath":"$.a[0]['c.d']","numberValue":0.5}"#,
                r#"{"jsonPath":"$.a[1]","boolValue":true}"#,
                r#"{"jsonPath":"$.n","nullValue":null}"#,
            ],
            Ok(r#"{"a":[{"b":"xy","c.d":0.5},true],"n":null}"#),
        );
    }

    #[test]
    fn paths_that_lead_nowhere_are_refused() {
        for path in [
            "",
            "$",
            "a",
            "$.a[9]",
            "$x",
            "$[",
            "$['a",
            "$[-1]",
            "$['a'",
            "$[\u{fc}]",
        ] {
            let piece = serde_json::json!({"jsonPath": path, "stringValue": "x"}).to_string();
            check(&[&piece], Err(Unfit));
        }
        check(
            &[
                r#"{"jsonPath":"$.a","stringValue":"x"}"#,
                r#"{"jsonPath":"$.a.b","stringValue":"y"}"#,
            ],
            Err(Unfit),
        );
        let deep = serde_json::json!({"jsonPath": format!("${}", ".a".repeat(101))}).to_string();
        check(&[&deep], Err(Unfit));
    }
}
