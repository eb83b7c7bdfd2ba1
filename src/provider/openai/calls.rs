//! Which tool call a piece of a chunk belongs to, where servers leave that open.
//!
//! Some give all calls the same index, no index, no id, or repeat id and name with each piece.
//! Callers' libraries put pieces together by index and join what comes twice, so each call gets an
//! index of its own, an id, and is named once.

use serde_json::{Map, Value};

use super::scan::CallPiece;
use crate::dialect::openai::call_id;
use crate::failure::Failure;
use crate::provider::budget::Budget;

/// More tool calls in one answer than are told apart.
pub const MAX_CALLS: usize = 1024;

/// The tool calls of one choice, by the index under which the caller knows them.
#[derive(Debug, Default)]
pub struct Calls(Vec<Call>);

#[derive(Debug, Default)]
struct Call {
    /// The id that the upstream gave it; empty as long as it has none.
    id: String,
    /// The index that the upstream gives it.
    index: Option<u64>,
    name: String,
    /// A piece of its arguments has come.
    has_arguments: bool,
    /// The chunk of its last piece.
    chunk: u64,
}

/// What a piece says of itself.
struct Piece<'p> {
    id: &'p str,
    index: Option<u64>,
    name: &'p str,
}

impl Calls {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a piece can be passed on as it is: the next call with all that begins one, or more
    /// of a call that is known by its index.
    pub fn suits(&self, piece: CallPiece<'_>) -> bool {
        let Some(index) = piece.index.map(|index| index as usize) else {
            return false;
        };
        match self.0.get(index) {
            Some(call) => {
                call.index == Some(index as u64)
                    && piece.id.is_none()
                    && piece.name.is_none()
                    && !piece.has_type
                    && !self.0[index + 1..]
                        .iter()
                        .any(|later| later.index == call.index)
            }
            None => {
                index == self.0.len()
                    && index < MAX_CALLS
                    && piece.has_type
                    && piece.name.is_some_and(|name| !name.contains(&b'\\'))
                    && piece.id.is_some_and(|id| {
                        !id.contains(&b'\\') && !self.0.iter().any(|call| call.id.as_bytes() == id)
                    })
            }
        }
    }

    /// Takes note of a piece that is passed on as it is.
    pub fn note(&mut self, piece: CallPiece<'_>, budget: &mut Budget) -> Result<(), Failure> {
        let Some(index) = piece.index.map(|index| index as usize) else {
            return Ok(());
        };
        let index = index.min(MAX_CALLS - 1);
        if self.0.len() <= index {
            let first = self.0.len();
            budget.take((index + 1 - first) * size_of::<Call>())?;
            self.0.resize_with(index + 1, Call::default);
            for (at, call) in self.0.iter_mut().enumerate().skip(first) {
                call.index = Some(at as u64);
            }
        }
        let call = &mut self.0[index];
        let mut keep = |place: &mut String, bytes: &[u8]| {
            budget.give_back(place.len());
            *place = String::from_utf8_lossy(bytes).into_owned();
            budget.take(place.len())
        };
        match piece.id {
            Some(id) => keep(&mut call.id, id)?,
            None => call.has_arguments = true,
        }
        match piece.name {
            Some(name) => keep(&mut call.name, name),
            None => Ok(()),
        }
    }

    /// Sets a piece right. False: it says nothing new and is left out.
    pub fn mend(
        &mut self,
        piece: &mut Map<String, Value>,
        (seed, choice, chunk): (u64, u32, u64),
        budget: &mut Budget,
    ) -> Result<bool, Failure> {
        let object = match piece.get("custom").is_some_and(Value::is_object) {
            true => "custom",
            false => "function",
        };
        let text = |value: Option<&Value>| {
            let text = value.and_then(Value::as_str).unwrap_or_default();
            text.to_owned()
        };
        let of_object = |key: &str| text(piece.get(object).and_then(|inner| inner.get(key)));
        let (id, name) = (text(piece.get("id")), of_object("name"));
        let has_arguments = !of_object(if object == "custom" {
            "input"
        } else {
            "arguments"
        })
        .is_empty();
        let said = Piece {
            id: &id,
            index: piece.get("index").and_then(Value::as_u64),
            name: &name,
        };
        let (at, is_new) = self.place(&said, chunk);
        if is_new {
            budget.take(size_of::<Call>())?;
        }
        let call = &mut self.0[at];
        call.chunk = chunk;
        call.has_arguments |= has_arguments;
        let names = !name.is_empty() && (call.name.is_empty() || call.name != name);
        if names {
            budget.take(name.len())?;
            call.name.push_str(&name);
        }
        if call.id.is_empty() && !id.is_empty() {
            budget.take(id.len())?;
            call.id.clone_from(&id);
        }
        piece.insert("index".into(), at.into());
        if is_new {
            let made_up;
            let id = match id.is_empty() {
                true => {
                    made_up = call_id("", seed, choice, at);
                    &*made_up
                }
                false => &*id,
            };
            piece.insert("id".into(), id.into());
            piece.insert("type".into(), object.into());
            return Ok(true);
        }
        // (`remove` would move the last member to its place.)
        piece.shift_remove("id");
        piece.shift_remove("type");
        if !names && let Some(Value::Object(inner)) = piece.get_mut(object) {
            inner.shift_remove("name");
        }
        let says_more = |(key, value): (&String, &Value)| match (&**key, value) {
            ("index", _) | (_, Value::Null) => false,
            (_, Value::Object(inner)) => inner.values().any(|value| !is_nothing(value)),
            (_, value) => !is_nothing(value),
        };
        Ok(piece.iter().any(says_more))
    }

    /// The place of the call that a piece belongs to, and whether it is a new one.
    fn place(&mut self, piece: &Piece<'_>, chunk: u64) -> (usize, bool) {
        if let Some(known) = self.known(piece, chunk) {
            return (known, false);
        }
        if self.0.len() == MAX_CALLS {
            return (MAX_CALLS - 1, false);
        }
        self.0.push(Call {
            index: piece.index,
            ..Call::default()
        });
        (self.0.len() - 1, true)
    }

    fn known(&self, piece: &Piece<'_>, chunk: u64) -> Option<usize> {
        if !piece.id.is_empty()
            && let Some(known) = self.0.iter().rposition(|call| call.id == piece.id)
        {
            return Some(known);
        }
        let at = match piece.index {
            // Of calls that share an index, the last one is being written.
            Some(index) => self.0.iter().rposition(|call| call.index == Some(index))?,
            None => self.0.len().checked_sub(1)?,
        };
        let call = &self.0[at];
        let is_another = if !piece.id.is_empty() {
            // An id that comes late, or a call of its own.
            !call.id.is_empty() || is_renamed(call, piece, chunk) || piece.index.is_none()
        } else if piece.index.is_none() {
            // Without an id, a name is what begins a call.
            !piece.name.is_empty()
        } else {
            is_renamed(call, piece, chunk)
        };
        (!is_another).then_some(at)
    }
}

/// A piece that has a name goes with another call, unless it repeats the name or goes on with it.
fn is_renamed(call: &Call, piece: &Piece<'_>, chunk: u64) -> bool {
    // A chunk has one piece of a call, so the second one with a name is another call's.
    let again = call.chunk == chunk && !call.name.is_empty();
    !piece.name.is_empty()
        && (again || (call.name != piece.name && call.has_arguments && !call.name.is_empty()))
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}
