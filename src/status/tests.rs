//! The three forms, from pools with keys that rest.

use super::*;
use crate::cancel::Cancel;
use crate::config::{Key, Upstream};
use crate::failure::Failure;
use crate::metrics::Names;
use crate::pool::{Asked, Wanted};
use crate::provider::Format;
use crate::record::Record;

const EVIL: &str = "<script>alert(1)</script>\"'&\x1b[31m";

fn config() -> Config {
    let mut config = Config::default();
    let mut upstream = Upstream::new("gemini", Format::Gemini);
    upstream.keys = ["gemini#1", "gemini#2"]
        .map(|name| Key {
            name: name.into(),
            secret: None,
        })
        .into();
    config.upstreams.push(upstream);
    config.upstreams.push(Upstream::new("box", Format::OpenAi));
    config
}

fn pools(config: &Config) -> Vec<Arc<Pool>> {
    let pool = |upstream| Arc::new(Pool::new(upstream, 1, Duration::from_secs(300)));
    config.upstreams.iter().map(pool).collect()
}

/// Lets the next key of the pool fail for `model`.
fn fail(pool: &Arc<Pool>, model: &str, status: u16, message: &str) {
    let wanted = Wanted {
        model: model.into(),
        ..Wanted::default()
    };
    let cancel = Arc::<Cancel>::default();
    let lease = pool.lease(&wanted, Duration::ZERO, &cancel).unwrap();
    let body = serde_json::json!({"error": {"message": message}}).to_string();
    let hint = Some(Duration::from_secs(200));
    let failure = Failure::from_status(status, body.as_bytes(), hint);
    lease.failed(&failure, Asked::default(), Instant::now());
}

fn around() -> Around {
    Around {
        uptime: Duration::from_secs(3_700),
        draining: false,
        exchanges: 1,
        max_exchanges: 64,
        connections: 3,
        config_since: SystemTime::now(),
        reload_error: None,
        lessons: Vec::new(),
    }
}

fn note(ledger: &Ledger, config: &Config, status: u16) {
    let mut record = Record::new("req_1".into(), "chat");
    record.status = status;
    record.model = EVIL.into();
    record.upstream = "gemini".into();
    record.key = "gemini#1".into();
    record.usage.prompt = Some(1_234);
    record.error = Some(EVIL.into());
    ledger.note(&record, &Names::new(config));
}

#[test]
fn a_gateway_without_trouble_says_so_first() {
    let config = config();
    let ledger = Ledger::default();
    let status = collect(&config, &pools(&config), &ledger, &around());
    assert_eq!(status.health, Health::Fine);
    assert!(text::text(&status).starts_with("Fine: all 3 keys are ready.\n"));
    let page = page::page(&status);
    assert!(page.contains("<title>weir: fine</title>"));
    assert!(page.contains("<h1>Fine: all 3 keys are ready.</h1>"));
    assert!(!page.contains("<ul>"), "nothing rests");
}

#[test]
fn a_key_that_rests_is_told_with_its_time_and_reason() {
    let config = config();
    let pools = pools(&config);
    fail(&pools[0], "gemini-2.5-pro", 429, "Quota exceeded <b>");
    let status = collect(&config, &pools, &Ledger::default(), &around());
    assert_eq!(status.health, Health::Limited);
    let text = text::text(&status);
    let first = text.lines().next().unwrap();
    assert_eq!(first, "Serving, but 1 of 3 keys rests for some model.");
    let second = text.lines().nth(1).unwrap();
    assert!(
        second.starts_with("  key gemini#1 of gemini rests until "),
        "{second}"
    );
    assert!(
        second.contains("(3 min 1") || second.contains("(3 min 20 s)"),
        "{second}"
    );
    assert!(
        second.ends_with("for gemini-2.5-pro: rate limit: Quota exceeded <b>"),
        "{second}"
    );
    let page = page::page(&status);
    assert!(page.contains("<b>gemini#1</b> of <b>gemini</b> rests for <b>gemini-2.5-pro</b>"));
    assert!(page.contains("rate limit: Quota exceeded &lt;b&gt;"));
    let json = serde_json::to_value(&status).unwrap();
    let rest = &json["upstreams"][0]["keys"][0]["cooling"][0];
    assert_eq!(rest["class"], "rate limit");
    assert_eq!(rest["model"], "gemini-2.5-pro");
    let left = rest["until"].as_u64().unwrap() - json["time"].as_u64().unwrap();
    assert!((198..=200).contains(&left), "{rest}");
}

#[test]
fn an_upstream_without_any_key_left_is_named() {
    let config = config();
    let pools = pools(&config);
    fail(&pools[1], "gpt-5", 401, "Incorrect API key provided");
    let status = collect(&config, &pools, &Ledger::default(), &around());
    assert_eq!(
        status.summary,
        "Serving, but not from box: 1 of 3 keys rests."
    );
    fail(
        &pools[0],
        "gemini-2.5-pro",
        401,
        "Incorrect API key provided",
    );
    fail(
        &pools[0],
        "gemini-2.5-pro",
        401,
        "Incorrect API key provided",
    );
    let status = collect(&config, &pools, &Ledger::default(), &around());
    assert_eq!(status.health, Health::Down);
    assert!(page::page(&status).contains("<title>weir: DOWN</title>"));
}

#[test]
fn a_model_that_a_key_does_not_serve_is_no_trouble() {
    let config = config();
    let pools = pools(&config);
    fail(
        &pools[1],
        "gpt-typo",
        404,
        "The model gpt-typo does not exist",
    );
    let status = collect(&config, &pools, &Ledger::default(), &around());
    assert_eq!(status.health, Health::Fine);
    assert_eq!(status.upstreams[1].keys[0].cooling.len(), 1);
}

#[test]
fn an_upstream_that_does_not_answer_is_seen_at_one_look() {
    let config = config();
    let pools = pools(&config);
    let now = |status: &Status| text::text(status);
    fail(&pools[1], "gpt-5", 503, "once");
    let status = collect(&config, &pools, &Ledger::default(), &around());
    assert_eq!(status.health, Health::Fine, "one is a mishap");
    assert_eq!(status.upstreams[1].keys[0].state(), "ready");
    for _ in 0..3 {
        fail(&pools[1], "gpt-5", 502, "connection refused <b>");
    }
    let mut status = collect(&config, &pools, &Ledger::default(), &around());
    assert_eq!(status.health, Health::Limited);
    assert_eq!(status.summary, "Serving, but 1 of 3 keys fails.");
    assert_eq!(status.upstreams[1].keys[0].state(), "failing");
    let line = "  key none of box fails: 4 attempts in a row, the last 0 s ago: 502 connection refused <b>";
    assert!(now(&status).contains(line), "{}", now(&status));
    let page = page::page(&status);
    assert!(page.contains("<b>none</b> of <b>box</b> fails: <b>4</b> attempts in a row"));
    assert!(page.contains("<span class=\"tag bad\">failing</span>"));
    assert!(!page.contains("Rests end by themselves"));
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["upstreams"][1]["keys"][0]["failures_in_a_row"], 4);

    // Long ago it is no trouble of today, but nothing to rely on either.
    status.upstreams[1].keys[0].last_error_seconds = Some(LOOKED_AT_SECONDS + 1);
    assert_eq!(status.upstreams[1].keys[0].state(), "failed last");
    assert!(
        judge(&status.upstreams, &[], false, 0)
            .1
            .starts_with("Fine")
    );

    // That a request is at fault is an answer as well.
    fail(&pools[1], "gpt-5", 400, "no such field");
    let status = collect(&config, &pools, &Ledger::default(), &around());
    assert_eq!(status.upstreams[1].keys[0].state(), "ready");
    assert_eq!(status.health, Health::Fine);
}

#[test]
fn where_nothing_answers_it_is_down() {
    let config = config();
    let pools = pools(&config);
    for _ in 0..2 {
        fail(&pools[1], "gpt-5", 502, "connection refused");
    }
    fail(
        &pools[0],
        "gemini-2.5-pro",
        401,
        "Incorrect API key provided",
    );
    fail(
        &pools[0],
        "gemini-2.5-pro",
        401,
        "Incorrect API key provided",
    );
    let status = collect(&config, &pools, &Ledger::default(), &around());
    assert_eq!(status.health, Health::Down);
    assert_eq!(
        status.summary,
        "Nothing answers: 1 of 3 keys fails and 2 of 3 keys rest."
    );
}

#[test]
fn requests_that_fail_are_trouble_though_no_key_rests() {
    let config = config();
    let pools = pools(&config);
    let ledger = Ledger::default();
    for code in [200, 400, 404, 499] {
        note(&ledger, &config, code);
    }
    let status = collect(&config, &pools, &ledger, &around());
    assert_eq!(
        status.health,
        Health::Fine,
        "a caller's fault is not weir's"
    );
    for _ in 0..2 {
        note(&ledger, &config, 502);
    }
    let status = collect(&config, &pools, &ledger, &around());
    assert_eq!(status.health, Health::Limited);
    assert_eq!(
        status.summary,
        "Serving, but 2 of the last 6 requests failed."
    );
}

#[test]
fn foreign_text_can_do_no_harm() {
    let config = config();
    let pools = pools(&config);
    fail(&pools[0], "gemini-2.5-pro", 429, EVIL);
    let ledger = Ledger::default();
    note(&ledger, &config, 503);
    let status = collect(&config, &pools, &ledger, &around());
    let page = page::page(&status);
    assert!(!page.contains("<script") && !page.contains('\x1b'));
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp; [31m"));
    for outside in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside} would ask somebody else");
    }
    assert!(!text::text(&status).contains('\x1b'));
}

#[test]
fn the_form_follows_what_is_accepted() {
    let config = config();
    let status = collect(&config, &pools(&config), &Ledger::default(), &around());
    let kind = |accept: Option<&str>| status.reply(accept).content_type;
    assert_eq!(kind(Some("application/json")), "application/json");
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    assert_eq!(kind(Some(browser)), "text/html; charset=utf-8");
    assert_eq!(kind(Some("*/*")), "text/plain; charset=utf-8");
    assert_eq!(kind(None), "text/plain; charset=utf-8");
}

#[test]
fn what_refusals_taught_is_shown_in_all_forms() {
    let config = config();
    let mut around = around();
    let show = |around: &Around| collect(&config, &pools(&config), &Ledger::default(), around);
    let none = show(&around);
    assert!(!page::page(&none).contains("Learned") && !text::text(&none).contains("LEARNED"));
    around.lessons.push(Told {
        upstream: "box".into(),
        model: EVIL.into(),
        lesson: "goes without stop".into(),
        left: Duration::from_secs(7_200),
    });
    let status = show(&around);
    let page = page::page(&status);
    assert!(page.contains("Learned from refusals") && page.contains("goes without stop"));
    assert!(!page.contains("<script>"));
    let text = text::text(&status);
    assert!(text.contains("LEARNED FROM") && text.contains("goes without stop"));
    assert!(!text.contains('\x1b'));
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["lessons"][0]["upstream"], "box");
    assert_eq!(json["lessons"][0]["lesson"], "goes without stop");
    assert_eq!(json["lessons"][0]["seconds"], 7_200);
}
