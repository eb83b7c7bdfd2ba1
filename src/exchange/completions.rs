//! `POST /v1/completions`: passed on where the upstream has the route, else asked as a chat.

use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::Answered;
use super::caller::{Caller, Unfinished};
use super::tries::Refused;
use super::{
    ChatBody, Following, converse, dry_run, outline, read_head, refuse, run, tell, with_body,
};
use crate::config::{ClientKey, Upstream};
use crate::desk::Job;
use crate::dialect::Dialect;
use crate::dialect::completions::{Complete, join};
use crate::error::ApiError;
use crate::inbound::Call;
use crate::json::shape::Shape;
use crate::passthrough::{self, Body, Parcel};
use crate::provider::Format;
use crate::record::Record;
use crate::route::{self, Target};
use crate::server::State;

/// The vendor's models that are made for this route; its others are refused here.
const LEGACY: &[&str] = &[
    "gpt-3.5-turbo-instruct*",
    "davinci-*",
    "babbage-*",
    "ft:davinci-*",
    "ft:babbage-*",
];

pub fn completions<'w>(
    state: &State,
    call: Call<'w>,
    job: &Arc<Job>,
    key: Option<&ClientKey>,
    record: &mut Record,
) -> Option<Box<Following<'w>>> {
    let config = &state.config;
    let (mut call, body) = with_body(state, call, job, record)?;
    let read = Body::of_json(body).and_then(|body| {
        let model = body.model.as_deref().filter(|model| !model.is_empty());
        let model = model.ok_or_else(|| ApiError::invalid("model", "model: is required"))?;
        let targets = passthrough::of_any_shape(state, model, key)?;
        super::check_other_models(&body.held, key)?;
        Ok((body, targets))
    });
    let (body, targets) = match read {
        Ok(read) => read,
        Err(error) => {
            refuse(call, &error, record);
            return None;
        }
    };
    record.model = body.model.clone().unwrap_or_default();
    let first = &targets[0];
    if has_route(&config.upstreams[first.upstream], &first.model) {
        let same = |target: &&Target| config.upstreams[target.upstream].format == Format::OpenAi;
        let targets: Vec<Target> = targets.iter().filter(same).cloned().collect();
        let parcel = Parcel {
            path: "/completions",
            body: &body,
            may_lack: true,
        };
        let sent = passthrough::send(state, call, job, record, &parcel, &targets);
        let mut unanswered = sent?;
        // Many servers know chats only.
        match unanswered.retract() {
            Some(back) => call = back,
            None => {
                unanswered.finish(state, record);
                return None;
            }
        }
    }
    let complete = match Complete::read(&body.held) {
        Ok(complete) => complete,
        Err(error) => {
            refuse(call, &error, record);
            return None;
        }
    };
    call.dialect = Dialect::Completions;
    if !complete.dropped.is_empty() {
        call.add_common("x-weir-dropped", &complete.dropped.join(","));
    }
    match complete.prompts.as_slice() {
        [prompt] => {
            let chat = ChatBody::of(complete.chat(prompt));
            converse(state, call, job, key, record, chat)
        }
        _ => {
            several(state, call, job, key, record, &complete, &targets);
            None
        }
    }
}

/// Whether it is worth asking the upstream for this route itself.
fn has_route(upstream: &Upstream, model: &str) -> bool {
    let is_legacy = || LEGACY.iter().any(|known| route::matches(known, model));
    upstream.format == Format::OpenAi && (!upstream.options.official || is_legacy())
}

/// Several prompts: one chat each, one after the other, each tried as one alone would be. In a
/// stream the text of each comes in one piece.
fn several(
    state: &State,
    call: Call<'_>,
    job: &Arc<Job>,
    key: Option<&ClientKey>,
    record: &mut Record,
    complete: &Complete<'_>,
    targets: &[Target],
) {
    // Each when its turn comes, as every one of them has all the other fields. They differ in
    // nothing else, so what is wrong with one is wrong with the first.
    let chat = complete.chat(&complete.prompts[0]);
    let head = match read_head(&state.config, &chat, Shape::of(&chat)) {
        Ok(head) => head,
        Err(error) => return refuse(call, &error, record),
    };
    if dry_run::is_asked(&call) {
        return match outline(
            state,
            &head,
            (None, None),
            targets,
            &call.id,
            record.must_count,
        ) {
            Ok(reply) => tell(call, reply, record),
            Err(error) => refuse(call, &error, record),
        };
    }
    drop(head);
    drop(chat);
    let more = complete.prompts.len() as u64 - 1;
    if let Some(key) = key
        && let Err(error) = state.limits.admit_more(key, more)
    {
        return refuse(call, &error, record);
    }
    // The one of them that asked for the route itself was a request as well.
    state
        .limits
        .charge(&record.client, u64::from(record.attempts));
    let id = call.id.clone();
    record.streamed = complete.stream;
    let caller = match complete.stream {
        true => match Unfinished::begin(call, state.config.keepalive, Arc::clone(&job.held)) {
            Some(unfinished) => {
                job.set_stream(&unfinished.stream);
                Caller::Stream(unfinished)
            }
            None => return,
        },
        false => Caller::Plain(call),
    };
    let stream = caller.stream();
    let mut answers: Vec<Value> = Vec::new();
    // All answers are held until the last one is there.
    let mut room = state.config.max_answer_bytes;
    let mut route_lines = String::new();
    for prompt in &complete.prompts {
        let chat = complete.chat(prompt);
        let head = match read_head(&state.config, &chat, Shape::of(&chat)) {
            Ok(head) => head,
            Err(error) => return caller.finish(Err(Refused::plain(error)), &route_lines, record),
        };
        // A record of its own, so that each answer is charged for.
        let mut part = Record::new(id.clone(), record.endpoint);
        part.client.clone_from(&record.client);
        part.must_count = record.must_count;
        let (outcome, lines) = run(
            state,
            job,
            &id,
            &mut part,
            &head,
            None,
            None,
            targets,
            Dialect::Completions,
            None,
            room,
        );
        // The lease is given back before the caller is answered.
        let outcome = outcome.map(|(answered, _)| answered);
        if outcome.is_ok() {
            part.answered();
        }
        part.spend_rest(&state.limits);
        record.absorb(part);
        let answer = match outcome {
            Ok(Answered::Whole(body)) => {
                room = room.saturating_sub(body.len());
                serde_json::from_slice(&body).unwrap_or(Value::Null)
            }
            Ok(_) => Value::Null,
            Err(refused) => return caller.finish(Err(refused), &lines, record),
        };
        answers.push(answer);
        if let Some(stream) = &stream {
            stream.announce(lines.clone());
            record.first_byte.get_or_insert(record.begun.millis());
            // A caller who has gone is seen by the timer thread, and ends the next attempt.
            let events = events(&answers, complete.include_usage);
            record.keep_answer(&events);
            let _ = stream.send(&events);
        }
        route_lines = lines;
    }
    let joined = join(answers);
    let Some(stream) = &stream else {
        let body = joined.to_string().into_bytes();
        return caller.finish(Ok(Answered::Whole(body)), &route_lines, record);
    };
    let mut end = Vec::new();
    if complete.include_usage {
        let mut usage = joined;
        usage["choices"] = json!([]);
        end = event(&usage);
    }
    end.extend_from_slice(b"data: [DONE]\n\n");
    record.keep_answer(&end);
    let _ = stream.end(&end, "");
    caller.finish(Ok(Answered::Streamed), &route_lines, record);
}

/// The events for the newest of the answers.
fn events(answers: &[Value], include_usage: bool) -> Vec<u8> {
    let mut joined = join(answers.to_vec());
    let newest = answers
        .last()
        .and_then(|answer| answer["choices"].as_array());
    let count = newest.map_or(0, Vec::len);
    let choices = match joined["choices"].take() {
        Value::Array(choices) => choices,
        _ => Vec::new(),
    };
    let mut out = Vec::new();
    for choice in &choices[choices.len().saturating_sub(count)..] {
        let mut chunk = joined.clone();
        chunk["choices"] = json!([choice]);
        match (include_usage, chunk.as_object_mut()) {
            (false, Some(chunk)) => drop(chunk.shift_remove("usage")),
            _ => chunk["usage"] = Value::Null,
        }
        out.extend(event(&chunk));
    }
    out
}

fn event(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}
