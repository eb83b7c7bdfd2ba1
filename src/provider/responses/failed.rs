//! What went wrong, from an `error` event, a failed response or an error body.

use serde::Deserialize;
use serde_json::json;

use super::wire::{Count, Text};
use crate::failure::Failure;

#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow, default)]
    code: Text<'a>,
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    message: Text<'a>,
    #[serde(borrow, default)]
    param: Text<'a>,
    #[serde(default)]
    status: Count,
}

/// The failure that `object` tells of: an error object, or an `error` event, which has the same
/// fields. Its codes are judged like those of HTTP errors.
pub fn failure(object: &str) -> Failure {
    let Ok(told) = serde_json::from_str::<Told<'_>>(object) else {
        return Failure::from_event(object.as_bytes());
    };
    // The type of the event is no type of an error.
    let kind = Some(&*told.kind).filter(|kind| !kind.is_empty() && *kind != "error");
    let code = Some(&*told.code).filter(|code| !code.is_empty());
    let number = told.status.0.and_then(|status| u16::try_from(status).ok());
    let status = code
        .and_then(status_of)
        .or_else(|| kind.and_then(status_of))
        .or(number.filter(|status| (400..600).contains(status)))
        .unwrap_or(502);
    let param = Some(&*told.param).filter(|param| !param.is_empty());
    let error = json!({
        "message": &*told.message, "type": kind, "param": param, "code": code.or(kind),
    });
    let body = json!({ "error": error }).to_string();
    Failure::from_status(status, body.as_bytes(), None)
}

/// The HTTP status that an error with this code or type would have had.
fn status_of(code: &str) -> Option<u16> {
    Some(match code {
        "rate_limit_exceeded"
        | "rate_limit_error"
        | "slow_down"
        | "insufficient_quota"
        | "credit_balance_exhausted"
        | "billing_hard_limit_reached" => 429,
        "server_error" | "internal_error" => 502,
        "server_is_overloaded" | "overloaded_error" | "service_unavailable" => 503,
        "vector_store_timeout" | "timeout_error" | "timeout" => 504,
        "invalid_api_key" | "authentication_error" => 401,
        "permission_error" => 403,
        "model_not_found" | "not_found_error" => 404,
        "context_length_exceeded" => 400,
        _ if code.starts_with("invalid_") => 400,
        _ if ["policy", "image", "prompt"]
            .iter()
            .any(|word| code.contains(word)) =>
        {
            400
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Class;

    #[test]
    fn codes_are_judged_like_http_errors() {
        use Class::{KeyBad, ModelMissing, RateLimit, RequestFault, Server};
        for (code, class, status) in [
            ("rate_limit_exceeded", RateLimit, 429),
            ("server_error", Server, 502),
            ("server_is_overloaded", Server, 503),
            ("vector_store_timeout", Server, 504),
            ("insufficient_quota", KeyBad, 502),
            ("invalid_api_key", KeyBad, 502),
            ("model_not_found", ModelMissing, 404),
            ("invalid_prompt", RequestFault, 400),
            ("bio_policy", RequestFault, 400),
            ("image_content_policy_violation", RequestFault, 400),
            ("failed_to_download_image", RequestFault, 400),
            ("context_length_exceeded", RequestFault, 400),
            ("never_heard_of", Server, 502),
        ] {
            let object = format!(r#"{{"code":"{code}","message":"m"}}"#);
            let found = failure(&object);
            assert_eq!((found.class, found.status), (class, status), "{code}");
            assert_eq!(found.message, "m");
            // The same as an event of its own.
            let event =
                format!(r#"{{"type":"error","code":"{code}","message":"m","sequence_number":3}}"#);
            assert_eq!(failure(&event), found, "{code}");
        }
        assert_eq!(failure(r#""words""#).class, Server);
        let typed = failure(r#"{"type":"invalid_request_error","message":"m","param":"input"}"#);
        assert_eq!((typed.status, &*typed.kind), (400, "invalid_request_error"));
        assert_eq!(typed.param.as_deref(), Some("input"));
        assert_eq!(failure(r#"{"status":503,"message":"m"}"#).status, 503);
    }
}
