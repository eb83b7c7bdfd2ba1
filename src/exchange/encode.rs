//! The request as each target takes it, made when the target's turn comes.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Instant;

use super::answer::Speaker;
use crate::capability;
use crate::chat::{Request, Tool};
use crate::config::Upstream;
use crate::desk::Job;
use crate::dialect::Dialect;
use crate::dialect::messages::Converted;
use crate::dialect::openai::{Head, Stamp};
use crate::dialect::responses::{Asked, Events, Response};
use crate::error::ApiError;
use crate::failure::Failure;
use crate::fetch::Fetcher;
use crate::lesson::{Learned, Lesson, Lessons, ROWS, Refusal, Spoken, field};
use crate::memory::{Memory, Recalled};
use crate::provider::{Encoded, Format, Options, Provider, openai, responses};
use crate::provider::{anthropic::relay, gemini};
use crate::seal::Seals;

/// Resends of one request to one target. Each follows from another lesson, so there would be an end
/// to them without it; a caller should not wait for all of them.
const MOST_RESENDS: usize = 4;

/// A request in another form than that of Chat Completions, which goes as it is to upstreams of
/// its own format and is turned into a chat request for all others.
pub struct Native {
    /// Makes a chat request of it.
    pub convert: fn(&Head<'_>, &Seals) -> Result<Converted, ApiError>,
    /// Upstreams of this format get it as it is.
    pub own: Option<Format>,
    /// The caller's query, which belongs to the format.
    pub query: String,
    /// Headers that mean something to the vendor alone.
    pub headers: Vec<(&'static str, String)>,
    /// The chat request, made when the first target needs it.
    pub converted: OnceCell<Converted>,
}

/// Encodes one request for one target after the other.
pub struct Encoder<'e, 'b> {
    head: &'e Head<'b>,
    native: Option<&'e Native>,
    /// What the answer of a Responses request has to know; the head is that of a chat already.
    asked: Option<Arc<Asked>>,
    /// The head of the chat request that was made of a native one.
    made: OnceCell<Head<'e>>,
    seals: &'e Arc<Seals>,
    /// The target of the last `encode` gets the native request.
    passes: bool,
    /// The middle form, parsed when the first target needs it.
    request: OnceCell<Request<'e>>,
    memory: &'e Memory,
    learned: &'e Learned,
    /// What the memory has of this history; lent to `request`.
    recalled: &'e OnceCell<Recalled>,
    /// Who translates for the target of the last `encode`; `None`: a relay.
    translator: Option<&'static dyn Provider>,
    /// What the target at hand has taught before, and now.
    heeded: Lessons,
    /// Those of them that follow from refusals of this request, and whether they are kept.
    tried: Vec<(Lesson, bool)>,
    /// Versions of the request that the target at hand has had after the first one.
    resends: usize,
    /// Signatures were refused and are left out from here on.
    without_signatures: bool,
    /// There were some.
    lost_signatures: bool,
    /// The target of the last `encode` is the vendor's own.
    official: bool,
    /// The target of the last `encode` is asked for streams alone.
    streams_whole: bool,
    /// Usage is asked for, whatever the config says.
    counts: bool,
    /// Who gets images for models that cannot, and on whose time.
    fetcher: Option<(&'e Fetcher, &'e Job)>,
}

impl<'e, 'b> Encoder<'e, 'b> {
    pub fn new(
        head: &'e Head<'b>,
        memory: &'e Memory,
        learned: &'e Learned,
        recalled: &'e OnceCell<Recalled>,
        seals: &'e Arc<Seals>,
    ) -> Encoder<'e, 'b> {
        Encoder {
            head,
            native: None,
            asked: None,
            made: OnceCell::new(),
            seals,
            passes: false,
            request: OnceCell::new(),
            memory,
            learned,
            recalled,
            translator: None,
            heeded: Lessons::default(),
            tried: Vec::new(),
            resends: 0,
            without_signatures: false,
            lost_signatures: false,
            official: false,
            streams_whole: false,
            counts: false,
            fetcher: None,
        }
    }

    /// Has every upstream that can asked for usage: the tokens are limited.
    pub fn counting(mut self, counts: bool) -> Self {
        self.counts = counts;
        self
    }

    /// What the caller sent is in a form of its own.
    pub fn of(mut self, native: Option<&'e Native>) -> Self {
        self.native = native;
        // Every answer of these forms tells its tokens.
        self.counts |= native.is_some();
        self
    }

    /// The chat request was made of a Responses request.
    pub fn answering(mut self, asked: Option<Arc<Asked>>) -> Self {
        self.counts |= asked.is_some();
        self.asked = asked;
        self
    }

    /// The headers that the last target gets of the caller.
    pub fn headers(&self) -> &'e [(&'static str, String)] {
        match self.native {
            Some(native) if self.passes => &native.headers,
            _ => &[],
        }
    }

    /// The head of the chat request.
    fn head(&self) -> Result<&Head<'e>, ApiError> {
        let Some(native) = self.native else {
            return Ok(self.head);
        };
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let converted = match native.converted.get() {
            Some(converted) => converted,
            None => {
                let converted = (native.convert)(self.head, self.seals)?;
                native.converted.get_or_init(|| converted)
            }
        };
        let mut head = Head::read(&converted.body)?;
        head.limits = self.head.limits;
        Ok(self.made.get_or_init(|| head))
    }

    /// Allows it to fetch images. They stay for later targets, as they are part of the request.
    pub fn fetching(mut self, fetcher: Option<(&'e Fetcher, &'e Job)>) -> Self {
        self.fetcher = fetcher;
        self
    }

    /// The answer is asked for as a stream although the caller wants it whole.
    pub fn streams(&self) -> bool {
        self.translates() || self.streams_whole
    }

    /// The last target speaks another format than the caller.
    pub fn translates(&self) -> bool {
        self.translator.is_some()
    }

    pub fn encode(&mut self, upstream: &Upstream, model: &str) -> Result<Encoded, ApiError> {
        self.tried.clear();
        self.resends = 0;
        self.official = upstream.options.official;
        self.streams_whole = upstream.options.streams_whole();
        self.heeded = self.learned.of(&upstream.name, model, Instant::now());
        self.passes = self
            .native
            .is_some_and(|native| native.own == Some(upstream.format));
        // What another vendor signed is known to the translation alone.
        if upstream.format == Format::Gemini && self.passes && gemini::relay::is_foreign(self.head)
        {
            self.passes = false;
        }
        self.translator = match self.passes {
            true => None,
            false => upstream.format.translator(),
        };
        if self.passes {
            self.streams_whole = false;
            return self.encode_again(upstream, model);
        }
        if self.translator.is_none()
            && !self.heeded.has(Lesson::WantsResponses)
            && upstream.options.official
            && self.needs_responses(model)?
        {
            self.translator = Some(&responses::Responses);
        }
        self.encode_again(upstream, model)
    }

    /// Encodes with what is heeded now.
    fn encode_again(&mut self, upstream: &Upstream, model: &str) -> Result<Encoded, ApiError> {
        if let Some(native) = self.native.filter(|_| self.passes) {
            if native.own == Some(Format::Gemini) {
                return Ok(gemini::relay::encode(self.head, model));
            }
            let plain = self.heeded.has(Lesson::NoSignatures);
            return Ok(relay::encode(self.head, model, &native.query, plain));
        }
        let mut encoded = self.encode_chat(upstream, model)?;
        let converted = self.native.and_then(|native| native.converted.get());
        let dropped = match (converted, &self.asked) {
            (Some(converted), _) => &converted.dropped[..],
            (None, Some(asked)) => &asked.dropped,
            (None, None) => &[],
        };
        let search = (self.wants_search() && !self.searches(upstream, model))
            .then(|| "tools.web_search".to_owned());
        for name in dropped.iter().chain(&search) {
            if !encoded.dropped.contains(name) {
                encoded.dropped.push(name.clone());
            }
        }
        Ok(encoded)
    }

    /// The caller's agent declares a web search.
    fn wants_search(&self) -> bool {
        let converted = self.native.and_then(|native| native.converted.get());
        converted.is_some_and(|converted| converted.searches)
            || self.asked.as_ref().is_some_and(|asked| asked.searches)
    }

    /// The target searches the web itself, where an agent wants that. Agents declare it whatever they
    /// are after, so it is no reason to refuse them: chat completions know no search beside tools,
    /// older models of Gemini do either, and what is no Claude may speak its format.
    fn searches(&self, upstream: &Upstream, model: &str) -> bool {
        let takes_it = || match upstream.format {
            Format::Gemini => {
                let request = self.request.get();
                let functions = request.is_some_and(|request| !request.tools.is_empty());
                upstream.options.gemini(model).third || !functions
            }
            Format::Anthropic => upstream.options.claude(model).web_search,
            Format::OpenAi | Format::Responses => self.translator.is_some(),
        };
        self.wants_search() && !self.heeded.has(Lesson::NoSearch) && takes_it()
    }

    fn encode_chat(&mut self, upstream: &Upstream, model: &str) -> Result<Encoded, ApiError> {
        if self.translator.is_none() && self.heeded.has(Lesson::WantsResponses) {
            self.translator = Some(&responses::Responses);
        }
        if self.heeded.has(Lesson::NoSignatures) && !self.without_signatures {
            self.without_signatures = true;
            self.request()?;
            if let Some(request) = self.request.get_mut() {
                self.lost_signatures = request.strip_signatures();
            }
        }
        // A whole answer tells its usage without being asked.
        let is_folded = self.streams_whole && !self.head.stream;
        let counts = self.translator.is_none() && (self.counts || is_folded);
        let needs_own = !self.heeded.is_empty() || counts && !upstream.options.ask_usage;
        let own = needs_own.then(|| {
            let mut options = upstream.options.clone();
            options.ask_usage |= counts;
            options.heed(&self.heeded);
            options
        });
        let options = own.as_ref().unwrap_or(&upstream.options);
        let Some(translator) = self.translator else {
            return openai::encode(self.head()?, model, options);
        };
        self.recall(&upstream.name)?;
        if self.wants_search() {
            let searches = self.searches(upstream, model);
            if let Some(request) = self.request.get_mut() {
                request.web_search_options = match searches {
                    true => serde_json::from_str("{}").ok(),
                    false => None,
                };
            }
        }
        self.fetch_images(|url| !translator.fetches(url, model, options))?;
        let mut encoded = self.translate(translator, model, options)?;
        if self.lost_signatures {
            encoded.dropped.push("messages.reasoning".to_owned());
        }
        Ok(encoded)
    }

    /// Translates the request without what is not taken of it, which stays for other targets.
    fn translate(
        &mut self,
        translator: &dyn Provider,
        model: &str,
        options: &Options,
    ) -> Result<Encoded, ApiError> {
        let request = self.request()?;
        if options.lessons.is_empty() || options.strict {
            return translator.encode(request, model, options);
        }
        let effort = request.reasoning_effort.as_deref();
        let effort = effort.and_then(|asked| options.lessons.effort(asked));
        let mut members: Vec<&str> = options.lessons.members().collect();
        members.sort_unstable();
        members.dedup();
        let Some(request) = self.request.get_mut() else {
            return Err(ApiError::new(500, "the request is not read"));
        };
        let mut aside = Request::default();
        let mut dropped = Vec::new();
        for member in &members {
            if field::swap(member, request, &mut aside) {
                dropped.push(*member);
            }
        }
        let mut asked = None;
        if let (Some(effort), true) = (effort, request.reasoning_effort.is_some()) {
            asked = request.reasoning_effort.replace(effort.into());
            dropped.push("reasoning_effort");
        }
        let encoded = translator.encode(request, model, options);
        if asked.is_some() {
            request.reasoning_effort = asked;
        }
        for member in &members {
            field::swap(member, request, &mut aside);
        }
        let mut encoded = encoded?;
        for name in dropped {
            if !encoded.dropped.iter().any(|known| known == name) {
                encoded.dropped.push(name.to_owned());
            }
        }
        Ok(encoded)
    }

    /// A second version of the request, where the failure says that one may pass. `sent` is the one
    /// that failed.
    pub fn mend(
        &mut self,
        upstream: &Upstream,
        model: &str,
        failure: &Failure,
        sent: &Encoded,
    ) -> Option<Result<Encoded, ApiError>> {
        if self.resends == MOST_RESENDS {
            return None;
        }
        let effort = self.effort();
        for row in ROWS {
            if row.gives_up && upstream.options.strict {
                continue;
            }
            let spoken = self.spoken(upstream.format);
            let effort = effort.as_deref();
            let refusal = Refusal::new(failure, spoken, self.official, &self.heeded, effort)?;
            let Some(lesson) = (row.hears)(&refusal) else {
                continue;
            };
            let lasts = row.lasts && !(row.gives_up && refusal.is_of_this_request());
            if self.heeded.has(lesson) || !self.concerns(lesson, upstream, model) {
                continue;
            }
            self.heeded.0.push(lesson);
            match self.encode_again(upstream, model) {
                // It has nothing of what was refused. Several efforts may be one to the target, so
                // the next one is tried.
                Ok(encoded) if encoded.body == sent.body && encoded.path == sent.path => {
                    if matches!(lesson, Lesson::Effort(..)) {
                        self.tried.push((lesson, lasts));
                        if let Some(mended) = self.mend(upstream, model, failure, sent) {
                            return Some(mended);
                        }
                        self.tried.pop();
                    }
                    self.heeded.0.pop();
                }
                mended => {
                    self.tried.push((lesson, lasts));
                    self.resends += 1;
                    return Some(mended);
                }
            }
        }
        None
    }

    /// Whether the lesson can say anything of this target.
    fn concerns(&self, lesson: Lesson, upstream: &Upstream, model: &str) -> bool {
        match lesson {
            Lesson::NoUsage => !self.head.include_usage,
            Lesson::NoSearch => self.wants_search(),
            Lesson::NoSignatures => !self.without_signatures,
            Lesson::ThirdGeneration => !upstream.options.gemini(model).third,
            Lesson::PlainMessages => self.head().is_ok_and(openai::has_additions),
            _ => true,
        }
    }

    fn spoken(&self, format: Format) -> Spoken {
        match format {
            Format::OpenAi if self.translates() => Spoken::Responses,
            Format::OpenAi => Spoken::Chat,
            Format::Responses => Spoken::Responses,
            Format::Anthropic => Spoken::Messages,
            Format::Gemini => Spoken::Gemini,
        }
    }

    /// The effort that is asked for, as it goes out.
    fn effort(&self) -> Option<String> {
        let asked: Cow<str> = match self.request.get() {
            Some(request) => request.reasoning_effort.as_deref()?.into(),
            None => {
                let head = self.head().ok()?;
                head.fields.parse("reasoning_effort")?.ok()?
            }
        };
        Some(self.heeded.effort(&asked).unwrap_or(&asked).to_owned())
    }

    /// What the target's refusals of this request taught and is to be kept: it has answered now, so
    /// it is so.
    pub fn tried(&mut self) -> Vec<Lesson> {
        let kept = self.tried.drain(..).filter(|(_, lasts)| *lasts);
        kept.map(|(lesson, _)| lesson).collect()
    }

    /// Gives the history back what the caller's program lost of it.
    fn recall(&mut self, upstream: &str) -> Result<(), ApiError> {
        if self.without_signatures {
            return Ok(());
        }
        let request = self.request()?;
        let recalled = self
            .recalled
            .get_or_init(|| self.memory.recall_all(&request.messages));
        if let Some(request) = self.request.get_mut() {
            recalled.fill(&mut request.messages, upstream);
        }
        Ok(())
    }

    /// Puts the images that are `wanted` inline where their addresses stood.
    fn fetch_images(&mut self, wanted: impl Fn(&str) -> bool) -> Result<(), ApiError> {
        let Some((fetcher, job)) = self.fetcher else {
            return Ok(());
        };
        self.request()?;
        match self.request.get_mut() {
            Some(request) => fetcher.inline(request, wanted, job),
            None => Ok(()),
        }
    }

    /// The key that made what the history holds, if one of `upstream` did.
    pub fn preferred_key(&self, upstream: &str) -> Option<usize> {
        self.recalled.get()?.key(upstream)
    }

    fn request(&self) -> Result<&Request<'e>, ApiError> {
        if let Some(request) = self.request.get() {
            return Ok(request);
        }
        let mut request = self.head()?.parse()?;
        if let Some(converted) = self.native.and_then(|native| native.converted.get()) {
            for message in &mut request.messages {
                message.is_error = converted.failed.contains(&*message.tool_call_id);
            }
        }
        Ok(self.request.get_or_init(|| request))
    }

    fn needs_responses(&self, model: &str) -> Result<bool, ApiError> {
        // Looked up by name first: most models never need it, and their requests stay unread.
        if !capability::may_need_responses(model) {
            return Ok(false);
        }
        let request = self.request()?;
        let has_functions = request
            .tools
            .iter()
            .any(|tool| matches!(tool, Tool::Function { .. }));
        Ok(capability::needs_responses(
            model,
            has_functions,
            request.reasoning_effort.as_deref(),
        ))
    }

    /// Who turns the target's answer, of `cap` bytes at most, into what the caller reads.
    pub fn speaker(
        &self,
        encoded: &Encoded,
        stamp: &Stamp,
        dialect: Dialect,
        streams: bool,
        cap: usize,
    ) -> Speaker {
        if self.passes {
            let (stamp, seals) = (stamp.clone(), Arc::clone(self.seals));
            if let Dialect::Gemini(framing) = dialect {
                use gemini::relay::{RelayStream, RelayWhole};
                return match streams {
                    true => Speaker::Relay(Box::new(RelayStream::new(framing))),
                    false => Speaker::Whole(Box::new(RelayWhole::new(stamp, seals, cap))),
                };
            }
            return match streams {
                true => Speaker::Relay(Box::new(relay::RelayStream::new(stamp, seals))),
                false => Speaker::Whole(Box::new(relay::RelayWhole::new(stamp, seals, cap))),
            };
        }
        let decoder = match self.translator {
            Some(translator) => translator.decoder(Arc::clone(&encoded.undo)),
            None => {
                let relay = openai::RelayStream::new(stamp.clone(), self.official);
                match (dialect.is_chat(), streams) {
                    (true, true) => return Speaker::Relay(Box::new(relay)),
                    (true, false) => {
                        let whole = openai::WholeRelay::new(stamp.clone(), self.official, cap);
                        return Speaker::Whole(Box::new(whole));
                    }
                    (false, _) => Box::new(openai::Deltas::new(relay)),
                }
            }
        };
        let mut stamp = stamp.clone();
        stamp.legacy_functions = self
            .request
            .get()
            .is_some_and(|request| request.legacy_functions);
        if let Some(asked) = &self.asked {
            let (asked, seals) = (Arc::clone(asked), Arc::clone(self.seals));
            return match streams {
                true => Speaker::Chunks(decoder, Box::new(Events::new(asked, seals, stamp.seed))),
                false => Speaker::Fold(decoder, Box::new(Response::new(asked, seals, stamp.seed))),
            };
        }
        match streams {
            true => Speaker::Chunks(decoder, dialect.streamed(stamp, self.seals)),
            false => Speaker::Fold(decoder, dialect.whole(stamp, self.seals)),
        }
    }
}
