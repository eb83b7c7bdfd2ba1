//! Which tool call a piece of a chunk belongs to, where servers leave that open.
//!
//! Some give all calls the same index, no index, no id, or repeat id and name with each piece.
//! Callers' libraries put pieces together by index and join what comes twice, so each call gets an
//! index of its own and an id that no other call has, and is named once, before its arguments.

use serde_json::{Map, Value};

use super::scan::CallPiece;
use crate::dialect::openai::call_id;
use crate::failure::Failure;
use crate::provider::budget::Budget;
use crate::provider::nesting::Nesting;

/// More tool calls in one answer than are told apart.
const MAX_CALLS: usize = 1024;

/// The tool calls of one choice, in the order in which they came.
#[derive(Debug, Default)]
pub struct Calls {
    list: Vec<Call>,
    /// How many of them the caller knows.
    shown: usize,
}

#[derive(Debug, Default)]
struct Call {
    /// The id that the upstream gave it; empty as long as it has none.
    id: String,
    /// The index that the upstream gives it.
    index: Option<u64>,
    name: String,
    is_custom: bool,
    /// The index under which the caller knows it; none before it has a name.
    shown: Option<usize>,
    /// What came of its arguments before that.
    held: String,
    arguments: Nesting,
    /// The chunk of its last piece.
    chunk: u64,
    /// It had none when its choice ended, and the caller was told so.
    is_empty: bool,
}

/// What a piece says of itself.
struct Piece<'p> {
    id: &'p str,
    index: Option<u64>,
    name: &'p str,
}

impl Calls {
    /// The caller knows of none.
    pub fn is_empty(&self) -> bool {
        self.shown == 0
    }

    /// Whether a piece can be passed on as it is: the next call with all that begins one, or more
    /// of a call that is known by its index.
    pub fn suits(&self, piece: CallPiece<'_>) -> bool {
        let Some(index) = piece.index.map(|index| index as usize) else {
            return false;
        };
        if piece.has_odd_arguments {
            return false;
        }
        let shares_index = |call: &Call| call.index == Some(index as u64);
        match self.list.iter().rfind(|call| shares_index(call)) {
            Some(call) => {
                call.shown == Some(index)
                    && !call.is_empty
                    && piece.id.is_none()
                    && piece.name.is_none()
                    && !piece.has_type
            }
            None => {
                index == self.shown
                    && self.list.len() < MAX_CALLS
                    && piece.has_type
                    && piece.name.is_some_and(|name| !name.contains(&b'\\'))
                    && piece.id.is_some_and(|id| {
                        let is_known = self.list.iter().any(|call| call.id.as_bytes() == id);
                        !id.contains(&b'\\') && !is_known
                    })
            }
        }
    }

    /// Takes note of a piece that is passed on as it is.
    pub fn note(&mut self, piece: CallPiece<'_>, budget: &mut Budget) -> Result<(), Failure> {
        let index = u64::from(piece.index.unwrap_or_default());
        let known = self.list.iter().rposition(|call| call.index == Some(index));
        let at = match known {
            Some(at) => at,
            None if self.list.len() == MAX_CALLS => return Ok(()),
            None => {
                let texts = [piece.id, piece.name].map(|text| text.map_or(0, <[u8]>::len));
                budget.take(size_of::<Call>() + texts[0] + texts[1])?;
                let text = |bytes: Option<&[u8]>| {
                    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
                };
                self.list.push(Call {
                    id: text(piece.id),
                    index: Some(index),
                    name: text(piece.name),
                    is_custom: piece.is_custom,
                    shown: Some(self.shown),
                    ..Call::default()
                });
                self.shown += 1;
                self.list.len() - 1
            }
        };
        let arguments = piece.arguments.unwrap_or_default();
        self.list[at].arguments.take_escaped(arguments);
        Ok(())
    }

    /// Sets a piece right. False: it says nothing new, or nothing yet, and is left out.
    pub fn mend(
        &mut self,
        piece: &mut Map<String, Value>,
        (seed, choice, chunk): (u64, u32, u64),
        budget: &mut Budget,
    ) -> Result<bool, Failure> {
        let is_custom = piece.get("custom").is_some_and(Value::is_object);
        let (object, key) = kind_of(is_custom);
        let text = |value: Option<&Value>| {
            let text = value.and_then(Value::as_str).unwrap_or_default();
            text.to_owned()
        };
        let inner = piece.get(object);
        let (id, name) = (
            text(piece.get("id")),
            text(inner.and_then(|inner| inner.get("name"))),
        );
        let mut arguments = arguments_of(inner.and_then(|inner| inner.get(key)));
        let said = Piece {
            id: &id,
            index: piece.get("index").and_then(Value::as_u64),
            name: &name,
        };
        let at = self.place(&said, chunk, budget)?;
        let call = &mut self.list[at];
        call.chunk = chunk;
        call.is_custom |= is_custom;
        if call.is_empty && !arguments.trim_ascii().is_empty() {
            // Behind `{}` they would be no JSON, and a tool must not run with nothing.
            if arguments.trim_ascii() != "{}" {
                let what = "the arguments of a tool call came behind the end of the answer";
                return Err(Failure::malformed(what));
            }
            arguments.clear();
        }
        arguments.bytes().for_each(|byte| call.arguments.take(byte));
        let names = !name.is_empty() && call.name != name;
        if names {
            budget.take(name.len())?;
            call.name.push_str(&name);
        }
        if call.id.is_empty() {
            budget.take(id.len())?;
            call.id.clone_from(&id);
        }
        if call.name.is_empty() {
            budget.take(arguments.len())?;
            call.held.push_str(&arguments);
            return Ok(false);
        }
        let is_new = call.shown.is_none();
        let shown = *call.shown.get_or_insert(self.shown);
        let arguments = match is_new {
            true => {
                budget.give_back(call.held.len());
                std::mem::take(&mut call.held) + &arguments
            }
            false => arguments,
        };
        let full_name = call.name.clone();
        piece.insert("index".into(), shown.into());
        if !piece.get(object).is_some_and(Value::is_object) {
            piece.insert(object.into(), Value::Object(Map::new()));
        }
        if is_new {
            self.shown += 1;
            piece.insert("id".into(), self.id_of(at, seed, choice).into());
            piece.insert("type".into(), object.into());
        } else {
            // (`remove` would move the last member to its place.)
            piece.shift_remove("id");
            piece.shift_remove("type");
        }
        if let Some(Value::Object(inner)) = piece.get_mut(object) {
            if is_new {
                inner.insert("name".into(), full_name.into());
            } else if !names {
                inner.shift_remove("name");
            }
            if is_new || !arguments.is_empty() {
                inner.insert(key.into(), arguments.into());
            } else {
                inner.shift_remove(key);
            }
        }
        let says_more = |(key, value): (&String, &Value)| match (&**key, value) {
            ("index", _) | (_, Value::Null) => false,
            (_, Value::Object(inner)) => inner.values().any(|value| !is_nothing(value)),
            (_, value) => !is_nothing(value),
        };
        Ok(is_new || piece.iter().any(says_more))
    }

    /// The id that the caller is told: the upstream's, unless it has none or gives it twice.
    fn id_of(&self, at: usize, seed: u64, choice: u32) -> String {
        let id = &self.list[at].id;
        let mut others = self.list.iter().enumerate();
        let is_taken = others.any(|(other, call)| other != at && call.id == *id);
        match id.is_empty() || is_taken {
            true => call_id("", seed, choice, at).into_owned(),
            false => id.clone(),
        }
    }

    /// Whether the choice can end as it is: see `close`.
    pub fn is_closed(&self) -> bool {
        self.list
            .iter()
            .all(|call| call.shown.is_some() && (call.arguments.has_begun() || call.is_custom))
    }

    /// What is missing when the choice ends: empty arguments are an object without members, as
    /// libraries parse them. `is_cut`: the end came too early, and what is missing stays so.
    pub fn close(&mut self, is_cut: bool) -> Result<Vec<Value>, Failure> {
        let mut pieces = Vec::new();
        for call in self.list.iter_mut().filter(|_| !is_cut) {
            match call.shown {
                None if call.held.trim_ascii().is_empty() && call.id.is_empty() => {}
                None => return Err(Failure::malformed("a tool call has no name")),
                Some(_) if call.arguments.has_begun() || call.is_custom => {}
                Some(shown) => {
                    call.arguments.begin();
                    call.is_empty = true;
                    let piece =
                        serde_json::json!({"index": shown, "function": {"arguments": "{}"}});
                    pieces.push(piece);
                }
            }
        }
        Ok(pieces)
    }

    /// Whether each call has come to its end, as far as its arguments tell.
    pub fn are_whole(&self) -> bool {
        self.list.iter().all(|call| match call.shown {
            None => call.held.trim_ascii().is_empty() && call.id.is_empty(),
            Some(_) => call.is_custom && call.arguments.has_begun() || call.arguments.is_whole(),
        })
    }

    /// The place of the call that a piece belongs to.
    fn place(
        &mut self,
        piece: &Piece<'_>,
        chunk: u64,
        budget: &mut Budget,
    ) -> Result<usize, Failure> {
        if let Some(known) = self.known(piece, chunk) {
            return Ok(known);
        }
        if self.list.len() < MAX_CALLS {
            budget.take(size_of::<Call>())?;
            self.list.push(Call {
                index: piece.index,
                ..Call::default()
            });
        }
        Ok(self.list.len() - 1)
    }

    fn known(&self, piece: &Piece<'_>, chunk: u64) -> Option<usize> {
        let last = |wanted: &dyn Fn(&Call) -> bool| self.list.iter().rposition(wanted);
        if !piece.id.is_empty() {
            let both = |call: &Call| {
                call.id == piece.id
                    && (piece.index.is_none() || call.index == piece.index)
                    && !shares_its_id(call, piece, chunk)
            };
            if let Some(known) = last(&both) {
                return Some(known);
            }
            if let Some(known) = last(&|call| call.id == piece.id) {
                // One id for all: a name begins the next one.
                let goes_on = piece.name.is_empty() || self.list[known].name.is_empty();
                return goes_on.then_some(known);
            }
        }
        let at = match piece.index {
            // Of calls that share an index, the last one is being written.
            Some(index) => last(&|call| call.index == Some(index))?,
            None => self.list.len().checked_sub(1)?,
        };
        let call = &self.list[at];
        let is_another = match (piece.id, piece.index) {
            // Without an id and an index, a name is what begins a call.
            ("", None) => !piece.name.is_empty() && !call.name.is_empty(),
            ("", Some(_)) => is_renamed(call, piece, chunk),
            // An id that comes late.
            _ if call.id.is_empty() => {
                is_renamed(call, piece, chunk)
                    || piece.index.is_none() && !piece.name.is_empty() && !call.name.is_empty()
            }
            // A call of its own, or an id that changes in the middle of one.
            _ => !piece.name.is_empty() || call.name.is_empty() || call.arguments.is_whole(),
        };
        (!is_another).then_some(at)
    }
}

/// A piece that has a name goes with another call, unless it repeats the name or goes on with it.
fn is_renamed(call: &Call, piece: &Piece<'_>, chunk: u64) -> bool {
    // A chunk has one piece of a call, so the second one with a name is another call's.
    let again = call.chunk == chunk || call.name != piece.name && call.arguments.has_begun();
    !piece.name.is_empty() && !call.name.is_empty() && again
}

/// A piece that has the id of `call`, and a name although that call is past its own.
fn shares_its_id(call: &Call, piece: &Piece<'_>, chunk: u64) -> bool {
    let is_near = call.chunk == chunk;
    let begins = match call.name == piece.name {
        true => is_near && call.arguments.is_whole(),
        false => is_near || call.arguments.has_begun(),
    };
    !piece.name.is_empty() && !call.name.is_empty() && begins
}

/// Adds a piece to those of the same chunk. Libraries take two pieces of one call in a chunk for two
/// calls, so they become one.
pub fn add_piece(pieces: &mut Vec<Value>, piece: Value) {
    let mut before = pieces.iter_mut();
    let Some(before) = before.find(|before| before["index"] == piece["index"]) else {
        pieces.push(piece);
        return;
    };
    let (object, key) = kind_of(piece.get("custom").is_some());
    for key in ["name", key] {
        if let Some(more) = piece[object][key].as_str() {
            let text = before[object][key].as_str().unwrap_or_default().to_owned();
            before[object][key] = (text + more).into();
        }
    }
}

/// The members of a call: what holds the rest of it, and what holds its arguments in there.
fn kind_of(is_custom: bool) -> (&'static str, &'static str) {
    match is_custom {
        true => ("custom", "input"),
        false => ("function", "arguments"),
    }
}

/// Arguments as text, which some servers write as the object that it stands for.
pub fn arguments_of(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(object)) if object.is_empty() => String::new(),
        Some(value @ (Value::Object(_) | Value::Array(_))) => value.to_string(),
        _ => String::new(),
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}
