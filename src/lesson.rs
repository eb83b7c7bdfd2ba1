//! What a refused request teaches: one row for each kind of lesson, with the words by which it is
//! recognised.
//!
//! A provider changes what its models take without telling, and no table of names keeps up. So a
//! refusal that names a field, a value or an address is answered by asking once more, without or
//! with it; where that helps, it is remembered. Knows the words of refusals and what the lessons
//! are. Who mends a request by them is `exchange/encode.rs`, with the encoders' help.

use std::fmt;

use crate::failure::Failure;

use self::field::FIELDS;
pub use self::learned::{Learned, Told};
use self::words::{Words, is_refusal, names};

mod effort;
pub mod field;
mod learned;
mod words;

/// What one refusal taught about a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    /// The model is to be asked in the Responses format.
    WantsResponses,
    /// It has no route for the Responses format, so callers' requests of that are translated.
    NoResponses,
    /// It does not search the web. For agents, who declare a search whatever they are after.
    NoSearch,
    /// It signs its calls and wants that back, as Gemini does since generation 3.
    ThirdGeneration,
    /// The signatures of this history are not taken.
    NoSignatures,
    /// Usage of a stream must not be asked for.
    NoUsage,
    /// Answers come whole only.
    NoStream,
    /// A summary of the reasoning is not given to us.
    NoSummary,
    /// Reasoning is not sealed for us.
    NoSeal,
    /// The provider is not told what its thinking shall show.
    NoDisplay,
    /// No cache mark at the end of every request.
    NoCache,
    /// Messages may have no members beyond the first ones of the format.
    PlainMessages,
    /// The one name of the limit of an answer that is known.
    LimitAs(&'static str),
    /// One effort is not known, and the nearest one that is.
    Effort(&'static str, &'static str),
    /// Tools are not enforced by their schemas.
    LooseTools,
    /// The form of the answer is asked for in words.
    FormatInWords,
    /// A field of the request is not taken, by its row's name.
    Without(&'static str),
}

/// As `/status` and the log say it, behind the name of a model.
impl fmt::Display for Lesson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lesson::WantsResponses => f.write_str("is asked at /responses"),
            Lesson::NoResponses => f.write_str("is not asked at /responses"),
            Lesson::NoSearch => f.write_str("is not given agents' web search"),
            Lesson::ThirdGeneration => f.write_str("is asked as Gemini 3 is, with signatures"),
            Lesson::NoSignatures => f.write_str("goes without signatures"),
            Lesson::NoUsage => f.write_str("is not asked for the usage of streams"),
            Lesson::NoStream => f.write_str("is asked for whole answers, not for streams"),
            Lesson::NoSummary => f.write_str("is not asked for summaries of its reasoning"),
            Lesson::NoSeal => f.write_str("is not asked for sealed reasoning"),
            Lesson::NoDisplay => f.write_str("is not told what thinking to show"),
            Lesson::NoCache => f.write_str("gets no cache mark of weir's own"),
            Lesson::PlainMessages => f.write_str("gets messages without weir's additions"),
            Lesson::LimitAs(name) => write!(f, "gets the limit as {name}"),
            Lesson::Effort(asked, sent) => write!(f, "gets the effort {asked} as {sent}"),
            Lesson::LooseTools => f.write_str("gets tools that are not strict"),
            Lesson::FormatInWords => f.write_str("is asked for JSON in words"),
            Lesson::Without(field) => write!(f, "goes without {field}"),
        }
    }
}

/// The lessons that one request heeds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lessons(pub Vec<Lesson>);

impl Lessons {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, lesson: Lesson) -> bool {
        self.0.contains(&lesson)
    }

    /// The names under which the members of fields that are not taken stand in a chat request.
    pub fn members(&self) -> impl Iterator<Item = &'static str> {
        let rows = self.0.iter().filter_map(|lesson| match lesson {
            Lesson::Without(name) => FIELDS.iter().find(|field| field.name == *name),
            _ => None,
        });
        rows.flat_map(|field| field.members).copied()
    }

    /// The effort that goes out where `asked` was asked for; `None`: that one.
    pub fn effort(&self, asked: &str) -> Option<&'static str> {
        let mut known = None;
        // Each step is another one, so there are no more steps than lessons.
        for _ in &self.0 {
            let now = known.unwrap_or(asked);
            let next = self.0.iter().find_map(|lesson| match lesson {
                Lesson::Effort(from, to) if *from == now => Some(*to),
                _ => None,
            });
            if next.is_none() {
                break;
            }
            known = next;
        }
        known.filter(|known| *known != asked)
    }

    /// The one name of the limit that is known.
    pub fn limit(&self) -> Option<&'static str> {
        self.0.iter().find_map(|lesson| match lesson {
            Lesson::LimitAs(name) => Some(*name),
            _ => None,
        })
    }
}

/// A refusal, and what was asked in which way.
pub struct Refusal<'r> {
    pub failure: &'r Failure,
    /// The format that was spoken.
    pub spoken: Spoken,
    /// It was spoken because the upstream itself speaks it, and not because a lesson said so.
    pub official: bool,
    /// What is heeded already.
    pub heeded: &'r Lessons,
    /// The effort that was asked for, as it went out.
    pub effort: Option<&'r str>,
    words: Words,
}

/// The format of a request that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// Chat Completions, relayed.
    Chat,
    Responses,
    Messages,
    Gemini,
}

impl<'r> Refusal<'r> {
    /// `None`: nothing of this kind can be learned from the failure.
    pub fn new(
        failure: &'r Failure,
        spoken: Spoken,
        official: bool,
        heeded: &'r Lessons,
        effort: Option<&'r str>,
    ) -> Option<Refusal<'r>> {
        let is_refusal = matches!(failure.status, 400 | 404 | 422) || failure.signature_refused;
        is_refusal.then(|| Refusal {
            failure,
            spoken,
            official,
            heeded,
            effort,
            words: Words::new(failure),
        })
    }

    /// Something in the request is refused, and not the model that it is for.
    fn is_of_request(&self) -> bool {
        matches!(self.failure.status, 400 | 422)
    }

    fn names(&self, member: &str) -> bool {
        let words = &self.words;
        names(&words.lower, member) || names(&words.param, member)
    }

    /// It names something that the request has only together with something else, so another
    /// request may have it.
    pub fn is_of_this_request(&self) -> bool {
        self.words.names_condition()
    }
}

/// One kind of lesson.
pub struct Row {
    /// What the caller wished is given up by it, so a strict upstream's caller is told instead.
    pub gives_up: bool,
    /// It holds for later requests, too.
    pub lasts: bool,
    /// What the refusal teaches, if it is of this kind.
    pub hears: fn(&Refusal<'_>) -> Option<Lesson>,
}

/// The kinds of lessons, in the order in which they are looked for.
pub static ROWS: &[Row] = &[
    Row {
        gives_up: false,
        lasts: true,
        hears: wants_responses,
    },
    // Before the signatures are given up: the placeholder for those that are missing is a part of
    // how that generation is asked.
    Row {
        gives_up: false,
        lasts: true,
        hears: is_third_generation,
    },
    // What is refused are the signatures of one history.
    Row {
        gives_up: false,
        lasts: false,
        hears: |refusal| {
            let is_signed = refusal.spoken != Spoken::Chat;
            (is_signed && refusal.failure.signature_refused).then_some(Lesson::NoSignatures)
        },
    },
    Row {
        gives_up: false,
        lasts: true,
        hears: |refusal| {
            let told = refusal.spoken == Spoken::Chat
                && refusal.is_of_request()
                && (refusal.names("stream_options") || refusal.names("include_usage"));
            told.then_some(Lesson::NoUsage)
        },
    },
    // The caller gets a stream all the same, of one piece.
    Row {
        gives_up: false,
        lasts: true,
        hears: |refusal| {
            let words = &refusal.words;
            let told = matches!(refusal.spoken, Spoken::Chat | Spoken::Responses)
                && refusal.is_of_request()
                && (words.lower.contains("verified to stream")
                    || words.refuses(&["stream"], &["streaming is not", "support streaming"]));
            told.then_some(Lesson::NoStream)
        },
    },
    Row {
        gives_up: false,
        lasts: true,
        hears: refuses_own_addition,
    },
    Row {
        gives_up: true,
        lasts: true,
        hears: refuses_additions,
    },
    Row {
        gives_up: false,
        lasts: true,
        hears: knows_other_limit,
    },
    Row {
        gives_up: true,
        lasts: true,
        hears: |refusal| {
            let asked = refusal.effort.filter(|_| refusal.is_of_request())?;
            effort::nearest(&refusal.words, asked)
        },
    },
    // How much is too much depends on all schemas of a request together.
    Row {
        gives_up: true,
        lasts: false,
        hears: |refusal| schemas_too_complex(refusal).then_some(Lesson::LooseTools),
    },
    Row {
        gives_up: true,
        lasts: false,
        hears: |refusal| schemas_too_complex(refusal).then_some(Lesson::FormatInWords),
    },
    Row {
        gives_up: true,
        lasts: true,
        hears: |refusal| {
            let words = &refusal.words.lower;
            let of_tools = words.contains("tool") || refusal.words.param.contains("tool");
            let named = refusal.names("strict") || words.contains("strict tools");
            let told = refusal.is_of_request() && of_tools && named && is_refusal(words);
            told.then_some(Lesson::LooseTools)
        },
    },
    Row {
        gives_up: true,
        lasts: true,
        hears: |refusal| {
            let names: &[&str] = &["output_config.format", "output_format"];
            let phrases: &[&str] = &["structured outputs are not", "support structured outputs"];
            let told = refusal.spoken == Spoken::Messages
                && refusal.is_of_request()
                && refusal.words.refuses(names, phrases);
            told.then_some(Lesson::FormatInWords)
        },
    },
    Row {
        gives_up: true,
        lasts: true,
        hears: |refusal| {
            const NAMES: &[&str] = &["web_search", "web search", "google_search", "googlesearch"];
            let told = refusal.is_of_request()
                && NAMES.iter().any(|name| refusal.words.lower.contains(name));
            told.then_some(Lesson::NoSearch)
        },
    },
    // Two that exclude each other: the one that is less known goes.
    Row {
        gives_up: true,
        lasts: false,
        hears: |refusal| {
            let told = refusal.is_of_request()
                && refusal.names("temperature")
                && refusal.names("top_p")
                && refusal.words.lower.contains("both");
            told.then_some(Lesson::Without("top_p"))
        },
    },
    Row {
        gives_up: true,
        lasts: true,
        hears: |refusal| {
            if !refusal.is_of_request() {
                return None;
            }
            let mut refused = FIELDS
                .iter()
                .filter(|field| refusal.words.refuses(field.names, field.phrases))
                .map(|field| Lesson::Without(field.name));
            refused.find(|lesson| !refusal.heeded.has(*lesson))
        },
    },
];

/// `/chat/completions` does not take the request, but says that `/responses` would.
fn wants_responses(refusal: &Refusal<'_>) -> Option<Lesson> {
    // Models that the other address never serves are told with 404.
    let told = refusal.spoken == Spoken::Chat
        && matches!(refusal.failure.status, 400 | 404)
        && refusal.failure.message.contains("v1/responses");
    told.then_some(Lesson::WantsResponses)
}

/// A call of the history has no signature, and must have one: names of older models are served by
/// newer ones.
fn is_third_generation(refusal: &Refusal<'_>) -> Option<Lesson> {
    let told = refusal.spoken == Spoken::Gemini
        && refusal.failure.signature_refused
        && refusal.words.lower.contains("missing");
    told.then_some(Lesson::ThirdGeneration)
}

/// Whether `model`, as Gemini calls the one that answered, is of generation 3 or later.
pub fn is_of_third_generation(model: &str) -> bool {
    let number = model.strip_prefix("gemini-").unwrap_or_default();
    let digits = number.find(|c: char| !c.is_ascii_digit());
    let major = &number[..digits.unwrap_or(number.len())];
    major.parse().is_ok_and(|major: u32| major >= 3)
}

/// What weir itself asks for beside what the caller does.
fn refuses_own_addition(refusal: &Refusal<'_>) -> Option<Lesson> {
    if !refusal.is_of_request() {
        return None;
    }
    match refusal.spoken {
        Spoken::Responses => {
            if refusal.names("reasoning.summary")
                || refusal.words.lower.contains("reasoning summaries")
            {
                return Some(Lesson::NoSummary);
            }
            let names = &["reasoning.encrypted_content", "include"];
            let phrases = &["encrypted content is not", "support encrypted content"];
            refusal
                .words
                .refuses(names, phrases)
                .then_some(Lesson::NoSeal)
        }
        Spoken::Messages => {
            let words = &refusal.words;
            if words.refuses(&["display", "thinking.display"], &[]) {
                return Some(Lesson::NoDisplay);
            }
            words
                .refuses(&["cache_control"], &[])
                .then_some(Lesson::NoCache)
        }
        Spoken::Chat | Spoken::Gemini => None,
    }
}

/// A strict server names a member of a message that weir, or a server like it, added to an answer.
fn refuses_additions(refusal: &Refusal<'_>) -> Option<Lesson> {
    const ADDITIONS: &[&str] = &[
        "annotations",
        "audio",
        "extra_content",
        "function_call",
        "images",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "refusal",
        "thinking_blocks",
    ];
    const REFUSALS: &[&str] = &[
        "extra inputs",
        "extra fields",
        "extra_forbidden",
        "additional propert",
        "not permitted",
        "not allowed",
        "not supported",
        "unsupported",
        "unrecognized",
        "unknown",
        "unexpected",
        "invalid field",
    ];
    let words = &refusal.words.lower;
    let told = refusal.spoken == Spoken::Chat
        && !refusal.official
        && refusal.is_of_request()
        && REFUSALS.iter().any(|phrase| words.contains(phrase))
        && ADDITIONS.iter().any(|member| refusal.names(member));
    told.then_some(Lesson::PlainMessages)
}

/// The limit of an answer has two names, and the other one is known.
fn knows_other_limit(refusal: &Refusal<'_>) -> Option<Lesson> {
    const NEW: &str = "max_completion_tokens";
    const OLD: &str = "max_tokens";
    if refusal.spoken != Spoken::Chat
        || !refusal.is_of_request()
        || refusal.heeded.limit().is_some()
    {
        return None;
    }
    let words = &refusal.words;
    match (words.refuses(&[NEW], &[]), words.refuses(&[OLD], &[])) {
        (true, false) => Some(Lesson::LimitAs(OLD)),
        (false, true) => Some(Lesson::LimitAs(NEW)),
        // One sentence names both: what is refused, and what to write in its place.
        (true, true) => match words.lower.find(OLD) < words.lower.find(NEW) {
            true => Some(Lesson::LimitAs(NEW)),
            false => Some(Lesson::LimitAs(OLD)),
        },
        (false, false) => None,
    }
}

/// What the schemas of strict tools and of the format come to is more than can be enforced.
fn schemas_too_complex(refusal: &Refusal<'_>) -> bool {
    let words = &refusal.words.lower;
    refusal.spoken == Spoken::Messages
        && refusal.is_of_request()
        && (words.contains("strict tools")
            || words.contains("compiled grammar")
            || words.contains("grammar compilation")
            || words.contains("schemas contain")
            || words.contains("schema is too complex"))
        && (words.contains("too many")
            || words.contains("too large")
            || words.contains("too complex")
            || words.contains("maximum")
            || words.contains("limit"))
}

#[cfg(test)]
mod tests;
