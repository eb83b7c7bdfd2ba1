//! `Masks`: the secrets of a configuration, taken out of texts that come from elsewhere.
//!
//! An upstream that refuses a key may well repeat it, and its words go to the caller, into the
//! log and onto the status page.

use std::borrow::Cow;
use std::fmt;

use crate::config::Config;
use crate::failure::Failure;

/// Shorter ones are left alone: they stand in ordinary words, and guard nothing.
const SHORTEST: usize = 8;

/// Longest first, so that a secret that is part of another one leaves nothing of it over.
#[derive(Clone, Default)]
pub struct Masks(Vec<String>);

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masks({})", self.0.len())
    }
}

impl Masks {
    pub fn new(config: &Config) -> Masks {
        let mut secrets: Vec<&str> = Vec::new();
        for upstream in &config.upstreams {
            for key in &upstream.keys {
                secrets.extend(key.secret.as_ref().map(|secret| secret.reveal()));
            }
            for (name, value) in &upstream.headers {
                // `Bearer x` is as much a secret as `x`; a team's name is none.
                if is_credential(name) {
                    secrets.push(value);
                    secrets.extend(value.split_once(' ').map(|(_, behind)| behind.trim()));
                }
            }
            secrets.extend(upstream.hidden.iter().map(|secret| secret.reveal()));
            if let Some(proxy) = &upstream.proxy
                && let Some((credentials, _)) = proxy.rsplit_once('@')
            {
                secrets.extend(credentials.rsplit_once("//").map(|(_, both)| both));
                secrets.extend(credentials.rsplit_once(':').map(|(_, password)| password));
            }
        }
        let mut secrets: Vec<String> = secrets
            .into_iter()
            .filter(|secret| secret.len() >= SHORTEST)
            .map(str::to_owned)
            .collect();
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Masks(secrets)
    }

    /// Bytes of the longest secret.
    pub fn longest(&self) -> usize {
        self.0.first().map_or(0, String::len)
    }

    /// The text with `***` in the place of each secret.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut masked = Cow::Borrowed(text);
        for secret in &self.0 {
            if masked.contains(secret.as_str()) {
                masked = Cow::Owned(masked.replace(secret.as_str(), "***"));
            }
        }
        masked
    }

    /// The failure without secrets in any of its words.
    pub fn failure(&self, mut failure: Failure) -> Failure {
        let hide = |text: &mut String| {
            if let Cow::Owned(masked) = self.text(text) {
                *text = masked;
            }
        };
        hide(&mut failure.message);
        if let Some(param) = &mut failure.param
            && let Cow::Owned(masked) = self.text(param)
        {
            *param = masked.into_boxed_str();
        }
        for word in [Some(&mut failure.kind), failure.code.as_mut()] {
            if let Some(Cow::Owned(word)) = word {
                hide(word);
            }
        }
        failure
    }
}

/// Whether a header of this name is there to prove something.
pub fn is_credential(name: &str) -> bool {
    ["auth", "key", "token", "secret", "cookie", "password"]
        .iter()
        .any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Key, Secret, Upstream};
    use crate::provider::Format;

    #[test]
    fn no_secret_is_left_over() {
        let mut upstream = Upstream::new("up", Format::OpenAi);
        upstream.keys = ["sk-long-secret", "sk-long-secret-longer", "short"]
            .map(|secret| Key {
                name: "k".into(),
                secret: Some(Secret::new(secret)),
            })
            .into();
        upstream.headers = vec![
            ("x-auth".into(), "Bearer header-secret".into()),
            ("x-team".into(), "everybody-knows".into()),
        ];
        upstream.proxy = Some("http://joe:proxy-password@proxy.example:3128".into());
        let mut config = Config::default();
        config.upstreams.push(upstream);
        let masks = Masks::new(&config);
        for (text, masked) in [
            ("key sk-long-secret-longer.", "key ***."),
            ("sk-long-secretsk-long-secret", "******"),
            ("header-secret, proxy-password", "***, ***"),
            ("short everybody-knows", "short everybody-knows"),
        ] {
            assert_eq!(masks.text(text), masked);
        }
        let body = br#"{"error":{"message":"no sk-long-secret","type":"t-sk-long-secret","param":"sk-long-secret","code":"c-sk-long-secret"}}"#;
        let failure = masks.failure(Failure::from_status(400, body, None));
        let told = format!("{failure:?} {masks:?}");
        assert!(!told.contains("long-secret"), "{told}");
        assert!(failure.message.contains("***"));
    }
}
