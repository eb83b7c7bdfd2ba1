//! The body of a request that is passed on: what is in memory of it, and where its model stands.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use super::form::{self, boundary};
use crate::config::Config;
use crate::desk::Job;
use crate::dialect::openai::LONGEST_MODEL;
use crate::error::ApiError;
use crate::inbound::{Call, Length, NoBody};
use crate::json::{Fields, push_string};

/// How much of a form or of binary data is read before it is known where it goes. Forms that are
/// shorter are in memory as a whole, so they can be sent again.
const START: usize = 128 * 1024;

/// What there is of a body beyond its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rest {
    #[default]
    None,
    /// So many bytes.
    Known(u64),
    /// Chunks, of which no end is known. So many bytes they may be.
    AtMost(u64),
}

#[derive(Debug, Default)]
pub struct Body {
    /// The whole of it, or its beginning.
    pub held: Vec<u8>,
    /// What is still with the caller.
    pub rest: Rest,
    /// The `model` that it names, if that is in memory.
    pub model: Option<String>,
    /// Where the name stands in `held`, as it is written there.
    place: Range<usize>,
    /// It is JSON, whatever the caller said of it.
    pub is_json: bool,
}

impl Body {
    /// Reads what has to be known. `whole`: nothing of it may be passed on unseen.
    pub fn read(
        call: &mut Call<'_>,
        job: &Job,
        config: &Config,
        whole: bool,
    ) -> Result<Result<Body, ApiError>, NoBody> {
        let (most, wait) = (config.max_body_bytes, config.body_wait);
        let kind = call.header("content-type").unwrap_or_default().to_owned();
        let bare = kind.split(';').next().unwrap_or_default().trim();
        let bare = bare.to_ascii_lowercase();
        // What curl says of everything that `-d` sends.
        let may_be = bare == "application/x-www-form-urlencoded";
        let is_json = matches!(&*bare, "" | "application/json") || bare.ends_with("+json");
        if is_json || may_be {
            let held = call.read_body(most, job, wait)?;
            return Ok(match held.trim_ascii_start().first() {
                None => Ok(Body::default()),
                Some(b'{') => Body::of_json(held),
                Some(_) if is_json => Body::of_json(held),
                Some(_) => Ok(Body {
                    held,
                    ..Body::default()
                }),
            });
        }
        // A packed one is unpacked as a whole: what is passed on has no label, and the model that
        // it names must be seen.
        let held = match whole || call.is_packed()? {
            true => call.read_body(most, job, wait)?,
            false => call.read_start(START, job, wait)?,
        };
        let rest = match call.length {
            Length::None => Rest::None,
            Length::Known(left) => Rest::Known(left),
            Length::Chunked => Rest::AtMost(most.saturating_sub(held.len()) as u64),
        };
        if held.len() > most {
            return Err(NoBody::TooLong);
        }
        let mut body = Body {
            held,
            rest,
            ..Body::default()
        };
        if let Some(boundary) = boundary(&kind) {
            match form::model(&body.held, boundary) {
                Ok(Some(place)) => {
                    let name = String::from_utf8_lossy(&body.held[place.clone()]);
                    body.model = Some(name.into_owned());
                    body.place = place;
                }
                Ok(None) => {}
                Err(what) => return Ok(Err(ApiError::invalid("model", what))),
            }
        }
        Ok(Ok(body))
    }

    pub fn of_json(held: Vec<u8>) -> Result<Body, ApiError> {
        let invalid =
            |what: String| ApiError::new(400, format!("the body is not valid JSON: {what}"));
        let text = std::str::from_utf8(&held).map_err(|error| invalid(error.to_string()))?;
        let fields: Fields =
            serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        let (mut model, mut place) = (None, 0..0);
        if fields.0.iter().filter(|(key, _)| key == "model").count() > 1 {
            // Whoever reads it next may take the other one.
            return Err(ApiError::invalid("model", "model: is given more than once"));
        }
        if let Some(raw) = fields.get("model") {
            let name: Cow<str> = serde_json::from_str(raw.get())
                .map_err(|_| ApiError::invalid("model", "model: must be a string"))?;
            if name.len() > LONGEST_MODEL {
                let message =
                    format!("model: is longer than the {LONGEST_MODEL} bytes that a name may have");
                return Err(ApiError::invalid("model", message));
            }
            model = Some(name.into_owned());
            place = range(text, raw);
        }
        Ok(Body {
            model,
            place,
            is_json: true,
            held,
            rest: Rest::None,
        })
    }

    /// What is in memory, with `model` as the model's name.
    pub fn named(&self, model: &str) -> Cow<'_, [u8]> {
        match &self.model {
            Some(named) if named != model => {}
            _ => return Cow::Borrowed(&self.held),
        }
        let mut out = Vec::with_capacity(self.held.len() + model.len());
        out.extend_from_slice(&self.held[..self.place.start]);
        match self.is_json {
            true => push_string(&mut out, model),
            false => out.extend_from_slice(model.as_bytes()),
        }
        out.extend_from_slice(&self.held[self.place.end..]);
        Cow::Owned(out)
    }
}

/// Where a raw value stands in the text that it was parsed from.
fn range(text: &str, raw: &RawValue) -> Range<usize> {
    let start = (raw.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    start..start + raw.get().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_in_json_is_replaced_in_its_place() {
        let body = Body::of_json(br#"{ "a":1.50, "model" : "up/m", "z":[] }"#.to_vec()).unwrap();
        assert_eq!(body.model.as_deref(), Some("up/m"));
        assert_eq!(
            &*body.named("m\""),
            br#"{ "a":1.50, "model" : "m\"", "z":[] }"#
        );
        assert_eq!(&*body.named("up/m"), &*body.held);
        let none = Body::of_json(b"{\"input\":1}".to_vec()).unwrap();
        assert_eq!(
            (none.model.as_deref(), &*none.named("m")),
            (None, &b"{\"input\":1}"[..])
        );
        for wrong in [
            &b"{"[..],
            b"[]",
            b"{\"model\":1}",
            b"\xff",
            br#"{"model":"a","model":"b"}"#,
            br#"{"model":"a","mod\u0065l":"a"}"#,
        ] {
            assert_eq!(Body::of_json(wrong.to_vec()).unwrap_err().status, 400);
        }
    }
}
