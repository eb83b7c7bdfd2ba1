//! Long answers that the vendor hands out in several hops: which token to go on with, and whether.

use crate::json::{Fields, push_string};

/// How often one answer is continued. At the vendor's 65,536 tokens per hop this is more than any
/// context window holds.
const MOST_HOPS: u32 = 64;

/// How often a hop that broke off before its first output is tried again from the same token.
const MOST_RESUMES: u32 = 3;

/// A token beyond this is not kept, so the answer ends where it would be needed.
const MOST_TOKEN: usize = 1 << 20;

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
        let is_one = !token.is_empty() && token.len() <= MOST_TOKEN;
        if is_one && known.is_none_or(|(known, _)| known != token) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumes_are_counted_per_token() {
        let mut continuing = Continuing::default();
        assert!(!continuing.go_on() && !continuing.resume(0), "no token yet");
        for (token, count) in [("a", 1), ("b", 2)] {
            continuing.note(token, count);
            assert!(continuing.go_on());
            assert!(continuing.take_next(b"{}", count).is_some());
            assert!(continuing.take_next(b"{}", count).is_none());
            assert!(!continuing.go_on(), "no new token");
            for _ in 0..MOST_RESUMES {
                assert!(continuing.resume(count));
                assert!(continuing.take_next(b"{}", count).is_some());
            }
            assert!(!continuing.resume(count));
        }
        // A token that came before the break, and was never asked with, counts anew too.
        continuing.note("c", 3);
        assert!(continuing.resume(3));
        assert!(!continuing.resume(4), "output came after the token");
    }

    #[test]
    fn an_answer_cannot_be_continued_for_ever() {
        let mut continuing = Continuing::default();
        let hops = (0..1000).take_while(|n| {
            continuing.note(&format!("t{n}"), 0);
            continuing.go_on() && continuing.take_next(b"{}", 0).is_some()
        });
        assert_eq!(hops.count(), MOST_HOPS as usize);
    }

    #[test]
    fn the_token_takes_the_place_of_an_older_one() {
        let sent = br#"{"contents":[ 1.50 ],"continuationToken":"old","store":false}"#;
        assert_eq!(
            String::from_utf8(with_token(sent, "n\"w").unwrap()).unwrap(),
            r#"{"contents":[ 1.50 ],"store":false,"continuationToken":"n\"w"}"#
        );
        assert_eq!(with_token(b"no JSON", "t"), None);
    }
}
