//! Words of refusals as vendors and servers write them, and what each teaches.

use serde_json::{Value, json};

use super::*;

/// What the first row that hears something hears in it.
fn hear(spoken: Spoken, status: u16, body: &Value, heeded: &Lessons, effort: &str) -> Vec<Lesson> {
    let failure = Failure::from_status(status, body.to_string().as_bytes(), None);
    let effort = Some(effort).filter(|effort| !effort.is_empty());
    let Some(refusal) = Refusal::new(&failure, spoken, false, heeded, effort) else {
        return Vec::new();
    };
    ROWS.iter()
        .filter_map(|row| (row.hears)(&refusal))
        .collect()
}

fn first(spoken: Spoken, body: &Value) -> Option<Lesson> {
    let heard = hear(spoken, 400, body, &Lessons::default(), "");
    heard.first().copied()
}

fn message(words: &str) -> Value {
    json!({"error": {"message": words}})
}

/// As OpenAI writes it.
fn openai(words: &str, param: &str, code: &str) -> Value {
    json!({"error": {"message": words, "type": "invalid_request_error", "param": param, "code": code}})
}

#[test]
fn a_search_that_a_server_does_not_have_is_found() {
    for (spoken, words) in [
        (
            Spoken::Messages,
            "tools.3: Input tag 'web_search_20250305' found using 'type' does not match any of the expected tags",
        ),
        (
            Spoken::Messages,
            "'claude-x' does not support tool types: web_search_20250305",
        ),
        (Spoken::Gemini, "Tool use with google_search is unsupported"),
        (
            Spoken::Responses,
            "Hosted tool 'web_search' is not supported with gpt-4.1-nano.",
        ),
    ] {
        assert_eq!(
            first(spoken, &message(words)),
            Some(Lesson::NoSearch),
            "{words}"
        );
    }
    let other = message("tools.3.custom.input_schema: Field required");
    assert_eq!(first(Spoken::Messages, &other), None);
}

#[test]
fn fields_that_are_refused_by_name_are_found() {
    use Spoken::{Chat, Gemini, Messages, Responses};
    for (spoken, body, field) in [
        (
            Chat,
            openai(
                "Unsupported parameter: 'stop' is not supported with this model.",
                "stop",
                "unsupported_parameter",
            ),
            "stop",
        ),
        (
            Chat,
            openai(
                "Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1) value is supported.",
                "temperature",
                "unsupported_value",
            ),
            "temperature",
        ),
        (
            Chat,
            message("Unrecognized request argument supplied: seed"),
            "seed",
        ),
        (
            Chat,
            message("`logprobs` is not supported with this model"),
            "logprobs",
        ),
        (
            Chat,
            message("property 'logit_bias' is unsupported"),
            "logit_bias",
        ),
        (
            Chat,
            message("Model m does not support parameter presencePenalty."),
            "presence_penalty",
        ),
        (
            Chat,
            message("Argument not supported on this model: stop"),
            "stop",
        ),
        (
            Chat,
            message("This model does not support parallel tool calls."),
            "parallel_tool_calls",
        ),
        (
            Chat,
            openai("bad", "verbosity", "unsupported_parameter"),
            "verbosity",
        ),
        (
            Chat,
            json!({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}),
            "seed",
        ),
        (
            Responses,
            openai(
                "Unsupported parameter: 'reasoning.effort' is not supported with this model.",
                "reasoning.effort",
                "unsupported_parameter",
            ),
            "reasoning",
        ),
        (
            Gemini,
            json!({"error": {"code": 400, "status": "INVALID_ARGUMENT",
                "message": "Penalty is not enabled for models/gemini-2.5-flash"}}),
            "penalties",
        ),
        (
            Gemini,
            message(
                "Invalid JSON payload received. Unknown name \"frequencyPenalty\" at 'generation_config': Cannot find field.",
            ),
            "frequency_penalty",
        ),
        (
            Gemini,
            message("Thinking budget is not supported for this model."),
            "reasoning",
        ),
        (
            Gemini,
            message("Logprobs is not enabled for this model."),
            "logprobs",
        ),
        (
            Messages,
            message("temperature: Extra inputs are not permitted"),
            "temperature",
        ),
        (
            Messages,
            message("`top_k` is deprecated for this model."),
            "top_k",
        ),
        (
            Messages,
            message("adaptive thinking is not supported on this model"),
            "reasoning",
        ),
        (
            Messages,
            message("This model does not support the effort parameter."),
            "reasoning",
        ),
    ] {
        assert_eq!(first(spoken, &body), Some(Lesson::Without(field)), "{body}");
    }
    for (spoken, body) in [
        // What carries the meaning of a request is never given up.
        (
            Chat,
            openai(
                "Unsupported parameter: 'tools'",
                "tools",
                "unsupported_parameter",
            ),
        ),
        (
            Chat,
            openai(
                "Unsupported value: 'response_format'",
                "response_format",
                "unsupported_value",
            ),
        ),
        (
            Chat,
            message("response_format json_schema is not supported by this model"),
        ),
        (
            Chat,
            message("Unsupported value: 'messages[0].role' does not support 'system'"),
        ),
        (
            Messages,
            message("messages.1.content.0.thinking: unexpected value"),
        ),
        (
            Messages,
            message("tools.0.custom.user: Extra inputs are not permitted"),
        ),
        (
            Gemini,
            message("Multiple candidates is not enabled for this model"),
        ),
        // It names a field and does not refuse it.
        (
            Chat,
            openai(
                "'temperature' must be at most 2",
                "temperature",
                "invalid_value",
            ),
        ),
        (Chat, message("the seed: of a new idea")),
        // The words stand in a value of the caller's.
        (
            Chat,
            message("temperature: input should be a number, got 'stop is unsupported'"),
        ),
        // A member that the refusal is about wins over words.
        (Chat, openai("'seed' is unsupported", "messages", "x")),
    ] {
        assert_eq!(first(spoken, &body), None, "{body}");
    }
    let words = message("Unsupported parameter: 'stop'");
    for status in [401, 403, 404, 429, 500] {
        assert!(
            hear(Chat, status, &words, &Lessons::default(), "").is_empty(),
            "{status}"
        );
    }
    // Each time another one.
    let heeded = Lessons(vec![Lesson::Without("stop")]);
    let two = message("'stop' is not supported; 'seed' is not supported");
    assert_eq!(
        hear(Chat, 400, &two, &heeded, ""),
        [Lesson::Without("seed")]
    );
}

#[test]
fn every_field_is_found_by_each_of_its_names() {
    for field in FIELDS {
        assert!(!field.members.is_empty());
        for name in field.names {
            let body = message(&format!("Unknown parameter: '{name}'."));
            let heard = hear(Spoken::Gemini, 400, &body, &Lessons::default(), "");
            let Some(Lesson::Without(found)) = heard.last() else {
                panic!("{name}: {heard:?}");
            };
            let found = FIELDS.iter().find(|field| field.name == *found).unwrap();
            assert!(found.names.contains(name), "{name}: {heard:?}");
        }
        for phrase in field.phrases {
            let body = message(&format!("{phrase} is not enabled"));
            let heard = hear(Spoken::Gemini, 400, &body, &Lessons::default(), "");
            assert!(!heard.is_empty(), "{phrase}");
        }
    }
}

#[test]
fn the_nearest_effort_that_is_known_is_taken() {
    let list = |values: &str| {
        openai(
            &format!(
                "Unsupported value: 'reasoning_effort' does not support 'max' with this model. Supported values are: {values}."
            ),
            "reasoning_effort",
            "unsupported_value",
        )
    };
    let effort = |body: &Value, asked: &str| {
        let heard = hear(Spoken::Chat, 400, body, &Lessons::default(), asked);
        heard.iter().find_map(|lesson| match lesson {
            Lesson::Effort(from, to) => {
                assert_eq!(*from, asked);
                Some(*to)
            }
            _ => None,
        })
    };
    let all = list("'none', 'low', 'medium', 'high', and 'xhigh'");
    assert_eq!(effort(&all, "max"), Some("xhigh"));
    assert_eq!(effort(&all, "minimal"), Some("low"));
    assert_eq!(effort(&all, "high"), None, "it is known");
    assert_eq!(
        effort(&list("'low', 'medium' and 'high'"), "none"),
        Some("low")
    );
    assert_eq!(
        effort(&list("'none'"), "max"),
        None,
        "thinking is not turned off"
    );
    let literal = message("output_config.effort: Input should be 'low', 'medium' or 'high'");
    assert_eq!(effort(&literal, "xhigh"), Some("high"));
    let level = message(
        "Thinking level MINIMAL is not supported for this model. Please retry with other thinking level.",
    );
    assert_eq!(effort(&level, "minimal"), Some("low"));
    assert_eq!(
        effort(&message("effort: 'max' is not supported"), "max"),
        Some("xhigh")
    );
    assert_eq!(
        effort(&message("effort: 'low' is not supported"), "low"),
        Some("minimal")
    );
    let field = openai(
        "Unsupported parameter: 'reasoning_effort' is not supported with this model.",
        "reasoning_effort",
        "unsupported_parameter",
    );
    assert_eq!(effort(&field, "max"), None);
    assert_eq!(
        first(Spoken::Chat, &field),
        Some(Lesson::Without("reasoning"))
    );

    let lessons = |list: &[(&'static str, &'static str)]| {
        Lessons(
            list.iter()
                .map(|(from, to)| Lesson::Effort(from, to))
                .collect(),
        )
    };
    let steps = lessons(&[("max", "xhigh"), ("xhigh", "high")]);
    assert_eq!(steps.effort("max"), Some("high"));
    assert_eq!(steps.effort("xhigh"), Some("high"));
    assert_eq!(steps.effort("low"), None);
    assert_eq!(
        lessons(&[("low", "minimal"), ("minimal", "low")]).effort("low"),
        None
    );
}

#[test]
fn the_limit_has_two_names() {
    let old = openai(
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "max_tokens",
        "unsupported_parameter",
    );
    let new = Some(Lesson::LimitAs("max_completion_tokens"));
    assert_eq!(first(Spoken::Chat, &old), new);
    let words = "'max_tokens' is not supported, use 'max_completion_tokens'";
    assert_eq!(first(Spoken::Chat, &message(words)), new);
    let other = message("max_completion_tokens: Extra inputs are not permitted");
    assert_eq!(
        first(Spoken::Chat, &other),
        Some(Lesson::LimitAs("max_tokens"))
    );
    // There is no third name.
    let heeded = Lessons(vec![Lesson::LimitAs("max_tokens")]);
    assert_eq!(hear(Spoken::Chat, 400, &other, &heeded, ""), []);
    assert_eq!(first(Spoken::Messages, &old), None);
}

#[test]
fn a_signature_that_is_missing_teaches_the_generation() {
    let missing = message(
        "Function call is missing a thought_signature in functionCall parts. This is required for tools to work correctly.",
    );
    let heard = hear(Spoken::Gemini, 400, &missing, &Lessons::default(), "");
    assert_eq!(heard, [Lesson::ThirdGeneration, Lesson::NoSignatures]);
    let wrong = message("Invalid thought_signature.");
    let heard = hear(Spoken::Gemini, 400, &wrong, &Lessons::default(), "");
    assert_eq!(heard, [Lesson::NoSignatures]);
    for (model, is) in [
        ("gemini-3.8-flash", true),
        ("gemini-3-pro-preview", true),
        ("gemini-12", true),
        ("gemini-2.5-pro", false),
        ("gemini-pro-latest", false),
        ("gemma-4-31b-it", false),
        ("", false),
    ] {
        assert_eq!(is_of_third_generation(model), is, "{model}");
    }
}

#[test]
fn strict_tools_that_are_too_many_are_told_from_those_that_are_unknown() {
    for words in [
        "tools: Too many strict tools (21). At most 20 are allowed.",
        "Schemas contain too many optional parameters (25), which would make grammar compilation inefficient (limit: 24).",
        "The compiled grammar is too large, which would cause performance issues. Simplify your tool schemas or reduce the number of strict tools.",
    ] {
        let heard = hear(
            Spoken::Messages,
            400,
            &message(words),
            &Lessons::default(),
            "",
        );
        assert_eq!(
            heard[..2],
            [Lesson::LooseTools, Lesson::FormatInWords],
            "{words}"
        );
        let heard = hear(Spoken::Chat, 400, &message(words), &Lessons::default(), "");
        assert!(!heard.contains(&Lesson::FormatInWords), "{words}");
    }
    let body = openai(
        "Unknown parameter: 'tools[0].function.strict'.",
        "tools[0].function.strict",
        "unknown_parameter",
    );
    assert_eq!(first(Spoken::Chat, &body), Some(Lesson::LooseTools));
    let body = message("tools.0.custom.strict: Extra inputs are not permitted");
    assert_eq!(first(Spoken::Messages, &body), Some(Lesson::LooseTools));
    let body = message("output_config.format: Extra inputs are not permitted");
    assert_eq!(first(Spoken::Messages, &body), Some(Lesson::FormatInWords));
}

#[test]
fn a_stream_that_is_refused_is_found() {
    let verified = openai(
        "Your organization must be verified to stream this model. Please go to: https://platform.openai.com/settings/organization/general.",
        "stream",
        "unsupported_value",
    );
    let parameter = message("Unsupported parameter: 'stream'");
    let words = message("This model does not support streaming.");
    for body in [&verified, &parameter, &words] {
        for spoken in [Spoken::Chat, Spoken::Responses] {
            assert_eq!(first(spoken, body), Some(Lesson::NoStream), "{body}");
        }
        assert_eq!(first(Spoken::Messages, body), None, "{body}");
    }
    let options = message("Unsupported parameter: 'stream_options'");
    assert_eq!(first(Spoken::Chat, &options), Some(Lesson::NoUsage));
}

#[test]
fn what_weir_adds_itself_is_found() {
    use Spoken::{Chat, Messages, Responses};
    for (spoken, words, lesson) in [
        (
            Responses,
            "Encrypted content is not supported with this model.",
            Lesson::NoSeal,
        ),
        (
            Messages,
            "thinking.adaptive.display: Extra inputs are not permitted",
            Lesson::NoDisplay,
        ),
        (
            Messages,
            "cache_control: Extra inputs are not permitted",
            Lesson::NoCache,
        ),
        (
            Chat,
            "Extra inputs are not permitted: stream_options",
            Lesson::NoUsage,
        ),
    ] {
        assert_eq!(first(spoken, &message(words)), Some(lesson), "{words}");
    }
    let words = "messages.0.content.0.cache_control: Extra inputs are not permitted";
    assert_eq!(first(Messages, &message(words)), None);
}

#[test]
fn what_holds_for_one_request_is_told_from_what_holds_for_the_model() {
    let of_this_request = |words: &str| {
        let failure = Failure::from_status(400, message(words).to_string().as_bytes(), None);
        let heeded = Lessons::default();
        let refusal = Refusal::new(&failure, Spoken::Messages, true, &heeded, None).unwrap();
        refusal.is_of_this_request()
    };
    assert!(of_this_request(
        "`top_k` is not supported when thinking is enabled"
    ));
    assert!(of_this_request(
        "'logprobs' is not allowed together with tools"
    ));
    assert!(!of_this_request("'stop' is not supported with this model"));
    let both =
        "`temperature` and `top_p` cannot both be specified for this model. Please use only one.";
    assert_eq!(
        first(Spoken::Messages, &message(both)),
        Some(Lesson::Without("top_p"))
    );
}

#[test]
fn vector_33_a_pointer_to_the_other_address_is_recognised() {
    let wants = |status: u16, words: &str| {
        let heard = hear(
            Spoken::Chat,
            status,
            &message(words),
            &Lessons::default(),
            "",
        );
        heard.first() == Some(&Lesson::WantsResponses)
    };
    let tools = "Function tools with reasoning_effort are not supported for gpt-5.6 in \
                 /v1/chat/completions. Please use /v1/responses instead.";
    assert!(wants(400, tools));
    let only = "This model is only supported in v1/responses and not in v1/chat/completions.";
    assert!(wants(404, only));
    assert!(!wants(400, "reasoning_effort is not supported"));
    assert!(!wants(500, tools));
}

#[test]
fn a_summary_that_is_not_given_is_recognised() {
    let refuses = |status: u16, param: &str, words: &str| {
        let body = openai(words, param, "unsupported_value");
        let heard = hear(Spoken::Responses, status, &body, &Lessons::default(), "");
        heard.first() == Some(&Lesson::NoSummary)
    };
    let words = "Your organization must be verified to generate reasoning summaries.";
    assert!(refuses(400, "reasoning.summary", words));
    assert!(refuses(400, "x", words));
    assert!(refuses(400, "x", "Unknown parameter: 'reasoning.summary'."));
    assert!(!refuses(500, "reasoning.summary", words));
    assert!(!refuses(400, "reasoning.effort", "m"));
}

#[test]
fn a_member_of_a_message_is_told_from_a_word() {
    let heard = |status: u16, body: &Value| {
        let heard = hear(Spoken::Chat, status, body, &Lessons::default(), "");
        heard.contains(&Lesson::PlainMessages)
    };
    let refuses = |words: &str| heard(400, &message(words));
    for message in [
        "Extra inputs are not permitted, field: 'messages[1].refusal', value: None",
        "Unrecognized request argument supplied: refusal",
        "property 'reasoning_content' is unsupported",
        "json: unknown field \"annotations\"",
        "unknown field `reasoning`, expected one of `role`, `content`",
        "messages.1.reasoning: Extra inputs are not permitted",
        "[{'type': 'extra_forbidden', 'loc': ('body', 'messages', 1, 'assistant', 'extra_content')}]",
        "Additional properties are not allowed ('refusal' was unexpected)",
        "reasoning_content is not supported",
    ] {
        assert!(refuses(message), "{message}");
    }
    for message in [
        "reasoning effort high is not supported",
        "audio is not supported by this model",
        "Unknown parameter: 'reasoning_effort'",
        "images are not allowed here",
        "Unsupported value: 'stop'",
        "messages[1].refusal is a nice member",
    ] {
        assert!(!refuses(message), "{message}");
    }
    // In the list that FastAPI makes of it, wherever it stands.
    let detail = json!([
        {"type": "literal_error", "loc": ["body", "messages", 0, "user", "role"], "msg": "Input should be 'user'"},
        {"type": "extra_forbidden", "loc": ["body", "messages", 0, "assistant", "reasoning_content"], "msg": "Extra inputs are not permitted"}
    ]);
    for body in [
        json!({"detail": detail}),
        json!({"object": "error", "message": {"detail": detail}, "type": "invalid_request_error"}),
        json!({"object": "error", "message": detail}),
    ] {
        assert!(heard(422, &body), "{body}");
    }
}
