//! The status for a terminal: a sentence, what rests, and aligned tables.

use std::fmt::Write as _;

use crate::metrics::OTHER;

use super::{Named, Status, Sum, words};

/// Requests that the table shows; the page and the JSON have all.
const SHOWN: usize = 20;

pub fn text(status: &Status) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}", printable(&status.summary));
    for (upstream, key, rest) in status.rests() {
        let _ = writeln!(
            out,
            "  key {} of {} rests until {} UTC ({}) for {}: {}: {}",
            key.name,
            upstream.name,
            words::time_of_day(rest.until),
            words::span(rest.seconds as u64),
            rest.model
                .as_deref()
                .map_or_else(|| "all models".into(), printable),
            rest.class,
            printable(&rest.why)
        );
    }
    for (upstream, key) in status.failing() {
        let _ = writeln!(
            out,
            "  key {} of {} fails: {} attempts in a row, the last {} ago: {}",
            key.name,
            upstream.name,
            key.failures_in_a_row,
            words::span(key.last_error_seconds.unwrap_or(0)),
            printable(key.last_error.as_deref().unwrap_or_default())
        );
    }
    let _ = writeln!(
        out,
        "\nweir {}, up {}; {}\n{} of {} requests running, {} waiting for a key; {} connections; now {} UTC\n",
        status.version,
        words::span(status.uptime_seconds),
        printable(&super::page::config(status)),
        status.exchanges,
        status.max_exchanges,
        status.waiting,
        status.connections,
        words::time_of_day(status.time)
    );

    let head = [
        "UPSTREAM",
        "KEY",
        "STATE",
        "IN USE",
        "TODAY",
        "FAILED",
        "IN",
        "OUT",
        "LAST ERROR",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for upstream in &status.upstreams {
        for key in &upstream.keys {
            let error = key.last_error.as_deref().map(|error| {
                let ago = key.last_error_seconds.unwrap_or(0);
                let error: String = printable(error).chars().take(160).collect();
                format!("{} ago: {error}", words::span(ago))
            });
            let mut row = vec![
                upstream.name.clone(),
                key.name.clone(),
                upstream.state(key).to_owned(),
                format!("{}/{}", key.slots - key.free.min(key.slots), key.slots),
            ];
            row.extend(sums(&key.today));
            row.push(error.unwrap_or_else(|| "-".into()));
            rows.push(row);
        }
    }
    table(&mut out, &rows);

    for (title, list) in [("MODEL", &status.models), ("CLIENT", &status.clients)] {
        named(&mut out, title, list);
    }

    if !status.lessons.is_empty() {
        let head = ["LEARNED FROM", "MODEL", "FOR", "LESSON"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for learnt in &status.lessons {
            rows.push(vec![
                learnt.upstream.clone(),
                printable(&learnt.model).chars().take(40).collect(),
                words::span(learnt.seconds),
                learnt.lesson.clone(),
            ]);
        }
        out.push('\n');
        table(&mut out, &rows);
    }

    if !status.recent.is_empty() {
        let head = [
            "TIME", "STATUS", "MODEL", "UPSTREAM", "KEY", "TRIES", "FIRST", "TOTAL", "IN", "OUT",
            "ID",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        for request in status.recent.iter().take(SHOWN) {
            let name = |text: &str| match text {
                "" => "-".to_owned(),
                text => printable(text).chars().take(40).collect(),
            };
            rows.push(vec![
                words::time_of_day(request.time),
                request.status.to_string(),
                name(&request.model),
                name(&request.upstream),
                name(&request.key),
                request.attempts.to_string(),
                or_dash(request.first_byte_ms.map(words::millis)),
                words::millis(request.ms),
                or_dash(request.prompt_tokens.map(|count| count.to_string())),
                or_dash(request.completion_tokens.map(|count| count.to_string())),
                request.id.clone(),
            ]);
        }
        out.push('\n');
        table(&mut out, &rows);
    }
    out
}

fn named(out: &mut String, title: &str, list: &[Named]) {
    if list.is_empty() {
        return;
    }
    let mut rows = vec![
        [title, "TODAY", "FAILED", "IN", "OUT"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let estimates = list.iter().any(|named| named.today.estimated_tokens > 0);
    if estimates {
        rows[0].push("ESTIMATED".to_owned());
    }
    for named in list {
        let mut row = vec![printable(&named.name)];
        row.extend(sums(&named.today));
        if estimates {
            row.push(named.today.estimated_tokens.to_string());
        }
        rows.push(row);
    }
    out.push('\n');
    table(out, &rows);
    if title == "MODEL" && list.iter().any(|named| named.name == OTHER) {
        let _ = writeln!(out, "({OTHER}: {})", words::OTHER_MODELS);
    }
}

fn sums(sum: &Sum) -> [String; 4] {
    [
        sum.requests,
        sum.failed,
        sum.prompt_tokens,
        sum.completion_tokens,
    ]
    .map(|count| count.to_string())
}

/// Foreign text, such as it can do no harm to a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Columns as wide as their widest cell; the last one is left as it is.
fn table(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}
