//! `ApiError`: what a caller is told when there is no answer.
//!
//! Holds the words and the status; the dialect decides the shape on the wire. The only shape so
//! far is OpenAI's, `{"error":{"message","type","param","code"}}` with all four keys always there.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// An error as the caller reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    pub status: u16,
    /// OpenAI's `type`.
    pub kind: Cow<'static, str>,
    pub code: Option<Cow<'static, str>>,
    /// The request field at fault, as a path: `messages[2].content`.
    pub param: Option<String>,
    /// Fields stand in it bare, values in double quotes as in JSON, models and upstreams in
    /// backticks as the vendor writes them.
    pub message: String,
    /// When asking again may help; sent as `Retry-After`, whole seconds, rounded up.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// An error with the usual `type` of its status and no code.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        ApiError {
            status,
            kind: Cow::Borrowed(kind_of_status(status)),
            code: None,
            param: None,
            message: message.into(),
            retry_after: None,
        }
    }

    /// 400: the request cannot be understood.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError::new(400, message).with_param(param)
    }

    /// 400 for a field that the target cannot honour at all.
    pub fn unsupported_parameter(param: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError::invalid(param, message).with_code("unsupported_parameter")
    }

    /// 400 for a value that the target cannot honour.
    pub fn unsupported_value(param: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError::invalid(param, message).with_code("unsupported_value")
    }

    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// `Retry-After` in whole seconds: at least one, and at most a day, whoever named the time.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        const MOST: u64 = 86_400;
        self.retry_after.map(|after| {
            let whole = after.as_secs();
            let rounded = whole.saturating_add(u64::from(after.subsec_nanos() > 0));
            rounded.clamp(1, MOST)
        })
    }

    /// Clients that retry by themselves are told not to: a quota is used up for long, or the wait
    /// is a long one. Some of them take no notice of a `Retry-After` above a minute and are back at
    /// once.
    pub fn is_far_off(&self) -> bool {
        const LONG: u64 = 60;
        let seconds = self.retry_after_seconds();
        self.kind == "insufficient_quota" || seconds.is_some_and(|seconds| seconds > LONG)
    }

    /// The error object in OpenAI's shape, as one line of JSON.
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: Body<'a>,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            message: &'a str,
            r#type: &'a str,
            param: Option<&'a str>,
            code: Option<&'a str>,
        }
        let envelope = Envelope {
            error: Body {
                message: &self.message,
                r#type: &self.kind,
                param: self.param.as_deref(),
                code: self.code.as_deref(),
            },
        };
        serde_json::to_vec(&envelope).expect("strings always serialise")
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.message)
    }
}

/// The `type` that goes with a status when the upstream named none.
pub fn kind_of_status(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        408 => "timeout_error",
        409 => "conflict_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_four_keys_are_always_there() {
        let json = ApiError::new(404, "no \"such\" path").to_json();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"error":{"message":"no \"such\" path","type":"invalid_request_error","param":null,"code":null}}"#
        );
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let error = ApiError::new(429, "").with_retry_after(Duration::from_millis(34_400));
        assert_eq!(error.retry_after_seconds(), Some(35));
        assert!(!error.is_far_off());
        let minute = |ms| ApiError::new(429, "").with_retry_after(Duration::from_millis(ms));
        assert!(!minute(60_000).is_far_off() && minute(60_001).is_far_off());
        let error = ApiError::new(503, "").with_retry_after(Duration::MAX);
        assert_eq!(error.retry_after_seconds(), Some(86_400));
        let error = ApiError::new(429, "").with_retry_after(Duration::ZERO);
        assert_eq!(error.retry_after_seconds(), Some(1));
    }
}
