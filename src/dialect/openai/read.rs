//! Typed looks into raw JSON that know where they are, so that a 400 can name the field.

use std::borrow::Cow;
use std::fmt;

use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::json::{Entries, Fields, Text, unicode};

/// Where a value stands in the request. A list through the stack, turned into text only when
/// something is wrong.
#[derive(Clone, Copy)]
pub enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl<'p> Path<'p> {
    pub fn key(&'p self, key: &'p str) -> Path<'p> {
        Path::Key(self, key)
    }

    pub fn index(&'p self, index: usize) -> Path<'p> {
        Path::Index(self, index)
    }

    /// A 400 about this place.
    pub fn invalid(&self, what: impl fmt::Display) -> ApiError {
        let param = self.to_string();
        let message = format!("{param}: {what}");
        ApiError::invalid(param, message)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// One JSON object and its place.
pub struct Object<'a, 'p> {
    pub fields: Fields<'a>,
    pub path: &'p Path<'p>,
}

impl<'a, 'p> Object<'a, 'p> {
    pub fn read(raw: &'a RawValue, path: &'p Path<'p>) -> Result<Self, ApiError> {
        if !is_object(raw) {
            return Err(path.invalid(format_args!("must be an object, not {}", name_of(raw))));
        }
        let fields = serde_json::from_str(raw.get()).map_err(|error| path.invalid(error))?;
        Ok(Object { fields, path })
    }

    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.fields.get(key)
    }

    pub fn string(&self, key: &str) -> Result<Option<Cow<'a, str>>, ApiError> {
        self.get(key)
            .map(|raw| string(raw, &self.path.key(key)))
            .transpose()
    }

    pub fn required_string(&self, key: &str) -> Result<Cow<'a, str>, ApiError> {
        match self.string(key)? {
            Some(text) => Ok(text),
            None => Err(self.path.key(key).invalid("is required")),
        }
    }

    pub fn boolean(&self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.get(key) {
            None => Ok(None),
            Some(raw) => match raw.get() {
                "true" => Ok(Some(true)),
                "false" => Ok(Some(false)),
                _ => Err(wrong(raw, &self.path.key(key), "a boolean")),
            },
        }
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>, ApiError> {
        self.get(key)
            .map(|raw| match serde_json::from_str::<f64>(raw.get()) {
                Ok(number) => Ok(number),
                Err(_) => Err(wrong(raw, &self.path.key(key), "a number")),
            })
            .transpose()
    }

    /// A whole number, also when it is written as `1e3` or `10.0`.
    pub fn whole(&self, key: &str) -> Result<Option<i64>, ApiError> {
        /// Floats are exact up to here.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let Some(raw) = self.get(key) else {
            return Ok(None);
        };
        if let Ok(number) = serde_json::from_str::<i64>(raw.get()) {
            return Ok(Some(number));
        }
        match serde_json::from_str::<f64>(raw.get()) {
            Ok(number) if number.fract() == 0.0 && number.abs() <= EXACT => Ok(Some(number as i64)),
            Ok(_) => Err(self.path.key(key).invalid("is not a whole number in range")),
            Err(_) => Err(wrong(raw, &self.path.key(key), "a whole number")),
        }
    }

    pub fn count(&self, key: &str) -> Result<Option<u64>, ApiError> {
        self.whole(key)?
            .map(|number| {
                u64::try_from(number)
                    .map_err(|_| self.path.key(key).invalid("must not be negative"))
            })
            .transpose()
    }

    /// An object that is only carried.
    pub fn carried(&self, key: &str) -> Result<Option<&'a RawValue>, ApiError> {
        match self.get(key) {
            Some(raw) if !is_object(raw) => Err(wrong(raw, &self.path.key(key), "an object")),
            found => Ok(found),
        }
    }

    /// An array that is only carried.
    pub fn carried_array(&self, key: &str) -> Result<Option<&'a RawValue>, ApiError> {
        match self.get(key) {
            Some(raw) if !is_array(raw) => Err(wrong(raw, &self.path.key(key), "an array")),
            found => Ok(found),
        }
    }

    /// The entries of an array; absent is empty.
    pub fn array(&self, key: &str) -> Result<Vec<&'a RawValue>, ApiError> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(raw) => array(raw, &self.path.key(key)),
        }
    }
}

pub fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

pub fn is_array(raw: &RawValue) -> bool {
    raw.get().starts_with('[')
}

pub fn is_string(raw: &RawValue) -> bool {
    raw.get().starts_with('"')
}

pub fn string<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<Cow<'a, str>, ApiError> {
    if !is_string(raw) {
        return Err(wrong(raw, path, "a string"));
    }
    match serde_json::from_str::<Text<'a>>(raw.get()) {
        Ok(text) => Ok(text.0),
        // Programs cut a tool's output in the middle of an emoji, and send it in every request
        // from then on.
        Err(_) => match unicode::parse::<String>(raw.get()) {
            Ok(text) => Ok(Cow::Owned(text)),
            Err(error) => Err(path.invalid(error)),
        },
    }
}

pub fn array<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<Vec<&'a RawValue>, ApiError> {
    if !is_array(raw) {
        return Err(wrong(raw, path, "an array"));
    }
    let entries: Entries<'a> =
        serde_json::from_str(raw.get()).map_err(|error| path.invalid(error))?;
    Ok(entries.0)
}

/// A 400 about a value of the wrong JSON type.
pub fn wrong(raw: &RawValue, path: &Path<'_>, expected: &str) -> ApiError {
    path.invalid(format_args!("must be {expected}, not {}", name_of(raw)))
}

fn name_of(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}
