//! The words in the middle: what every dialect is parsed into, and what every provider's answer
//! becomes before a dialect writes it out.
//!
//! Requests are borrowed from the caller's body. What weir acts on is typed; what it only carries
//! (schemas, arguments, opaque reasoning) stays the raw JSON that came in, so that numbers and key
//! order arrive as they left. Knows no wire format and does no I/O.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// One chat request, whatever dialect it came in.
#[derive(Debug, Default)]
pub struct Request<'a> {
    pub messages: Vec<Message<'a>>,
    /// `max_completion_tokens`, else `max_tokens`.
    pub max_tokens: Option<u64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u64>,
    pub stop: Vec<Cow<'a, str>>,
    pub n: Option<u64>,
    pub seed: Option<i64>,
    pub logprobs: bool,
    pub top_logprobs: Option<u64>,
    pub frequency_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    /// Present only when it holds at least one entry.
    pub logit_bias: Option<&'a RawValue>,
    pub user: Option<Cow<'a, str>>,
    pub safety_identifier: Option<Cow<'a, str>>,
    pub service_tier: Option<Cow<'a, str>>,
    /// A JSON object of the caller's own labels.
    pub metadata: Option<&'a RawValue>,
    /// The provider may keep the answer.
    pub store: Option<bool>,
    pub modalities: Vec<Cow<'a, str>>,
    pub audio: Option<&'a RawValue>,
    pub reasoning_effort: Option<Cow<'a, str>>,
    pub verbosity: Option<Cow<'a, str>>,
    /// The `thinking` extension, `{type, budget_tokens}`.
    pub thinking: Option<&'a RawValue>,
    pub response_format: ResponseFormat<'a>,
    pub tools: Vec<Tool<'a>>,
    pub tool_choice: Option<ToolChoice<'a>>,
    pub parallel_tool_calls: Option<bool>,
    /// The caller used `functions`: answers go back as `function_call`.
    pub legacy_functions: bool,
    pub web_search_options: Option<&'a RawValue>,
    pub prompt_cache_key: Option<Cow<'a, str>>,
    pub prompt_cache_options: Option<&'a RawValue>,
    pub prompt_cache_retention: Option<Cow<'a, str>>,
    pub image_config: Option<&'a RawValue>,
    pub moderation: Option<&'a RawValue>,
    /// `extra_body.anthropic` and so on, by provider key.
    pub extra_body: Option<&'a RawValue>,
    /// Names of top-level fields that no table knows, for a debug line.
    pub unknown: Vec<Cow<'a, str>>,
}

impl Request<'_> {
    /// Leaves out every signed piece of reasoning, which the upstream has refused. Whether there was
    /// one.
    pub fn strip_signatures(&mut self) -> bool {
        let mut any = false;
        for message in &mut self.messages {
            any |= message.google_signature.take().is_some();
            any |= message.google_parts.take().is_some();
            any |= message.thinking_blocks.take().is_some();
            message.thinking_layout = None;
            any |= message.reasoning_items.take().is_some();
            for call in &mut message.tool_calls {
                any |= call.google_signature.take().is_some();
            }
            for part in message.content.iter_mut().chain(&mut message.images) {
                any |= part.google_signature.take().is_some();
            }
        }
        any
    }
}

/// What stands before the text of a result that says why a call failed. Formats with a place of
/// their own for that leave it out.
pub const ERROR_MARK: &str = "[error] ";

/// Who speaks. `developer` is `System`; `function` is `Tool`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// One message of the history.
#[derive(Debug)]
pub struct Message<'a> {
    pub role: Role,
    /// A string content is one `Part::Text`; `null` and absent are empty.
    pub content: Vec<Part<'a>>,
    /// The content came as an array of parts, not as a string.
    pub content_is_array: bool,
    /// Assistant only.
    pub tool_calls: Vec<ToolCall<'a>>,
    /// Tool only: the call that this answers. Never empty there.
    pub tool_call_id: Cow<'a, str>,
    /// Tool only: the call failed, and this is why.
    pub is_error: bool,
    /// Assistant only: the message-level `refusal`.
    pub refusal: Option<Cow<'a, str>>,
    /// Assistant only: `reasoning_content`, else `reasoning`.
    pub reasoning: Option<Cow<'a, str>>,
    /// Assistant only: a message-level `audio` object was there.
    pub has_audio: bool,
    /// Assistant only: the message-level `images`, which the model made.
    pub images: Vec<Part<'a>>,
    /// `extra_content.google.thought_signature` of the message.
    pub google_signature: Option<Cow<'a, str>>,
    /// `extra_content.google.tool_parts`: a JSON array of what the provider's own tools left.
    pub google_parts: Option<&'a RawValue>,
    /// `extra_content.anthropic.thinking_blocks`, else `thinking_blocks`: a JSON array.
    pub thinking_blocks: Option<&'a RawValue>,
    /// `extra_content.anthropic.layout`: a JSON array.
    pub thinking_layout: Option<&'a RawValue>,
    /// `extra_content.openai.reasoning_items`: a JSON array.
    pub reasoning_items: Option<&'a RawValue>,
    /// `cache_control` on the message.
    pub cache_control: Option<&'a RawValue>,
}

impl Message<'_> {
    pub fn new(role: Role) -> Self {
        Message {
            role,
            content: Vec::new(),
            content_is_array: false,
            tool_calls: Vec::new(),
            tool_call_id: Cow::Borrowed(""),
            is_error: false,
            refusal: None,
            reasoning: None,
            has_audio: false,
            images: Vec::new(),
            google_signature: None,
            google_parts: None,
            thinking_blocks: None,
            thinking_layout: None,
            reasoning_items: None,
            cache_control: None,
        }
    }
}

/// One content part and its cache mark.
#[derive(Debug)]
pub struct Part<'a> {
    pub kind: PartKind<'a>,
    /// `cache_control` on the part, Anthropic's form.
    pub cache_control: Option<&'a RawValue>,
    /// `prompt_cache_breakpoint` on the part, OpenAI's form.
    pub cache_breakpoint: Option<&'a RawValue>,
    /// Assistant only: `extra_content.google.thought_signature` of the part.
    pub google_signature: Option<Cow<'a, str>>,
}

#[derive(Debug)]
pub enum PartKind<'a> {
    Text(Cow<'a, str>),
    Refusal(Cow<'a, str>),
    /// `url` is a data URL or a remote one.
    Image {
        url: Cow<'a, str>,
        detail: Option<Cow<'a, str>>,
    },
    /// Base64 data and its format, `wav` or `mp3`.
    Audio {
        data: Cow<'a, str>,
        format: Cow<'a, str>,
    },
    /// At least one of `data` (data URL or bare base64) and `id` is there.
    File {
        data: Option<Cow<'a, str>>,
        id: Option<Cow<'a, str>>,
        name: Option<Cow<'a, str>>,
    },
}

impl<'a> Part<'a> {
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Part::of(PartKind::Text(text.into()))
    }

    pub fn image(url: Cow<'a, str>) -> Self {
        Part::of(PartKind::Image { url, detail: None })
    }

    fn of(kind: PartKind<'a>) -> Self {
        Part {
            kind,
            cache_control: None,
            cache_breakpoint: None,
            google_signature: None,
        }
    }
}

/// A function, or a custom (free-form input) tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolKind {
    Function,
    Custom,
}

/// A call that the model made earlier in the history.
#[derive(Debug)]
pub struct ToolCall<'a> {
    /// Never empty: where the caller left it out, `call_m<message>_<call>`.
    pub id: Cow<'a, str>,
    pub kind: ToolKind,
    pub name: Cow<'a, str>,
    /// The `arguments` text of a function, the `input` of a custom tool. May be any text.
    pub arguments: Cow<'a, str>,
    /// `extra_content.google.thought_signature` of the call.
    pub google_signature: Option<Cow<'a, str>>,
}

#[derive(Debug)]
pub enum Tool<'a> {
    Function {
        name: Cow<'a, str>,
        description: Option<Cow<'a, str>>,
        /// Absent and `null` are `None`.
        parameters: Option<&'a RawValue>,
        strict: bool,
        /// The model sees it only when its own search has found it.
        deferred: bool,
        cache_control: Option<&'a RawValue>,
    },
    Custom {
        name: Cow<'a, str>,
        description: Option<Cow<'a, str>>,
        format: Option<&'a RawValue>,
    },
    /// Any other `type`: the whole object.
    Native {
        kind: Cow<'a, str>,
        object: &'a RawValue,
    },
}

#[derive(Debug)]
pub enum ToolChoice<'a> {
    Auto,
    None,
    Required,
    Named(Cow<'a, str>),
    Allowed {
        /// `required`, else `auto`.
        required: bool,
        names: Vec<Cow<'a, str>>,
    },
}

#[derive(Debug, Default)]
pub enum ResponseFormat<'a> {
    #[default]
    Text,
    JsonObject,
    JsonSchema {
        name: Cow<'a, str>,
        schema: Option<&'a RawValue>,
        description: Option<Cow<'a, str>>,
        strict: bool,
    },
}

/// One thing that an upstream's answer said. Candidates and tool calls count from 0.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta<'a> {
    /// The answer began. `id` may be empty: the writer then makes one. Comes once, first.
    Start {
        id: &'a str,
        model: &'a str,
    },
    Text {
        candidate: u32,
        text: &'a str,
    },
    /// Readable reasoning.
    Reasoning {
        candidate: u32,
        text: &'a str,
    },
    /// `extra_content` for the message: a JSON object, complete, at most once per candidate.
    Extra {
        candidate: u32,
        json: &'a str,
    },
    ToolStart {
        candidate: u32,
        index: u32,
        /// Checked against `^[A-Za-z0-9_-]{1,64}$` by the writer, which makes one where it fails.
        id: &'a str,
        name: &'a str,
        kind: ToolKind,
        google_signature: Option<&'a str>,
    },
    /// A piece of the arguments (function) or of the input (custom).
    ToolArgs {
        candidate: u32,
        index: u32,
        fragment: &'a str,
    },
    Refusal {
        candidate: u32,
        text: &'a str,
    },
    Image {
        candidate: u32,
        mime: &'a str,
        base64: &'a str,
        google_signature: Option<&'a str>,
    },
    Audio {
        candidate: u32,
        id: &'a str,
        base64: &'a str,
    },
    /// `start` and `end` count Unicode scalar values of the content.
    Citation {
        candidate: u32,
        url: &'a str,
        title: &'a str,
        start: u64,
        end: u64,
    },
    /// OpenAI's `logprobs` object of a choice, as JSON.
    Logprobs {
        candidate: u32,
        json: &'a str,
    },
    /// Cumulative; a field that is `None` keeps its previous value.
    Usage(Usage),
    /// OpenAI's name for the tier that served the answer.
    ServiceTier(&'a str),
    /// Set once per candidate. The writer holds it back until the end.
    Finish {
        candidate: u32,
        reason: FinishReason,
    },
}

/// Takes deltas, one at a time and in order.
pub trait DeltaSink {
    fn put(&mut self, delta: Delta<'_>);
}

/// Token counters in OpenAI's sense: `prompt` includes cached tokens, `completion` includes
/// reasoning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt: Option<u64>,
    pub completion: Option<u64>,
    pub cached: Option<u64>,
    pub cache_write: Option<u64>,
    pub reasoning: Option<u64>,
    pub prompt_audio: Option<u64>,
    pub prompt_image: Option<u64>,
}

impl Usage {
    /// More than any answer costs. What an upstream says beyond that is a mistake, for which
    /// nobody is locked out and no sum runs over.
    const MOST: u64 = 100_000_000;

    /// The same with no count beyond belief.
    pub fn within_reason(self) -> Usage {
        let cap = |count: Option<u64>| count.map(|count| count.min(Usage::MOST));
        Usage {
            prompt: cap(self.prompt),
            completion: cap(self.completion),
            cached: cap(self.cached),
            cache_write: cap(self.cache_write),
            reasoning: cap(self.reasoning),
            prompt_audio: cap(self.prompt_audio),
            prompt_image: cap(self.prompt_image),
        }
    }

    /// Takes over the fields that `newer` has.
    pub fn merge(&mut self, newer: Usage) {
        fn take(old: &mut Option<u64>, new: Option<u64>) {
            if new.is_some() {
                *old = new;
            }
        }
        take(&mut self.prompt, newer.prompt);
        take(&mut self.completion, newer.completion);
        take(&mut self.cached, newer.cached);
        take(&mut self.cache_write, newer.cache_write);
        take(&mut self.reasoning, newer.reasoning);
        take(&mut self.prompt_audio, newer.prompt_audio);
        take(&mut self.prompt_image, newer.prompt_image);
    }
}

/// Why a candidate ended, in OpenAI's five words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    Stop,
    Length,
    ToolCalls,
    ContentFilter,
}
