//! `Failure`: how one upstream attempt ended, and the one table that says what follows from it.
//!
//! Reads the error bodies of all providers (OpenAI, Anthropic, Gemini and what proxies in between
//! send), because compatible servers mix their shapes. Opens no connection and knows no pool; the
//! pool and the exchange ask a `Failure` what it means.

use std::borrow::Cow;
use std::time::Duration;

use self::echo::Echo;
use self::judge::judge;
pub use self::quoted::without_quoted;
use self::said::Said;
pub use self::said::seconds;
use crate::error::{ApiError, kind_of_status};

mod echo;
mod judge;
mod phrases;
mod quoted;
mod said;
mod words;

/// What kind of thing went wrong. Everything that follows is decided by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The caller's request is at fault; every key would say the same.
    RequestFault,
    /// The request is at fault with this key: what it names, costs or may do differs by key.
    OtherKey,
    /// The upstream will never do what was asked, however often it is asked.
    Unsupported,
    /// This key (or this provider) does not serve the model.
    ModelMissing,
    /// The key is wrong, forbidden or out of money, as the upstream says in so many words.
    KeyBad,
    /// Refused without a word on what is at fault: the key, the model or the request.
    Unclear,
    /// The key is out of quota for a while.
    RateLimit,
    /// The upstream has yet to load the model: it is neither the key's nor the request's fault, and
    /// passes by itself.
    Loading,
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
    /// The next target may serve it now, and this one soon.
    Await,
    /// Another key may serve it; not counted as a retry.
    SwitchKey,
    /// Another key may serve it; counted as a retry.
    SwitchCounted,
    /// Worth another try, with whatever key comes next, counted.
    Retry,
    /// Stop without a word.
    Abandon,
}

/// How long a key cools down, and how strictly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoolDown {
    None,
    /// The key is not used for this model until then.
    Model(Duration),
    /// The key is not used at all for minutes.
    Key,
    /// The server's hint, else one second doubling per window. This key for this model.
    RateLimit,
    /// None at first; a key that refuses several requests in a row is not used for a while.
    Strike,
    /// Other keys come first until then, but the key is used if there is no other.
    Avoid(Duration),
}

/// A model that a key does not serve is asked for again after this long.
const MISSING_MODEL_REST: Duration = Duration::from_secs(600);

/// After trouble of the server, other keys come first for this long.
const TROUBLE_REST: Duration = Duration::from_secs(1);

impl Class {
    /// The table of behaviour section 3, K3.
    pub fn verdict(self) -> Verdict {
        match self {
            Class::RequestFault | Class::Ended => Verdict::Forward,
            Class::Unsupported => Verdict::NextTarget,
            Class::Loading => Verdict::Await,
            Class::OtherKey | Class::ModelMissing | Class::KeyBad | Class::RateLimit => {
                Verdict::SwitchKey
            }
            Class::Unclear => Verdict::SwitchCounted,
            Class::Server | Class::Transport => Verdict::Retry,
            Class::CallerGone => Verdict::Abandon,
        }
    }

    pub fn cool_down(self) -> CoolDown {
        match self {
            Class::RequestFault
            | Class::OtherKey
            | Class::Unsupported
            | Class::Loading
            | Class::Ended
            | Class::CallerGone => CoolDown::None,
            Class::Unclear => CoolDown::Strike,
            Class::ModelMissing => CoolDown::Model(MISSING_MODEL_REST),
            Class::KeyBad => CoolDown::Key,
            Class::RateLimit => CoolDown::RateLimit,
            Class::Server | Class::Transport => CoolDown::Avoid(TROUBLE_REST),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Class::RequestFault => "request fault",
            Class::OtherKey => "request fault with this key",
            Class::Unsupported => "not supported",
            Class::ModelMissing => "model missing",
            Class::KeyBad => "key refused",
            Class::Unclear => "refused",
            Class::RateLimit => "rate limit",
            Class::Loading => "loading",
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
    pub param: Option<Box<str>>,
    /// The upstream's own words, or ours where it had none.
    pub message: String,
    /// How long the upstream asked to be left alone.
    pub retry_after: Option<Duration>,
    /// A 400 about a reasoning signature: worth one resend without signatures.
    pub signature_refused: bool,
    /// The request is longer than the model takes: one with more room may take it.
    pub too_long: bool,
    /// The upstream's words, where they cost other callers a key or a model.
    said: Option<Box<Said>>,
    /// They may be about something else that the request names.
    doubtful: bool,
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
            too_long: false,
            said: None,
            doubtful: false,
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

    /// There was no connection.
    pub fn is_unreachable(&self) -> bool {
        self.code.as_deref() == Some("upstream_unreachable")
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

    /// The answer keeps more open at once than any answer does.
    pub fn state_too_long() -> Self {
        Failure {
            message: "the upstream's answer keeps more open at once than weir holds of a stream"
                .into(),
            ..Failure::too_long()
        }
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
            param: error.param.map(String::into_boxed_str),
            message: error.message,
            retry_after: None,
            signature_refused: false,
            too_long: false,
            said: None,
            doubtful: false,
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
        failure.without_false_hope()
    }

    /// An error object that came inside a stream or under a success status: `{"error":...}`,
    /// `{"type":"error",...}` or Gemini's array form.
    pub fn from_event(data: &[u8]) -> Self {
        let said = Said::read(data, 502);
        let status = said.status_meant().unwrap_or(502);
        let mut failure = judge(status, &said);
        failure.retry_after = said.retry_delay;
        failure.without_false_hope()
    }

    /// The failure once it is looked at beside the request for `model` that was sent, of these
    /// parts (`None`: it is not held any more): what the request says itself is not believed of a
    /// key or of a model.
    pub fn weighed(mut self, model: &str, request: Option<&[&[u8]]>) -> Self {
        let Some(mut said) = self.said.take() else {
            return self;
        };
        let echo = || request.map_or(Echo::Unknown, Echo::of);
        if self.class == Class::KeyBad {
            if said.is_key_code() || said.is_money_code() {
                return self;
            }
            said.echo = echo();
            let again = judge(said.status, &said);
            if again.class == Class::KeyBad {
                return self;
            }
            self = again.without_false_hope();
        } else {
            said.echo = echo();
        }
        if self.class == Class::ModelMissing {
            let by_words = !said.is_model_code();
            let again = judge(said.status, &said).class;
            self.doubtful =
                (by_words && again != Class::ModelMissing) || said.names_another_than(model);
            // Without the request.
            said.echo = Echo::default();
            self.said = Some(said);
        }
        self
    }

    /// The upstream says that `model` is missing, and not another one that the request names beside
    /// it, for a tool say.
    pub fn is_about(&self, model: &str) -> bool {
        let named = self.said.as_ref().and_then(|said| said.model_named());
        !self.doubtful && !bare(model).is_empty() && named.is_none_or(|named| is_same(named, model))
    }

    /// No wait helps a request that can never pass.
    fn without_false_hope(mut self) -> Self {
        if self.is_final() {
            self.retry_after = None;
        }
        self
    }

    /// Asking again cannot help; clients that retry by themselves are told so.
    pub fn is_final(&self) -> bool {
        matches!(
            self.class,
            Class::KeyBad | Class::OtherKey | Class::Unsupported
        )
    }

    /// What the caller is told. Our own bad keys are our trouble: 502, with names but no secrets.
    pub fn to_error(&self, upstream: &str, key: &str) -> ApiError {
        // An error of our key is told with our key's name, since the caller has none there.
        let is_ours =
            self.class == Class::KeyBad || (self.class == Class::Unclear && self.status == 502);
        let message = match is_ours {
            true => format!(
                "upstream {upstream} refused its key {key}: {}",
                self.message
            ),
            false => self.message.clone(),
        };
        ApiError {
            status: self.status,
            kind: self.kind.clone(),
            code: self.code.clone(),
            param: self.param.clone().map(String::from),
            message,
            retry_after: self.retry_after,
        }
    }
}

/// A model's name without who offers it and without our own word on how it is asked: of
/// `openai/gpt-5 (responses)` it is `gpt-5`.
fn bare(name: &str) -> String {
    let name = name.split('(').next().unwrap_or(name).trim_end();
    name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase()
}

/// Whether both are one model. A date or a number of a version may be added or left off.
fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (bare(one), bare(other));
    let (short, long) = match one.len() <= other.len() {
        true => (&one, &other),
        false => (&other, &one),
    };
    let Some(added) = long.strip_prefix(&**short) else {
        return false;
    };
    added.is_empty()
        || added.starts_with(['-', '@'])
            && added.bytes().filter(u8::is_ascii_digit).count() >= 3
            && added[1..]
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests;
