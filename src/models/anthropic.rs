//! The list of models in the shape of Anthropic's API, for callers who speak its Messages.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{entry, listed};
use crate::config::{ClientKey, Config};
use crate::journal;
use crate::query;

/// As many as the vendor gives at most.
const MOST: usize = 1000;
const USUAL: usize = 20;

#[derive(Serialize)]
struct Model<'a> {
    r#type: &'static str,
    id: &'a str,
    display_name: &'a str,
    created_at: String,
}

#[derive(Serialize)]
struct List<'a> {
    data: &'a [Model<'a>],
    has_more: bool,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
}

/// A page of the list: `limit`, `after_id` and `before_id` of the query say which.
pub fn list(
    config: &Config,
    query: &str,
    usable: &dyn Fn(usize) -> bool,
    key: Option<&ClientKey>,
) -> Vec<u8> {
    let ids = listed(config);
    let models: Vec<Model<'_>> = ids
        .iter()
        .filter_map(|id| model(config, id, usable, key))
        .collect();
    let mut limit = USUAL;
    let (mut from, mut to) = (0, models.len());
    let mut backwards = false;
    for (name, value) in query::pairs(query) {
        let place = || models.iter().position(|model| model.id == value);
        match name.as_str() {
            "limit" => limit = value.parse().unwrap_or(USUAL).clamp(1, MOST),
            "after_id" => from = place().map_or(models.len(), |at| at + 1),
            "before_id" => {
                backwards = true;
                to = place().unwrap_or(0);
            }
            _ => {}
        }
    }
    let all = models.get(from..to).unwrap_or_default();
    let (page, has_more) = match all.len() > limit {
        false => (all, false),
        true if backwards => (&all[all.len() - limit..], true),
        true => (&all[..limit], true),
    };
    let list = List {
        data: page,
        has_more,
        first_id: page.first().map(|model| model.id),
        last_id: page.last().map(|model| model.id),
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
    let model = model(config, id, usable, key)?;
    Some(serde_json::to_vec(&model).expect("texts always serialise"))
}

fn model<'a>(
    config: &'a Config,
    id: &'a str,
    usable: &dyn Fn(usize) -> bool,
    key: Option<&ClientKey>,
) -> Option<Model<'a>> {
    /// The end of the year 9999, behind which no date is written like this.
    const LAST: u64 = 253_402_300_799;
    let created = entry(config, id, usable, key, SystemTime::now())?.created;
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(created.min(LAST));
    Some(Model {
        r#type: "model",
        id,
        display_name: id,
        created_at: journal::timestamp(since),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Upstream;
    use crate::provider::Format;
    use serde_json::Value;

    fn page(query: &str) -> (Vec<String>, Value) {
        let mut config = Config::default();
        let mut own = Upstream::new("box", Format::OpenAi);
        own.models = ["a", "b", "c", "d"].map(String::from).to_vec();
        own.options.official = false;
        config.upstreams.push(own);
        let list = list(&config, query, &|_| true, None);
        let list: Value = serde_json::from_slice(&list).unwrap();
        let ids = list["data"].as_array().unwrap().iter();
        let ids = ids.map(|model| model["id"].as_str().unwrap().to_owned());
        (ids.collect(), list)
    }

    #[test]
    fn pages_of_the_list() {
        let (ids, list) = page("");
        assert_eq!(ids, ["a", "b", "c", "d"]);
        assert_eq!(list["has_more"], false);
        assert_eq!(list["first_id"], "a");
        assert_eq!(list["last_id"], "d");
        assert_eq!(list["data"][0]["type"], "model");
        assert_eq!(list["data"][0]["created_at"], "1970-01-01T00:00:00.000Z");
        for (query, ids, more) in [
            ("limit=1000", &["a", "b", "c", "d"][..], false),
            ("limit=2", &["a", "b"], true),
            ("limit=2&after_id=b", &["c", "d"], false),
            ("limit=1&before_id=c", &["b"], true),
            ("after_id=zzz", &[], false),
            ("before_id=a", &[], false),
            ("limit=0&after_id=c", &["d"], false),
            ("limit=x", &["a", "b", "c", "d"], false),
        ] {
            let (found, list) = page(query);
            assert_eq!(found, ids, "{query}");
            assert_eq!(list["has_more"], more, "{query}");
        }
    }
}
