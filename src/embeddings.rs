//! `POST /v1/embeddings`: passed on where the upstream has the route, translated for Gemini.

use std::borrow::Cow;
use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use crate::cancel;
use crate::config::ClientKey;
use crate::desk::{Job, Phase};
use crate::dialect::embeddings::Embed;
use crate::error::ApiError;
use crate::exchange::tries::{Refused, Tries, Work};
use crate::exchange::{self, dry_run, refuse, timing, with_body};
use crate::failure::{Class, Failure};
use crate::inbound::Call;
use crate::passthrough::{self, Body, Parcel};
use crate::pool::{Asked, Lease};
use crate::provider::gemini::embed::{self, BATCH, Vectors};
use crate::provider::{Encoded, Format};
use crate::record::Record;
use crate::reply::{Reply, push_header};
use crate::route::Target;
use crate::server::State;
use crate::upstream::{Attempt, ended_for_good};

pub fn embeddings(
    state: &State,
    call: Call<'_>,
    job: &Arc<Job>,
    key: Option<&ClientKey>,
    record: &mut Record,
) {
    let config = &state.config;
    let Some((call, body)) = with_body(state, call, job, record) else {
        return;
    };
    let (body, targets) = match read(state, key, body) {
        Ok(read) => read,
        Err(error) => return refuse(call, &error, record),
    };
    record.model = body.model.clone().unwrap_or_default();
    let first = &config.upstreams[targets[0].upstream];
    if first.format != Format::Gemini {
        let parcel = Parcel {
            path: "/embeddings",
            body: &body,
            may_lack: false,
        };
        if let Some(unanswered) = passthrough::send(state, call, job, record, &parcel, &targets) {
            unanswered.finish(state, record);
        }
        return;
    }
    let embed = match Embed::read(&body.held) {
        Ok(embed) => embed,
        Err(error) => return refuse(call, &error, record),
    };
    if dry_run::is_asked(&call) {
        return tell(state, call, &embed, &targets, record);
    }
    let more = embed.texts.len().div_ceil(BATCH).saturating_sub(1);
    if let Some(key) = key
        && let Err(error) = state.limits.admit_more(key, more as u64)
    {
        return refuse(call, &error, record);
    }
    record.admitted = record
        .admitted
        .saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
    let id = call.id.clone();
    let mut asking = Asking {
        state,
        job,
        record,
        id: &id,
        embed: &embed,
        texts: &[],
        encoded: Encoded::default(),
        broken: false,
        lines: String::new(),
        served: None,
    };
    let outcome = asking.all(targets);
    let lines = std::mem::take(&mut asking.lines);
    finish(state, call, outcome, &embed, &lines, record);
}

/// The body with its model, and where it goes: to upstreams of one kind, since vectors of
/// different models have nothing to do with each other.
fn read(
    state: &State,
    key: Option<&ClientKey>,
    body: Vec<u8>,
) -> Result<(Body, Vec<Target>), ApiError> {
    let config = &state.config;
    let body = Body::of_json(body)?;
    let Some(model) = body.model.as_deref().filter(|model| !model.is_empty()) else {
        return Err(ApiError::invalid("model", "model: is required"));
    };
    let found = passthrough::of_any_shape(state, model, key)?;
    exchange::check_other_models(&body.held, key)?;
    let is_gemini = |target: &Target| config.upstreams[target.upstream].format == Format::Gemini;
    let is_openai = |target: &Target| passthrough::is_openai(&config.upstreams[target.upstream]);
    let kept: Vec<Target> = match found
        .iter()
        .find(|target| is_gemini(target) || is_openai(target))
    {
        None => return Err(passthrough::no_such_route(model, "anthropic")),
        Some(first) if is_gemini(first) => found.iter().filter(|t| is_gemini(t)).cloned().collect(),
        Some(_) => found.iter().filter(|t| is_openai(t)).cloned().collect(),
    };
    Ok((body, kept))
}

fn tell(state: &State, call: Call<'_>, embed: &Embed<'_>, targets: &[Target], record: &mut Record) {
    let texts = &embed.texts[..embed.texts.len().min(BATCH)];
    let encoded = embed::encode(texts, &targets[0].model, &embed.wishes);
    let outline = dry_run::Outline {
        method: "POST",
        path: &encoded.path,
        headers: vec![
            ("content-type", "application/json"),
            ("accept", "application/json"),
            ("x-request-id", &call.id),
        ],
        body: Some(&encoded.body),
        dropped: &[],
    };
    match dry_run::reply(state, targets, &outline) {
        Ok(reply) => exchange::tell(call, reply, record),
        Err(error) => refuse(call, &error, record),
    }
}

fn finish(
    state: &State,
    call: Call<'_>,
    outcome: Result<(Vec<Vec<f64>>, u64), Refused>,
    embed: &Embed<'_>,
    lines: &str,
    record: &mut Record,
) {
    let mut reply = match &outcome {
        Ok((vectors, tokens)) => {
            record.status = 200;
            record.usage.prompt = Some(*tokens);
            Reply::json(200, embed.answer(vectors, &record.model, *tokens))
        }
        Err(refused) => {
            record.error = Some(refused.error.message.clone());
            record.status = refused.error.status;
            if refused.caller_gone {
                record.status = 499;
                return;
            }
            call.refusal(&refused.error)
        }
    };
    reply.headers.push_str(lines);
    push_header(&mut reply.headers, "Server-Timing", &timing(record));
    record.spend(&state.limits);
    exchange::tell(call, reply, record);
}

/// More than a batch can cost: what an upstream says beyond that is a mistake.
const MOST_TOKENS: u64 = 100_000_000;

/// Vectors of all texts, one batch after the other.
struct Asking<'a> {
    state: &'a State,
    job: &'a Arc<Job>,
    record: &'a mut Record,
    id: &'a str,
    embed: &'a Embed<'a>,
    /// The batch at hand.
    texts: &'a [Cow<'a, str>],
    encoded: Encoded,
    /// The last attempt broke on its connection.
    broken: bool,
    lines: String,
    /// Who answered the last batch.
    served: Option<Target>,
}

impl Asking<'_> {
    fn all(&mut self, mut targets: Vec<Target>) -> Result<(Vec<Vec<f64>>, u64), Refused> {
        let mut tries = Tries::new(self.state, self.job, self.id);
        let mut all = Vec::with_capacity(self.embed.texts.len());
        let mut tokens = 0;
        for batch in self.embed.texts.chunks(BATCH) {
            self.texts = batch;
            let (vectors, _) = tries.run(self, &targets)?;
            all.extend(vectors.values);
            let told = vectors.tokens.unwrap_or_else(|| Embed::estimate(batch));
            let sum = tokens + told.min(MOST_TOKENS);
            tokens = sum;
            // What was asked counts, even if a later batch fails.
            self.record.usage.prompt = Some(sum);
            // The rest has to come from the same model.
            targets = self.served.take().into_iter().collect();
        }
        Ok((all, tokens))
    }

    fn read_whole(&self, attempt: &Attempt<'_>, body: &mut impl Read) -> Result<Vec<u8>, Failure> {
        let most = self.state.config.max_answer_bytes;
        let mut whole = Vec::new();
        let mut piece = [0; 8 * 1024];
        loop {
            self.job.enter(Phase::Between, attempt.upstream.idle);
            let read = body.read(&mut piece);
            self.job.leave();
            match read {
                Ok(0) => return Ok(whole),
                Ok(count) => whole.extend_from_slice(&piece[..count]),
                Err(error) => return Err(attempt.broken(self.job, &error)),
            }
            if whole.len() > most {
                let what = "the upstream's answer is longer than max_answer_bytes";
                return Err(Failure::malformed(what));
            }
        }
    }

    fn send(&mut self, target: &Target, lease: &Lease) -> Result<Vectors, Failure> {
        let upstream = &self.state.config.upstreams[target.upstream];
        if let Some(cause) = self.job.cancel.cause() {
            return Err(ended_for_good(cause));
        }
        let _entered = cancel::enter(&self.job.cancel);
        self.record.attempt(&upstream.name, lease.key_name());
        self.lines.clear();
        push_header(&mut self.lines, "x-weir-upstream", &upstream.name);
        push_header(
            &mut self.lines,
            "x-weir-attempts",
            &self.record.attempts.to_string(),
        );
        let attempt = Attempt {
            upstream,
            key: &upstream.keys[lease.key()],
            line: &self.state.lines[target.upstream],
            fresh: self.broken,
            path: &self.encoded.path,
            body: &self.encoded.body,
            headers: &[],
            id: self.id,
            first_byte: upstream.first_byte,
            streams: false,
        };
        let sent = Instant::now();
        let answer = attempt.send(self.job);
        let whole = answer.and_then(|mut answer| self.read_whole(&attempt, &mut answer.body));
        self.record.upstream_ms += sent.elapsed().as_secs_f64() * 1e3;
        let vectors = embed::decode(&whole?, self.texts.len())?;
        lease.succeeded();
        self.record.answered();
        self.served = Some(target.clone());
        Ok(vectors)
    }
}

impl Work for Asking<'_> {
    type Answer = Vectors;

    fn record(&mut self) -> &mut Record {
        self.record
    }

    fn is_final(&self) -> bool {
        false
    }

    fn begin(&mut self, target: &Target) -> Result<Option<usize>, ApiError> {
        self.encoded = embed::encode(self.texts, &target.model, &self.embed.wishes);
        Ok(None)
    }

    fn attempt(&mut self, target: &Target, lease: &Lease) -> Result<Vectors, Failure> {
        let outcome = self.send(target, lease);
        self.broken = matches!(&outcome, Err(failure) if failure.class == Class::Transport);
        outcome
    }

    /// The same key may be fine for chats, whatever this route says.
    fn asked(&self) -> Asked {
        Asked {
            aside: true,
            ..Asked::default()
        }
    }

    fn said(&self) -> [&[u8]; 2] {
        [self.encoded.path.as_bytes(), &self.encoded.body]
    }
}
