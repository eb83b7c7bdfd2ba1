//! The list of models in the shape of Gemini's API, for callers who speak it.

use std::time::SystemTime;

use serde::Serialize;

use super::{Entry, entry, listed};
use crate::config::{ClientKey, Config};
use crate::query;

/// As many as the vendor gives at most.
const MOST: usize = 1000;
const USUAL: usize = 50;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Model<'a> {
    name: String,
    display_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_token_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_token_limit: Option<u64>,
    supported_generation_methods: [&'static str; 2],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    models: Vec<Model<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

/// A page of the list: `pageSize` and `pageToken` of the query say which. A token is the number of
/// the models before it.
pub fn list(
    config: &Config,
    query: &str,
    usable: &dyn Fn(usize) -> bool,
    key: Option<&ClientKey>,
) -> Vec<u8> {
    let (mut size, mut from) = (USUAL, 0);
    for (name, value) in query::pairs(query) {
        match name.as_str() {
            "pageSize" | "page_size" => size = value.parse().unwrap_or(USUAL),
            "pageToken" | "page_token" => from = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    // As with the vendor, 0 is no wish.
    let size = if size == 0 { USUAL } else { size.min(MOST) };
    let now = SystemTime::now();
    let ids = listed(config);
    let known = ids
        .iter()
        .filter_map(|id| entry(config, id, usable, key, now));
    let mut models: Vec<Model<'_>> = known.skip(from).take(size + 1).map(model).collect();
    let has_more = models.len() > size;
    models.truncate(size);
    let list = List {
        next_page_token: has_more.then(|| (from + size).to_string()),
        models,
    };
    serde_json::to_vec(&list).expect("texts always serialise")
}

/// The entry of `id`, if the list has it.
pub fn one(
    config: &Config,
    id: &str,
    usable: &dyn Fn(usize) -> bool,
    key: Option<&ClientKey>,
) -> Option<Vec<u8>> {
    if !listed(config).iter().any(|known| known == id) {
        return None;
    }
    let found = model(entry(config, id, usable, key, SystemTime::now())?);
    Some(serde_json::to_vec(&found).expect("texts always serialise"))
}

fn model(entry: Entry<'_>) -> Model<'_> {
    let facts = entry.facts.as_ref();
    Model {
        name: format!("models/{}", entry.id),
        display_name: entry.id,
        input_token_limit: entry
            .context_length
            .or(facts.and_then(|facts| facts.context_length)),
        output_token_limit: entry
            .max_completion_tokens
            .or(facts.and_then(|facts| facts.max_completion_tokens)),
        supported_generation_methods: ["generateContent", "countTokens"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Upstream;
    use crate::provider::Format;
    use serde_json::Value;

    #[test]
    fn pages_of_the_list() {
        let mut config = Config::default();
        let mut own = Upstream::new("box", Format::OpenAi);
        own.models = ["a", "b", "c"].map(String::from).to_vec();
        own.options.official = false;
        config.upstreams.push(own);
        for (query, names, next) in [
            ("", &["models/a", "models/b", "models/c"][..], None),
            ("pageSize=2", &["models/a", "models/b"], Some("2")),
            ("pageSize=2&pageToken=2", &["models/c"], None),
            ("pageSize=x&pageToken=99", &[], None),
            ("pageSize=0", &["models/a", "models/b", "models/c"], None),
        ] {
            let list = list(&config, query, &|_| true, None);
            let list: Value = serde_json::from_slice(&list).unwrap();
            let found = list["models"].as_array().unwrap().iter();
            let found: Vec<_> = found.map(|model| model["name"].as_str().unwrap()).collect();
            assert_eq!(found, names, "{query}");
            assert_eq!(list["nextPageToken"].as_str(), next, "{query}");
        }
        let one = one(&config, "b", &|_| true, None).unwrap();
        let one: Value = serde_json::from_slice(&one).unwrap();
        assert_eq!(one["supportedGenerationMethods"][0], "generateContent");
    }
}
