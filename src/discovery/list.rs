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
    /// Gemini: whether it thinks.
    pub thinks: Option<bool>,
    pub claude: Option<ClaudeFacts>,
}

/// What Anthropic says of a model; what it does not say is left to the table.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ClaudeFacts {
    pub thinking: Option<Thinking>,
    pub efforts: Option<&'static [&'static str]>,
    pub structured_outputs: Option<bool>,
    pub web_search: Option<bool>,
}

impl Model {
    /// The table's row with what the list knows better.
    pub fn claude(&self, row: Claude) -> Claude {
        let facts = self.claude.unwrap_or_default();
        Claude {
            thinking: facts.thinking.unwrap_or(row.thinking),
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
        // Compatible servers say it under one name or another.
        context_length: entry["context_length"]
            .as_u64()
            .or_else(|| entry["max_model_len"].as_u64()),
        ..Model::default()
    })
}

fn anthropic(entry: &Value) -> Option<Model> {
    if entry["lifecycle"] == "retired" {
        return None;
    }
    let can = &entry["capabilities"];
    let supported = |what: &Value| what["supported"].as_bool();
    let types = &can["thinking"]["types"];
    let thinking = match supported(&can["thinking"]) {
        Some(true) if types.is_object() => {
            let has = |name: &str| supported(&types[name]).unwrap_or(false);
            Some(Thinking {
                adaptive: has("adaptive"),
                budget: has("enabled"),
                disabled: has("disabled"),
                between_tools: has("between_tools"),
            })
        }
        Some(false) => Some(Thinking::default()),
        _ => None,
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
        context_length: entry["max_input_tokens"].as_u64(),
        max_completion_tokens: entry["max_tokens"].as_u64(),
        claude: Some(ClaudeFacts {
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
    // Chat and embeddings are what callers can ask for here.
    let serves = |method: &Value| method == "generateContent" || method == "embedContent";
    let name = entry["name"].as_str()?;
    methods.iter().any(serves).then(|| Model {
        id: name.strip_prefix("models/").unwrap_or(name).to_owned(),
        owned_by: Some("google".into()),
        context_length: entry["inputTokenLimit"].as_u64(),
        max_completion_tokens: entry["outputTokenLimit"].as_u64(),
        thinks: entry["thinking"].as_bool(),
        ..Model::default()
    })
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
                {"id": ""}, {"id": "a b"}, {"id": 5}, "x"
            ], "has_more": true, "last_id": "own"}),
        );
        assert_eq!(next, None);
        assert_eq!(models.len(), 2);
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

    #[test]
    fn gemini_lists_what_can_chat_or_embed() {
        let (models, next) = page(
            Format::Gemini,
            &json!({"models": [
                {"name": "models/gemini-9", "inputTokenLimit": 5, "outputTokenLimit": 6,
                 "thinking": false, "supportedGenerationMethods": ["generateContent"]},
                {"name": "models/embed", "supportedGenerationMethods": ["embedContent"]},
                {"name": "models/veo", "supportedGenerationMethods": ["predictLongRunning"]}
            ], "nextPageToken": "p/2"}),
        );
        assert_eq!(next.as_deref(), Some("p/2"));
        let ids: Vec<_> = models.iter().map(|model| model.id.as_str()).collect();
        assert_eq!(ids, ["gemini-9", "embed"]);
        let row = capability::gemini("gemini-2.5-pro");
        assert_eq!(models[0].gemini(row).thinking, GeminiThinking::None);
        assert!(url(Format::Gemini, "http://a", Some("p/2")).ends_with("&pageToken=p%2F2"));
        assert_eq!(page(Format::Gemini, &json!({})), (vec![], None));
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for body in ["", "[]", "{}", r#"{"data": 5}"#, "<html>"] {
            assert!(read(Format::OpenAi, body.as_bytes()).is_err(), "{body}");
        }
    }
}
