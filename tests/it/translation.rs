//! What only the whole of weir can show of a translated request.

use serde_json::json;

use crate::upstream::{Format, Upstream};
use crate::weir::{Weir, config};

/// An image by its address, for a model whose provider does not get it.
#[test]
fn an_image_by_address_is_refused_unless_weir_may_get_it_from_a_public_host() {
    let upstream = Upstream::start(|request| Format::Gemini.answer(request, &["hi"]));
    // Whatever is asked of it, it would be found here.
    let private = Upstream::start(|request| Format::Gemini.answer(request, &["secret"]));
    let url = private.url().replace("http://", "https://");
    for (fetches, url, why) in [
        (
            false,
            url.as_str(),
            "only if its config says `fetch_images`",
        ),
        (true, &url, "has an address that is not public"),
        (true, &private.url(), "only https addresses are fetched"),
    ] {
        let mut settings = config(Format::Gemini, &upstream.url(), &["k"]);
        settings["fetch_images"] = json!(fetches);
        let weir = Weir::start(&settings);
        let image = json!({"type": "image_url", "image_url": {"url": url}});
        let body = json!({
            "model": "gemini-2.0-flash",
            "messages": [{"role": "user", "content": [image]}],
        });
        let answer = weir.ask(&body);
        assert_eq!(answer.status, 400, "{}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["param"], "messages[0].content[0].image_url.url");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(why), "{message}");
    }
    assert_eq!((upstream.count(), private.count()), (0, 0));
}
