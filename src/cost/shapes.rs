//! Bodies of every kind of which a caller can send much: one table, for the tests of work and of
//! memory. Each is made as long as it is asked for.

pub struct Shape {
    pub name: &'static str,
    pub make: fn(usize) -> String,
}

/// `item`s with commas between them, about `bytes` of them.
fn many(bytes: usize, item: impl Fn(usize) -> String) -> String {
    let mut out = String::with_capacity(bytes + 256);
    let mut count = 0;
    while out.len() < bytes {
        if count > 0 {
            out.push(',');
        }
        out.push_str(&item(count));
        count += 1;
    }
    out
}

/// How many of `item` make about `bytes`.
fn count(bytes: usize, item: usize) -> usize {
    (bytes / item).max(1)
}

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

fn with_messages(messages: &str) -> String {
    format!(r#"{{"model":"m","messages":[{messages}]}}"#)
}

fn messages(bytes: usize, item: impl Fn(usize) -> String) -> String {
    with_messages(&many(bytes, item))
}

const HELLO: &str = r#"{"role":"user","content":"x"}"#;

/// A request with something beside its one message.
fn beside(rest: &str) -> String {
    format!(r#"{{"model":"m","messages":[{HELLO}],{rest}}}"#)
}

fn parts(bytes: usize, role: &str, item: impl Fn(usize) -> String) -> String {
    let parts = many(bytes, item);
    with_messages(&format!(
        r#"{HELLO},{{"role":"{role}","content":[{parts}]}},{HELLO}"#
    ))
}

fn call(id: &str, name: &str, arguments: &str) -> String {
    format!(
        r#"{{"id":"{id}","type":"function","function":{{"name":"{name}","arguments":"{arguments}"}}}}"#
    )
}

fn result(id: &str) -> String {
    format!(r#"{{"role":"tool","tool_call_id":"{id}","content":"r"}}"#)
}

/// One turn of calls with these ids, and results for those.
fn turn(calls: &[String], results: &[String]) -> String {
    let calls: Vec<String> = calls.iter().map(|id| call(id, "f", "{}")).collect();
    let results: Vec<String> = results.iter().map(|id| result(id)).collect();
    let calls = calls.join(",");
    let mut all = format!(r#"{HELLO},{{"role":"assistant","tool_calls":[{calls}]}}"#);
    for result in results {
        all.push(',');
        all.push_str(&result);
    }
    with_messages(&all)
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("c{n}")).collect()
}

fn tools(bytes: usize, item: impl Fn(usize) -> String) -> String {
    beside(&format!(r#""tools":[{}]"#, many(bytes, item)))
}

fn named(name: &str) -> String {
    format!(r#"{{"type":"function","function":{{"name":"{name}"}}}}"#)
}

/// Names that differ, and are alike once what no vendor takes is replaced.
fn alike(n: usize) -> String {
    const LETTERS: [char; 8] = ['ä', 'ö', 'ü', 'é', 'è', 'ñ', 'ç', 'å'];
    (0..7).map(|digit| LETTERS[n >> (3 * digit) & 7]).collect()
}

fn schema(parameters: &str) -> String {
    beside(&format!(
        r#""tools":[{{"type":"function","function":{{"name":"f","parameters":{parameters}}}}}]"#
    ))
}

fn strict(schema: &str) -> String {
    beside(&format!(
        r#""response_format":{{"type":"json_schema","json_schema":{{"name":"s","strict":true,"schema":{schema}}}}}"#
    ))
}

/// Both, in an `allOf` with a word beside it, so that it is looked into.
fn merged(key: &str, branches: &str, defs: &str) -> String {
    format!(r#"{{"type":"object","{key}":[{branches}],"$defs":{{{defs}}}}}"#)
}

fn wide(bytes: usize) -> String {
    let properties = many(bytes, |n| {
        format!(r#""p{n}":{{"type":"string","minLength":1}}"#)
    });
    format!(r#"{{"type":"object","anyOf":[{{"properties":{{{properties}}}}}],"properties":{{}}}}"#)
}

fn closed(bytes: usize) -> String {
    let properties = many(bytes, |n| {
        format!(r#""p{n}":{{"type":"string","minLength":1}}"#)
    });
    format!(r#"{{"type":"object","properties":{{{properties}}},"additionalProperties":false}}"#)
}

fn required(bytes: usize) -> String {
    let names = |word: &str| many(bytes / 2, |n| format!(r#""{word}{n}""#));
    let branch = |word: &str| format!(r#"{{"properties":{{}},"required":[{}]}}"#, names(word));
    format!("{},{}", branch("a"), branch("b"))
}

fn extra(provider: &str, inside: &str) -> String {
    beside(&format!(r#""extra_body":{{"{provider}":{{{inside}}}}}"#))
}

fn members(bytes: usize) -> String {
    many(bytes, |n| format!(r#""k{n}":{n}"#))
}

macro_rules! shapes {
    ($($name:literal => $make:expr,)*) => {
        &[$(Shape { name: $name, make: $make },)*]
    };
}

pub static SHAPES: &[Shape] = shapes! {
    "one long text" => |n| with_messages(&format!(r#"{{"role":"user","content":"{}"}}"#, "word ".repeat(count(n, 5)))),
    "one text of escapes" => |n| with_messages(&format!(r#"{{"role":"user","content":"{}"}}"#, r"\n\u00e9\\".repeat(count(n, 10)))),
    "one text that is not ASCII" => |n| with_messages(&format!(r#"{{"role":"user","content":"{}"}}"#, "gr\u{fc}\u{df}e ".repeat(count(n, 9)))),
    "messages of one letter" => |n| messages(n, |_| HELLO.into()),
    "messages of both sides" => |n| messages(n, |i| format!(r#"{{"role":"{}","content":"x"}}"#, ["user", "assistant"][i % 2])),
    "system messages" => |n| messages(n, |_| r#"{"role":"system","content":"x"}"#.into()),
    "system messages in between" => |n| messages(n, |i| format!(r#"{{"role":"{}","content":"x"}}"#, if i < 2 { ["user", "assistant"][i] } else { "system" })),
    "developer messages" => |n| messages(n, |i| format!(r#"{{"role":"{}","content":"x"}}"#, ["user", "developer"][i % 2])),
    "assistants that say nothing" => |n| messages(n, |i| format!(r#"{{"role":"{}","content":""}}"#, ["system", "assistant"][i % 2])),
    "assistants in a row" => |n| messages(n, |_| r#"{"role":"assistant","content":"x"}"#.into()),
    "parts of text" => |n| parts(n, "user", |_| r#"{"type":"text","text":"x"}"#.into()),
    "parts of blank text" => |n| parts(n, "user", |_| r#"{"type":"text","text":" "}"#.into()),
    "parts of an assistant" => |n| parts(n, "assistant", |_| r#"{"type":"text","text":"x"}"#.into()),
    "thinking parts" => |n| parts(n, "assistant", |_| r#"{"type":"thinking","thinking":[{"type":"text","text":"x"}]}"#.into()),
    "refusals" => |n| parts(n, "assistant", |_| r#"{"type":"refusal","refusal":"x"}"#.into()),
    "images" => |n| parts(n, "user", |_| r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="}}"#.into()),
    "images elsewhere" => |n| parts(n, "user", |i| format!(r#"{{"type":"image_url","image_url":"https://x.example/{i}.png"}}"#)),
    "one long image" => |n| parts(n, "user", |_| format!(r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,iVBORw0KGgo{}"}}}}"#, "AAAA".repeat(count(n, 4)))),
    "one long text file" => |n| parts(n, "user", |_| format!(r#"{{"type":"file","file":{{"filename":"a.txt","file_data":"data:text/plain;base64,{}"}}}}"#, "YWFh".repeat(count(n, 4)))),
    "cache marks" => |n| parts(n, "user", |_| r#"{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}"#.into()),
    "reasoning" => |n| messages(n, |i| format!(r#"{{"role":"{}","content":"x","reasoning_content":"y"}}"#, ["user", "assistant"][i % 2])),
    "thinking blocks" => |n| with_messages(&format!(r#"{HELLO},{{"role":"assistant","content":"x","thinking_blocks":[{}]}},{HELLO}"#, many(n, |_| r#"{"type":"thinking","thinking":"x","signature":"s"}"#.into()))),
    "a layout" => |n| with_messages(&format!(r#"{HELLO},{{"role":"assistant","content":"x","extra_content":{{"anthropic":{{"thinking_blocks":[],"layout":[["text",1],{}]}}}}}},{HELLO}"#, many(n, |_| r#"["text",0]"#.into()))),
    "reasoning items" => |n| with_messages(&format!(r#"{HELLO},{{"role":"assistant","content":"x","extra_content":{{"openai":{{"reasoning_items":[{}]}}}}}},{HELLO}"#, many(n, |_| r#"{"type":"reasoning","encrypted_content":"x"}"#.into()))),
    "calls with results" => |n| turn(&ids(count(n, 130)), &ids(count(n, 130))),
    "calls with results in reverse" => |n| turn(&ids(count(n, 130)), &ids(count(n, 130)).into_iter().rev().collect::<Vec<_>>()),
    "calls that share an id" => |n| turn(&vec!["c".into(); count(n, 120)], &vec!["c".into(); count(n, 120)]),
    "calls that share an id and one long result" => |n| turn(&vec!["c".into(); count(n / 2, 70)], &["c".into()]).replace(r#""content":"r""#, &format!(r#""content":"{}""#, "x".repeat(n / 2))),
    "calls without results" => |n| turn(&ids(count(n, 75)), &[]),
    "calls in many turns that share an id" => |n| messages(n, |i| if i % 2 == 0 { format!(r#"{{"role":"assistant","tool_calls":[{}]}}"#, call("c", "f", "{}")) } else { result("c") }),
    "results without calls" => |n| turn(&[], &ids(count(n, 60))).replace(r#""tool_calls":[]"#, r#""content":"x""#),
    "results for one call" => |n| turn(&ids(1), &vec!["c0".into(); count(n, 60)]),
    "calls by names that have to be changed" => |n| with_messages(&format!(r#"{HELLO},{{"role":"assistant","tool_calls":[{}]}}"#, many(n, |i| call(&format!("c{i}"), &alike(i), "{}")))),
    "ids that have to be changed" => |n| with_messages(&format!(r#"{HELLO},{{"role":"assistant","tool_calls":[{}]}}"#, many(n, |i| call(&alike(i), "f", "{}")))),
    "calls in the older form" => |n| messages(n, |i| match i % 2 { 0 => r#"{"role":"assistant","function_call":{"name":"f","arguments":"{}"}}"#.into(), _ => r#"{"role":"function","name":"f","content":"r"}"#.into() }),
    "results in the older form" => |n| messages(n, |_| r#"{"role":"function","name":"f","content":"r"}"#.into()),
    "long arguments" => |n| with_messages(&format!(r#"{HELLO},{{"role":"assistant","tool_calls":[{}]}}"#, call("c", "f", &format!(r#"{{\"a\":[{}]}}"#, many(n, |_| "1".into()))))),
    "arguments that are no JSON" => |n| with_messages(&format!(r#"{HELLO},{{"role":"assistant","tool_calls":[{}]}}"#, many(n, |i| call(&format!("c{i}"), "f", "{oops")))),
    "custom calls" => |n| with_messages(&format!(r#"{HELLO},{{"role":"assistant","tool_calls":[{}]}}"#, many(n, |i| format!(r#"{{"id":"c{i}","type":"custom","custom":{{"name":"f","input":"x"}}}}"#)))),
    "tools" => |n| tools(n, |i| named(&format!("t{i}"))),
    "tools of one name" => |n| tools(n, |_| named("t")),
    "tools whose names have to be changed" => |n| tools(n, |i| named(&alike(i))),
    "tools whose names look numbered" => |n| tools(n, |i| named(&format!("a{}_{i}", ["_", "."][i % 2]))),
    "tools whose names are too long" => |n| tools(n, |i| named(&format!("{}{i}", "x".repeat(140)))),
    "tools with small schemas" => |n| tools(n, |i| format!(r#"{{"type":"function","function":{{"name":"t{i}","description":"d","parameters":{{"type":"object","properties":{{"a":{{"type":"string"}}}},"required":["a"]}}}}}}"#)),
    "custom tools" => |n| tools(n, |i| format!(r#"{{"type":"custom","custom":{{"name":"t{i}","format":{{"type":"grammar","grammar":{{"syntax":"lark","definition":"x"}}}}}}}}"#)),
    "tools of the vendor" => |n| tools(n, |i| format!(r#"{{"type":"bash_20250124","name":"t{i}"}}"#)),
    "functions" => |n| beside(&format!(r#""functions":[{}]"#, many(n, |i| format!(r#"{{"name":"t{i}"}}"#)))),
    "allowed tools" => |n| { let k = count(n, 110); beside(&format!(r#""tools":[{}],"tool_choice":{{"type":"allowed_tools","allowed_tools":{{"mode":"auto","tools":[{}]}}}}"#, list(k, |i| named(&format!("t{i}"))), list(k, |i| named(&format!("t{i}"))))) },
    "a wide schema" => |n| schema(&wide(n)),
    "a wide schema as the answer's" => |n| strict(&closed(n)),
    "a schema with a long enum" => |n| schema(&format!(r#"{{"type":"object","anyOf":[{{"properties":{{"a":{{"enum":[{}]}}}}}}]}}"#, many(n, |i| format!("\"{i}\"")))),
    "a schema of many branches" => |n| schema(&merged("anyOf", &many(n, |i| format!(r#"{{"properties":{{"a{i}":{{}}}},"required":["a{i}"]}}"#)), "")),
    "a schema that is the sum of many" => |n| schema(&merged("allOf", &many(n, |i| format!(r#"{{"properties":{{"a{i}":{{}}}},"required":["a{i}"]}}"#)), "")),
    "a schema of many words on one property" => |n| schema(&merged("anyOf", &many(n, |i| format!(r#"{{"properties":{{"a":{{"const":"{i}"}}}}}}"#)), "")),
    "required by two branches" => |n| schema(&merged("allOf", &required(n), "")),
    "required by either of two branches" => |n| schema(&merged("anyOf", &required(n), "")),
    "required by two branches as the answer's" => |n| strict(&merged("allOf", &required(n), "")),
    "one long definition, referred to often" => |n| schema(&merged("allOf", &many(n / 2, |_| r##"{"$ref":"#/$defs/d"}"##.into()), &format!(r#""d":{{"properties":{{{}}}}}"#, many(n / 2, |i| format!(r#""p{i}":{{}}"#))))),
    "definitions that refer to each other" => |n| strict(&format!(r##"{{"type":"object","properties":{{"a":{{"$ref":"#/$defs/d0"}}}},"additionalProperties":false,"$defs":{{"d":{{"type":"string"}},{}}}}}"##, many(n, |i| format!(r##""d{i}":{{"type":"array","items":{{"$ref":"#/$defs/d"}}}}"##)))),
    "definitions by their older name" => |n| schema(&format!(r##"{{"type":"object","properties":{{"a":{{"$ref":"#/definitions/d0"}}}},"definitions":{{{}}}}}"##, many(n, |i| format!(r##""d{i}":{{"$ref":"#/definitions/d0"}}"##)))),
    "properties that nothing satisfies" => |n| schema(&format!(r#"{{"type":"object","anyOf":[{{}}],"properties":{{{}}},"required":[{}]}}"#, many(n / 2, |i| format!(r#""p{i}":false"#)), many(n / 2, |i| format!(r#""p{i}""#)))),
    "unknown members" => |n| beside(&members(n)),
    "members without a name" => |n| beside(&many(n, |_| r#""":0"#.into())),
    "doubled messages" => |n| beside(&many(n, |_| format!(r#""messages":[{}]"#, HELLO.replace("user", "developer")))),
    "stops" => |n| beside(&format!(r#""stop":[{}]"#, many(n, |_| r#""x""#.into()))),
    "modalities" => |n| beside(&format!(r#""modalities":[{}]"#, many(n, |_| r#""text""#.into()))),
    "metadata" => |n| beside(&format!(r#""metadata":{{{}}}"#, many(n, |i| format!(r#""k{i}":"v""#)))),
    "logit bias" => |n| beside(&format!(r#""logit_bias":{{{}}}"#, many(n, |i| format!(r#""{i}":1"#)))),
    "extra_body of OpenAI" => |n| extra("openai", &members(n)),
    "extra_body of OpenAI, over members" => |n| format!(r#"{{"model":"m","messages":[{HELLO}],{},"extra_body":{{"openai":{{{}}}}}}}"#, members(n / 2), members(n / 2)),
    "extra_body of OpenAI, one member often" => |n| extra("openai", &many(n, |i| format!(r#""metadata":{{"k{i}":1}}"#))),
    "extra_body of Claude" => |n| extra("anthropic", &members(n)),
    "extra_body of Gemini" => |n| extra("google", &members(n)),
    "extra_body of Gemini, its older names" => |n| extra("google", &format!(r#""thinking_config":{{{}}}"#, members(n))),
    "extra_body of nobody" => |n| extra("other", &members(n)),
};
