//! The fields of a request that can be left out: what providers call them, and how they are taken
//! out of a request. What carries the caller's meaning (messages, tools, schemas) has no row.

use std::borrow::Cow;
use std::mem;

use crate::chat::Request;

/// A field, or several that are refused together.
pub struct Field {
    pub name: &'static str,
    /// Its members in a chat request.
    pub members: &'static [&'static str],
    /// What providers call it, in lower case.
    pub names: &'static [&'static str],
    /// What they say of it in words.
    pub phrases: &'static [&'static str],
}

/// A field that everybody calls by its own name.
const fn plain(name: &'static [&'static str; 1]) -> Field {
    Field {
        name: name[0],
        members: name,
        names: name,
        phrases: &[],
    }
}

pub static FIELDS: &[Field] = &[
    Field {
        name: "stop",
        members: &["stop"],
        names: &["stop", "stop_sequences", "stopsequences"],
        phrases: &["stop sequences", "stop parameter"],
    },
    plain(&["temperature"]),
    Field {
        name: "top_p",
        members: &["top_p"],
        names: &["top_p", "topp"],
        phrases: &[],
    },
    Field {
        name: "top_k",
        members: &["top_k"],
        names: &["top_k", "topk"],
        phrases: &[],
    },
    Field {
        name: "frequency_penalty",
        members: &["frequency_penalty"],
        names: &["frequency_penalty", "frequencypenalty"],
        phrases: &["frequency penalty"],
    },
    Field {
        name: "presence_penalty",
        members: &["presence_penalty"],
        names: &["presence_penalty", "presencepenalty"],
        phrases: &["presence penalty"],
    },
    Field {
        name: "penalties",
        members: &["frequency_penalty", "presence_penalty"],
        names: &[],
        phrases: &["penalty is not", "penalties are not", "support penalt"],
    },
    plain(&["repetition_penalty"]),
    plain(&["min_p"]),
    plain(&["seed"]),
    plain(&["top_logprobs"]),
    Field {
        name: "logprobs",
        members: &["logprobs", "top_logprobs"],
        names: &["logprobs", "response_logprobs", "responselogprobs"],
        phrases: &["logprobs is not", "logprobs are not", "support logprobs"],
    },
    plain(&["logit_bias"]),
    Field {
        name: "parallel_tool_calls",
        members: &["parallel_tool_calls"],
        names: &["parallel_tool_calls", "disable_parallel_tool_use"],
        phrases: &["parallel tool calls", "parallel tool use"],
    },
    Field {
        name: "reasoning",
        members: &["reasoning_effort", "thinking"],
        names: &[
            "reasoning_effort",
            "reasoning.effort",
            "reasoning",
            "effort",
            "output_config.effort",
            "thinking",
            "thinking_config",
            "thinkingconfig",
            "thinking_level",
            "thinkinglevel",
            "thinking_budget",
            "thinkingbudget",
            "budget_tokens",
        ],
        phrases: &[
            "thinking is not",
            "support thinking",
            "thinking level is not",
            "thinking budget is not",
            "adaptive thinking",
            "extended thinking",
            "effort parameter",
        ],
    },
    plain(&["verbosity"]),
    plain(&["stream_options"]),
    Field {
        name: "service_tier",
        members: &["service_tier"],
        names: &["service_tier", "servicetier", "speed"],
        phrases: &["fast mode"],
    },
    plain(&["metadata"]),
    plain(&["store"]),
    plain(&["user"]),
    plain(&["safety_identifier"]),
    plain(&["prediction"]),
    plain(&["prompt_cache_key"]),
    plain(&["prompt_cache_retention"]),
    plain(&["prompt_cache_options"]),
];

/// Whether the value is what happens without the field, too: nobody misses it.
pub fn is_default(member: &str, value: f64) -> bool {
    match member {
        "temperature" | "top_p" => value == 1.0,
        "frequency_penalty" | "presence_penalty" | "top_logprobs" => value == 0.0,
        _ => false,
    }
}

/// Whether the raw value is one that the field can have. Another one is the caller's own fault,
/// whatever the refusal says of it.
pub fn fits(member: &str, raw: &str) -> bool {
    match member {
        "temperature" | "top_p" | "top_k" | "frequency_penalty" | "presence_penalty"
        | "repetition_penalty" | "min_p" | "seed" | "top_logprobs" => raw.parse::<f64>().is_ok(),
        "logprobs" | "parallel_tool_calls" | "store" => matches!(raw, "true" | "false"),
        _ => true,
    }
}

/// Exchanges a member between two requests. True: the value that went over into `other` would have
/// changed the answer.
pub fn swap<'a>(member: &str, request: &mut Request<'a>, other: &mut Request<'a>) -> bool {
    fn number(member: &str, a: &mut Option<f64>, b: &mut Option<f64>) -> bool {
        mem::swap(a, b);
        b.is_some_and(|value| !is_default(member, value))
    }
    fn any<T>(a: &mut Option<T>, b: &mut Option<T>) -> bool {
        mem::swap(a, b);
        b.is_some()
    }
    type Text<'a> = Option<Cow<'a, str>>;
    fn text<'a>(a: &mut Text<'a>, b: &mut Text<'a>) -> bool {
        any(a, b)
    }
    let (a, b) = (request, other);
    match member {
        "stop" => {
            mem::swap(&mut a.stop, &mut b.stop);
            !b.stop.is_empty()
        }
        "logprobs" => {
            mem::swap(&mut a.logprobs, &mut b.logprobs);
            b.logprobs
        }
        "temperature" => number(member, &mut a.temperature, &mut b.temperature),
        "top_p" => number(member, &mut a.top_p, &mut b.top_p),
        "frequency_penalty" => number(member, &mut a.frequency_penalty, &mut b.frequency_penalty),
        "presence_penalty" => number(member, &mut a.presence_penalty, &mut b.presence_penalty),
        "top_k" => any(&mut a.top_k, &mut b.top_k),
        "seed" => any(&mut a.seed, &mut b.seed),
        "top_logprobs" => any(&mut a.top_logprobs, &mut b.top_logprobs),
        "logit_bias" => any(&mut a.logit_bias, &mut b.logit_bias),
        "parallel_tool_calls" => any(&mut a.parallel_tool_calls, &mut b.parallel_tool_calls),
        "reasoning_effort" => text(&mut a.reasoning_effort, &mut b.reasoning_effort),
        "thinking" => any(&mut a.thinking, &mut b.thinking),
        "verbosity" => text(&mut a.verbosity, &mut b.verbosity),
        "service_tier" => text(&mut a.service_tier, &mut b.service_tier),
        "metadata" => any(&mut a.metadata, &mut b.metadata),
        "store" => any(&mut a.store, &mut b.store),
        "user" => text(&mut a.user, &mut b.user),
        "safety_identifier" => text(&mut a.safety_identifier, &mut b.safety_identifier),
        "prompt_cache_key" => text(&mut a.prompt_cache_key, &mut b.prompt_cache_key),
        "prompt_cache_retention" => {
            text(&mut a.prompt_cache_retention, &mut b.prompt_cache_retention)
        }
        "prompt_cache_options" => any(&mut a.prompt_cache_options, &mut b.prompt_cache_options),
        // Only relayed requests have it.
        _ => false,
    }
}
