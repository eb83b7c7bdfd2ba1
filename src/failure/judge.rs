//! The part of the table that recognises: which class a status and its words are of.

use std::borrow::Cow;

use super::said::Said;
use super::{Class, Failure};
use crate::error::kind_of_status;

/// Status and words in, class and client status out.
pub fn judge(status: u16, said: &Said) -> Failure {
    let (class, told) = recognise(status, said);
    let too_long = is_too_long(status, said);
    let own = || said.code.clone().map(Cow::Owned);
    let kind = match class {
        // An upstream's own word for the fault fits only where its status is passed on.
        Class::RequestFault | Class::OtherKey if told == status => {
            said.kind.clone().map(Cow::Owned)
        }
        Class::ModelMissing if told == 404 => Some(Cow::Borrowed("invalid_request_error")),
        _ => None,
    };
    let code = match class {
        Class::KeyBad => Some(Cow::Borrowed("upstream_key_refused")),
        Class::Unclear => own().or(Some(Cow::Borrowed("upstream_refused"))),
        Class::ModelMissing if told == 404 => Some(Cow::Borrowed("model_not_found")),
        Class::RateLimit => Some(Cow::Borrowed("rate_limit_exceeded")),
        Class::Loading => Some(Cow::Borrowed("model_loading")),
        Class::Server if status == 529 => Some(Cow::Borrowed("overloaded")),
        // The one code that callers look for, whatever an upstream calls it.
        Class::RequestFault if too_long && status != 413 => {
            Some(Cow::Borrowed("context_length_exceeded"))
        }
        _ => own(),
    };
    Failure {
        class,
        status: told,
        kind: kind.unwrap_or(Cow::Borrowed(kind_of_status(told))),
        code,
        param: match class {
            Class::ModelMissing => Some("model".into()),
            _ => said.param.as_deref().map(Box::from),
        },
        message: said.message.clone(),
        retry_after: None,
        signature_refused: matches!(status, 400 | 404) && said.is_about_signature(),
        too_long,
        said: match class {
            Class::KeyBad | Class::ModelMissing => Some(Box::new(Said {
                status,
                ..said.clone()
            })),
            _ => None,
        },
        doubtful: false,
    }
}

fn is_too_long(status: u16, said: &Said) -> bool {
    status == 413 || (matches!(status, 400 | 422 | 500..=599) && said.is_context_overflow())
}

fn recognise(status: u16, said: &Said) -> (Class, u16) {
    if is_too_long(status, said) {
        // A server that tells it as its own failure would only be asked again.
        let told = if status < 500 { status } else { 400 };
        return (Class::RequestFault, told);
    }
    if matches!(status, 400..=404 | 410 | 412 | 429)
        && let Some(recognised) = refusal(status, said)
    {
        return recognised;
    }
    match status {
        401 => (Class::Unclear, 502),
        402 | 403 => (Class::Unclear, status),
        429 => (Class::RateLimit, 429),
        // The proxy on the way wants a password, which is no affair of the caller's.
        407 => (Class::Transport, 502),
        408 => (Class::Server, 408),
        500 | 503 if said.is_loading() => (Class::Loading, 503),
        500 if said.is_unsupported() => (Class::Unsupported, 500),
        501 | 505 => (Class::Unsupported, status),
        // Not a registered status; callers know 503.
        529 => (Class::Server, 503),
        500..=599 => (Class::Server, status),
        400..=499 => (Class::RequestFault, status),
        // A redirect or anything else where an answer should be.
        _ => (Class::Server, 502),
    }
}

/// What the words of a refusal are about. Codes come before phrases, and what is about the request
/// before what is about the key: a wrong guess there costs all callers the key.
fn refusal(status: u16, said: &Said) -> Option<(Class, u16)> {
    let of_model = || match said.is_code("model_not_found") {
        true => 404,
        false if status == 403 => 403,
        false => 404,
    };
    // A caller takes 401 for a word about its own key.
    let own = if status == 401 { 403 } else { status };
    Some(match status {
        404 | 410 if said.is_model_missing(status) => (Class::ModelMissing, 404),
        404 if said.is_about_request() => (Class::OtherKey, 404),
        404 | 410 => return None,
        _ if said.is_key_code() || said.is_money_code() => (Class::KeyBad, 502),
        _ if said.names_account(status) => (Class::KeyBad, 502),
        401..=403 | 429 if said.is_flagged() => (Class::RequestFault, own),
        429 if said.never_passes() => (Class::OtherKey, 429),
        401..=403 if said.is_model_missing(status) => (Class::ModelMissing, of_model()),
        401..=403 | 429 if said.is_about_request() => (Class::OtherKey, own),
        400 if said.is_model_missing(status) => (Class::ModelMissing, 404),
        _ if said.names_key(status) || said.is_out_of_money(status) => (Class::KeyBad, 502),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(status: u16, message: &str) -> Class {
        let body = serde_json::json!({"error": {"message": message}}).to_string();
        judge(status, &Said::read(body.as_bytes(), status)).class
    }

    #[test]
    fn a_model_that_is_being_loaded_is_told_from_trouble() {
        for words in [
            "Loading model",
            "Model meta-llama/Llama-3 is currently loading",
            "The model is loading, please try again",
            "model is still loading",
            "The server is warming up",
        ] {
            assert_eq!(class(503, words), Class::Loading, "{words}");
            assert_eq!(class(500, words), Class::Loading, "{words}");
            assert_ne!(class(400, words), Class::Loading, "{words}");
            assert_ne!(class(429, words), Class::Loading, "{words}");
        }
        let told = class(
            503,
            &format!("bad input: {}loading model", "x ".repeat(200)),
        );
        assert_eq!(told, Class::Server, "a long text is about something else");
        for words in [
            "overloaded",
            "downloading models failed",
            "",
            "failed to load model",
        ] {
            assert_eq!(class(503, words), Class::Server, "{words}");
        }
        // Words of the request that are repeated in quotes are not the upstream's.
        assert_eq!(class(500, "cannot parse 'loading model'"), Class::Server);
    }

    #[test]
    fn digits_are_no_code() {
        for code in [r#""400""#, "400", r#""0042""#] {
            let body = format!(r#"{{"error":{{"message":"no","code":{code}}}}}"#);
            assert_eq!(
                judge(400, &Said::read(body.as_bytes(), 400)).code,
                None,
                "{code}"
            );
        }
        let body = br#"{"error":{"message":"no","code":"bad_400"}}"#;
        let code = judge(400, &Said::read(body, 400)).code;
        assert_eq!(code.as_deref(), Some("bad_400"));
    }
}
