//! Takes the Markdown fence off an answer that was asked in words to be JSON.

/// How long a first line may be and still be a fence with a language name.
const FENCE_LINE: usize = 32;

/// How much white space and back-ticks is held back as a possible end.
const HELD: usize = 256;

/// Between two pieces it holds what may still turn out to be part of a fence, never more than a
/// few hundred bytes.
#[derive(Debug)]
pub struct Fence {
    state: State,
    held: String,
}

#[derive(Debug, PartialEq)]
enum State {
    /// Nothing but white space and the beginning of a fence so far.
    Start,
    Inside,
    /// The answer has no fence; everything passes.
    Plain,
}

impl Fence {
    pub fn new() -> Self {
        Fence {
            state: State::Start,
            held: String::new(),
        }
    }

    /// Takes the next piece and gives what is sure to be content.
    pub fn feed(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        if self.state == State::Start {
            self.start();
        }
        match self.state {
            State::Start => String::new(),
            State::Plain => std::mem::take(&mut self.held),
            State::Inside => {
                let sure = self
                    .held
                    .trim_end_matches(|c: char| c.is_whitespace() || c == '`')
                    .len();
                let sure = if self.held.len() - sure > HELD {
                    self.held.len()
                } else {
                    sure
                };
                self.held.drain(..sure).collect()
            }
        }
    }

    /// The answer is over: what was held back, unless it is the closing fence.
    pub fn finish(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        if self.state == State::Inside && held.trim() == "```" {
            return String::new();
        }
        held
    }

    /// Decides whether the answer begins with a fence, once that can be told.
    fn start(&mut self) {
        let text = self.held.trim_start();
        if text.is_empty() && self.held.len() <= HELD {
            return;
        }
        let Some(rest) = text.strip_prefix("```") else {
            if !"```".starts_with(text) || text.is_empty() {
                self.state = State::Plain;
            }
            return;
        };
        let line = rest.find('\n').map_or(rest, |end| &rest[..end]);
        let names_a_language = line
            .trim()
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '.'));
        if !names_a_language || line.len() > FENCE_LINE {
            self.state = State::Plain;
        } else if line.len() < rest.len() {
            let content = rest[line.len() + 1..].to_owned();
            self.held = content;
            self.state = State::Inside;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        for cut in (0..=text.len()).filter(|&cut| text.is_char_boundary(cut)) {
            let mut fence = Fence::new();
            let (a, b) = text.split_at(cut);
            let seen = fence.feed(a) + &fence.feed(b) + &fence.finish();
            assert_eq!(seen, expected, "{text:?} cut at {cut}");
        }
        let mut fence = Fence::new();
        let mut seen: String = text
            .chars()
            .map(|c| fence.feed(c.encode_utf8(&mut [0; 4])))
            .collect();
        seen += &fence.finish();
        assert_eq!(seen, expected, "{text:?} letter by letter");
    }

    #[test]
    fn only_a_fence_around_the_whole_answer_goes() {
        check("```json\n{\"a\":1}\n```", "{\"a\":1}");
        check(" \n```\n{}\n```\n", "{}");
        check("{\"a\":\"```\"}", "{\"a\":\"```\"}");
        check("```json\n{\"a\":\"x ``` y\"}", "{\"a\":\"x ``` y\"}");
        check("``` not a fence\nx", "``` not a fence\nx");
        check("``", "``");
        check("", "");
        check("\u{fc}```", "\u{fc}```");
    }

    #[test]
    fn little_is_held() {
        let mut fence = Fence::new();
        assert_eq!(
            fence.feed("```\nx").len() + fence.feed(&" ".repeat(9000)).len(),
            9001
        );
        let mut fence = Fence::new();
        assert_eq!(fence.feed(&" ".repeat(9000)).len(), 9000);
    }
}
