//! One input made from others: JSON changed as JSON, streams line by line, and bytes as bytes.

use serde_json::{Map, Number, Value, json};

use crate::provider::anthropic::property_tests::Dice;

/// Bytes that mean something somewhere.
const TOKENS: &[&[u8]] = &[
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"0.5",
    b"18446744073709551616",
    b"\"\"",
    b"{}",
    b"[]",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\\ud800",
    b"\\udc00",
    b"\\u0000",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b"data:",
    b"data: ",
    b"event: error\n",
    b": x\n",
    b"[DONE]",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xf0\x9f\x98\x80",
    b"```",
    b"#/$defs/a",
    b"base64,",
];

/// Names that encoders and decoders look at.
const NAMES: &[&str] = &[
    "type",
    "role",
    "content",
    "text",
    "tool_calls",
    "function",
    "arguments",
    "name",
    "id",
    "index",
    "tool_call_id",
    "model",
    "messages",
    "stream",
    "tools",
    "tool_choice",
    "response_format",
    "reasoning_effort",
    "thinking",
    "extra_body",
    "extra_content",
    "cache_control",
    "image_url",
    "url",
    "$ref",
    "$defs",
    "definitions",
    "anyOf",
    "oneOf",
    "allOf",
    "properties",
    "required",
    "items",
    "enum",
    "const",
    "additionalProperties",
    "usage",
    "finish_reason",
    "choices",
    "delta",
    "error",
    "parts",
    "candidates",
    "output",
    "item",
    "output_index",
    "thoughtSignature",
    "functionCall",
    "stop_reason",
    "content_block",
    "partial_json",
    "signature",
    "n",
    "stop",
];

/// A changed input, of at most some 100 KB.
pub fn input(dice: &mut Dice, corpus: &[Vec<u8>]) -> Vec<u8> {
    let base = dice.pick(corpus);
    let mut out = match serde_json::from_slice::<Value>(base) {
        Ok(mut value) if dice.chance(85) => {
            for _ in 0..=dice.below(6) {
                change(dice, &mut value, corpus);
            }
            value.to_string().into_bytes()
        }
        Ok(_) => base.clone(),
        Err(_) if dice.chance(85) => lines(dice, base, corpus),
        Err(_) => base.clone(),
    };
    if dice.chance(25) {
        for _ in 0..=dice.below(4) {
            bytes(dice, &mut out, corpus);
        }
    }
    out.truncate(100 << 10);
    out
}

/// Changes some lines of an event stream.
fn lines(dice: &mut Dice, base: &[u8], corpus: &[Vec<u8>]) -> Vec<u8> {
    let split = |text: &[u8]| -> Vec<Vec<u8>> {
        text.split_inclusive(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect()
    };
    let mut lines = split(base);
    for _ in 0..=dice.below(6) {
        if lines.is_empty() {
            break;
        }
        let at = dice.below(lines.len());
        match dice.below(10) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 => {
                let other = dice.below(lines.len());
                lines.swap(at, other);
            }
            3 => {
                let other = split(dice.pick::<Vec<u8>>(corpus));
                if !other.is_empty() {
                    lines.insert(at, dice.pick(&other).clone());
                }
            }
            4 => lines.truncate(at),
            _ => {
                let line = &mut lines[at];
                let Some(data) = line.strip_prefix(b"data:") else {
                    continue;
                };
                if let Ok(mut value) = serde_json::from_slice::<Value>(data) {
                    change(dice, &mut value, corpus);
                    *line = format!("data: {value}\n").into_bytes();
                }
            }
        }
    }
    lines.concat()
}

/// Changes one node of `value`.
fn change(dice: &mut Dice, value: &mut Value, corpus: &[Vec<u8>]) {
    let mut at = dice.below(count(value));
    let donor = dice.chance(30).then(|| donated(dice, corpus)).flatten();
    let Some(node) = nth(value, &mut at) else {
        return;
    };
    if let Some(donor) = donor {
        *node = donor;
        return;
    }
    match node {
        Value::Object(members) if dice.chance(70) => object(dice, members),
        Value::Array(list) if !list.is_empty() && dice.chance(70) => {
            let (at, other) = (dice.below(list.len()), dice.below(list.len()));
            match dice.below(5) {
                0 => drop(list.remove(at)),
                1 => list.insert(at, list[at].clone()),
                2 => list.swap(at, other),
                3 => list.push(scalar(dice)),
                _ => {
                    let repeated = vec![list[at].clone(); 1 + dice.below(40)];
                    list.extend(repeated);
                }
            }
        }
        Value::String(text) if dice.chance(70) => string(dice, text),
        _ => {
            let old = node.take();
            *node = match dice.below(4) {
                0 => json!([old]),
                1 => json!({ *dice.pick(NAMES): old }),
                2 if dice.chance(10) => (0..dice.below(100)).fold(old, |inner, _| json!([inner])),
                _ => scalar(dice),
            };
        }
    }
}

fn object(dice: &mut Dice, members: &mut Map<String, Value>) {
    let keys: Vec<String> = members.keys().cloned().collect();
    match dice.below(4) {
        0 if !keys.is_empty() => {
            members.shift_remove(dice.pick(&keys));
        }
        // The value under another name.
        1 if !keys.is_empty() => {
            if let Some(value) = members.shift_remove(dice.pick(&keys)) {
                members.insert((*dice.pick(NAMES)).to_owned(), value);
            }
        }
        2 if keys.len() > 1 => {
            let (from, to) = (dice.pick(&keys), dice.pick(&keys));
            let value = members[from].clone();
            members.insert(to.clone(), value);
        }
        _ => {
            members.insert((*dice.pick(NAMES)).to_owned(), scalar(dice));
        }
    }
}

fn string(dice: &mut Dice, text: &mut String) {
    let token = String::from_utf8_lossy(dice.pick::<&[u8]>(TOKENS)).into_owned();
    let boundaries: Vec<usize> = (0..=text.len())
        .filter(|at| text.is_char_boundary(*at))
        .collect();
    let at = *dice.pick(&boundaries);
    match dice.below(6) {
        0 => text.truncate(at),
        1 => *text = text.split_off(at),
        2 => text.clear(),
        3 => *text = text.repeat(2 + dice.below(20)),
        4 => *text = (*dice.pick(NAMES)).to_owned(),
        _ => text.insert_str(at, &token),
    }
}

fn scalar(dice: &mut Dice) -> Value {
    match dice.below(14) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(false),
        3 => json!(0),
        4 => json!(-1),
        5 => json!(u64::MAX),
        6 => json!(i64::MIN),
        7 => Number::from_f64(1e300).map_or(Value::Null, Value::Number),
        8 => json!(dice.below(300)),
        9 => json!({}),
        10 => json!([]),
        11 => json!(""),
        12 => json!(*dice.pick(NAMES)),
        _ => json!(String::from_utf8_lossy(dice.pick::<&[u8]>(TOKENS))),
    }
}

/// A node of another input.
fn donated(dice: &mut Dice, corpus: &[Vec<u8>]) -> Option<Value> {
    let other = dice.pick(corpus);
    let mut value = match serde_json::from_slice::<Value>(other) {
        Ok(value) => value,
        Err(_) => {
            let lines: Vec<&[u8]> = other.split(|byte| *byte == b'\n').collect();
            serde_json::from_slice(dice.pick(&lines).strip_prefix(b"data:")?).ok()?
        }
    };
    let mut at = dice.below(count(&value));
    nth(&mut value, &mut at).map(Value::take)
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// The node number `at`, parents first.
fn nth<'v>(value: &'v mut Value, at: &mut usize) -> Option<&'v mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|inner| nth(inner, at)),
        Value::Object(members) => members.values_mut().find_map(|inner| nth(inner, at)),
        _ => None,
    }
}

fn bytes(dice: &mut Dice, out: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    if out.is_empty() {
        out.extend_from_slice(dice.pick::<&[u8]>(TOKENS));
        return;
    }
    let at = dice.below(out.len());
    let end = (at + 1 + dice.below(40)).min(out.len());
    match dice.below(7) {
        0 => out[at] ^= 1 << dice.below(8),
        1 => out[at] = dice.below(256) as u8,
        2 => drop(out.drain(at..end)),
        3 => {
            let part = out[at..end].to_vec();
            out.splice(at..at, part);
        }
        4 => out.truncate(at),
        5 => {
            let other = dice.pick(corpus);
            let from = dice.below(other.len().max(1));
            out.splice(at.., other.get(from..).unwrap_or_default().iter().copied());
        }
        _ => {
            out.splice(at..at, dice.pick(TOKENS).iter().copied());
        }
    }
}
