//! `POST /ask`: the body is the prompt, the answer is its text.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::{ChatBody, Following, converse, refuse, refuse_body};
use crate::config::ClientKey;
use crate::desk::Job;
use crate::dialect::Dialect;
use crate::dialect::ask::Ask;
use crate::error::ApiError;
use crate::inbound::Call;
use crate::models;
use crate::record::Record;
use crate::route::Target;
use crate::server::State;

pub fn ask<'w>(
    state: &State,
    mut call: Call<'w>,
    job: &Arc<Job>,
    key: Option<&ClientKey>,
    record: &mut Record,
) -> Option<Box<Following<'w>>> {
    let config = &state.config;
    let body = match call.read_body(config.max_body_bytes, job, config.body_wait) {
        Ok(body) => body,
        Err(problem) => {
            refuse_body(config, call, &problem, record);
            return None;
        }
    };
    match request(state, &call, key, &body) {
        Ok(request) => {
            drop(body);
            // With what the query says.
            record.keep_request(&request);
            converse(state, call, job, key, record, ChatBody::of(request))
        }
        Err(error) => {
            record.keep_request(&body);
            refuse(call, &error, record);
            None
        }
    }
}

fn request(
    state: &State,
    call: &Call<'_>,
    key: Option<&ClientKey>,
    body: &[u8],
) -> Result<Vec<u8>, ApiError> {
    let ask = Ask::read(&call.query)?;
    let model = match &ask.model {
        Some(model) => model.clone(),
        None => first_model(state, key)?,
    };
    let kind = call.header("content-type").unwrap_or_default();
    // Whoever wants the whole completion wants it in one piece.
    let streams = call.dialect == Dialect::Text;
    ask.chat(&model, kind, body, streams)
}

/// The first model of the list that an upstream has and can serve now and that has not ended, else
/// the first one.
fn first_model(state: &State, key: Option<&ClientKey>) -> Result<String, ApiError> {
    let config = &state.config;
    state.discovery.settle(config);
    let now = Instant::now();
    let mut models = models::listed(config);
    models.retain(|model| key.is_none_or(|key| key.allows(model)));
    let is_usable = |target: &Target| state.pools[target.upstream].is_usable(&target.model, now);
    let today = SystemTime::now();
    let is_served = |model: &&String| models::is_served(config, model, today);
    let usable = models
        .iter()
        .filter(|model| models::is_there(config, model, &is_usable));
    let first = usable.clone().find(is_served);
    let first = first.or(usable.clone().next()).or(models.first()).cloned();
    first.ok_or_else(|| {
        if let Some(error) = state.list_missing("no model is known yet") {
            return error;
        }
        let message = "no model is known to this gateway by name: say one with ?model=";
        ApiError::invalid("model", message)
    })
}
