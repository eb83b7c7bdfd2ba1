//! Codes and phrases of errors, as vendors and compatible servers use them, in lower case (but for codes).

/// Codes that name the key.
pub(super) const KEY_CODES: &[&str] = &[
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
pub(super) const KEY_REASONS: &[&str] = &[
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
pub(super) const KEY_PHRASES: &[&str] = &[
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

/// Whom an upstream asks on a request's behalf.
pub(super) const OF_ANOTHER: &[&str] = &[
    "mcp ",
    "mcp-",
    "connector",
    "tool server",
    "tool list",
    "server_url",
    "service account",
    "provider returned error",
    "downloading",
    "to download",
    "to fetch",
    "fetching",
    "fetch the",
    "to retrieve the",
    "webhook",
    "image url",
    "image_url",
    "file_url",
    "gs://",
    "s3://",
];

/// Codes of a vendor that wants money or has a limit of spending.
pub(super) const MONEY_CODES: &[&str] = &[
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

pub(super) const MONEY_PHRASES: &[&str] = &[
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
pub(super) const CLOSED: &[&str] = &[
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

pub(super) const FLAGGED: &[&str] = &[
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
pub(super) const THINGS: &[&str] = &[
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

pub(super) const SCOPES: &[&str] = &[
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

pub(super) const TOO_DEAR: &[&str] = &[
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
pub(super) const OWN_WISHES: &[&str] = &[
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

pub(super) const MODEL_PHRASES: &[&str] = &[
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
pub(super) const MODEL_GONE: &[&str] = &[
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
pub(super) const MODEL_CLOSED: &[&str] = &[
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
pub(super) const MODEL_CODES: &[&str] = &[
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

pub(super) const OVERFLOW_CODES: &[&str] = &[
    "context_length_exceeded",
    "exceed_context_size_error",
    "context_window_exceeded",
    "model_context_window_exceeded",
];

pub(super) const OVERFLOW_PHRASES: &[&str] = &[
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
pub(super) const NEVER_PASSES: &[&str] = &[
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

/// What servers say while they load a model: llama.cpp, Hugging Face's, SGLang and others.
pub(super) const LOADING: &[&str] = &[
    "loading model",
    "loading the model",
    "model is loading",
    "model loading",
    "model is still loading",
    "currently loading",
    "model is being loaded",
    "is warming up",
    "model is warming up",
    "model is not loaded yet",
];
