//! OpenAI's Chat Completions as an upstream: a relay, since callers speak it too.
