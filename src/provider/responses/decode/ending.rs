//! The ends: of an item, of the response, and what they say that had not been said.

use log::debug;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::super::failed;
use super::super::told::Missing;
use super::super::wire::{self, Count, Details, Incomplete, Item, Part, Response};
use super::*;

impl Decode {
    /// An item at its end: says what was not said of it.
    pub(super) fn whole(
        &mut self,
        at: usize,
        raw: &RawValue,
        out: &mut dyn DeltaSink,
    ) -> Result<(), Failure> {
        let Some(item) = wire::read::<Item<'_>>(Some(raw)) else {
            return Ok(());
        };
        let is_first = !std::mem::replace(&mut self.items[at].done, true);
        if self.items[at].id.is_empty() {
            self.items[at].id = self.kept_id(&item.id)?;
        }
        self.place(at, &item);
        if let Some(kind) = call_kind(&item) {
            self.call(at, kind, &item, out);
            self.argue_whole(at, arguments(kind, &item), out)?;
        }
        match &*item.kind {
            "message" => self.message(at, &item, out),
            "reasoning" if is_first => {
                self.thoughts(at, &item, out);
                self.keep(&item.id, raw);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn message(&mut self, at: usize, item: &Item<'_>, out: &mut dyn DeltaSink) {
        let cited = self.items[at].cited;
        let was_silent = self.items[at].text.is_empty();
        let parts = wire::list(item.content);
        let said = words(&parts);
        let all_said = self.items[at].text.missing(&said) == Missing::Rest("");
        for (place, raw) in parts.into_iter().enumerate() {
            let Some(part) = wire::read::<Part<'_>>(Some(raw)) else {
                continue;
            };
            let place = Count(Some(place as u64));
            if &*part.kind == "output_text" && !all_said {
                self.say_whole(at, place, &part.text, out);
                if was_silent && !self.items[at].is_commentary {
                    self.weigh(part.logprobs, out);
                }
            }
            self.refuse_whole(at, &part.refusal, out);
            if !cited {
                for annotation in wire::list(part.annotations) {
                    self.cite(at, place, annotation, out);
                }
            }
        }
    }

    pub(super) fn thoughts(&mut self, at: usize, item: &Item<'_>, out: &mut dyn DeltaSink) {
        let lists = [
            (Thought::Summary, item.summary),
            (Thought::Plain, item.content),
        ];
        for (kind, list) in lists {
            for (place, raw) in wire::list(list).into_iter().enumerate() {
                if let Some(part) = wire::read::<Part<'_>>(Some(raw)) {
                    let place = Count(Some(place as u64));
                    self.think_whole(at, kind, place, &part.text, out);
                }
            }
        }
    }

    /// Keeps a reasoning item for the carrier.
    pub(super) fn keep(&mut self, id: &str, raw: &RawValue) {
        if self.kept.iter().any(|kept| kept == id) || self.kept.len() == MOST_ITEMS {
            return;
        }
        let id = self.kept_id(id).unwrap_or_default();
        self.kept.push(id);
        let item = compact(raw.get());
        if self.reasoning.len() + item.len() > MOST_REASONING {
            debug!("responses: too much reasoning to hand it all back");
            return;
        }
        if !self.reasoning.is_empty() {
            self.reasoning.push(',');
        }
        self.reasoning.push_str(&item);
    }

    /// The response is over, well or not.
    pub(super) fn close(
        &mut self,
        response: &Response<'_>,
        out: &mut dyn DeltaSink,
    ) -> Result<(), Failure> {
        let reason = match &*response.status {
            "completed" => None,
            "incomplete" => {
                let details = wire::read::<Incomplete<'_>>(response.incomplete_details);
                Some(match details.as_ref().map(|details| &*details.reason) {
                    Some("content_filter") => FinishReason::ContentFilter,
                    _ => FinishReason::Length,
                })
            }
            "failed" => {
                let error = response
                    .error
                    .filter(|raw| says_something(raw.get().as_bytes()));
                return Err(match error {
                    Some(error) => failed::failure(error.get()),
                    None => Failure::ended_with("failed"),
                });
            }
            other => return Err(Failure::ended_with(other)),
        };
        self.name(response);
        self.begin(out);
        let output = wire::list(response.output);
        match self.items.is_empty() {
            true => {
                for (index, raw) in output.into_iter().enumerate() {
                    let at = self.new_item(index as u64)?;
                    self.whole(at, raw, out)?;
                }
            }
            false => self.catch_up(&output, out)?,
        }
        let is_open = |item: &Heard| {
            // Nothing at all, or the half of an object.
            let told = item.arguments.as_deref();
            let half = |told: &str| serde_json::from_str::<IgnoredAny>(told).is_err();
            let is_half = match item.is_custom {
                true => told.is_some_and(str::is_empty),
                false => told.is_some_and(half),
            };
            item.call.is_some() && is_half && !item.argued
        };
        if reason.is_none() && self.items.iter().any(is_open) {
            // A tool would run with nothing.
            return Err(Failure::malformed(
                "the upstream began a tool call and never told all of its arguments",
            ));
        }
        // There was nothing but commentary, so that is the answer.
        if self.chars == 0
            && self.calls == 0
            && self.refused.is_empty()
            && let Some(text) = self.commentary.take().filter(|text| !text.is_empty())
        {
            self.put(
                Delta::Text {
                    candidate: 0,
                    text: &text,
                },
                out,
            );
        }
        if !self.reasoning.is_empty() {
            let reasoning = std::mem::take(&mut self.reasoning);
            let json = format!(r#"{{"openai":{{"reasoning_items":[{reasoning}]}}}}"#);
            out.put(Delta::Extra {
                candidate: 0,
                json: &json,
            });
        }
        if let Some(usage) = wire::read(response.usage) {
            out.put(Delta::Usage(counters(&usage)));
        }
        if self.undo.wants_tier && !response.service_tier.is_empty() {
            out.put(Delta::ServiceTier(&response.service_tier));
        }
        let called = match self.calls {
            0 => FinishReason::Stop,
            _ => FinishReason::ToolCalls,
        };
        out.put(Delta::Finish {
            candidate: 0,
            reason: reason.unwrap_or(called),
        });
        Ok(())
    }

    /// What the last event says of an answer that came in pieces, where it says more. Numbers are
    /// not relied on: texts are compared as a whole, calls by their ids, or else by their order.
    pub(super) fn catch_up(
        &mut self,
        output: &[&RawValue],
        out: &mut dyn DeltaSink,
    ) -> Result<(), Failure> {
        let items: Vec<(&RawValue, Item<'_>)> = output
            .iter()
            .filter_map(|raw| Some((*raw, wire::read::<Item<'_>>(Some(raw))?)))
            .collect();
        let mut said = String::new();
        let mut refused = String::new();
        let mut calls = 0;
        let (kept, mut reasoned) = (self.kept.len(), 0);
        for (raw, item) in &items {
            if let Some(kind) = call_kind(item) {
                let by_order = self
                    .items
                    .iter()
                    .position(|heard| heard.call == Some(calls));
                calls += 1;
                let at = match self.known(item).or(by_order) {
                    Some(at) => at,
                    None => self.new_item(u64::MAX)?,
                };
                self.call(at, kind, item, out);
                self.argue_whole(at, arguments(kind, item), out)?;
                continue;
            }
            match &*item.kind {
                "message" => {
                    let parts = wire::list(item.content);
                    said.push_str(&words(&parts));
                    for part in parts {
                        if let Some(part) = wire::read::<Part<'_>>(Some(part)) {
                            refused.push_str(&part.refusal);
                        }
                    }
                }
                "reasoning" => {
                    let at = match self.known(item) {
                        Some(at) => Some(at),
                        None if self.thought_at.is_some() => None,
                        None => Some(self.new_item(u64::MAX)?),
                    };
                    if let Some(at) = at {
                        self.thoughts(at, item, out);
                    }
                    // Some give an item another id at the end, so they are told by their number.
                    if reasoned >= kept {
                        self.keep(&item.id, raw);
                    }
                    reasoned += 1;
                }
                _ => {}
            }
        }
        let last = self.items.len() - 1;
        match self.spoken.missing(&said) {
            Missing::Rest(rest) => {
                let place = self.items[last].parts.last().map(|part| part.place);
                self.say(last, Count(place), rest, out);
            }
            // Some last events hold no output at all.
            Missing::Other if said.is_empty() => {}
            Missing::Other => debug!("responses: the answer ends otherwise than it was told"),
        }
        if let Missing::Rest(rest) = self.refused.missing(&refused) {
            self.refuse(last, rest, out);
        }
        if !self.cited {
            let is_content =
                |item: &Item<'_>| !(self.undo.final_only && &*item.phase == "commentary");
            let told: Vec<_> = items.iter().filter(|(_, item)| is_content(item)).collect();
            for (_, item) in told {
                for (place, part) in wire::list(item.content).into_iter().enumerate() {
                    let part = wire::read::<Part<'_>>(Some(part));
                    for raw in wire::list(part.and_then(|part| part.annotations)) {
                        self.cite(last, Count(Some(place as u64)), raw, out);
                    }
                }
            }
        }
        Ok(())
    }
}

/// All text of a message's parts.
fn words(parts: &[&RawValue]) -> String {
    let parts = parts
        .iter()
        .filter_map(|raw| wire::read::<Part<'_>>(Some(raw)));
    parts
        .filter(|part| &*part.kind == "output_text")
        .map(|part| part.text.to_string())
        .collect()
}

fn arguments<'i>(kind: ToolKind, item: &'i Item<'_>) -> &'i str {
    match kind {
        ToolKind::Function => &item.arguments,
        ToolKind::Custom => &item.input,
    }
}

fn counters(usage: &wire::Usage<'_>) -> Usage {
    let details = |raw| wire::read::<Details>(raw).unwrap_or_default();
    let input = details(usage.input_tokens_details);
    let output = details(usage.output_tokens_details);
    Usage {
        prompt: usage.input_tokens.0,
        completion: usage.output_tokens.0,
        cached: input.cached_tokens.0,
        cache_write: input.cache_write_tokens.0,
        reasoning: output.reasoning_tokens.0,
        ..Usage::default()
    }
}
