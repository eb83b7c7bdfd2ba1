//! What the words of an error are about: the key, the account, a model, or only this request.
//!
//! The lists are in `phrases`. They only refine the table in `failure.rs`: a refusal that no list
//! knows never costs another caller anything at once.

use super::is_same;
use super::phrases::{
    CLOSED, FLAGGED, KEY_CODES, KEY_PHRASES, KEY_REASONS, LOADING, MODEL_CLOSED, MODEL_CODES,
    MODEL_GONE, MODEL_PHRASES, MONEY_CODES, MONEY_PHRASES, NEVER_PASSES, OF_ANOTHER,
    OVERFLOW_CODES, OVERFLOW_PHRASES, OWN_WISHES, SCOPES, THINGS, TOO_DEAR,
};
use super::said::Said;

/// How far behind its subject a state may stand: "the organization you asked for was disabled".
const REACH: usize = 120;

impl Said {
    fn says(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.lower.contains(phrase))
    }

    /// Like `says`, of the upstream's own words alone. What costs other callers a key or a model is
    /// never read out of a value of the request that an upstream repeats.
    fn tells(&self, phrases: &[&str]) -> bool {
        phrases
            .iter()
            .any(|phrase| self.unquoted.contains(phrase) && !self.echo.has(phrase))
    }

    /// One of `states` is said of one of `subjects`, in the same sentence.
    fn says_of(&self, subjects: &[&str], states: &[&str]) -> bool {
        is_said_of(&self.lower, subjects, |behind| {
            states.iter().any(|state| behind.contains(state))
        })
    }

    fn tells_of(&self, subjects: &[&str], states: &[&str]) -> bool {
        let is_state = |behind: &str| states.iter().any(|state| behind.contains(state));
        is_said_of(&self.unquoted, subjects, is_state) && !self.repeats(subjects, states)
    }

    /// The request itself has both the subject and the state that the upstream speaks of.
    fn repeats(&self, subjects: &[&str], states: &[&str]) -> bool {
        let shares = |words: &[&str]| {
            words
                .iter()
                .any(|word| self.unquoted.contains(word) && self.echo.has(word))
        };
        shares(subjects) && shares(states)
    }

    /// Somebody whom the upstream asked on the request's behalf refused it: a server of tools, a
    /// host of files, a provider behind it. Their keys are not ours.
    fn is_of_another(&self) -> bool {
        self.is_code("external_connector_error") || self.says(OF_ANOTHER)
    }

    fn is_any_code(&self, codes: &[&str]) -> bool {
        codes.iter().any(|code| self.is_code(code))
    }

    /// The key or its account is named, by a code or a reason that leaves no doubt.
    pub fn is_key_code(&self) -> bool {
        self.is_any_code(KEY_CODES) || KEY_REASONS.iter().any(|reason| self.has_reason(reason))
    }

    /// A 400 that names a member of the request is about that.
    fn is_about_member(&self, status: u16) -> bool {
        let of_key = |param: &str| param.contains("key");
        status == 400 && self.param.as_deref().is_some_and(|param| !of_key(param))
    }

    /// The account behind the key is named as closed, or as one of a place that is not served.
    pub fn names_account(&self, status: u16) -> bool {
        if self.is_about_member(status) || self.is_of_another() {
            return false;
        }
        let accounts = ["account", "organization", "organisation", "project", "team"];
        (is_said_of(&self.unquoted, &accounts, is_closed) && !self.repeats(&accounts, CLOSED))
            || self.tells_of(
                &["country", "territory", "user location"],
                &["not supported"],
            )
    }

    /// The key is named in words.
    pub fn names_key(&self, status: u16) -> bool {
        if self.is_about_member(status) || self.is_of_another() {
            return false;
        }
        if self.tells(KEY_PHRASES) {
            return true;
        }
        if status == 400 {
            // A field of the request may be called so as well.
            return self.unquoted.starts_with("api key") && !self.echo.has("api key");
        }
        let key = ["api key", "api-key", "api_key", "apikey"];
        let is_bad = [
            "not valid",
            "invalid",
            "not found",
            "missing",
            "expired",
            "revoked",
            "deleted",
        ];
        self.tells_of(&key, CLOSED)
            || self.tells_of(&key, &is_bad)
            || (status == 401
                && (self.tells_of(&["token", "credential"], &is_bad)
                    || self.tells(&["invalid token", "invalid proxy server token"])
                    || (self.is_code("authentication_error") && self.tells(&["key"]))
                    // How OpenRouter tells a key that nobody has.
                    || (self.lower.starts_with("user not found")
                        && !self.echo.has("user not found"))))
    }

    pub fn is_money_code(&self) -> bool {
        self.is_any_code(MONEY_CODES)
    }

    pub fn is_out_of_money(&self, status: u16) -> bool {
        !self.is_about_member(status) && !self.is_of_another() && self.tells(MONEY_PHRASES)
    }

    /// A filter found something in the request.
    pub fn is_flagged(&self) -> bool {
        self.flagged
            || self.is_any_code(&[
                "content_policy_violation",
                "content_filter",
                "moderation_blocked",
            ])
            || self.says(FLAGGED)
    }

    /// What the request names, may do, costs or wishes is refused; with another key it may pass.
    pub fn is_about_request(&self) -> bool {
        let lost = [
            "not found",
            "not exist",
            "permission",
            "not in an active state",
            "access",
            "expired",
            "belong",
            "not ready",
        ];
        self.says_of(THINGS, &lost)
            || (self.says(&["permission", "access"]) && self.says(&["the file", "cachedcontent"]))
            || self.says(SCOPES)
            || self.is_any_code(&["insufficient_permissions", "missing_scope"])
            || self.has_reason("ACCESS_TOKEN_SCOPE_INSUFFICIENT")
            || self.says(TOO_DEAR)
            || self.says(OWN_WISHES)
    }

    /// The model is not there, or not for this key.
    pub fn is_model_missing(&self, status: u16) -> bool {
        if self.is_model_code() {
            return true;
        }
        match status {
            400 => {
                self.tells(MODEL_PHRASES)
                    || self.tells_of(&["model "], &["not found", "does not exist"])
            }
            401 | 403 => {
                self.tells(MODEL_PHRASES)
                    || self.tells(MODEL_CLOSED)
                    || self.is_model_gone()
                    // Google quotes the resource, and says what it is about by a reason.
                    || (self.has_reason("IAM_PERMISSION_DENIED") && self.lower.contains("/models/"))
            }
            404 | 410 => {
                self.tells(MODEL_PHRASES)
                    || self.tells(MODEL_CLOSED)
                    || self.is_model_gone()
                    // Anthropic names it and says no more.
                    || self.lower.starts_with("model:")
            }
            _ => false,
        }
    }

    pub fn is_model_code(&self) -> bool {
        self.is_any_code(MODEL_CODES)
    }

    /// Something else that the request names is named, and `model` is not.
    pub fn names_another_than(&self, model: &str) -> bool {
        let words = || {
            let bare = |word: &'_ str| {
                let mark = |char: char| "'\"`.,:;()[]{}<>“”‘’".contains(char);
                word.trim_matches(mark).to_owned()
            };
            self.lower.split_whitespace().map(bare)
        };
        !words().any(|word| is_same(&word, model))
            && words().any(|word| word.len() > 1 && self.echo.has_value(&word))
    }

    fn is_model_gone(&self) -> bool {
        self.tells_of(&["model", "models/"], MODEL_GONE)
    }

    /// The model that the words name.
    pub fn model_named(&self) -> Option<&str> {
        for (before, after) in [
            ("model `", "`"),
            ("model '", "'"),
            ("model \"", "\""),
            ("models/", " "),
            ("model: ", " "),
        ] {
            if let Some((_, behind)) = self.lower.split_once(before)
                && let Some(name) = behind.split(after).next().filter(|name| !name.is_empty())
            {
                return Some(name.trim_end_matches(['.', ',', '\'', '`', '"']));
            }
        }
        None
    }

    /// The prompt is longer than the model takes.
    pub fn is_context_overflow(&self) -> bool {
        self.is_any_code(OVERFLOW_CODES)
            || self.says(OVERFLOW_PHRASES)
            || self.says_of(&["input token count"], &["exceed"])
    }

    /// A request that asks for more at once than any minute allows.
    pub fn never_passes(&self) -> bool {
        let number = |word: &str| {
            let behind = self.lower.split_once(word)?.1;
            let digits: String = behind
                .chars()
                .take_while(|c| c.is_ascii_digit() || *c == ',')
                .filter(char::is_ascii_digit)
                .collect();
            digits.parse::<u64>().ok()
        };
        let more_than_all = match (number("limit "), number("requested ")) {
            (Some(limit), Some(requested)) => requested > limit,
            _ => false,
        };
        more_than_all || self.says(NEVER_PASSES) || self.is_context_overflow()
    }

    /// A server that will never do what was asked, told as if it had failed.
    /// A server of models that is still starting, in words that are about nothing else.
    pub fn is_loading(&self) -> bool {
        const LONGEST: usize = 200;
        let words = &self.unquoted;
        // Not of what is being downloaded.
        let stands = |at: usize| !words[..at].ends_with(char::is_alphanumeric);
        let tells = |phrase: &&&str| words.match_indices(**phrase).any(|(at, _)| stands(at));
        let mut told = LOADING.iter().filter(tells);
        words.len() <= LONGEST && told.any(|phrase| !self.echo.has(phrase))
    }

    pub fn is_unsupported(&self) -> bool {
        self.is_any_code(&["not_supported_error", "unsupported", "not_implemented"])
            || self.says(&[
                "not supported",
                "unsupported",
                "does not support",
                " requires ",
                "not implemented",
                "not yet implemented",
            ])
    }
}

/// Behind one of `subjects` stands something that `is_state` knows, in the same sentence.
fn is_said_of(words: &str, subjects: &[&str], is_state: impl Fn(&str) -> bool) -> bool {
    subjects.iter().any(|subject| {
        words.match_indices(subject).any(|(at, _)| {
            let behind = &words[at + subject.len()..];
            let mut end = behind.len().min(REACH);
            while !behind.is_char_boundary(end) {
                end -= 1;
            }
            let sentence = &behind[..end];
            is_state(sentence.split(". ").next().unwrap_or(sentence))
        })
    })
}

/// An account is closed where the state is its own: "has been disabled" is, and "has web search
/// disabled" is not.
fn is_closed(behind: &str) -> bool {
    CLOSED.iter().any(|state| {
        behind.match_indices(state).any(|(at, _)| {
            let mut before = behind[..at].split_whitespace().rev();
            let has_verb = state.contains(' ');
            let word = before.find(|word| !word.ends_with("ly"));
            has_verb || word.is_none_or(|word| matches!(word, "is" | "was" | "been" | "are"))
        })
    })
}
