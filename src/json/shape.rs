//! What a JSON text can become, told by one pass over its bytes: how many values it holds and how
//! deep they stand. Nothing is checked; text that is no JSON has a shape too.

use memchr::memchr2;

use crate::error::ApiError;

/// Objects and lists of more members are refused wherever they are taken apart: each member costs
/// ten times what its shortest form is long. (Lists of token numbers are passed on whole.)
pub const MOST_MEMBERS: usize = 160_000;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Objects, lists, and what is in them.
    pub values: usize,
    pub depth: usize,
}

impl Shape {
    pub fn of(json: &[u8]) -> Shape {
        let (mut commas, mut opened, mut deepest, mut depth) = (0, 0, 0, 0_usize);
        let mut at = 0;
        while let Some(&byte) = json.get(at) {
            at += 1;
            match byte {
                b'"' => at = end_of_string(json, at),
                b',' => commas += 1,
                b'{' | b'[' => {
                    opened += 1;
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        Shape {
            // One in each that is not empty, and one for each comma.
            values: commas + opened,
            depth: deepest,
        }
    }
}

/// The place behind the quote that ends the string in which `at` stands.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    loop {
        let rest = json.get(at..).unwrap_or_default();
        match memchr2(b'"', b'\\', rest) {
            None => return json.len(),
            Some(found) if rest[found] == b'"' => return at + found + 1,
            Some(found) => at += found + 2,
        }
    }
}

/// What a chat request may hold, checked before anything is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `max_body_values`.
    pub values: usize,
    /// `max_body_depth`.
    pub depth: usize,
    /// `max_messages`.
    pub messages: usize,
    /// `max_tools`.
    pub tools: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            values: 160_000,
            depth: 256,
            // Anthropic's own limit; that of the others is lower.
            messages: 100_000,
            // Vendors take 128 to 512.
            tools: 4_096,
        }
    }
}

impl Limits {
    pub fn check(&self, shape: Shape) -> Result<(), ApiError> {
        if shape.values > self.values {
            return Err(too_many(
                "the body",
                "JSON values",
                shape.values,
                self.values,
                "max_body_values",
            ));
        }
        if shape.depth > self.depth {
            let (depth, most) = (shape.depth, self.depth);
            let message = format!(
                "the body is nested {depth} levels deep; {most} are taken (max_body_depth)"
            );
            return Err(ApiError::new(400, message).with_code("request_too_complex"));
        }
        Ok(())
    }

    pub fn check_messages(&self, count: usize) -> Result<(), ApiError> {
        within("messages", count, self.messages, "max_messages")
    }

    /// What holds for messages, of a list with another name.
    pub fn check_items(&self, param: &str, count: usize) -> Result<(), ApiError> {
        within(param, count, self.messages, "max_messages")
    }

    pub fn check_tools(&self, param: &str, count: usize) -> Result<(), ApiError> {
        within(param, count, self.tools, "max_tools")
    }
}

fn within(param: &str, count: usize, most: usize, key: &str) -> Result<(), ApiError> {
    match count > most {
        true => Err(too_many(param, "entries", count, most, key).with_param(param)),
        false => Ok(()),
    }
}

fn too_many(holder: &str, what: &str, count: usize, most: usize, key: &str) -> ApiError {
    let message = format!("{holder} has {count} {what}; {most} are taken ({key})");
    ApiError::new(400, message).with_code("request_too_complex")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_depth_are_counted_outside_of_strings() {
        for (json, values, depth) in [
            ("", 0, 0),
            ("1", 0, 0),
            ("{}", 1, 1),
            ("[1,2,3]", 3, 1),
            (r#"{"a":{"b":[1]},"c":"x"}"#, 4, 3),
            (r#"{"a,{[":"}],\"{[,","b":"\\"}"#, 2, 1),
            (r#"["12345678901234567890,,[[","\\\",[","x]"]"#, 3, 1),
            ("}}}[", 1, 1),
            (r#"["open,,,,,"#, 1, 1),
            ("[\"\\", 1, 1),
        ] {
            assert_eq!(
                Shape::of(json.as_bytes()),
                Shape { values, depth },
                "{json}"
            );
        }
    }

    /// Wherever a quote or a backslash stands among the eight bytes that are looked at at once.
    #[test]
    fn strings_end_where_they_end() {
        for before in 0..20 {
            for inside in ["", "\\\"", "\\\\", "\\n", "\u{fc}"] {
                for after in 0..10 {
                    let text = format!(
                        "[\"{}{inside}{},\",[]]",
                        "x".repeat(before),
                        "[".repeat(after)
                    );
                    let expected = Shape {
                        values: 3,
                        depth: 2,
                    };
                    assert_eq!(Shape::of(text.as_bytes()), expected, "{text}");
                }
            }
        }
    }

    #[test]
    fn what_is_over_a_limit_is_refused_with_the_limit_and_its_key() {
        let limits = Limits {
            values: 10,
            depth: 3,
            messages: 2,
            tools: 1,
        };
        assert_eq!(limits.check(Shape::of(b"[1,2,3,4,5,6,7,8,9,10]")), Ok(()));
        let told = |error: Result<(), ApiError>| {
            let error = error.unwrap_err();
            assert_eq!(
                (error.status, error.code.as_deref()),
                (400, Some("request_too_complex"))
            );
            error.message
        };
        assert_eq!(
            told(limits.check(Shape::of(b"[1,2,3,4,5,6,7,8,9,10,11]"))),
            "the body has 11 JSON values; 10 are taken (max_body_values)"
        );
        assert_eq!(
            told(limits.check(Shape::of(b"[[[[]]]]"))),
            "the body is nested 4 levels deep; 3 are taken (max_body_depth)"
        );
        assert_eq!(
            told(limits.check_messages(3)),
            "messages has 3 entries; 2 are taken (max_messages)"
        );
        assert_eq!(limits.check_tools("tools", 1), Ok(()));
    }
}
