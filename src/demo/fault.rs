//! The misbehaviour that a model name asks for.

/// How an answer goes wrong, or is made special.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    SlowFirstByte,
    Stall,
    Cut,
    Status(u16),
    Tools,
    Json,
    Long,
}

const WORDS: &[(&str, Fault)] = &[
    ("slow-first-byte", Fault::SlowFirstByte),
    ("stall", Fault::Stall),
    ("cut", Fault::Cut),
    ("tools", Fault::Tools),
    ("json", Fault::Json),
    ("long", Fault::Long),
];

impl Fault {
    /// `demo/stall`, `stall` and `gpt-5-stall` are all the same wish.
    pub fn of_model(model: &str) -> Option<Fault> {
        for (word, fault) in WORDS {
            let Some(before) = model.strip_suffix(word) else {
                continue;
            };
            if before.is_empty() || before.ends_with(['-', '/']) {
                return Some(*fault);
            }
        }
        let last = model.rsplit(['-', '/']).next()?;
        match last.parse() {
            Ok(status @ 400..=599) if last.len() == 3 => Some(Fault::Status(status)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_the_last_word_of_a_name() {
        for (model, fault) in [
            ("stall", Some(Fault::Stall)),
            ("demo/stall", Some(Fault::Stall)),
            (
                "gemini-2.5-flash-slow-first-byte",
                Some(Fault::SlowFirstByte),
            ),
            ("gpt-5-429", Some(Fault::Status(429))),
            ("500", Some(Fault::Status(500))),
            ("demo/json", Some(Fault::Json)),
            ("gpt-5", None),
            ("install", None),
            ("model-0429", None),
            ("claude-opus-4-1-20250805", None),
            ("x-200", None),
            ("", None),
        ] {
            assert_eq!(Fault::of_model(model), fault, "{model}");
        }
    }
}
