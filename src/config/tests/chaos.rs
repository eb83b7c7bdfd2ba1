//! Any text at all as a config: it is refused or taken, and nothing panics.

use super::*;

/// A small generator (xorshift), so that a failure can be had again from its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }
}

const WORDS: &[&str] = &[
    "gemini",
    "openai",
    "anthropic",
    "responses",
    "a",
    "b",
    "a/b",
    "gemini/x",
    "a/",
    "/",
    "*",
    "a*b",
    "",
    " ",
    "env:",
    "env:WEIR_KEY",
    "env:NONE",
    "env:TWO_LINES",
    "file:",
    "file:none",
    "file:.",
    "file:gemini2.key",
    "sha256:",
    "sha256:zz",
    "http://b",
    "http://[",
    "https://:1",
    "http://a:b@c",
    "127.0.0.1:1",
    "0.0.0.0:1",
    "[::1]:1",
    "unix:",
    "unix:/x",
    ":",
    "é",
    "\\u0000",
    "\\ud83d\\ude00",
    "\\n",
    "$KEY",
    "json",
    "text",
    "ca.pem",
];

/// JSON that leans towards the keys of the table, to get behind the first checks.
fn value(dice: &mut Dice, depth: usize, out: &mut String) {
    match dice.roll(if depth == 0 { 5 } else { 9 }) {
        0 => out.push_str(dice.pick(&["null", "true", "false"])),
        1 => out.push_str(dice.pick(&[
            "0",
            "1",
            "-1",
            "1.5",
            "1e3",
            "1e400",
            "18446744073709551616",
            "64",
            "-0",
        ])),
        2..=4 => {
            out.push('"');
            out.push_str(dice.pick(WORDS));
            out.push('"');
        }
        5 | 6 => {
            out.push('[');
            for at in 0..dice.roll(4) {
                out.push_str(if at > 0 { "," } else { "" });
                value(dice, depth - 1, out);
            }
            out.push(']');
        }
        _ => object(dice, depth - 1, out),
    }
}

fn object(dice: &mut Dice, depth: usize, out: &mut String) {
    out.push('{');
    for at in 0..dice.roll(8) {
        out.push_str(if at > 0 { "," } else { "" });
        let name = match dice.roll(4) {
            0 => dice.pick(WORDS),
            _ => table::SETTINGS[dice.roll(table::SETTINGS.len())].name,
        };
        out.push_str(&format!("\"{name}\":"));
        // The shapes that the name asks for, more often than not.
        match (name, dice.roll(4)) {
            ("upstreams" | "client_keys", 1..) => {
                out.push('[');
                object(dice, depth.saturating_sub(1), out);
                out.push(',');
                object(dice, depth.saturating_sub(1), out);
                out.push(']');
            }
            ("models" | "headers", 1..) => object(dice, depth.saturating_sub(1), out),
            _ => value(dice, depth, out),
        }
    }
    out.push('}');
}

pub fn survive(text: &str) {
    let (config, findings) = read(text, None);
    // Whatever was read can be shown and routed.
    let _ = format!("{findings} {config:?}");
    let loaded = Loaded {
        config,
        origin: Origin::Demo,
    };
    let _ = check(&loaded);
}

#[test]
fn arbitrary_json_never_panics() {
    for seed in 1..=3_000 {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let mut text = String::new();
        object(&mut dice, 4, &mut text);
        survive(&text);
    }
}

#[test]
fn a_config_with_a_value_exchanged_never_panics() {
    let parts: Vec<&str> = EXAMPLE.split_inclusive([':', ',', '[', '{']).collect();
    for seed in 1..=2_000 {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let at = dice.roll(parts.len());
        let mut text: String = parts[..at].concat();
        value(&mut dice, 2, &mut text);
        text.push_str(dice.pick(&["", ",", ":", "}", "]"]));
        text.push_str(&parts[at + dice.roll(2).min(parts.len() - at)..].concat());
        survive(&text);
    }
}

#[test]
fn a_config_cut_anywhere_is_refused() {
    for end in 0..EXAMPLE.len() {
        if EXAMPLE.is_char_boundary(end) {
            assert!(!read(&EXAMPLE[..end], None).1.is_empty(), "{end}");
        }
    }
    for deep in ["[", "{\"a\":", "{\"upstreams\":["] {
        survive(&deep.repeat(100_000));
    }
}
