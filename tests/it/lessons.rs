//! What refusals teach: for each kind of lesson, what is sent again and what the caller sees,
//! whole and streamed, with one target and with two, and with `strict`. The second request knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::client::{Answer, chat, post};
use crate::first_mile::error_of;
use crate::upstream::{Format, Received, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config, upstream};

/// One kind of lesson.
struct Case {
    name: &'static str,
    format: Format,
    /// More of the upstream's settings.
    settings: Value,
    model: &'static str,
    /// More of the request.
    extra: Value,
    /// The refusal of what was sent, if it is not what the upstream takes.
    refuses: fn(&Received) -> Option<&'static str>,
    /// What of the second version stands where, as a pointer into its body. `null`: nothing.
    sent: &'static [(&'static str, &'static str)],
    /// `x-weir-dropped`, where the lesson costs something.
    dropped: Option<&'static str>,
    /// It is remembered.
    lasts: bool,
    /// With `strict`, the caller is told instead.
    gives_up: bool,
    /// Only what is streamed is refused.
    streams_only: bool,
}

impl Case {
    fn new(name: &'static str, format: Format, model: &'static str) -> Case {
        Case {
            name,
            format,
            settings: json!({}),
            model,
            extra: json!({}),
            refuses: |_| None,
            sent: &[],
            dropped: None,
            lasts: true,
            gives_up: true,
            streams_only: false,
        }
    }

    fn weir(&self, first: &Upstream, second: Option<&Upstream>, strict: bool) -> Weir {
        let mut settings = config(self.format, &first.url(), &["key-a"]);
        settings["retries"] = json!(0);
        settings["strict"] = json!(strict);
        if let Some(second) = second {
            let other = upstream("second", self.format, &second.url(), &["key-b"]);
            settings["upstreams"].as_array_mut().unwrap().push(other);
        }
        for upstream in settings["upstreams"].as_array_mut().unwrap() {
            upstream["models"] = json!(["*"]);
            upstream["discover"] = json!(false);
            for (key, value) in self.settings.as_object().unwrap() {
                upstream[key] = value.clone();
            }
        }
        Weir::start(&settings)
    }

    fn body(&self, streams: bool) -> Value {
        let mut body = chat(self.model, streams);
        for (key, value) in self.extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    }

    fn upstream(&self) -> Upstream {
        let (format, refuses) = (self.format, self.refuses);
        Upstream::start(move |request| match refuses(request) {
            Some(words) => format.error(400, "invalid_request_error", words),
            None => answer(format, request),
        })
    }

    /// The first request costs one refusal, the second none, whatever the form of the answer.
    fn check(&self, streams: bool, targets: usize) {
        let what = format!("{}, streams {streams}, {targets} targets", self.name);
        let first = self.upstream();
        let second = (targets == 2).then(|| Upstream::start(|_| panic!("nobody asks here")));
        let weir = self.weir(&first, second.as_ref(), false);
        let told = post(weir.addr, &self.body(streams));
        assert_fine(&what, &told);
        assert_eq!(told.header("x-weir-dropped"), self.dropped, "{what}");
        assert_eq!(told.header("x-weir-upstream"), Some("up"), "{what}");
        assert_eq!(told.header("x-weir-attempts"), Some("2"), "{what}");
        let requests = first.requests();
        assert_eq!(requests.len(), 2, "{what}");
        let sent = requests[1].json();
        for (pointer, expected) in self.sent {
            let found = sent.pointer(pointer).unwrap_or(&Value::Null);
            let expected: Value = serde_json::from_str(expected).unwrap();
            assert_eq!(*found, expected, "{what}: {pointer} of {sent}");
        }
        let lessons = weir.status()["lessons"].clone();
        let lessons = lessons.as_array().unwrap();
        assert_eq!(lessons.len(), usize::from(self.lasts), "{what}");

        // Of another form as well: it is about the model.
        let again = post(weir.addr, &self.body(streams || self.streams_only));
        assert_fine(&what, &again);
        assert_eq!(again.header("x-weir-dropped"), self.dropped, "{what}");
        let calls = if self.lasts { 1 } else { 2 };
        assert_eq!(first.count(), 2 + calls, "{what}");
        if self.lasts {
            assert_eq!(lessons[0]["upstream"], "up", "{what}");
            assert_eq!(lessons[0]["model"], self.model, "{what}");
            assert_eq!(first.requests()[2].json(), sent, "{what}");
        }
        assert_eq!(second.map_or(0, |second| second.count()), 0, "{what}");
        weir.idle(LIMIT);
    }

    fn check_strict(&self, streams: bool) {
        let what = format!("{}, strict, streams {streams}", self.name);
        let first = self.upstream();
        let weir = self.weir(&first, None, true);
        for round in 1..=2 {
            let told = post(weir.addr, &self.body(streams));
            if !self.gives_up {
                assert_fine(&what, &told);
                continue;
            }
            assert_eq!(told.status, 400, "{what}: {}", told.text());
            let words = error_of(&told)["message"].to_string();
            let refused = first.requests()[0].clone();
            assert!(
                words.contains((self.refuses)(&refused).unwrap()),
                "{what}: {words}"
            );
            assert_eq!(first.count(), round, "{what}");
            assert_eq!(weir.status()["lessons"], json!([]), "{what}");
        }
        weir.idle(LIMIT);
    }
}

fn assert_fine(what: &str, answer: &Answer) {
    let text = answer.text();
    assert_eq!(answer.status, 200, "{what}: {text}");
    assert!(
        text.contains("fine") && !text.contains("\"error\""),
        "{what}: {text}"
    );
}

/// In the format of the address that was asked.
fn answer(format: Format, request: &Received) -> Reply {
    let format = match request.path.ends_with("/responses") {
        true => Format::Responses,
        false => format,
    };
    format.answer(request, &["fine"])
}

fn has(request: &Received, pointer: &str) -> bool {
    request.json().pointer(pointer).is_some()
}

fn tool(strict: bool) -> Value {
    json!([{"type": "function", "function": {"name": "f", "strict": strict, "parameters": {
        "type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
        "additionalProperties": false
    }}}])
}

/// A history with a call that nobody signed.
fn unsigned() -> Value {
    json!([
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function",
            "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"}
    ])
}

fn schema() -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "s", "strict": true, "schema": {
        "type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
        "additionalProperties": false
    }}})
}

fn chat_cases() -> Vec<Case> {
    let case = |name| Case::new(name, Format::OpenAi, "m");
    vec![
        Case {
            extra: json!({"stop": ["x"], "seed": 7}),
            refuses: |request| {
                has(request, "/stop")
                    .then_some("Unsupported parameter: 'stop' is not supported with this model.")
            },
            sent: &[("/stop", "null"), ("/seed", "7")],
            dropped: Some("stop"),
            ..case("stop")
        },
        Case {
            settings: json!({"official": true}),
            model: "gpt-4.9",
            extra: json!({"temperature": 0.3}),
            refuses: |request| {
                has(request, "/temperature").then_some(
                    "Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1) value is supported.",
                )
            },
            sent: &[("/temperature", "null")],
            dropped: Some("temperature"),
            ..case("temperature at the vendor's own")
        },
        Case {
            extra: json!({"presence_penalty": 0}),
            refuses: |request| {
                has(request, "/presence_penalty")
                    .then_some("Argument not supported on this model: presencePenalty")
            },
            sent: &[("/presence_penalty", "null")],
            ..case("a penalty of nothing, which nobody misses")
        },
        Case {
            extra: json!({"logprobs": true, "top_logprobs": 2}),
            refuses: |request| {
                has(request, "/logprobs").then_some("`logprobs` is not supported with this model")
            },
            sent: &[("/logprobs", "null"), ("/top_logprobs", "null")],
            dropped: Some("logprobs,top_logprobs"),
            ..case("log probabilities")
        },
        Case {
            extra: json!({"max_tokens": 9}),
            refuses: |request| {
                has(request, "/max_tokens").then_some(
                    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                )
            },
            sent: &[("/max_completion_tokens", "9"), ("/max_tokens", "null")],
            gives_up: false,
            ..case("the new name of the limit")
        },
        Case {
            extra: json!({"max_completion_tokens": 9}),
            refuses: |request| {
                has(request, "/max_completion_tokens")
                    .then_some("max_completion_tokens: Extra inputs are not permitted")
            },
            sent: &[("/max_tokens", "9"), ("/max_completion_tokens", "null")],
            gives_up: false,
            ..case("the old name of the limit")
        },
        Case {
            extra: json!({"reasoning_effort": "max"}),
            refuses: |request| {
                (request.json()["reasoning_effort"] == "max").then_some(
                    "Unsupported value: 'reasoning_effort' does not support 'max' with this model. Supported values are: 'none', 'low', 'medium', 'high', and 'xhigh'.",
                )
            },
            sent: &[("/reasoning_effort", "\"xhigh\"")],
            dropped: Some("reasoning_effort"),
            ..case("an effort that is too high")
        },
        Case {
            extra: json!({"reasoning_effort": "low"}),
            refuses: |request| {
                has(request, "/reasoning_effort")
                    .then_some("reasoning_effort is not supported with this model")
            },
            sent: &[("/reasoning_effort", "null")],
            dropped: Some("reasoning_effort"),
            ..case("an effort where there is none")
        },
        Case {
            extra: json!({"tools": tool(true), "parallel_tool_calls": false}),
            refuses: |request| {
                has(request, "/parallel_tool_calls")
                    .then_some("Unrecognized request argument supplied: parallel_tool_calls")
            },
            sent: &[
                ("/parallel_tool_calls", "null"),
                ("/tools/0/function/strict", "true"),
            ],
            dropped: Some("parallel_tool_calls"),
            ..case("parallel calls")
        },
        Case {
            extra: json!({"tools": tool(true)}),
            refuses: |request| {
                has(request, "/tools/0/function/strict")
                    .then_some("tools.0.function.strict: Extra inputs are not permitted")
            },
            sent: &[
                ("/tools/0/function/strict", "null"),
                ("/tools/0/function/name", "\"f\""),
                ("/tools/0/function/parameters/required", "[\"a\"]"),
            ],
            dropped: Some("tools.strict"),
            ..case("strict tools")
        },
        Case {
            extra: json!({"tools": tool(false), "reasoning_effort": "low"}),
            refuses: |request| {
                request.path.ends_with("/chat/completions").then_some(
                    "Function tools with reasoning_effort are not supported for m in /v1/chat/completions. Please use /v1/responses instead.",
                )
            },
            sent: &[("/reasoning/effort", "\"low\""), ("/tools/0/name", "\"f\"")],
            gives_up: false,
            ..case("the other address")
        },
        Case {
            extra: json!({"messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b", "reasoning_content": "c"},
                {"role": "user", "content": "d"}
            ]}),
            refuses: |request| {
                has(request, "/messages/1/reasoning_content")
                    .then_some("property 'reasoning_content' is unsupported")
            },
            sent: &[
                ("/messages/1/reasoning_content", "null"),
                ("/messages/1/content", "\"b\""),
            ],
            ..case("messages with additions")
        },
        Case {
            extra: json!({"stream_options": {"include_usage": true}, "stream": true}),
            refuses: |request| {
                has(request, "/stream_options")
                    .then_some("Extra inputs are not permitted: stream_options")
            },
            sent: &[("/stream_options", "null")],
            dropped: Some("stream_options"),
            streams_only: true,
            ..case("the caller's wish for the usage of a stream")
        },
        Case {
            settings: json!({"ask_usage": true}),
            extra: json!({"stream": true}),
            refuses: |request| {
                has(request, "/stream_options")
                    .then_some("Extra inputs are not permitted: stream_options")
            },
            sent: &[("/stream_options", "null")],
            gives_up: false,
            streams_only: true,
            ..case("weir's own wish for the usage of a stream")
        },
        Case {
            extra: json!({"stream": true}),
            refuses: |request| {
                request
                    .wants_stream()
                    .then_some("Your organization must be verified to stream this model.")
            },
            sent: &[("/stream", "false")],
            gives_up: false,
            streams_only: true,
            ..case("streams")
        },
        Case {
            extra: json!({"logit_bias": {"1": 1}, "tools": tool(false)}),
            refuses: |request| {
                has(request, "/logit_bias")
                    .then_some("'logit_bias' is not supported when tools are used")
            },
            sent: &[("/logit_bias", "null")],
            dropped: Some("logit_bias"),
            lasts: false,
            ..case("what this one request cannot have")
        },
    ]
}

fn claude_cases() -> Vec<Case> {
    let case = |name| Case::new(name, Format::Anthropic, "claude-opus-5-5");
    vec![
        Case {
            extra: json!({"stop": ["x"]}),
            refuses: |request| {
                has(request, "/stop_sequences")
                    .then_some("stop_sequences: Extra inputs are not permitted")
            },
            sent: &[("/stop_sequences", "null")],
            dropped: Some("stop"),
            ..case("stop")
        },
        Case {
            extra: json!({"reasoning_effort": "max"}),
            refuses: |request| {
                let effort = &request.json()["output_config"]["effort"];
                (effort == "max" || effort == "xhigh")
                    .then_some("output_config.effort: Input should be 'low', 'medium' or 'high'")
            },
            sent: &[("/output_config/effort", "\"high\"")],
            dropped: Some("reasoning_effort"),
            ..case("an effort that is too high")
        },
        Case {
            extra: json!({"reasoning_effort": "high"}),
            refuses: |request| {
                has(request, "/thinking")
                    .then_some("adaptive thinking is not supported on this model")
            },
            sent: &[("/thinking", "null"), ("/output_config", "null")],
            dropped: Some("reasoning_effort"),
            ..case("thinking")
        },
        Case {
            extra: json!({"reasoning_effort": "high"}),
            refuses: |request| {
                has(request, "/thinking/display")
                    .then_some("thinking.adaptive.display: Extra inputs are not permitted")
            },
            sent: &[
                ("/thinking", "{\"type\":\"adaptive\"}"),
                ("/output_config/effort", "\"high\""),
            ],
            gives_up: false,
            ..case("what thinking shows")
        },
        Case {
            settings: json!({"auto_cache": true}),
            refuses: |request| {
                has(request, "/cache_control")
                    .then_some("cache_control: Extra inputs are not permitted")
            },
            sent: &[("/cache_control", "null")],
            gives_up: false,
            ..case("weir's own cache mark")
        },
        Case {
            extra: json!({"tools": tool(true)}),
            refuses: |request| {
                has(request, "/tools/0/strict")
                    .then_some("tools.0.custom.strict: Extra inputs are not permitted")
            },
            sent: &[
                ("/tools/0/strict", "null"),
                ("/tools/0/input_schema/required", "[\"a\"]"),
            ],
            dropped: Some("tools.strict"),
            ..case("strict tools")
        },
        Case {
            extra: json!({"tools": tool(true)}),
            refuses: |request| {
                has(request, "/tools/0/strict").then_some(
                    "The compiled grammar is too large, which would cause performance issues. Simplify your tool schemas or reduce the number of strict tools.",
                )
            },
            sent: &[
                ("/tools/0/strict", "null"),
                ("/tools/0/input_schema/required", "[\"a\"]"),
            ],
            dropped: Some("tools.strict"),
            lasts: false,
            ..case("too much to enforce in tools")
        },
        Case {
            extra: json!({"response_format": schema()}),
            refuses: |request| {
                has(request, "/output_config/format").then_some(
                    "Schemas contain too many optional parameters, which would make grammar compilation inefficient (limit: 24).",
                )
            },
            sent: &[("/output_config", "null")],
            dropped: Some("response_format"),
            lasts: false,
            ..case("too much to enforce in the format")
        },
        Case {
            extra: json!({"response_format": schema()}),
            refuses: |request| {
                has(request, "/output_config/format")
                    .then_some("output_config.format: Extra inputs are not permitted")
            },
            sent: &[("/output_config", "null")],
            dropped: Some("response_format"),
            ..case("a format that is asked for in words")
        },
    ]
}

fn gemini_cases() -> Vec<Case> {
    let case = |name| Case::new(name, Format::Gemini, "gemini-2.0-flash");
    const MISSING: &str = "Function call is missing a thought_signature in functionCall parts. This is required for tools to work correctly.";
    vec![
        Case {
            extra: json!({"frequency_penalty": 0.4, "presence_penalty": 0}),
            refuses: |request| {
                let config = "/generationConfig";
                (has(request, &format!("{config}/frequencyPenalty"))
                    || has(request, &format!("{config}/presencePenalty")))
                .then_some("Penalty is not enabled for models/gemini-2.0-flash")
            },
            sent: &[("/generationConfig", "null")],
            dropped: Some("frequency_penalty"),
            ..case("penalties")
        },
        Case {
            extra: json!({"messages": unsigned(), "tools": tool(false)}),
            refuses: |request| {
                (!has(request, "/contents/1/parts/0/thoughtSignature")).then_some(MISSING)
            },
            sent: &[
                (
                    "/contents/1/parts/0/thoughtSignature",
                    "\"skip_thought_signature_validator\"",
                ),
                ("/contents/1/parts/0/functionCall/id", "\"c1\""),
                ("/contents/2/parts/0/functionResponse/id", "\"c1\""),
            ],
            gives_up: false,
            ..case("a signature that is missing")
        },
        Case {
            model: "gemini-3-flash-preview",
            extra: json!({"reasoning_effort": "minimal"}),
            refuses: |request| {
                let level = &request.json()["generationConfig"]["thinkingConfig"]["thinkingLevel"];
                (level == "minimal").then_some(
                    "Thinking level MINIMAL is not supported for this model. Please retry with other thinking level.",
                )
            },
            sent: &[("/generationConfig/thinkingConfig/thinkingLevel", "\"low\"")],
            dropped: Some("reasoning_effort"),
            ..case("a level that is too low")
        },
        Case {
            model: "gemini-2.5-flash-lite",
            extra: json!({"reasoning_effort": "low", "seed": 3}),
            refuses: |request| {
                has(request, "/generationConfig/thinkingConfig")
                    .then_some("Thinking budget is not supported for this model.")
            },
            sent: &[
                ("/generationConfig/thinkingConfig", "null"),
                ("/generationConfig/seed", "3"),
            ],
            dropped: Some("reasoning_effort"),
            ..case("thinking")
        },
    ]
}

fn responses_cases() -> Vec<Case> {
    let case = |name| Case::new(name, Format::Responses, "m");
    vec![
        Case {
            extra: json!({"parallel_tool_calls": false, "tools": tool(false)}),
            refuses: |request| {
                has(request, "/parallel_tool_calls").then_some(
                    "Unsupported parameter: 'parallel_tool_calls' is not supported with this model.",
                )
            },
            sent: &[("/parallel_tool_calls", "null"), ("/tools/0/name", "\"f\"")],
            dropped: Some("parallel_tool_calls"),
            ..case("parallel calls")
        },
        Case {
            extra: json!({"reasoning_effort": "low"}),
            refuses: |request| {
                has(request, "/reasoning/summary").then_some(
                    "Your organization must be verified to generate reasoning summaries.",
                )
            },
            sent: &[("/reasoning", "{\"effort\":\"low\"}")],
            gives_up: false,
            ..case("summaries")
        },
        Case {
            refuses: |request| {
                request
                    .wants_stream()
                    .then_some("Your organization must be verified to stream this model.")
            },
            sent: &[("/stream", "false"), ("/stream_options", "null")],
            gives_up: false,
            ..case("streams")
        },
        Case {
            refuses: |request| {
                has(request, "/include")
                    .then_some("Encrypted content is not supported with this model.")
            },
            sent: &[("/include", "null")],
            gives_up: false,
            ..case("sealed reasoning")
        },
    ]
}

fn check_all(cases: &[Case]) {
    for case in cases {
        for streams in [false, true] {
            if streams || !case.streams_only {
                case.check(streams, 1);
                case.check(streams, 2);
                case.check_strict(streams);
            }
        }
    }
}

#[test]
fn a_relayed_request_is_mended_once_and_the_next_one_is_right() {
    check_all(&chat_cases());
}

#[test]
fn a_request_to_claude_is_mended_once_and_the_next_one_is_right() {
    check_all(&claude_cases());
}

#[test]
fn a_request_to_gemini_is_mended_once_and_the_next_one_is_right() {
    check_all(&gemini_cases());
}

#[test]
fn a_request_for_a_response_is_mended_once_and_the_next_one_is_right() {
    check_all(&responses_cases());
}

#[test]
fn an_answer_by_a_newer_gemini_teaches_that_its_name_means_another_model() {
    for (streams, late) in [(false, false), (true, false), (true, true)] {
        let scripted = Upstream::start(move |request| {
            assert!(request.wants_stream());
            let mut events = Format::Gemini.events(&["fi", "ne"]);
            for (at, event) in events.iter_mut().enumerate() {
                // A stream may have begun before it says who speaks.
                *event = match late && at == 0 {
                    true => event.replace("\"modelVersion\"", "\"x\""),
                    false => event.replace("gemini-2.5-flash", "gemini-3.8-flash"),
                };
            }
            Reply::stream().events(&events).end()
        });
        let weir = Case::new("", Format::Gemini, "gemini-2.5-pro").weir(&scripted, None, true);
        let body = chat("gemini-2.5-pro", streams);
        assert_eq!(post(weir.addr, &body).status, 200);
        let lessons = weir.idle(LIMIT)["lessons"].clone();
        assert_eq!(lessons[0]["model"], "gemini-2.5-pro", "{lessons}");
        let mut body = chat("gemini-2.5-pro", streams);
        body["messages"] = unsigned();
        body["tools"] = tool(false);
        assert_eq!(post(weir.addr, &body).status, 200);
        assert_eq!(scripted.count(), 2);
        let sent = scripted.requests()[1].json();
        let signature = sent.pointer("/contents/1/parts/0/thoughtSignature");
        assert_eq!(
            signature,
            Some(&json!("skip_thought_signature_validator")),
            "{sent}"
        );
        weir.idle(LIMIT);
    }
}

/// A server that refuses each of so many fields in turn.
fn refusing(fields: &'static [&'static str]) -> Upstream {
    Upstream::start(move |request| {
        let body = request.json();
        let refused = fields.iter().find(|field| body.get(**field).is_some());
        match refused {
            Some(field) => {
                let words = format!("Unsupported parameter: '{field}'");
                Format::OpenAi.error(400, "invalid_request_error", &words)
            }
            None => Format::OpenAi.answer(request, &["fine"]),
        }
    })
}

#[test]
fn efforts_that_are_one_to_the_upstream_are_stepped_over_at_once() {
    let scripted = Upstream::start(|request| {
        let level = &request.json()["generationConfig"]["thinkingConfig"]["thinkingLevel"];
        match level == "high" {
            true => {
                let words = "Thinking level HIGH is not supported for this model.";
                Format::Gemini.error(400, "invalid_argument", words)
            }
            false => Format::Gemini.answer(request, &["fine"]),
        }
    });
    let model = "gemini-3-flash-preview";
    let weir = Case::new("", Format::Gemini, model).weir(&scripted, None, false);
    let mut body = chat(model, false);
    for (effort, calls) in [
        ("max", 2),
        ("max", 3),
        ("high", 4),
        ("xhigh", 5),
        ("medium", 6),
    ] {
        body["reasoning_effort"] = json!(effort);
        let told = post(weir.addr, &body);
        assert_fine(effort, &told);
        assert_eq!(scripted.count(), calls, "{effort}");
        let sent = scripted.requests()[calls - 1].json();
        let level = &sent["generationConfig"]["thinkingConfig"]["thinkingLevel"];
        assert_eq!(*level, "medium", "{effort}");
        let dropped = (effort != "medium").then_some("reasoning_effort");
        assert_eq!(told.header("x-weir-dropped"), dropped, "{effort}");
    }
    weir.idle(LIMIT);
}

#[test]
fn one_request_can_teach_several_lessons_and_no_more_than_four() {
    let fields = &["stop", "seed", "user", "verbosity", "store", "metadata"];
    let mut body = chat("m", false);
    for field in &fields[..4] {
        body[field] = json!("x");
    }
    body["seed"] = json!(1);
    let case = Case::new("several", Format::OpenAi, "m");
    let scripted = refusing(fields);
    let weir = case.weir(&scripted, None, false);
    let told = post(weir.addr, &body);
    assert_fine("four", &told);
    assert_eq!(
        told.header("x-weir-dropped"),
        Some("stop,seed,user,verbosity")
    );
    assert_eq!(scripted.count(), 5);
    assert_fine("four", &post(weir.addr, &body));
    assert_eq!(scripted.count(), 6);
    assert_eq!(weir.status()["lessons"].as_array().unwrap().len(), 4);

    // One more than that is told to the caller, and nothing is kept that did not help.
    let scripted = refusing(fields);
    let weir = case.weir(&scripted, None, false);
    body["store"] = json!(true);
    let told = post(weir.addr, &body);
    assert_eq!(told.status, 400, "{}", told.text());
    assert!(told.text().contains("'store'"), "{}", told.text());
    assert_eq!(scripted.count(), 5);
    assert_eq!(weir.status()["lessons"], json!([]));
    weir.idle(LIMIT);
}

#[test]
fn what_does_not_help_is_not_learned_and_what_is_not_there_is_not_sent_again() {
    // It says the same whatever it gets.
    let words = "Unsupported parameter: 'stop' is not supported with this model.";
    let scripted = Upstream::always(Format::OpenAi.error(400, "invalid_request_error", words));
    let case = Case::new("", Format::OpenAi, "m");
    let weir = case.weir(&scripted, None, false);
    let told = post(weir.addr, &chat("m", false));
    assert_eq!((told.status, scripted.count()), (400, 1));
    let mut body = chat("m", false);
    body["stop"] = json!("x");
    for calls in [3, 5] {
        assert_eq!(post(weir.addr, &body).status, 400);
        assert_eq!(scripted.count(), calls);
    }
    assert_eq!(weir.status()["lessons"], json!([]));
    weir.idle(LIMIT);
}

#[test]
fn what_carries_the_meaning_of_a_request_is_never_left_out() {
    for (field, value) in [
        ("tools", tool(false)),
        ("response_format", schema()),
        ("tool_choice", json!("required")),
        ("n", json!(2)),
        ("modalities", json!(["text", "audio"])),
    ] {
        for format in Format::ALL {
            let words = format!("Unsupported parameter: '{field}' is not supported.");
            let refusal = format.error(400, "invalid_request_error", &words);
            let scripted = Upstream::always(refusal);
            let case = Case::new("", format, format.model());
            let weir = case.weir(&scripted, None, false);
            let mut body = chat(format.model(), false);
            body[field] = value.clone();
            let told = post(weir.addr, &body);
            assert_eq!(told.status, 400, "{field}: {}", told.text());
            assert!(scripted.count() <= 1, "{field}, {}", format.name());
        }
    }
}

#[test]
fn a_lesson_is_about_one_model_of_one_upstream_and_a_reload_forgets_it() {
    let scripted = refusing(&["stop"]);
    let case = Case::new("", Format::OpenAi, "m");
    let weir = case.weir(&scripted, None, false);
    let stop = |model: &str| {
        let mut body = chat(model, false);
        body["stop"] = json!("x");
        body
    };
    assert_fine("m", &post(weir.addr, &stop("m")));
    assert_fine("m", &post(weir.addr, &stop("m")));
    assert_eq!(scripted.count(), 3);
    assert_fine("n", &post(weir.addr, &stop("n")));
    assert_eq!(scripted.count(), 5, "another model is asked with it");
    assert_eq!(weir.status()["lessons"].as_array().unwrap().len(), 2);
    assert!(weir.log().contains("learned from up: m goes without stop"));
    weir.signal(libc::SIGHUP);
    crate::wait::until(LIMIT, "the lessons to be forgotten", || {
        (weir.status()["lessons"] == json!([])).then_some(())
    });
    assert_fine("m", &post(weir.addr, &stop("m")));
    assert_eq!(scripted.count(), 7);
    weir.idle(LIMIT);
}

#[test]
fn a_mended_request_goes_on_to_other_keys_and_other_targets_as_it_was() {
    // The resend meets an empty quota; the second key gets the mended version.
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let scripted = Upstream::start(move |request| {
        if request.json().get("stop").is_some() {
            return Format::OpenAi.error(400, "x", "Unsupported parameter: 'stop'");
        }
        match count.fetch_add(1, Ordering::Relaxed) {
            0 => Format::OpenAi.error(429, "rate_limit_exceeded", "slow down"),
            _ => Format::OpenAi.answer(request, &["fine"]),
        }
    });
    let mut settings = config(Format::OpenAi, &scripted.url(), &["key-a", "key-b"]);
    settings["upstreams"][0]["models"] = json!(["*"]);
    settings["upstreams"][0]["discover"] = json!(false);
    let weir = Weir::start(&settings);
    let mut body = chat("m", false);
    body["stop"] = json!("x");
    assert_fine("two keys", &post(weir.addr, &body));
    assert_eq!(scripted.keys(), ["key-a", "key-a", "key-b"]);
    assert_eq!(weir.status()["lessons"].as_array().unwrap().len(), 1);

    // Another target gets what the caller sent.
    let broken = Upstream::start(|request| match request.json().get("stop_sequences") {
        Some(_) => {
            let words = "stop_sequences: Extra inputs are not permitted";
            Format::Anthropic.error(400, "invalid_request_error", words)
        }
        None => Format::Anthropic.error(500, "api_error", "broken"),
    });
    let fine = Upstream::start(|request| Format::Gemini.answer(request, &["fine"]));
    let mut settings = config(Format::Anthropic, &broken.url(), &["k"]);
    let second = upstream("second", Format::Gemini, &fine.url(), &["k"]);
    settings["upstreams"].as_array_mut().unwrap().push(second);
    settings["retries"] = json!(0);
    for upstream in settings["upstreams"].as_array_mut().unwrap() {
        upstream["models"] = json!(["*"]);
        upstream["discover"] = json!(false);
    }
    let weir = Weir::start(&settings);
    let told = post(weir.addr, &body);
    assert_fine("two targets", &told);
    assert_eq!(told.header("x-weir-dropped"), None);
    assert_eq!((broken.count(), fine.count()), (2, 1));
    let stops = &fine.requests()[0].json()["generationConfig"]["stopSequences"];
    assert_eq!(*stops, json!(["x"]));
    assert_eq!(
        weir.status()["lessons"],
        json!([]),
        "it was not shown to help"
    );
    weir.idle(LIMIT);
}
