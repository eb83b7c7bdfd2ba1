//! `Said`: what the body of an error says, in the words of whichever provider or proxy wrote it.
//!
//! Finds message, code and hints in every shape they come in, and knows what the words mean; what
//! follows from that is the table's affair.

use std::time::Duration;

use serde_json::Value;

use super::echo::Echo;
use super::quoted::without_quoted;

/// What an error body says, whoever wrote it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Said {
    pub message: String,
    pub kind: Option<String>,
    pub code: Option<String>,
    pub param: Option<String>,
    /// Google's `status` (`RESOURCE_EXHAUSTED`) and the `reason` of its details, upper case.
    pub reasons: Vec<String>,
    pub retry_delay: Option<Duration>,
    /// A number from 400 to 599 in `code` or `status`.
    pub number: Option<u16>,
    /// The error says that a filter found something in the request.
    pub flagged: bool,
    /// Message and details in lower case, for looking at words. Set by `read`.
    pub(super) lower: String,
    /// The same without what it quotes. Set by `read`.
    pub(super) unquoted: String,
    /// What it was said of, once it is looked at beside the request.
    pub(super) status: u16,
    pub(super) echo: Echo,
}

/// How much of a body that is no error object is shown.
pub const SHOWN: usize = 500;

impl Said {
    pub fn read(body: &[u8], status: u16) -> Said {
        let mut said = match serde_json::from_slice::<Value>(body) {
            Ok(value) => Said::from_json(&value, status),
            Err(_) => Said {
                message: describe_page(body, status),
                ..Said::default()
            },
        };
        said.lower.insert_str(0, &said.message.to_lowercase());
        // A value that a 400 complains about is as long as the caller likes it.
        let is_fault = status == 400 || said.status_meant() == Some(400);
        said.unquoted = without_quoted(&said.lower, is_fault);
        said
    }

    fn from_json(value: &Value, status: u16) -> Said {
        // Gemini wraps its error object in an array of one now and then.
        let value = match value {
            Value::Array(items) => items.first().unwrap_or(&Value::Null),
            other => other,
        };
        let error = match value.get("error") {
            Some(error @ Value::Object(_)) => error,
            Some(Value::String(message)) => {
                return Said {
                    message: message.clone(),
                    kind: text(value.get("type")).filter(|kind| kind != "error"),
                    code: code(value.get("code")),
                    number: number(value.get("code")).or(number(value.get("status"))),
                    ..Said::default()
                };
            }
            _ => value,
        };
        let details = error.get("details");
        let mut said = Said {
            message: text(error.get("message"))
                .or_else(|| text(error.get("detail")))
                .or_else(|| text(error.get("msg")))
                .or_else(|| error.get("detail").and_then(complaint))
                .or_else(|| error.get("message").and_then(complaint))
                .unwrap_or_default(),
            kind: text(error.get("type")),
            code: code(error.get("code"))
                .or_else(|| details.and_then(|d| code(d.get("error_code")))),
            param: text(error.get("param")),
            number: number(error.get("code"))
                .or_else(|| number(error.get("status")))
                .or_else(|| number(value.get("status")))
                .or_else(|| number(value.get("status_code"))),
            flagged: error.get("metadata").is_some_and(is_moderation),
            ..Said::default()
        };
        if let Some(status) = text(error.get("status")) {
            said.reasons.push(status.to_ascii_uppercase());
            // Google's word is the nearest thing to a code that it has.
            if said.code.is_none() {
                said.code = Some(status.to_ascii_lowercase());
            }
        }
        for detail in details.and_then(Value::as_array).into_iter().flatten() {
            if let Some(reason) = text(detail.get("reason")) {
                said.reasons.push(reason.to_ascii_uppercase());
            }
            // Google's front end hides the reason there now and then.
            if let Some(words) = detail.get("detail").and_then(Value::as_str) {
                said.lower.push('\n');
                said.lower.push_str(&words.to_lowercase());
            }
            if let Some(delay) = detail.get("retryDelay").and_then(Value::as_str) {
                said.retry_delay = seconds(delay.trim_end_matches('s'));
            }
        }
        if said.message.is_empty() {
            said.message = match &said.kind {
                Some(kind) => format!("the upstream answered {status}: {kind}"),
                None => format!("the upstream answered {status}"),
            };
        }
        said
    }

    pub fn is_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code) || self.kind.as_deref() == Some(code)
    }

    pub(super) fn has_reason(&self, reason: &str) -> bool {
        self.reasons.iter().any(|known| known == reason)
    }

    pub fn is_about_signature(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        (message.contains("signature") && message.contains("thinking"))
            || message.contains("thought signature")
            || message.contains("thought_signature")
            || self.is_about_reasoning_item(&message)
    }

    /// A reasoning item of Responses that the provider does not take back: sealed by another
    /// organisation, not kept, or without what it led to.
    fn is_about_reasoning_item(&self, message: &str) -> bool {
        let sealed = message.contains("encrypted content") || message.contains("encrypted_content");
        let item = message.contains("'rs_") || message.contains("`rs_") || message.contains(" rs_");
        self.is_code("invalid_encrypted_content")
            || (sealed
                && [
                    "verified",
                    "decrypt",
                    "invalid",
                    "parsed",
                    "organization",
                    "expired",
                ]
                .iter()
                .any(|word| message.contains(word)))
            || (item
                && [
                    "not found",
                    "required following item",
                    "required reasoning item",
                    "persisted",
                    "duplicate item",
                ]
                .iter()
                .any(|word| message.contains(word)))
            || (message.contains("without its required") && message.contains("reasoning"))
            || message.contains("reasoning input items can only")
            || message.contains("input item type: reasoning")
    }

    /// The status that an error inside a stream would have had outside it.
    pub fn status_meant(&self) -> Option<u16> {
        let by_word = |word: &str| match word {
            "invalid_request_error" | "INVALID_ARGUMENT" | "OUT_OF_RANGE" => Some(400),
            "authentication_error" | "invalid_api_key" | "UNAUTHENTICATED" => Some(401),
            "billing_error" => Some(402),
            "permission_error" | "PERMISSION_DENIED" => Some(403),
            "not_found_error" | "NOT_FOUND" | "model_not_found" => Some(404),
            "request_too_large" => Some(413),
            "rate_limit_error"
            | "rate_limit_exceeded"
            | "insufficient_quota"
            | "RESOURCE_EXHAUSTED" => Some(429),
            "api_error" | "server_error" | "internal_error" | "INTERNAL" => Some(500),
            "UNAVAILABLE" | "server_is_overloaded" => Some(503),
            "timeout_error" | "DEADLINE_EXCEEDED" => Some(504),
            "overloaded_error" => Some(529),
            _ => None,
        };
        self.number
            .or_else(|| self.kind.as_deref().and_then(by_word))
            .or_else(|| self.code.as_deref().and_then(by_word))
            .or_else(|| self.reasons.iter().find_map(|reason| by_word(reason)))
    }
}

/// OpenRouter's account of what its moderation found.
fn is_moderation(metadata: &Value) -> bool {
    metadata.get("flagged_input").is_some()
        || metadata
            .get("reasons")
            .and_then(Value::as_array)
            .is_some_and(|reasons| !reasons.is_empty())
}

/// An entry of FastAPI's list of what is wrong with a request: where, and what. A field too many
/// says most: the others may be about forms of a message that were tried in vain.
fn complaint(detail: &Value) -> Option<String> {
    let list = detail.get("detail").unwrap_or(detail).as_array()?;
    let is_extra = |entry: &&Value| {
        entry
            .get("type")
            .is_some_and(|kind| kind == "extra_forbidden")
    };
    let first = list.iter().find(is_extra).or(list.first())?;
    let what = text(first.get("msg")).or_else(|| text(first.get("type")))?;
    let steps = first.get("loc").and_then(Value::as_array);
    let place: Vec<String> = steps
        .into_iter()
        .flatten()
        .map(|step| {
            step.as_str()
                .map_or_else(|| step.to_string(), str::to_owned)
        })
        .collect();
    Some(match place.is_empty() {
        true => what,
        false => format!("{}: {what}", place.join(".")),
    })
}

/// A string that is not empty.
fn text(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// A word for the fault. LiteLLM writes its status there, others do so as a number: digits are none.
fn code(value: Option<&Value>) -> Option<String> {
    text(value).filter(|code| !code.bytes().all(|byte| byte.is_ascii_digit()))
}

/// An HTTP error status, written as a number or as digits.
fn number(value: Option<&Value>) -> Option<u16> {
    let number = match value? {
        Value::Number(number) => number.as_u64()?,
        Value::String(digits) => digits.parse().ok()?,
        _ => return None,
    };
    u16::try_from(number)
        .ok()
        .filter(|n| (400..600).contains(n))
}

/// A duration from decimal seconds, if it is one.
pub fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// One line about a body that is no error object.
fn describe_page(body: &[u8], status: u16) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(16 * SHOWN)]);
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return format!("the upstream answered {status} without a body");
    }
    if trimmed.starts_with('<') {
        let lower = trimmed.to_ascii_lowercase();
        let title = lower.find("<title>").and_then(|start| {
            let start = start + "<title>".len();
            let end = lower[start..].find("</title>")? + start;
            Some(
                trimmed[start..end]
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        });
        return match title {
            Some(title) if !title.is_empty() => {
                let title: String = title.chars().take(SHOWN).collect();
                format!("the upstream answered {status} with an HTML page: {title}")
            }
            _ => format!("the upstream answered {status} with an HTML page"),
        };
    }
    trimmed.chars().take(SHOWN).collect()
}
