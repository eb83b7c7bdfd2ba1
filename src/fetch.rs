//! Images by their address, for models whose provider does not get them itself.
//!
//! The addresses come from callers, so they are trusted with nothing: `https` alone, public hosts
//! alone (judged where the connection is made, for each redirect anew), few redirects, bounded in
//! size and time, and only what says that it is an image. Nothing of the caller's is sent along.

use std::borrow::Cow;
use std::io::Read;
use std::time::{Duration, Instant};

use ureq::http::Uri;

use crate::base64;
use crate::cancel::{self, Cause};
use crate::chat::{PartKind, Request};
use crate::desk::{Job, Phase};
use crate::error::ApiError;
use crate::line::{Answer, Line};
use crate::upstream::ended_for_good;

/// The longest image.
const MOST_BYTES: u64 = 10 << 20;
/// All images of a request together; the provider takes no more in one request.
const MOST_IN_ALL: u64 = 20 << 20;
/// For all images of a request together.
const LIMIT: Duration = Duration::from_secs(10);
const MOST_REDIRECTS: usize = 3;

pub struct Fetcher {
    line: Line,
    limit: Duration,
}

impl Fetcher {
    /// The error is a sentence for the person at the terminal.
    pub fn new() -> Result<Fetcher, String> {
        Ok(Fetcher {
            line: Line::to_public(LIMIT)?,
            limit: LIMIT,
        })
    }

    /// Puts images themselves in the place of those addresses that are `wanted`, as data URLs.
    pub fn inline(
        &self,
        request: &mut Request<'_>,
        wanted: impl Fn(&str) -> bool,
        job: &Job,
    ) -> Result<(), ApiError> {
        // What is waited for ends with the exchange.
        let _entered = cancel::enter(&job.cancel);
        let until = Instant::now() + self.limit;
        let mut left = MOST_IN_ALL;
        // The same image often stands in a history more than once.
        let mut known: Vec<(String, String)> = Vec::new();
        for (message_at, message) in request.messages.iter_mut().enumerate() {
            let parts = message.content.iter_mut().map(|part| (part, "content"));
            let images = message.images.iter_mut().map(|part| (part, "images"));
            let parts = parts.enumerate().chain(images.enumerate());
            for (at, (part, list)) in parts {
                let PartKind::Image { url, .. } = &mut part.kind else {
                    continue;
                };
                if !is_remote(url) || !wanted(url) {
                    continue;
                }
                if let Some((_, data)) = known.iter().find(|(known, _)| known == url) {
                    *url = Cow::Owned(data.clone());
                    continue;
                }
                let got = self
                    .get(url, until, &mut left, job)
                    .map_err(|why| match why {
                        Why::Ended(cause) => ended_for_good(cause).to_error("", ""),
                        Why::Refused(why) => {
                            let param =
                                format!("messages[{message_at}].{list}[{at}].image_url.url");
                            let message = format!("this image cannot be fetched: {why}");
                            ApiError::invalid(param, message).with_code("invalid_image_url")
                        }
                    })?;
                let asked = std::mem::replace(url, Cow::Owned(got.clone()));
                known.push((asked.into_owned(), got));
            }
        }
        Ok(())
    }

    /// The image at `url` as a data URL.
    fn get(&self, url: &str, until: Instant, left: &mut u64, job: &Job) -> Result<String, Why> {
        let mut uri = https(url)?;
        for _ in 0..=MOST_REDIRECTS {
            let more = until.saturating_duration_since(Instant::now());
            job.enter(Phase::FirstByte, more);
            let step = self.step(&uri, *left);
            job.leave();
            match job.cancel.cause() {
                None => {}
                Some(Cause::FirstByte) => {
                    // The attempt that follows may wait again.
                    job.cancel.forgive(Cause::FirstByte);
                    let seconds = self.limit.as_secs_f32();
                    return Err(refused(format!("it took longer than {seconds} s")));
                }
                Some(cause) => return Err(Why::Ended(cause)),
            }
            match step? {
                Step::Image { mime, bytes } => {
                    *left = left.saturating_sub(bytes.len() as u64);
                    let mut data = format!("data:{mime};base64,").into_bytes();
                    base64::push(&mut data, &bytes);
                    return Ok(String::from_utf8_lossy(&data).into_owned());
                }
                Step::Redirect(to) => uri = https(&absolute(&uri, &to))?,
            }
        }
        Err(refused(format!("more than {MOST_REDIRECTS} redirects")))
    }

    /// One request and what came of it.
    fn step(&self, uri: &Uri, left: u64) -> Result<Step, Why> {
        let mut answer = self
            .line
            .get(&uri.to_string(), &[("accept", "image/*")])
            .map_err(|broken| refused(broken.message))?;
        match answer.status {
            200 => {}
            301 | 302 | 303 | 307 | 308 => {
                let to = answer.header("location");
                let to = to.ok_or_else(|| refused("a redirect to nowhere"))?;
                return Ok(Step::Redirect(to.to_owned()));
            }
            status => return Err(refused(format!("the host answered with status {status}"))),
        }
        let mime = image_type(&answer)?;
        let most = MOST_BYTES.min(left);
        let mut bytes = Vec::new();
        let mut body = answer.body.by_ref().take(most + 1);
        body.read_to_end(&mut bytes)
            .map_err(|error| refused(error.to_string()))?;
        if bytes.len() as u64 > most {
            let most = most >> 20;
            return Err(refused(match left < MOST_BYTES {
                true => format!(
                    "the images are longer than {} MiB together",
                    MOST_IN_ALL >> 20
                ),
                false => format!("it is longer than {most} MiB"),
            }));
        }
        if bytes.is_empty() {
            return Err(refused("it is empty"));
        }
        Ok(Step::Image { mime, bytes })
    }
}

enum Step {
    Image { mime: String, bytes: Vec<u8> },
    Redirect(String),
}

#[derive(Debug)]
enum Why {
    Refused(String),
    /// The whole exchange was ended.
    Ended(Cause),
}

fn refused(why: impl Into<String>) -> Why {
    Why::Refused(why.into())
}

fn is_remote(url: &str) -> bool {
    let starts = |scheme: &str| {
        url.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    starts("https://") || starts("http://")
}

/// The address, if it is one that may be asked.
fn https(url: &str) -> Result<Uri, Why> {
    let uri: Uri = url
        .parse()
        .map_err(|_| refused("its address is not a valid URL"))?;
    if uri.scheme_str() != Some("https") {
        return Err(refused("only https addresses are fetched"));
    }
    // A password in an address would be sent to whomever it names.
    if uri.authority().is_none_or(|to| to.as_str().contains('@')) {
        return Err(refused("its address may not hold a user"));
    }
    Ok(uri)
}

/// Where a redirect leads from `base`.
fn absolute(base: &Uri, to: &str) -> String {
    let authority = base.authority().map_or("", |authority| authority.as_str());
    let path = base.path();
    if to.contains("://") {
        to.to_owned()
    } else if to.starts_with("//") {
        format!("https:{to}")
    } else if to.starts_with('/') {
        format!("https://{authority}{to}")
    } else if to.starts_with('?') {
        format!("https://{authority}{path}{to}")
    } else {
        let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
        format!("https://{authority}{folder}{to}")
    }
}

/// The media type, if it is an image and comes as it is.
fn image_type(answer: &Answer) -> Result<String, Why> {
    if answer.is_compressed() {
        return Err(refused("it came in an encoding that was not asked for"));
    }
    let kind = answer.header("content-type").unwrap_or_default();
    let mime = kind.split(';').next().unwrap_or_default().trim();
    let mime = mime.to_ascii_lowercase();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
    match mime.strip_prefix("image/") {
        Some(rest) if !rest.is_empty() && rest.bytes().all(token) => Ok(mime),
        _ => Err(refused("what is there is not an image")),
    }
}

#[cfg(test)]
mod tests;
