//! The request as each target takes it, made when the target's turn comes.

use std::cell::OnceCell;
use std::sync::Arc;

use super::answer::Speaker;
use crate::capability;
use crate::chat::{Request, Tool};
use crate::config::Upstream;
use crate::desk::Job;
use crate::dialect::Dialect;
use crate::dialect::openai::{Head, Stamp};
use crate::error::ApiError;
use crate::failure::Failure;
use crate::fetch::Fetcher;
use crate::memory::{Lesson, Memory, Recalled};
use crate::provider::{Encoded, Format, Provider, openai, responses};

/// Encodes one request for one target after the other.
pub struct Encoder<'e, 'b> {
    head: &'e Head<'b>,
    /// The middle form, parsed when the first target needs it.
    request: OnceCell<Request<'e>>,
    memory: &'e Memory,
    /// What the memory has of this history; lent to `request`.
    recalled: &'e OnceCell<Recalled>,
    /// Who translates for the target of the last `encode`; `None`: a relay.
    translator: Option<&'static dyn Provider>,
    /// Signatures were refused and are left out from here on.
    without_signatures: bool,
    /// The target said that it wants the Responses format.
    by_responses: bool,
    /// Messages go out plain for the first time, to see whether that helps.
    tries_plain: bool,
    /// The target of the last `encode` is the vendor's own.
    official: bool,
    /// Usage is asked for, whatever the config says.
    counts: bool,
    /// Who gets images for models that cannot, and on whose time.
    fetcher: Option<(&'e Fetcher, &'e Job)>,
}

impl<'e, 'b> Encoder<'e, 'b> {
    pub fn new(
        head: &'e Head<'b>,
        memory: &'e Memory,
        recalled: &'e OnceCell<Recalled>,
    ) -> Encoder<'e, 'b> {
        Encoder {
            head,
            request: OnceCell::new(),
            memory,
            recalled,
            translator: None,
            without_signatures: false,
            by_responses: false,
            tries_plain: false,
            official: false,
            counts: false,
            fetcher: None,
        }
    }

    /// Has every upstream that can asked for usage: the tokens are limited.
    pub fn counting(mut self, counts: bool) -> Self {
        self.counts = counts;
        self
    }

    /// Allows it to fetch images. They stay for later targets, as they are part of the request.
    pub fn fetching(mut self, fetcher: Option<(&'e Fetcher, &'e Job)>) -> Self {
        self.fetcher = fetcher;
        self
    }

    /// The last target speaks another format than the caller.
    pub fn translates(&self) -> bool {
        self.translator.is_some()
    }

    pub fn encode(&mut self, upstream: &Upstream, model: &str) -> Result<Encoded, ApiError> {
        self.by_responses = false;
        self.tries_plain = false;
        self.official = upstream.options.official;
        self.translator = upstream.format.translator();
        let learned = &self.memory.learned;
        if self.translator.is_none()
            && (learned.knows(&upstream.name, model, Lesson::WantsResponses)
                || upstream.options.official && self.needs_responses(model)?)
        {
            self.by_responses = true;
            self.translator = Some(&responses::Responses);
        }
        self.encode_again(upstream, model)
    }

    fn encode_again(&mut self, upstream: &Upstream, model: &str) -> Result<Encoded, ApiError> {
        match self.translator {
            Some(translator) => {
                self.recall(&upstream.name)?;
                self.fetch_images(|url| !translator.fetches(url, model, &upstream.options))?;
                let learned = &self.memory.learned;
                if learned.knows(&upstream.name, model, Lesson::NoSummary) {
                    let mut options = upstream.options.clone();
                    options.responses.summary = false;
                    return translator.encode(self.request()?, model, &options);
                }
                translator.encode(self.request()?, model, &upstream.options)
            }
            None => {
                let learned = &self.memory.learned;
                let knows = |lesson| learned.knows(&upstream.name, model, lesson);
                let plain_messages = knows(Lesson::PlainMessages);
                let ask_usage =
                    (self.counts || upstream.options.ask_usage) && !knows(Lesson::NoUsage);
                if ask_usage == upstream.options.ask_usage && !plain_messages {
                    return openai::encode(self.head, model, &upstream.options);
                }
                let mut options = upstream.options.clone();
                options.ask_usage = ask_usage;
                options.plain_messages = plain_messages;
                openai::encode(self.head, model, &options)
            }
        }
    }

    /// A second version of the request, where the failure says that one may pass: without
    /// signatures that were refused, in the format that the model wants, without asking for usage,
    /// without a summary that we do not get, or without what weir adds to messages. Once each; all
    /// but the first are remembered.
    pub fn mend(
        &mut self,
        upstream: &Upstream,
        model: &str,
        failure: &Failure,
    ) -> Option<Result<Encoded, ApiError>> {
        if failure.signature_refused && !self.without_signatures && self.translates() {
            self.without_signatures = true;
            match self.request() {
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            if let Some(request) = self.request.get_mut() {
                request.strip_signatures();
            }
            return Some(self.encode_again(upstream, model));
        }
        let learned = &self.memory.learned;
        let relays = upstream.format == Format::OpenAi && !self.by_responses;
        if relays && failure.wants_responses() {
            learned.learn(&upstream.name, model, Lesson::WantsResponses);
            self.by_responses = true;
            self.translator = Some(&responses::Responses);
            return Some(self.encode_again(upstream, model));
        }
        if relays
            && (self.counts || upstream.options.ask_usage)
            && !self.head.include_usage
            && failure.refuses_stream_options()
            && !learned.knows(&upstream.name, model, Lesson::NoUsage)
        {
            learned.learn(&upstream.name, model, Lesson::NoUsage);
            return Some(self.encode_again(upstream, model));
        }
        if upstream.options.responses.summary
            && (self.by_responses || upstream.format == Format::Responses)
            && failure.refuses_summary()
            && !learned.knows(&upstream.name, model, Lesson::NoSummary)
        {
            learned.learn(&upstream.name, model, Lesson::NoSummary);
            return Some(self.encode_again(upstream, model));
        }
        if relays
            && !upstream.options.official
            && !upstream.options.strict
            && self.translator.is_none()
            && failure.refuses_additions()
        {
            let lesson = Lesson::PlainMessages;
            if std::mem::take(&mut self.tries_plain) {
                // Something else by that name was refused. A server that takes what weir adds may
                // need it.
                learned.forget(&upstream.name, model, lesson);
            } else if !learned.knows(&upstream.name, model, lesson)
                && openai::has_additions(self.head)
            {
                learned.learn(&upstream.name, model, lesson);
                self.tries_plain = true;
                return Some(self.encode_again(upstream, model));
            }
        }
        None
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
        let request = self.head.parse()?;
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
        let decoder = match self.translator {
            Some(translator) => translator.decoder(Arc::clone(&encoded.undo)),
            None => {
                let relay = openai::RelayStream::new(stamp.clone(), self.official);
                match (dialect.is_chat(), streams) {
                    (true, true) => return Speaker::Relay(Box::new(relay)),
                    (true, false) => {
                        let whole = openai::WholeRelay::new(stamp.clone(), self.official, cap);
                        return Speaker::Whole(whole);
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
        match streams {
            true => Speaker::Chunks(decoder, dialect.streamed(stamp)),
            false => Speaker::Fold(decoder, dialect.whole(stamp)),
        }
    }
}
