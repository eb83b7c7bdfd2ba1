//! `x-weir-dry-run`, where there are several places to go to.

use serde_json::{Value, json};

use crate::client::{ask, chat};
use crate::upstream::{Format, Upstream};
use crate::weir::{Weir, config, upstream};

#[test]
fn a_dry_run_goes_to_the_target_that_would_be_asked() {
    let up = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let mut settings = config(Format::Anthropic, &up.url(), &["k"]);
    let other = upstream("box", Format::OpenAi, &up.url(), &["k2"]);
    settings["upstreams"].as_array_mut().unwrap().push(other);
    settings["models"] = json!({"both": ["up/claude-x", "box/m"], "one": ["up/claude-x"]});
    let weir = Weir::start(&settings);
    // Claude's format has no words for several choices.
    let mut body = chat("both", false);
    body["n"] = json!(2);
    let dry = |body: &Value| {
        let headers = [("x-weir-dry-run", "1")];
        let body = body.to_string();
        ask(
            weir.addr,
            "POST",
            "/v1/chat/completions",
            &headers,
            body.as_bytes(),
        )
    };
    let told = dry(&body).json();
    assert_eq!(
        (&told["upstream"], &told["model"]),
        (&json!("box"), &json!("m"))
    );
    assert_eq!(told["targets"], json!([{"upstream": "box", "model": "m"}]));
    let asked = weir.ask(&body);
    assert_eq!(asked.header("x-weir-upstream"), Some("box"));
    body["model"] = json!("one");
    assert_eq!((dry(&body).status, weir.ask(&body).status), (400, 400));
}

#[test]
fn what_comes_from_the_environment_or_a_file_is_shown_to_nobody() {
    let up = Upstream::start(|request| {
        let tenant = request.header("x-tenant").unwrap_or_default().to_owned();
        Format::OpenAi.error(400, "no", &format!("tenant {tenant} is unknown"))
    });
    let mut settings = config(Format::OpenAi, &up.url(), &["k"]);
    settings["upstreams"][0]["headers"] =
        json!({"x-tenant": "env:TENANT", "x-team": "env:TEAM", "x-plain": "plain-value"});
    let weir = Weir::start_with(
        &settings,
        &[],
        &[("TENANT", "tenant-number-77"), ("TEAM", "abc")],
    );
    let body = chat("up/m", false);
    let headers = [("x-weir-dry-run", "1")];
    let path = "/v1/chat/completions";
    let told = ask(
        weir.addr,
        "POST",
        path,
        &headers,
        body.to_string().as_bytes(),
    )
    .json();
    assert_eq!(told["headers"]["x-tenant"], "***");
    assert_eq!(told["headers"]["x-team"], "***");
    assert_eq!(told["headers"]["x-plain"], "plain-value");
    let answer = weir.ask(&body);
    assert_eq!(answer.status, 400);
    assert!(
        !answer.text().contains("tenant-number-77"),
        "{}",
        answer.text()
    );
    assert!(!weir.log().contains("tenant-number-77"));
}
