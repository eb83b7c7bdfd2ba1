//! The lists as the providers write them: translation section 14.

use serde_json::Value;

use crate::capability::{Claude, Gemini, GeminiThinking, Thinking};
use crate::provider::Format;

/// A longer name is none.
const LONGEST: usize = 256;

/// One model of a list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Model {
    pub id: String,
    /// Seconds since 1970, 0 if it was not told.
    pub created: u64,
    pub owned_by: Option<String>,
    pub context_length: Option<u64>,
    pub max_completion_tokens: Option<u64>,
    /// Whether it takes images, tools and a schema for its answers.
    pub can: Abilities,
    /// Gemini: whether it thinks.
    pub thinks: Option<bool>,
    pub claude: Option<ClaudeFacts>,
}

/// What lists say that a model can or cannot do; mostly nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Abilities {
    pub images: Option<bool>,
    pub tools: Option<bool>,
    pub schema: Option<bool>,
}

impl Abilities {
    /// As OpenRouter tells them (`architecture`, `supported_parameters`), and Mistral
    /// (`capabilities`).
    fn of(entry: &Value) -> Abilities {
        let names = |list: &Value, name: &str| {
            let list = list.as_array().filter(|list| !list.is_empty())?;
            Some(list.iter().any(|known| known == name))
        };
        let fields = &entry["supported_parameters"];
        let can = &entry["capabilities"];
        Abilities {
            images: names(&entry["architecture"]["input_modalities"], "image")
                .or_else(|| can["vision"].as_bool()),
            tools: names(fields, "tools").or_else(|| can["function_calling"].as_bool()),
            schema: names(fields, "structured_outputs"),
        }
    }
}

/// What Anthropic says of a model; what it does not say is left to the table.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ClaudeFacts {
    /// Whether it thinks at all.
    pub thinks: Option<bool>,
    pub thinking: ThinkingFacts,
    pub efforts: Option<&'static [&'static str]>,
    pub structured_outputs: Option<bool>,
    pub web_search: Option<bool>,
}

/// Kinds of thinking, each by itself: lists have told of `adaptive` and `enabled` for longer than
/// of `disabled`, and silence about one says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ThinkingFacts {
    pub adaptive: Option<bool>,
    pub budget: Option<bool>,
    pub disabled: Option<bool>,
    pub between_tools: Option<bool>,
}

impl Model {
    /// The table's row with what the list knows better.
    pub fn claude(&self, row: Claude) -> Claude {
        let facts = self.claude.unwrap_or_default();
        let kinds = facts.thinking;
        Claude {
            thinking: match facts.thinks {
                Some(false) => Thinking::default(),
                _ => Thinking {
                    adaptive: kinds.adaptive.unwrap_or(row.thinking.adaptive),
                    budget: kinds.budget.unwrap_or(row.thinking.budget),
                    disabled: kinds.disabled.unwrap_or(row.thinking.disabled),
                    between_tools: kinds.between_tools.unwrap_or(row.thinking.between_tools),
                },
            },
            efforts: facts.efforts.unwrap_or(row.efforts),
            structured_outputs: facts.structured_outputs.unwrap_or(row.structured_outputs),
            web_search: facts.web_search.unwrap_or(row.web_search),
            max_output: self.max_completion_tokens.unwrap_or(row.max_output),
            ..row
        }
    }

    /// That a model thinks is known better by the list, and how it is told to by the table.
    pub fn gemini(&self, row: Gemini) -> Gemini {
        match self.thinks {
            Some(false) => Gemini {
                thinking: GeminiThinking::None,
                ..row
            },
            _ => row,
        }
    }
}

/// Where a page of the list is.
pub fn url(format: Format, base: &str, cursor: Option<&str>) -> String {
    let cursor = |name: &str| match cursor {
        Some(cursor) => format!("&{name}={}", escape(cursor)),
        None => String::new(),
    };
    match format {
        Format::OpenAi | Format::Responses => format!("{base}/models"),
        Format::Anthropic => format!("{base}/v1/models?limit=1000{}", cursor("after_id")),
        Format::Gemini => format!("{base}/v1beta/models?pageSize=1000{}", cursor("pageToken")),
    }
}

fn escape(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The models of one page, and the cursor of the next one.
pub fn read(format: Format, body: &[u8]) -> Result<(Vec<Model>, Option<String>), String> {
    let page: Value = serde_json::from_slice(body).map_err(|_| "the list is no JSON")?;
    let member = match format {
        Format::Gemini => "models",
        _ => "data",
    };
    // Gemini leaves an empty list out.
    let list = match page.get(member) {
        Some(Value::Array(list)) => list.as_slice(),
        None if format == Format::Gemini && page.is_object() => &[],
        _ => return Err(format!("the list has no `{member}`")),
    };
    let one = match format {
        Format::OpenAi | Format::Responses => openai,
        Format::Anthropic => anthropic,
        Format::Gemini => gemini,
    };
    let models = list.iter().filter_map(one).filter(is_sane).collect();
    let text = |name: &str| page[name].as_str().filter(|text| !text.is_empty());
    let next = match format {
        Format::OpenAi | Format::Responses => None,
        Format::Anthropic => text("last_id").filter(|_| page["has_more"] == true),
        Format::Gemini => text("nextPageToken"),
    };
    Ok((models, next.map(str::to_owned)))
}

/// It goes into answers and tables, so it has to be what a name can be.
fn is_sane(model: &Model) -> bool {
    let odd = |c: char| c.is_control() || c.is_whitespace();
    !model.id.is_empty() && model.id.len() <= LONGEST && !model.id.contains(odd)
}

fn openai(entry: &Value) -> Option<Model> {
    Some(Model {
        id: entry["id"].as_str()?.to_owned(),
        created: entry["created"].as_u64().unwrap_or(0),
        owned_by: entry["owned_by"]
            .as_str()
            .map(|owner| owner.chars().take(64).collect()),
        // Compatible servers say it under one name or another: llama.cpp's server tells what it was
        // started with in `n_ctx`, and what the model could have in `n_ctx_train`.
        context_length: tokens(&entry["meta"]["n_ctx"])
            .or_else(|| tokens(&entry["context_length"]))
            .or_else(|| tokens(&entry["max_model_len"]))
            .or_else(|| tokens(&entry["context_window"]))
            .or_else(|| tokens(&entry["max_context_length"])),
        can: Abilities::of(entry),
        ..Model::default()
    })
}

fn anthropic(entry: &Value) -> Option<Model> {
    if entry["lifecycle"] == "retired" {
        return None;
    }
    let can = &entry["capabilities"];
    let supported = |what: &Value| what["supported"].as_bool();
    let kind = |name: &str| supported(&can["thinking"]["types"][name]);
    let thinking = ThinkingFacts {
        adaptive: kind("adaptive"),
        budget: kind("enabled"),
        disabled: kind("disabled"),
        between_tools: kind("between_tools"),
    };
    let effort = &can["effort"];
    let efforts: Option<&'static [&'static str]> = match supported(effort) {
        None => None,
        Some(false) => Some(&[]),
        Some(true) if supported(&effort["xhigh"]) == Some(true) => {
            Some(&["low", "medium", "high", "xhigh", "max"])
        }
        Some(true) if supported(&effort["max"]) == Some(true) => {
            Some(&["low", "medium", "high", "max"])
        }
        Some(true) => Some(&["low", "medium", "high"]),
    };
    let tools = &can["server_tools"];
    Some(Model {
        id: entry["id"].as_str()?.to_owned(),
        created: entry["created_at"].as_str().and_then(unix).unwrap_or(0),
        owned_by: Some("anthropic".into()),
        context_length: tokens(&entry["max_input_tokens"]),
        max_completion_tokens: tokens(&entry["max_tokens"]),
        claude: Some(ClaudeFacts {
            thinks: supported(&can["thinking"]),
            thinking,
            efforts,
            structured_outputs: supported(&can["structured_outputs"]),
            web_search: supported(&tools["web_search"]).or_else(|| tools["web_search"].as_bool()),
        }),
        ..Model::default()
    })
}

fn gemini(entry: &Value) -> Option<Model> {
    let methods = entry["supportedGenerationMethods"].as_array()?;
    // For chats and for embeddings; what makes only images or videos has routes of its own.
    let serves = |method: &Value| method == "generateContent" || method == "embedContent";
    let speaks = methods.iter().any(serves);
    let name = entry["name"].as_str()?;
    speaks.then(|| Model {
        id: name.strip_prefix("models/").unwrap_or(name).to_owned(),
        owned_by: Some("google".into()),
        context_length: tokens(&entry["inputTokenLimit"]),
        max_completion_tokens: tokens(&entry["outputTokenLimit"]),
        thinks: entry["thinking"].as_bool(),
        ..Model::default()
    })
}

/// A number of tokens. Nothing has none: a 0 stands for what is not known.
fn tokens(value: &Value) -> Option<u64> {
    value.as_u64().filter(|tokens| *tokens > 0)
}

fn unix(date: &str) -> Option<u64> {
    let time = crate::upstream::timestamp(date)?;
    let since = time.duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability;
    use serde_json::json;

    fn page(format: Format, page: &Value) -> (Vec<Model>, Option<String>) {
        read(format, page.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn openai_lists_without_pages() {
        let (models, next) = page(
            Format::OpenAi,
            &json!({"object": "list", "data": [
                {"id": "gpt-5", "created": 7, "owned_by": "openai"},
                {"id": "own", "max_model_len": 4096},
                {"id": "tiny", "meta": {"n_ctx": 8192, "n_ctx_train": 131072}, "context_length": 9},
                {"id": ""}, {"id": "a b"}, {"id": 5}, "x"
            ], "has_more": true, "last_id": "own"}),
        );
        assert_eq!(next, None);
        assert_eq!(models.len(), 3);
        assert_eq!(models[2].context_length, Some(8192), "as it was started");
        assert_eq!(
            (models[0].created, models[0].owned_by.as_deref()),
            (7, Some("openai"))
        );
        assert_eq!(models[1].context_length, Some(4096));
        assert_eq!(
            url(Format::OpenAi, "http://a/v1", None),
            "http://a/v1/models"
        );
    }

    #[test]
    fn anthropic_says_what_its_models_can() {
        let yes = json!({"supported": true});
        let no = json!({"supported": false});
        let list = json!({"data": [
            {"type": "model", "id": "claude-new", "created_at": "2026-11-24T00:00:01Z",
             "lifecycle": "active", "max_input_tokens": 200_000, "max_tokens": 1_000,
             "capabilities": {"structured_outputs": no,
               "thinking": {"supported": true, "types": {"adaptive": yes, "enabled": no, "disabled": yes}},
               "effort": {"supported": true, "low": yes, "max": yes, "xhigh": no},
               "server_tools": {"supported": true, "web_search": no}}},
            {"id": "claude-old", "lifecycle": "retired"},
            {"id": "claude-bare", "lifecycle": "deprecated"}
        ], "has_more": true, "last_id": "claude bare"});
        let (models, next) = page(Format::Anthropic, &list);
        assert_eq!(next.as_deref(), Some("claude bare"));
        let ids: Vec<_> = models.iter().map(|model| model.id.as_str()).collect();
        assert_eq!(ids, ["claude-new", "claude-bare"]);
        assert_eq!(models[0].created, 1_795_478_401);
        let row = capability::claude("claude-sonnet-4-5");
        let told = models[0].claude(row);
        assert_eq!(told.max_output, 1_000);
        assert_eq!(told.efforts, ["low", "medium", "high", "max"]);
        assert!(told.thinking.adaptive && told.thinking.disabled && !told.thinking.budget);
        assert!(!told.structured_outputs && !told.web_search && told.prefill);
        assert_eq!(
            models[1].claude(row),
            row,
            "what is not told is left to the table"
        );
        assert_eq!(
            url(Format::Anthropic, "http://a", next.as_deref()),
            "http://a/v1/models?limit=1000&after_id=claude%20bare"
        );
    }

    /// The shape of the vendor's own answers: no word about turning thinking off.
    #[test]
    fn what_anthropic_does_not_say_of_thinking_is_left_to_the_table() {
        let list = json!({"data": [
            {"type": "model", "id": "claude-sonnet-4-6", "display_name": "Claude Sonnet 4.6",
             "created_at": "2026-02-17T00:00:00Z", "max_input_tokens": 1_000_000,
             "max_tokens": 128_000,
             "capabilities": {
               "batch": {"supported": true}, "citations": {"supported": true},
               "code_execution": {"supported": true},
               "context_management": {"clear_thinking_20251015": {"supported": true},
                 "compact_20260112": {"supported": true}, "supported": true},
               "effort": {"high": {"supported": true}, "low": {"supported": true},
                 "max": {"supported": true}, "medium": {"supported": true}, "supported": true},
               "image_input": {"supported": true}, "pdf_input": {"supported": true},
               "structured_outputs": {"supported": true},
               "thinking": {"supported": true, "types": {
                 "adaptive": {"supported": true}, "enabled": {"supported": true}}}}},
            {"type": "model", "id": "claude-haiku-4-5", "display_name": "Claude Haiku 4.5",
             "created_at": "1970-01-01T00:00:00Z", "max_input_tokens": 0, "max_tokens": 0,
             "capabilities": null}
        ], "has_more": false, "first_id": "claude-sonnet-4-6", "last_id": "claude-haiku-4-5"});
        let (models, next) = page(Format::Anthropic, &list);
        assert_eq!(next, None);
        let row = capability::claude("claude-sonnet-4-6");
        assert!(row.thinking.disabled, "as the table has it");
        let told = models[0].claude(row);
        assert_eq!(told.thinking, row.thinking);
        assert_eq!((told.max_output, told.efforts.len()), (128_000, 4));
        let row = capability::claude("claude-haiku-4-5");
        assert_eq!(models[1].claude(row), row);
        assert_eq!(models[1].created, 0);
    }

    #[test]
    fn gemini_lists_what_can_chat_or_embed() {
        let (models, next) = page(
            Format::Gemini,
            &json!({"models": [
                {"name": "models/gemini-9", "inputTokenLimit": 5, "outputTokenLimit": 6,
                 "thinking": false, "supportedGenerationMethods": ["generateContent"]},
                {"name": "models/embed", "inputTokenLimit": 2048, "outputTokenLimit": 1,
                 "supportedGenerationMethods": ["embedContent", "countTextTokens"]},
                {"name": "models/imagen", "supportedGenerationMethods": ["predict"]}
            ], "nextPageToken": "p/2"}),
        );
        assert_eq!(next.as_deref(), Some("p/2"));
        assert_eq!(models.len(), 2);
        assert_eq!(models[0].id, "gemini-9");
        assert_eq!(models[1].id, "embed");
        let row = capability::gemini("gemini-2.5-pro");
        assert_eq!(models[0].gemini(row).thinking, GeminiThinking::None);
        assert!(url(Format::Gemini, "http://a", Some("p/2")).ends_with("&pageToken=p%2F2"));
        assert_eq!(page(Format::Gemini, &json!({})), (vec![], None));
    }

    #[test]
    fn lists_say_what_models_can() {
        let can = |entry: Value| openai(&entry).unwrap().can;
        let router = can(
            json!({"id": "a", "supported_parameters": ["tools", "top_p"],
            "architecture": {"input_modalities": ["text", "image"]}}),
        );
        assert_eq!(
            router,
            Abilities {
                images: Some(true),
                tools: Some(true),
                schema: Some(false)
            }
        );
        let mistral = can(json!({"id": "b", "max_context_length": 9,
            "capabilities": {"vision": false, "function_calling": true}}));
        assert_eq!((mistral.images, mistral.tools), (Some(false), Some(true)));
        assert_eq!(
            can(json!({"id": "c", "capabilities": ["completion"],
            "supported_parameters": []})),
            Abilities::default()
        );
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for body in ["", "[]", "{}", r#"{"data": 5}"#, "<html>"] {
            assert!(read(Format::OpenAi, body.as_bytes()).is_err(), "{body}");
        }
    }
}
