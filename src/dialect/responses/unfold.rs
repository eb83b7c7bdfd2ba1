//! A response that came in one piece as the events of a stream, where a stream was asked for.

use serde_json::value::RawValue;

use crate::json::{Entries, Fields, push_carried, push_key, push_number, push_string};

/// The events. `None`: it is no response.
pub fn unfold(body: &[u8]) -> Option<Vec<u8>> {
    let fields: Fields<'_> = serde_json::from_slice(body).ok()?;
    let text = |key: &str| fields.parse::<String>(key)?.ok();
    if text("object").as_deref() != Some("response") {
        return None;
    }
    let status = text("status")?;
    let end = match &*status {
        "completed" | "incomplete" | "failed" => format!("response.{status}"),
        _ => return None,
    };
    let output: Entries<'_> = serde_json::from_str(fields.get("output")?.get()).ok()?;
    let mut events = Events {
        out: Vec::with_capacity(4 * body.len() + 512),
        number: 0,
    };
    for name in ["response.created", "response.in_progress"] {
        events.begin(name);
        events.response(&fields, true);
    }
    for (at, item) in output.0.iter().enumerate() {
        for name in ["response.output_item.added", "response.output_item.done"] {
            events.begin(name);
            push_key(&mut events.out, b',', "output_index");
            push_number(&mut events.out, at as u64);
            push_key(&mut events.out, b',', "item");
            push_carried(&mut events.out, item.get());
            events.end();
        }
    }
    events.begin(&end);
    events.response(&fields, false);
    Some(events.out)
}

struct Events {
    out: Vec<u8>,
    number: u64,
}

impl Events {
    fn begin(&mut self, name: &str) {
        self.out.extend_from_slice(b"event: ");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\ndata: ");
        push_key(&mut self.out, b'{', "type");
        push_string(&mut self.out, name);
        push_key(&mut self.out, b',', "sequence_number");
        push_number(&mut self.out, self.number);
        self.number += 1;
    }

    /// The response, as it is or as it was when it began.
    fn response(&mut self, fields: &Fields<'_>, begins: bool) {
        push_key(&mut self.out, b',', "response");
        for (at, (key, raw)) in fields.0.iter().enumerate() {
            self.out.push(if at == 0 { b'{' } else { b',' });
            push_string(&mut self.out, key);
            self.out.push(b':');
            let as_it_was = match &**key {
                "status" => Some("\"in_progress\""),
                "output" => Some("[]"),
                "usage" | "error" | "incomplete_details" | "completed_at" => Some("null"),
                _ => None,
            };
            let now = RawValue::get(raw);
            push_carried(&mut self.out, as_it_was.filter(|_| begins).unwrap_or(now));
        }
        self.out.push(b'}');
        self.end();
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"}\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_whole_response_becomes_a_stream_that_ends() {
        let body = json!({
            "id": "resp_1", "object": "response", "status": "incomplete", "model": "m",
            "output": [
                {"id": "fc_1", "type": "function_call", "namespace": "n", "name": "f"},
                {"id": "new_1", "type": "brand_new", "text": "a\u{2028}"}
            ],
            "usage": {"total_tokens": 3}
        });
        let told = unfold(&serde_json::to_vec_pretty(&body).unwrap()).unwrap();
        let told = String::from_utf8(told).unwrap();
        let events: Vec<Value> = told
            .split_terminator("\n\n")
            .map(|event| {
                let (name, data) = event.split_once("\ndata: ").unwrap();
                let data: Value = serde_json::from_str(data).unwrap();
                assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
                data
            })
            .collect();
        assert_eq!(events.len(), 7);
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], number);
        }
        let begun = &events[1]["response"];
        assert_eq!(
            (&begun["status"], &begun["output"]),
            (&json!("in_progress"), &json!([]))
        );
        assert_eq!(
            (&begun["id"], &begun["usage"]),
            (&json!("resp_1"), &Value::Null)
        );
        assert_eq!(events[5]["item"], body["output"][1]);
        assert_eq!(events[5]["output_index"], 1);
        assert_eq!(events[6]["type"], "response.incomplete");
        assert_eq!(events[6]["response"], body);
    }

    #[test]
    fn what_is_no_response_is_left_alone() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"object":"response"}"#,
            r#"{"object":"response","status":"queued","output":[]}"#,
            r#"{"object":"response","status":"completed"}"#,
            r#"{"object":"chat.completion","status":"completed","output":[]}"#,
            r#"{"object":"response","status":"completed","output":[1"#,
        ] {
            assert!(unfold(body.as_bytes()).is_none(), "{body}");
        }
    }
}
