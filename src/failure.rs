//! `Failure`: how one upstream attempt ended, and the one table that says what follows from it.
//!
//! Reads the error bodies of all providers (OpenAI, Anthropic, Gemini and what proxies in between
//! send), because compatible servers mix their shapes. Opens no connection and knows no pool; the
//! pool and the exchange ask a `Failure` what it means.

use std::borrow::Cow;
use std::time::Duration;

use self::said::Said;
pub use self::said::seconds;
use crate::error::{ApiError, kind_of_status};

mod said;

/// What kind of thing went wrong. Everything that follows is decided by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The caller's request is at fault; every key would say the same.
    RequestFault,
    /// This key (or this provider) does not serve the model.
    ModelMissing,
    /// The key is wrong, forbidden or out of money.
    KeyBad,
    /// The key is out of quota for a while.
    RateLimit,
    /// The upstream is in trouble.
    Server,
    /// No answer came: DNS, connect, TLS, reset, timeout.
    Transport,
    /// An end of our own making: the deadline, a limit, or the end of the program.
    Ended,
    /// The caller left. Nobody is told.
    CallerGone,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The caller's to see as it is.
    Forward,
    /// The next target of the route may serve it; this target's other keys will not.
    NextTarget,
    /// Another key may serve it; not counted as a retry.
    SwitchKey,
    /// Worth another try, with whatever key comes next, counted.
    Retry,
    /// Stop without a word.
    Abandon,
}

/// How long a key rests, and how strictly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoolDown {
    None,
    /// The key is not used for this model until then.
    Model(Duration),
    /// The key is not used at all until then.
    Key(Duration),
    /// The server's hint, else one second doubling per window. This key for this model.
    RateLimit,
    /// Other keys come first until then, but the key is used if there is no other.
    Avoid(Duration),
}

/// A key that the provider refuses rests this long: long enough not to be a nuisance, short
/// enough that a key repaired in the provider's console comes back by itself.
const BAD_KEY_REST: Duration = Duration::from_secs(600);

/// A model that a key does not serve is asked for again after this long.
const MISSING_MODEL_REST: Duration = Duration::from_secs(600);

/// After trouble of the server, other keys come first for this long.
const TROUBLE_REST: Duration = Duration::from_secs(1);

impl Class {
    /// The table of behaviour section 3, K3.
    pub fn verdict(self) -> Verdict {
        match self {
            Class::RequestFault | Class::Ended => Verdict::Forward,
            Class::ModelMissing => Verdict::NextTarget,
            Class::KeyBad | Class::RateLimit => Verdict::SwitchKey,
            Class::Server | Class::Transport => Verdict::Retry,
            Class::CallerGone => Verdict::Abandon,
        }
    }

    pub fn cool_down(self) -> CoolDown {
        match self {
            Class::RequestFault | Class::Ended | Class::CallerGone => CoolDown::None,
            Class::ModelMissing => CoolDown::Model(MISSING_MODEL_REST),
            Class::KeyBad => CoolDown::Key(BAD_KEY_REST),
            Class::RateLimit => CoolDown::RateLimit,
            Class::Server | Class::Transport => CoolDown::Avoid(TROUBLE_REST),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Class::RequestFault => "request fault",
            Class::ModelMissing => "model missing",
            Class::KeyBad => "key refused",
            Class::RateLimit => "rate limit",
            Class::Server => "server error",
            Class::Transport => "transport error",
            Class::Ended => "ended",
            Class::CallerGone => "caller gone",
        }
    }
}

/// One attempt that gave no answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub class: Class,
    /// What the caller is told if nothing else helps.
    pub status: u16,
    pub kind: Cow<'static, str>,
    pub code: Option<Cow<'static, str>>,
    pub param: Option<String>,
    /// The upstream's own words, or ours where it had none.
    pub message: String,
    /// How long the upstream asked to be left alone.
    pub retry_after: Option<Duration>,
    /// A 400 about a reasoning signature: worth one resend without signatures.
    pub signature_refused: bool,
}

impl Failure {
    fn plain(class: Class, status: u16, code: &'static str, message: String) -> Self {
        Failure {
            class,
            status,
            kind: Cow::Borrowed(kind_of_status(status)),
            code: Some(Cow::Borrowed(code)),
            param: None,
            message,
            retry_after: None,
            signature_refused: false,
        }
    }

    /// DNS, connect, TLS, or a connection that broke before an answer.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Failure::plain(
            Class::Transport,
            502,
            "upstream_unreachable",
            message.into(),
        )
    }

    /// A timer ran out before the answer began.
    pub fn timeout(message: impl Into<String>) -> Self {
        Failure::plain(Class::Transport, 504, "upstream_timeout", message.into())
    }

    /// The stream ended without its last event.
    pub fn disconnected() -> Self {
        Failure::plain(
            Class::Transport,
            502,
            "upstream_disconnected",
            "the upstream closed the connection before its answer was complete".into(),
        )
    }

    /// A success status with nothing in it.
    pub fn empty() -> Self {
        Failure::plain(
            Class::Server,
            502,
            "empty_response",
            "the upstream answered without content".into(),
        )
    }

    /// A success status with something in it that the format does not have.
    pub fn malformed(what: impl Into<String>) -> Self {
        Failure::plain(Class::Server, 502, "malformed_response", what.into())
    }

    /// The answer is longer than it may be, which another attempt would not change.
    pub fn too_long() -> Self {
        Failure::plain(
            Class::Ended,
            502,
            "malformed_response",
            "the upstream's answer is longer than max_answer_bytes".into(),
        )
    }

    /// The upstream ended the answer with a reason that is no answer. The code is the reason.
    pub fn ended_with(reason: &str) -> Self {
        let mut failure = Failure::plain(
            Class::Server,
            502,
            "",
            format!("the upstream ended the answer with {reason}"),
        );
        failure.code = Some(Cow::Owned(reason.to_ascii_lowercase()));
        failure
    }

    /// The request's whole time is over; there is none left for another attempt.
    pub fn deadline() -> Self {
        let mut failure = Failure::plain(
            Class::Ended,
            504,
            "deadline_exceeded",
            "the request took longer than deadline_ms allows".into(),
        );
        failure.kind = Cow::Borrowed("timeout_error");
        failure
    }

    /// weir stops and does not wait for this request any longer.
    pub fn stopping() -> Self {
        Failure::plain(
            Class::Ended,
            503,
            "shutting_down",
            "the gateway is shutting down".into(),
        )
    }

    /// The request is refused by weir itself, in words that it has already.
    pub fn refused(error: ApiError) -> Self {
        Failure {
            class: Class::RequestFault,
            status: error.status,
            kind: error.kind,
            code: error.code,
            param: error.param,
            message: error.message,
            retry_after: None,
            signature_refused: false,
        }
    }

    pub fn caller_gone() -> Self {
        Failure::plain(
            Class::CallerGone,
            499,
            "caller_gone",
            "the caller left".into(),
        )
    }

    /// An answer with a status of 400 or more.
    ///
    /// `retry_after` is what the headers said; a hint in the body counts only without it.
    pub fn from_status(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let said = Said::read(body, status);
        let mut failure = judge(status, &said);
        failure.retry_after = retry_after.or(said.retry_delay);
        failure
    }

    /// An error object that came inside a stream or under a success status: `{"error":...}`,
    /// `{"type":"error",...}` or Gemini's array form.
    pub fn from_event(data: &[u8]) -> Self {
        let said = Said::read(data, 502);
        let status = said.status_meant().unwrap_or(502);
        let mut failure = judge(status, &said);
        failure.retry_after = said.retry_delay;
        failure
    }

    /// `/chat/completions` does not take the request, but says that `/responses` would.
    pub fn wants_responses(&self) -> bool {
        // Models that the other address never serves are told with 404.
        matches!(self.status, 400 | 404) && self.message.contains("v1/responses")
    }

    /// The provider gives no summary of the reasoning to this organisation.
    pub fn refuses_summary(&self) -> bool {
        let told = self.param.as_deref() == Some("reasoning.summary")
            || self.message.contains("reasoning.summary")
            || self.message.contains("reasoning summaries");
        self.status == 400 && told
    }

    /// What the caller is told. Our own bad keys are our trouble: 502, with names but no secrets.
    pub fn to_error(&self, upstream: &str, key: &str) -> ApiError {
        let message = match self.class {
            Class::KeyBad => {
                format!(
                    "upstream {upstream} refused its key {key}: {}",
                    self.message
                )
            }
            _ => self.message.clone(),
        };
        ApiError {
            status: self.status,
            kind: self.kind.clone(),
            code: self.code.clone(),
            param: self.param.clone(),
            message,
            retry_after: self.retry_after,
        }
    }
}

/// The part of the table that recognises: status and words in, class and client status out.
fn judge(status: u16, said: &Said) -> Failure {
    let (class, told) = recognise(status, said);
    let kind = match class {
        // An upstream's own word for the fault fits only where its status is passed on.
        Class::RequestFault => said.kind.clone().map(Cow::Owned),
        _ => None,
    };
    let code = match class {
        Class::KeyBad => Some(Cow::Borrowed("upstream_key_refused")),
        Class::ModelMissing => Some(Cow::Borrowed("model_not_found")),
        Class::RateLimit => Some(Cow::Borrowed("rate_limit_exceeded")),
        Class::Server if status == 529 => Some(Cow::Borrowed("overloaded")),
        _ => said.code.clone().map(Cow::Owned),
    };
    Failure {
        class,
        status: told,
        kind: kind.unwrap_or(Cow::Borrowed(match class {
            Class::ModelMissing => "invalid_request_error",
            _ => kind_of_status(told),
        })),
        code,
        param: match class {
            Class::ModelMissing => Some("model".into()),
            _ => said.param.clone(),
        },
        message: said.message.clone(),
        retry_after: None,
        signature_refused: status == 400 && said.is_about_signature(),
    }
}

fn recognise(status: u16, said: &Said) -> (Class, u16) {
    match status {
        400 if said.is_key_invalid() || said.is_out_of_money() => (Class::KeyBad, 502),
        400 | 404 if said.is_code("model_not_found") => (Class::ModelMissing, 404),
        404 if said.is_about_model() => (Class::ModelMissing, 404),
        401 | 402 => (Class::KeyBad, 502),
        403 if said.is_content_policy() => (Class::RequestFault, 403),
        // A refusal in the provider's own words is about the key; a bare or HTML 403 comes from
        // something in between (a WAF, a proxy) and passes.
        403 if said.structured => (Class::KeyBad, 502),
        403 => (Class::Server, 403),
        429 if said.is_out_of_money() => (Class::KeyBad, 502),
        429 => (Class::RateLimit, 429),
        408 => (Class::Server, 408),
        // Not a registered status; callers know 503.
        529 => (Class::Server, 503),
        500..=599 => (Class::Server, status),
        400..=499 => (Class::RequestFault, status),
        // A redirect or anything else where an answer should be.
        _ => (Class::Server, 502),
    }
}

#[cfg(test)]
mod tests;
