//! What an answer that only passes by says of tokens.

use serde_json::Value;

use crate::chat::Usage;

/// The counters stand near the end of an answer, also in the last event of a stream.
const TAIL: usize = 4 * 1024;

/// The last bytes of an answer.
#[derive(Debug, Default)]
pub struct Tail(Vec<u8>);

impl Tail {
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(TAIL)..];
        let keep = TAIL - bytes.len();
        let from = self.0.len().saturating_sub(keep);
        self.0.drain(..from);
        self.0.extend_from_slice(bytes);
    }

    /// The last usage object in it, in any of the API's two spellings.
    pub fn usage(&self) -> Usage {
        const KEY: &[u8] = b"\"usage\"";
        let mut places = self.0.windows(KEY.len());
        let Some(at) = places.rposition(|window| window == KEY) else {
            return Usage::default();
        };
        let rest = self.0[at + KEY.len()..].trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b":") else {
            return Usage::default();
        };
        let object = serde_json::Deserializer::from_slice(rest)
            .into_iter::<Value>()
            .next();
        let Some(Ok(usage)) = object else {
            return Usage::default();
        };
        let count = |old: &str, new: &str| {
            let value = usage.get(old).or_else(|| usage.get(new))?;
            value.as_u64()
        };
        Usage {
            prompt: count("prompt_tokens", "input_tokens"),
            completion: count("completion_tokens", "output_tokens"),
            ..Usage::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_usage_counts_in_whatever_pieces_it_came() {
        let text = format!(
            "{}data: {{\"response\":{{\"usage\":null}}}}\n\ndata: {{\"response\":{{\"usage\": {{\"input_tokens\":3,\"output_tokens\":4}},\"x\":1}}}}\n\n",
            "x".repeat(9000)
        );
        for size in [1, 7, 5000, 20_000] {
            let mut tail = Tail::default();
            for piece in text.as_bytes().chunks(size) {
                tail.push(piece);
            }
            let usage = tail.usage();
            assert_eq!(
                (usage.prompt, usage.completion),
                (Some(3), Some(4)),
                "{size}"
            );
        }
        for none in [
            "",
            "\"usage\"",
            "\"usage\":",
            "\"usage\":nul",
            "\"usage\":7",
        ] {
            let mut tail = Tail::default();
            tail.push(none.as_bytes());
            assert_eq!(tail.usage(), Usage::default(), "{none}");
        }
    }
}
