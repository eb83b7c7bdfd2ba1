//! What the words of an error are about: the key, the account, a model, or only this request.
//!
//! Lists of codes and phrases as vendors and compatible servers use them. They only refine the
//! table in `failure.rs`: a refusal that no list knows never costs another caller anything at once.

use super::said::Said;

/// How far behind its subject a state may stand: "the organization you asked for was disabled".
const REACH: usize = 120;

/// Codes that name the key.
const KEY_CODES: &[&str] = &[
    "invalid_api_key",
    "api_key_invalid",
    "expired_api_key",
    "token_expired",
    "invalid_token",
    "wrong_api_key",
    "token_not_found_in_db",
    "mismatched_organization",
    "account_deactivated",
    "account_suspended",
    "organization_deactivated",
    "organization_disabled",
    "organization_restricted",
    "unsupported_country",
    "unsupported_country_region_territory",
    "ip_not_authorized",
];

/// Google's reasons that name the key or the project.
const KEY_REASONS: &[&str] = &[
    "API_KEY_INVALID",
    "API_KEY_EXPIRED",
    "API_KEY_SERVICE_BLOCKED",
    "API_KEY_IP_ADDRESS_BLOCKED",
    "API_KEY_HTTP_REFERRER_BLOCKED",
    "ACCESS_TOKEN_EXPIRED",
    "ACCOUNT_STATE_INVALID",
    "CONSUMER_INVALID",
    "CONSUMER_SUSPENDED",
    "SERVICE_DISABLED",
    "BILLING_DISABLED",
];

/// Phrases that name the key, whatever follows.
const KEY_PHRASES: &[&str] = &[
    "incorrect api key",
    "invalid api key",
    "invalid api-key",
    "invalid x-api-key",
    "invalid subscription key",
    "invalid api token",
    "wrong api key",
    "unknown api key",
    "invalid authentication",
    "invalid bearer",
    "invalid access token",
    "invalid credentials",
    "no auth credentials",
    "missing authentication",
    "authentication fails",
    "no api key",
    "missing api key",
    "provide an api key",
    "unregistered callers",
    "reported as leaked",
    "key limit exceeded",
    "token seems invalid",
    "security token included in the request is",
    "must be a member of an organization",
    "令牌已过期",
    "身份验证失败",
];

/// Codes of a vendor that wants money or has a limit of spending.
const MONEY_CODES: &[&str] = &[
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
    "linked_organization_spend_limit_reached",
    "organization_on_hold",
    "billing_error",
    "credit_limit",
    "Arrearage",
    "AccountOverdueError",
];

const MONEY_PHRASES: &[&str] = &[
    "you have reached your specified",
    "credit balance is too low",
    "insufficient balance",
    "insufficient credits",
    "insufficient funds",
    "out of credits",
    "exceeded your monthly",
    "no credits left",
    "have any credits",
    "used all available credits",
    "credit limit exceeded",
    "monthly spending limit",
    "balance is insufficient",
    "overdue balance",
    "已欠费",
    "enable billing",
    "billing to be enabled",
    "billing is not active",
];

/// What happens to keys, accounts, organisations and projects.
const CLOSED: &[&str] = &[
    "deactivated",
    "disabled",
    "suspended",
    "terminated",
    "banned",
    "restricted",
    "on hold",
    "been blocked",
    "been flagged",
    "was flagged",
    "is inactive",
    "not active",
    "been denied access",
];

const FLAGGED: &[&str] = &[
    "flagged",
    "content policy",
    "content management policy",
    "content filter",
    "usage polic",
    "usage guideline",
    "community guideline",
    "acceptable use",
    "requires moderation",
    "by moderation",
    "by our moderation",
    "moderation polic",
    "safety system",
    "prohibited content",
];

/// Things of an account that a request can name, and that another account does not have.
const THINGS: &[&str] = &[
    "file",
    "cachedcontent",
    "cached content",
    "vector store",
    "vector_store",
    "container",
    "previous response",
    "response with id",
    "item with id",
    "batch",
    "conversation",
    "assistant",
    "thread",
    "upload",
];

const SCOPES: &[&str] = &[
    "missing scope",
    "insufficient permission",
    "insufficient authentication scope",
    "insufficient scope",
    "permission to use the specified resource",
    "permission to access this endpoint",
    "access to this endpoint",
    "access to this feature",
    "not allowed to use this endpoint",
];

const TOO_DEAR: &[&str] = &[
    "requires more credits",
    "fewer max_tokens",
    "can only afford",
    "can be afforded",
    "lower max_tokens",
    "reduce max_tokens",
    "cost of this request",
    "request costs",
    "for this request",
    "prompt tokens limit exceeded",
];

/// The request's own wishes about who may serve it, which nobody fits.
const OWN_WISHES: &[&str] = &[
    "no allowed providers",
    "no endpoints found that",
    "no endpoints found matching",
    "no endpoints available",
    "data policy",
    "handle the requested parameters",
    "no provider match",
    "no providers match",
    "no provider supports",
    "no providers support",
];

const MODEL_PHRASES: &[&str] = &[
    "unknown model",
    "unsupported model",
    "no such model",
    "model not found",
    "model not exist",
    "model disabled",
    "model access denied",
    "invalid model:",
    "invalid model id",
    "invalid model name",
    "not a valid model",
    "model identifier is invalid",
    "no endpoints found for",
];

/// What is said of a model that is not there, behind the word "model".
const MODEL_GONE: &[&str] = &[
    "not found",
    "not exist",
    "no longer",
    "been deprecated",
    "is deprecated",
    "retired",
    "decommissioned",
    "not available",
    "not supported",
];

/// A key that may not use a model.
const MODEL_CLOSED: &[&str] = &[
    "access to model",
    "access to the model",
    "access to the requested model",
    "access to this model",
    "to use the model",
    "to use this model",
    "to use model",
    "allowed to access model",
    "allowed to access the model",
];

/// Codes of a model that is not there, or not for this key.
const MODEL_CODES: &[&str] = &[
    "model_not_found",
    "invalid_model",
    "model_not_available",
    "model_not_supported",
    "model_decommissioned",
    "model_terms_required",
    "model_permission_blocked_org",
    "model_permission_blocked_project",
    "DeploymentNotFound",
    "ModelNotOpen",
    "Model.AccessDenied",
    "AllocationQuota.FreeTierOnly",
];

const OVERFLOW_CODES: &[&str] = &[
    "context_length_exceeded",
    "exceed_context_size_error",
    "context_window_exceeded",
    "model_context_window_exceeded",
];

const OVERFLOW_PHRASES: &[&str] = &[
    "context_length_exceeded",
    "maximum context length",
    "context length exceeded",
    "exceeds the context length",
    "exceeds the model's context",
    "exceeds the context window",
    "exceed context limit",
    "exceeds the available context",
    "available context size",
    "context window exceed",
    "contextwindowexceeded",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "input length exceeds",
    "exceeds the maximum number of tokens",
    "exceeds the maximum allowed number of input tokens",
    "reduce the length of the messages",
    "reduce the length of your prompt",
    "reduce the length of the prompt",
];

/// A 429 that waiting does not change.
const NEVER_PASSES: &[&str] = &[
    "request too large",
    "request is too large",
    "too large for",
    "long context",
    "reduce your message size",
    "tokens must be reduced",
    "single request",
    "exceeds the maximum",
    "exceeds the per-request",
    "exceeds the limit per request",
];

impl Said {
    fn says(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.lower.contains(phrase))
    }

    /// Like `says`, of the upstream's own words alone. What costs other callers a key or a model is
    /// never read out of a value of the request that an upstream repeats.
    fn tells(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.unquoted.contains(phrase))
    }

    /// One of `states` is said of one of `subjects`, in the same sentence.
    fn says_of(&self, subjects: &[&str], states: &[&str]) -> bool {
        is_said_of(&self.lower, subjects, |behind| {
            states.iter().any(|state| behind.contains(state))
        })
    }

    fn tells_of(&self, subjects: &[&str], states: &[&str]) -> bool {
        is_said_of(&self.unquoted, subjects, |behind| {
            states.iter().any(|state| behind.contains(state))
        })
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
        if self.is_about_member(status) {
            return false;
        }
        let accounts = ["account", "organization", "organisation", "project", "team"];
        is_said_of(&self.unquoted, &accounts, is_closed)
            || self.tells_of(
                &["country", "territory", "user location"],
                &["not supported"],
            )
    }

    /// The key is named in words.
    pub fn names_key(&self, status: u16) -> bool {
        if self.is_about_member(status) {
            return false;
        }
        if self.tells(KEY_PHRASES) {
            return true;
        }
        if status == 400 {
            // A field of the request may be called so as well.
            return self.unquoted.starts_with("api key");
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
                    || self.lower.starts_with("user not found")))
    }

    pub fn is_money_code(&self) -> bool {
        self.is_any_code(MONEY_CODES)
    }

    pub fn is_out_of_money(&self, status: u16) -> bool {
        !self.is_about_member(status) && self.tells(MONEY_PHRASES)
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
        if self.is_any_code(MODEL_CODES) {
            return true;
        }
        match status {
            400 => {
                self.tells(MODEL_PHRASES)
                    || self.tells_of(&["model "], &["not found", "does not exist"])
            }
            401 | 403 => {
                self.tells(MODEL_PHRASES) || self.tells(MODEL_CLOSED) || self.is_model_gone()
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
