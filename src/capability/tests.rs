use super::openai::NeedsResponses;
use super::*;

#[test]
fn the_longest_prefix_wins() {
    assert!(claude("claude-opus-5-5-20260901").thinking.adaptive);
    assert!(claude("claude-opus-5").thinking.disabled);
    assert_eq!(claude("claude-opus-4-1-20250805").max_output, 32_000);
    assert_eq!(claude("claude-sonnet-4-20250514").max_output, 64_000);
    assert!(!claude("claude-zeta-9").mid_system);
    assert!(claude("kimi-k2").prefill);
    assert_eq!(
        gemini("models/gemini-2.5-flash-lite").thinking,
        GeminiThinking::Budget {
            min: 512,
            max: 24_576,
            off: true
        }
    );
    assert!(gemini("gemini-4-argon").third);
    assert!(!gemini("gemma-3-27b-it").third);
    assert!(gemini("gemini-2.0-flash-preview-image-generation").image_output);
    assert!(gemini("gemini-3-pro-image-preview").image_output);
    assert!(gemini("gemini-2.5-pro-preview-tts").audio_output);
    assert!(gemini("gemini-2.5-flash-image").since_2_5 && !gemini("gemini-2.0-flash").since_2_5);
    assert!(gemini("gemini-1.5-pro").old_schema && !gemini("gemini-2.0-flash").old_schema);
    assert!(!gemini("gemini-3.6-flash").sampling && gemini("gemini-3.5-flash").sampling);
    assert!(openai("gpt-5-mini").reasoning && !openai("gpt-4.1").reasoning);
}

#[test]
fn claude_rows_are_those_of_the_table() {
    let row = |model: &str| {
        let row = claude(model);
        let kinds = [
            (row.thinking.adaptive, 'A'),
            (row.thinking.budget, 'E'),
            (row.thinking.disabled, 'D'),
            (row.thinking.between_tools, 'B'),
            (row.thinks_unasked, '!'),
            (row.sampling, 's'),
            (row.prefill, 'p'),
            (row.forced_tools, 'f'),
            (row.mid_system, 'm'),
            (row.fast, 'q'),
        ];
        let letters = kinds.iter().filter(|(has, _)| *has);
        let letters: String = letters.map(|(_, letter)| letter).collect();
        format!("{letters} {} {}", row.efforts.len(), row.max_output / 1000)
    };
    for (model, expected) in [
        ("claude-fable-5", "A!m 5 128"),
        ("claude-fable-5-1", "A!m 5 128"),
        ("claude-fable-5-2", "A!mq 5 128"),
        ("claude-mythos-5", "A!m 5 128"),
        ("claude-mythos-5-2", "A!mq 5 128"),
        ("claude-mythos-preview", "A! 5 128"),
        ("claude-opus-5-5", "A!mq 5 128"),
        ("claude-sonnet-5-5", "AB!m 5 128"),
        ("claude-haiku-5-5", "AD!fm 5 128"),
        ("claude-opus-5", "AD!fm 5 128"),
        ("claude-sonnet-5", "AD!f 5 128"),
        ("claude-opus-4-8", "ADfm 5 128"),
        ("claude-opus-4-7", "ADf 5 128"),
        ("claude-opus-4-6", "AEDsf 4 128"),
        ("claude-sonnet-4-6", "AEDsf 4 128"),
        ("claude-opus-4-5", "EDspf 0 64"),
        ("claude-haiku-4-5-20251001", "EDspf 0 64"),
        ("claude-opus-4-1", "EDspf 0 32"),
        ("claude-opus-4-20250514", "EDspf 0 32"),
        ("claude-3-haiku-20240307", "spf 0 4"),
        ("claude-zeta-9", "A! 5 128"),
        ("kimi-k2", "spf 0 8"),
    ] {
        assert_eq!(row(model), expected, "{model}");
    }
}

#[test]
fn openai_rows_are_those_of_the_table() {
    use NeedsResponses::{Always, Never, ToolsUnlessNone, ToolsWithEffort};
    for (model, reasoning, samples, responses) in [
        ("gpt-4o", false, false, Never),
        ("gpt-4.1-mini", false, false, Never),
        ("gpt-3.5-turbo", false, false, Never),
        ("gpt-4o-search-preview", false, false, Never),
        ("chatgpt-4o-latest", false, false, Never),
        ("gpt-5-chat-latest", false, false, Never),
        ("o1", true, false, Never),
        ("o3-mini", true, false, Never),
        ("o4-mini-2025-04-16", true, false, Never),
        ("gpt-5-mini", true, false, Never),
        ("openai/gpt-5-mini", true, false, Never),
        ("gpt-5.1", true, true, Never),
        ("gpt-5.2-2025-12-11", true, true, Never),
        ("gpt-5.4", true, true, ToolsWithEffort),
        ("gpt-5.4-nano", true, true, ToolsWithEffort),
        ("gpt-5.5", true, true, ToolsUnlessNone),
        ("gpt-5.6-sol", true, true, ToolsUnlessNone),
        ("gpt-5.9", true, true, ToolsUnlessNone),
        ("gpt-6", true, true, ToolsUnlessNone),
        ("gpt-6-mini", true, true, ToolsUnlessNone),
        ("o1-pro", true, false, Always),
        ("o3-pro-2025-06-10", true, false, Always),
        ("o3-deep-research", true, false, Always),
        ("o4-mini-deep-research-2025-06-26", true, false, Always),
        ("gpt-5-pro", true, false, Always),
        ("gpt-5-codex", true, false, Always),
        ("gpt-5.1-codex-max", true, true, Always),
        ("codex-mini-latest", true, false, Always),
        ("gpt-daybreak-red-latest", true, false, Always),
        ("daybreak-red-latest", true, false, Never),
        ("gpt-5.2-pro", true, true, Always),
        ("gpt-promptly", false, false, Never),
        ("gemini-2.5-pro", false, false, Never),
        ("llama-pro", false, false, Never),
    ] {
        let row = openai(model);
        assert_eq!(
            (row.reasoning, row.samples_without_effort, row.responses),
            (reasoning, samples, responses),
            "{model}"
        );
        assert_eq!(may_need_responses(model), responses != Never, "{model}");
    }
}

#[test]
fn tools_and_effort_decide_where_the_name_does_not() {
    for (model, tools, effort, expected) in [
        ("gpt-5.4", true, Some("low"), true),
        ("gpt-5.4", true, Some("none"), false),
        ("gpt-5.4", true, None, false),
        ("gpt-5.4", false, Some("high"), false),
        ("gpt-5.5", true, Some("minimal"), true),
        ("gpt-5.6", true, None, true),
        ("gpt-5.6-sol", true, Some("none"), false),
        ("gpt-5.6", false, None, false),
        ("gpt-6", true, None, true),
        ("gpt-6-mini", true, Some("xhigh"), true),
        ("gpt-5.2", true, Some("high"), false),
        ("gpt-5.5", true, None, true),
        ("gpt-5.5", false, Some("max"), false),
        ("gpt-6-sol", false, Some("max"), true),
        ("gpt-5.6", false, Some("max"), true),
        ("gpt-6-sol", false, Some("xhigh"), false),
        ("gpt-4o", true, None, false),
        ("gpt-5.2-pro", false, Some("none"), true),
        ("o3-pro", false, None, true),
    ] {
        assert_eq!(
            needs_responses(model, tools, effort),
            expected,
            "{model} {tools} {effort:?}"
        );
    }
}

#[test]
fn who_samples_and_who_stops() {
    // Sampling without an effort and with `none`, and `stop`.
    for (model, unasked, none, stop) in [
        ("gpt-4o", true, true, true),
        ("gpt-5", false, false, false),
        ("gpt-5-nano", false, false, false),
        ("gpt-5-chat-latest", true, true, true),
        ("gpt-5.1", true, true, false),
        ("gpt-5.1-chat-latest", false, false, false),
        ("gpt-5.2", true, true, false),
        ("gpt-5.2-pro", false, true, false),
        ("gpt-5.4-mini", true, true, false),
        ("gpt-5.5", false, true, true),
        ("gpt-5.6-sol", false, true, true),
        ("gpt-6-sol", false, true, true),
        ("o1", false, false, true),
        ("o3", false, false, false),
        ("o4-mini-2025-04-16", false, false, false),
        ("chat-latest", false, false, true),
        ("daybreak-blue-latest", false, false, true),
        ("gpt-rosalind-1", false, false, true),
    ] {
        let row = openai(model);
        let can = (row.samples(None), row.samples(Some("none")), row.stop);
        assert_eq!(can, (unasked, none, stop), "{model}");
        assert!(!row.reasoning || !row.samples(Some("low")), "{model}");
    }
}

#[test]
fn the_newest_gemini_rows_are_those_of_the_vendor() {
    let levels = |model: &str| match gemini(model).thinking {
        GeminiThinking::Level(levels) => levels.join(" "),
        _ => String::new(),
    };
    for (model, expected) in [
        ("gemini-4-hydrogen", "low medium high xhigh"),
        ("models/gemini-4-neon", "low medium high xhigh"),
        ("gemini-4-argon", "low medium high"),
        ("gemini-4-carbon", "low medium high"),
        ("gemini-3.8-flash", "low medium high"),
        ("gemma-4-31b-it", "minimal high"),
        ("google/gemma-4-26b-a4b-it", "minimal high"),
        ("gemma-3-27b-it", ""),
    ] {
        assert_eq!(levels(model), expected, "{model}");
    }
    assert!(gemini("gemini-nano-banana-2.1").image_output);
    assert!(gemini("nano-banana-pro-preview").image_output);
    for model in [
        "gemini-2.5-pro",
        "gemini-2.5-flash",
        "gemini-2.5-flash-lite",
    ] {
        assert!(!gemini(model).penalties, "{model}");
    }
    assert!(gemini("gemini-2.0-flash").penalties);
}

#[test]
fn every_row_has_a_source_and_a_day() {
    let printed = table();
    let mut prefixes = std::collections::HashSet::new();
    for line in printed.lines() {
        let mut words = line.split_whitespace();
        let (vendor, day, prefix) = (words.next(), words.next(), words.next());
        assert!(["anthropic", "google", "openai"].contains(&vendor.unwrap()));
        let day: Vec<u32> = day
            .unwrap()
            .split('-')
            .map(|n| n.parse().unwrap())
            .collect();
        assert!(day.len() == 3 && day[0] >= 2026, "{line}");
        assert!((1..=12).contains(&day[1]) && (1..=31).contains(&day[2]));
        assert!(prefixes.insert(prefix.unwrap()), "two rows: {line}");
        assert!(words.count() > 1, "no source: {line}");
    }
    assert!(prefixes.len() > 60);
}

#[test]
fn plain_models_are_known_by_name() {
    assert!(never_reasons("gpt-4o-mini") && never_reasons("openai/gpt-4.1"));
    assert!(never_reasons("gpt-5-chat-latest"));
    assert!(!never_reasons("gpt-5") && !never_reasons("o3") && !never_reasons("grok-4.3"));
}

#[test]
fn omni_models_are_of_the_third_generation_and_take_no_level_of_thinking() {
    for model in [
        "gemini-omni-1.1-flash",
        "gemini-omni-1.2-flash",
        "gemini-omni-flash-preview",
    ] {
        let can = gemini(model);
        assert!(
            can.third && can.thinking == GeminiThinking::None,
            "{model}: {can:?}"
        );
    }
}
