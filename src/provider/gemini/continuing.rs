//! Long answers that the vendor hands out in several hops: which token to go on with, and whether.

use crate::json::{Fields, push_string};

/// How often one answer is continued. At the vendor's 65,536 tokens per hop this is more than any
/// context window holds.
const MOST_HOPS: u32 = 64;

/// How often a hop that broke off before its first output is tried again from the same token.
const MOST_RESUMES: u32 = 3;

/// What is known about going on where the upstream stopped.
#[derive(Default)]
pub struct Continuing {
    /// The newest `continuationToken`, and how many deltas had been put out when it came.
    token: Option<(String, u64)>,
    /// The token that the current hop was asked with.
    used: Option<String>,
    /// The upstream is done for now, and this is the token to go on with.
    next: Option<String>,
    hops: u32,
    resumes: u32,
}

impl Continuing {
    /// An event brought `token`, after `count` deltas.
    pub fn note(&mut self, token: &str, count: u64) {
        let known = self.token.as_ref();
        if !token.is_empty() && known.is_none_or(|(known, _)| known != token) {
            self.token = Some((token.to_owned(), count));
        }
    }

    /// The upstream stopped at its own limit. Whether there is a new token to go on with.
    pub fn go_on(&mut self) -> bool {
        let Some((token, _)) = &self.token else {
            return false;
        };
        if self.used.as_ref() == Some(token) || self.hops == MOST_HOPS {
            return false;
        }
        self.next = Some(token.clone());
        self.hops += 1;
        self.resumes = 0;
        true
    }

    /// The stream broke off after `count` deltas. It can be taken up again only if none of them
    /// came after the token, because they would come twice.
    pub fn resume(&mut self, count: u64) -> bool {
        let token = match &self.token {
            Some((token, at)) if *at == count => token,
            _ => return false,
        };
        if self.used.as_ref() != Some(token) {
            self.resumes = 0;
        }
        if self.resumes == MOST_RESUMES {
            return false;
        }
        self.resumes += 1;
        self.next = Some(token.clone());
        true
    }

    /// The body of the next hop, if there is to be one.
    pub fn take_next(&mut self, sent: &[u8], count: u64) -> Option<Vec<u8>> {
        let token = self.next.take()?;
        let body = with_token(sent, &token)?;
        self.token = Some((token.clone(), count));
        self.used = Some(token);
        Some(body)
    }
}

/// The request `sent`, asking to go on from `token`.
fn with_token(sent: &[u8], token: &str) -> Option<Vec<u8>> {
    let fields: Fields<'_> = serde_json::from_slice(sent).ok()?;
    let mut body = Vec::with_capacity(sent.len() + token.len() + 32);
    body.push(b'{');
    for (name, value) in &fields.0 {
        if name != "continuationToken" {
            push_string(&mut body, name);
            body.push(b':');
            body.extend_from_slice(value.get().as_bytes());
            body.push(b',');
        }
    }
    body.extend_from_slice(br#""continuationToken":"#);
    push_string(&mut body, token);
    body.push(b'}');
    Some(body)
}
