//! The status for a browser: one page that brings everything with it, needs no JavaScript, and
//! asks for itself again.
//!
//! What comes first answers the first question: is it fine, and if not, which key of which
//! upstream rests until when, and why. Every text that is not written here goes through `esc`.

use std::fmt::Write as _;

use crate::metrics::OTHER;

use super::{Health, KeyStatus, Minute, Named, Recent, Status, is_failure, spark, words};

const STYLE: &str = include_str!("page.css");

/// Seconds after which the page is asked for again.
const REFRESH: u32 = 5;

/// Text as it can stand in an element or in a quoted attribute.
pub fn esc(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Nothing that a browser would act on or choke on.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Where the configuration came from, and how long ago.
pub fn config(status: &Status) -> String {
    let config = &status.config;
    let age = words::span(config.age_seconds);
    let since = match (&config.reload_error, config.changed) {
        (Some(error), _) => format!("; the last reload failed: {error}"),
        (None, true) => "; the file was changed since, SIGHUP reads it again".to_owned(),
        (None, false) => String::new(),
    };
    match &config.file {
        Some(file) => format!("config {} read {age} ago{since}", file.display()),
        None => format!("config from the environment, read {age} ago{since}"),
    }
}

pub fn page(status: &Status) -> String {
    let (class, title) = match status.health {
        Health::Fine => ("fine", "fine"),
        Health::Limited => ("limited", "limited"),
        Health::Down => ("down", "DOWN"),
    };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"{REFRESH}\"><title>weir: {title}</title>\
         <link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head><body>\n"
    );
    verdict(&mut out, status, class);
    plots(&mut out, &status.minutes);
    keys(&mut out, status);
    named(&mut out, "Models today", "Model", &status.models);
    named(&mut out, "Callers today", "Client key", &status.clients);
    lessons(&mut out, status);
    recent(&mut out, &status.recent);
    let _ = write!(
        out,
        "<footer>weir {} · up {} · {} · {} connections · {} UTC · asks again every {REFRESH} s</footer>\n</body></html>\n",
        status.version,
        words::span(status.uptime_seconds),
        esc(&config(status)),
        status.connections,
        words::time_of_day(status.time)
    );
    out
}

fn verdict(out: &mut String, status: &Status, class: &str) {
    let _ = write!(
        out,
        "<section class=\"verdict {class}\"><h1>{}</h1>",
        esc(&status.summary)
    );
    let waiting = match status.waiting {
        0 => "none waits for a key".to_owned(),
        1 => "1 waits for a key".to_owned(),
        some => format!("{some} wait for a key"),
    };
    let _ = write!(
        out,
        "<p class=\"dim\">{} of {} requests running, {waiting}.</p>",
        status.exchanges, status.max_exchanges
    );
    let mut any = false;
    for (upstream, key, rest) in status.rests() {
        if !any {
            out.push_str("<ul>");
            any = true;
        }
        let model = match &rest.model {
            Some(model) => format!("for <b>{}</b>", esc(model)),
            None => "for all models".to_owned(),
        };
        let _ = write!(
            out,
            "<li><b>{}</b> of <b>{}</b> rests {model} until <b>{}</b> UTC ({} from now)<p>{}: {}</p></li>",
            esc(&key.name),
            esc(&upstream.name),
            words::time_of_day(rest.until),
            words::span(rest.seconds as u64),
            rest.class,
            esc(&rest.why)
        );
    }
    for (upstream, key) in status.failing() {
        if !any {
            out.push_str("<ul>");
            any = true;
        }
        let _ = write!(
            out,
            "<li><b>{}</b> of <b>{}</b> fails: <b>{}</b> attempts in a row, the last {} ago<p>{}</p></li>",
            esc(&key.name),
            esc(&upstream.name),
            key.failures_in_a_row,
            words::span(key.last_error_seconds.unwrap_or(0)),
            esc(key.last_error.as_deref().unwrap_or_default())
        );
    }
    if any {
        out.push_str("</ul>");
    }
    if status.rests().next().is_some() {
        out.push_str(
            "<p class=\"dim\">Rests end by themselves; <code>POST /status/reset</code> ends all of them now.</p>",
        );
    }
    out.push_str("</section>\n");
}

fn plots(out: &mut String, minutes: &[Minute]) {
    type Value = fn(&Minute) -> u64;
    type Words = fn(u64) -> String;
    let plots: [(&str, Value, Words); 3] = [
        ("Requests a minute", |minute| minute.requests, words::count),
        ("Mean duration", Minute::mean_ms, words::millis),
        ("Tokens a minute", |minute| minute.tokens, words::count),
    ];
    out.push_str("<section class=\"plots\">");
    for (title, value, words) in plots {
        let values: Vec<u64> = minutes.iter().map(value).collect();
        let peak = values.iter().copied().max().unwrap_or(0);
        let told = match peak {
            0 => "nothing in the last hour".to_owned(),
            peak => format!("at most {}", words(peak)),
        };
        let _ = write!(
            out,
            "<figure><figcaption><span>{title}</span><span class=\"dim\">{told}</span></figcaption>{}\
             <div class=\"axis\"><span>an hour ago</span><span>now</span></div></figure>",
            spark::bars(&values, &format!("{title}, last hour: {told}"))
        );
    }
    out.push_str("</section>\n");
}

/// A table whose cells know their column, for the narrow form without a head.
struct Table<'a> {
    out: &'a mut String,
    columns: &'static [&'static str],
    at: usize,
}

impl<'a> Table<'a> {
    /// A column that begins with `#` holds numbers, one with `~` long text.
    fn open(out: &'a mut String, title: &str, columns: &'static [&'static str]) -> Table<'a> {
        let _ = write!(
            out,
            "<h2>{title}</h2><div class=\"wide\"><table><thead><tr>"
        );
        for column in columns {
            let (class, name) = Table::column(column);
            let _ = write!(out, "<th{class}>{name}</th>");
        }
        out.push_str("</tr></thead><tbody>\n");
        Table {
            out,
            columns,
            at: 0,
        }
    }

    fn column(column: &str) -> (&'static str, &str) {
        match column.strip_prefix('#') {
            Some(name) => (" class=\"n\"", name),
            None => match column.strip_prefix('~') {
                Some(name) => (" class=\"long\"", name),
                None => ("", column),
            },
        }
    }

    /// The next cell, of text that is escaped here.
    fn cell(&mut self, text: &str) {
        self.raw(&esc(text));
    }

    fn raw(&mut self, html: &str) {
        if self.at == 0 {
            self.out.push_str("<tr>");
        }
        let (class, name) = Table::column(self.columns[self.at]);
        let _ = write!(self.out, "<td{class} data-l=\"{name}\">{html}</td>");
        self.at += 1;
        if self.at == self.columns.len() {
            self.out.push_str("</tr>\n");
            self.at = 0;
        }
    }

    fn close(self) {
        self.out.push_str("</tbody></table></div>\n");
    }
}

fn keys(out: &mut String, status: &Status) {
    let columns = &[
        "Upstream",
        "Key",
        "State",
        "Slots in use",
        "#Requests",
        "#Failed",
        "#Tokens in",
        "#Tokens out",
        "~Last error",
    ];
    let mut table = Table::open(out, "Keys, today", columns);
    for upstream in &status.upstreams {
        for key in &upstream.keys {
            table.cell(&upstream.name);
            table.cell(&key.name);
            let state = upstream.state(key);
            let tone = match state {
                "ready" | "in use" => "good",
                "resting" | "failing" | "unreachable" => "bad",
                _ => "warn",
            };
            table.raw(&format!("<span class=\"tag {tone}\">{state}</span>"));
            table.raw(&in_use(key));
            table.cell(&words::count(key.today.requests));
            failed(&mut table, key.today.failed);
            table.cell(&words::count(key.today.prompt_tokens));
            table.cell(&words::count(key.today.completion_tokens));
            match &key.last_error {
                Some(error) => {
                    let ago = words::span(key.last_error_seconds.unwrap_or(0));
                    table.cell(&format!("{ago} ago: {error}"));
                }
                None => table.cell(""),
            }
        }
    }
    table.close();
}

/// The slots that are taken: how many, and the longest few.
fn in_use(key: &KeyStatus) -> String {
    const NAMED: usize = 3;
    let taken = key.slots - key.free.min(key.slots);
    let mut text = format!("{taken} of {}", key.slots);
    let mut busy: Vec<_> = key.in_use.iter().collect();
    busy.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    for (at, one) in busy.iter().take(NAMED).enumerate() {
        let sign = if at == 0 { ": " } else { ", " };
        let since = words::span(one.seconds as u64);
        let _ = write!(text, "{sign}{} for {since}", esc(&one.model));
    }
    if busy.len() > NAMED {
        text.push_str(", …");
    }
    text
}

fn failed(table: &mut Table<'_>, count: u64) {
    let tone = if count > 0 { "bad" } else { "dim" };
    table.raw(&format!(
        "<span class=\"{tone}\">{}</span>",
        words::count(count)
    ));
}

fn lessons(out: &mut String, status: &Status) {
    if status.lessons.is_empty() {
        return;
    }
    let columns = &["Upstream", "Model", "Lesson", "Remembered for"];
    let mut table = Table::open(out, "Learned from refusals", columns);
    for learnt in &status.lessons {
        table.cell(&learnt.upstream);
        table.cell(&learnt.model);
        table.cell(&learnt.lesson);
        table.cell(&words::span(learnt.seconds));
    }
    table.close();
}

fn named(out: &mut String, title: &str, name: &str, list: &[Named]) {
    if list.is_empty() {
        return;
    }
    const MODELS: &[&str] = &[
        "Model",
        "#Requests",
        "#Failed",
        "#Tokens in",
        "#Tokens out",
        ESTIMATED,
    ];
    const CLIENTS: &[&str] = &[
        "Client key",
        "#Requests",
        "#Failed",
        "#Tokens in",
        "#Tokens out",
        ESTIMATED,
    ];
    const ESTIMATED: &str = "#Tokens estimated";
    let estimates = list.iter().any(|named| named.today.estimated_tokens > 0);
    let columns = match name {
        "Model" => MODELS,
        _ => CLIENTS,
    };
    let shown = columns.len() - usize::from(!estimates);
    let mut table = Table::open(out, title, &columns[..shown]);
    for named in list {
        table.cell(&named.name);
        table.cell(&words::count(named.today.requests));
        failed(&mut table, named.today.failed);
        table.cell(&words::count(named.today.prompt_tokens));
        table.cell(&words::count(named.today.completion_tokens));
        if estimates {
            table.cell(&words::count(named.today.estimated_tokens));
        }
    }
    table.close();
    if name == "Model" && list.iter().any(|named| named.name == OTHER) {
        let _ = write!(
            out,
            "<p class=\"dim\"><b>{OTHER}</b>: {}.</p>",
            words::OTHER_MODELS
        );
    }
}

fn recent(out: &mut String, list: &[Recent]) {
    if list.is_empty() {
        out.push_str("<h2>Recent requests</h2><p class=\"dim\">None yet.</p>\n");
        return;
    }
    let columns = &[
        "Time",
        "Status",
        "Model",
        "Upstream, key",
        "#Tries",
        "#First byte",
        "#Total",
        "#Tokens",
        "~Error",
        "Id",
    ];
    let mut table = Table::open(out, "Recent requests", columns);
    for request in list {
        table.cell(&words::time_of_day(request.time));
        let tone = match request.status {
            499 => "dim",
            status if is_failure(status) => "bad",
            _ => "good",
        };
        let streamed = if request.streamed { " stream" } else { "" };
        table.raw(&format!(
            "<span><b class=\"{tone}\">{}</b><span class=\"dim\">{streamed}</span></span>",
            request.status
        ));
        table.cell(&request.model);
        let by = match (request.upstream.as_str(), request.key.as_str()) {
            (upstream, "") => upstream.to_owned(),
            (upstream, key) => format!("{upstream}, {key}"),
        };
        table.cell(&by);
        table.cell(&request.attempts.to_string());
        table.cell(&request.first_byte_ms.map(words::millis).unwrap_or_default());
        table.cell(&words::millis(request.ms));
        let tokens = match (request.prompt_tokens, request.completion_tokens) {
            (None, None) => String::new(),
            (prompt, completion) => format!(
                "{} + {}",
                words::count(prompt.unwrap_or(0)),
                words::count(completion.unwrap_or(0))
            ),
        };
        table.cell(&tokens);
        table.cell(request.error.as_deref().unwrap_or_default());
        table.raw(&format!("<code>{}</code>", esc(&request.id)));
    }
    table.close();
}
