//! Which targets can take a request, as far as that is known before one of them is asked.
//!
//! What an upstream has told of itself and of its models counts. A target that cannot is only put
//! behind the others: what was told may be old, and its own refusal says most.

use crate::config::{Config, Upstream};
use crate::dialect::openai::Head;
use crate::models;
use crate::record::estimate;
use crate::route::Target;

/// What a request asks of a model.
#[derive(Debug, Default)]
struct Needs {
    images: bool,
    tools: bool,
    schema: bool,
    /// The prompt, roughly.
    tokens: u64,
}

/// The targets in their order, those last that are known to be unable to serve the request.
pub fn by_ability(config: &Config, head: &Head<'_>, targets: Vec<Target>) -> Vec<Target> {
    if targets.len() < 2 {
        return targets;
    }
    let needs = Needs::of(head);
    let able = |target: &Target| needs.met_by(&config.upstreams[target.upstream], &target.model);
    let (mut able, unable): (Vec<_>, Vec<_>) = targets.into_iter().partition(able);
    able.extend(unable);
    able
}

impl Needs {
    fn of(head: &Head<'_>) -> Needs {
        let raw = |key: &str| head.fields.get(key).map_or("", |raw| raw.get());
        // A text that holds these words has them behind a backslash.
        let messages = raw("messages");
        let pictures = ["\"image_url\"", "\"input_image\""];
        Needs {
            images: pictures.iter().any(|word| messages.contains(word)),
            tools: !matches!(raw("tools"), "" | "null" | "[]"),
            schema: raw("response_format").contains("\"json_schema\""),
            tokens: estimate::of_body(head.body.as_bytes()),
        }
    }

    fn met_by(&self, upstream: &Upstream, model: &str) -> bool {
        let learned = upstream.options.learned(model);
        let can = learned.map(|model| model.can).unwrap_or_default();
        let facts = upstream.options.found.get();
        let lacks = |needed: bool, can: Option<bool>| needed && can == Some(false);
        let room = models::context_length(upstream, model).or(facts.context);
        !lacks(self.images, can.images.or(facts.images))
            && !lacks(self.tools, can.tools)
            && !lacks(self.schema, can.schema)
            && room.is_none_or(|room| self.tokens <= room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(body: &str) -> Needs {
        Needs::of(&Head::read(body.as_bytes()).unwrap())
    }

    #[test]
    fn what_a_request_needs_stands_in_it() {
        let plain = needs(
            r#"{"model":"m","messages":[{"role":"user","content":"is \"image_url\" a field?"}],"tools":[]}"#,
        );
        assert!(!plain.images && !plain.tools && !plain.schema);
        assert!((10..60).contains(&plain.tokens), "{plain:?}");
        let all = needs(
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:,"}}]}],"tools":[{"type":"function","function":{"name":"f"}}],"response_format":{"type":"json_schema","json_schema":{}}}"#,
        );
        assert!(all.images && all.tools && all.schema);
    }
}
