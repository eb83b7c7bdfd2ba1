//! `x-weir-dry-run`: what would be sent, told instead of sent. Takes no key and asks nobody.

use serde_json::{Map, Value, json};

use crate::config::Upstream;
use crate::error::ApiError;
use crate::inbound::Call;
use crate::mask::is_credential;
use crate::reply::Reply;
use crate::route::Target;
use crate::server::State;
use crate::upstream;

/// A request as it would go to the first target.
pub struct Outline<'a> {
    pub method: &'a str,
    /// Behind the base URL.
    pub path: &'a str,
    /// Headers besides those that the upstream gets with every request.
    pub headers: Vec<(&'a str, &'a str)>,
    /// `None`: it is passed on as it comes, and was not read.
    pub body: Option<&'a [u8]>,
    pub dropped: &'a [String],
}

pub fn is_asked(call: &Call<'_>) -> bool {
    let value = call.header("x-weir-dry-run").unwrap_or_default().trim();
    !matches!(value, "" | "0" | "false")
}

pub fn reply(state: &State, targets: &[Target], outline: &Outline<'_>) -> Result<Reply, ApiError> {
    let Some(first) = targets.first() else {
        return Err(super::tries::nobody());
    };
    let upstreams = &state.config.upstreams;
    let upstream = &upstreams[first.upstream];
    let url = upstream.url(outline.path);
    let places = targets.iter().map(|target| {
        let name = &upstreams[target.upstream].name;
        json!({"upstream": name, "model": target.model})
    });
    let told = json!({
        "method": outline.method,
        "url": state.masks.text(&url),
        "headers": headers(state, upstream, outline),
        "body": outline.body.map(body),
        "upstream": upstream.name,
        "model": first.model,
        "dropped": outline.dropped,
        "targets": places.collect::<Vec<_>>(),
    });
    Ok(Reply::json(200, told.to_string().into_bytes()))
}

fn headers(state: &State, upstream: &Upstream, outline: &Outline<'_>) -> Map<String, Value> {
    let has_secret = upstream.keys.iter().any(|key| key.secret.is_some());
    let (_, prefix) = upstream.auth_header();
    let masked = has_secret.then(|| format!("{prefix}***"));
    let standing = upstream::standing_headers(upstream, masked.as_deref());
    let all = outline.headers.iter().copied().chain(standing);
    all.map(|(name, value)| {
        // The key's own place is masked already, and says how it would stand there.
        let from_elsewhere = upstream
            .hidden
            .iter()
            .any(|hidden| hidden.reveal() == value);
        let hidden = from_elsewhere || (is_credential(name) && Some(value) != masked.as_deref());
        let value = match hidden {
            true => "***".into(),
            false => state.masks.text(value),
        };
        (name.to_owned(), value.into())
    })
    .collect()
}

/// As JSON where it is JSON.
fn body(bytes: &[u8]) -> Value {
    match serde_json::from_slice(bytes) {
        Ok(json) => json,
        Err(_) => String::from_utf8_lossy(bytes).into_owned().into(),
    }
}
