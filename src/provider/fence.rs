//! Takes a Markdown fence off an answer that was to be JSON and nothing else.
//!
//! Models that are asked for JSON in words like to wrap it. The first line is held back while it
//! could still open a fence, and then whatever could be the fence's end.

/// A first line longer than this opens no fence.
const OPENING_LIMIT: usize = 64;

/// So much white space and so many backticks at a possible end are held back.
const ENDING_LIMIT: usize = 4096;

#[derive(Debug, Default, Clone)]
pub struct Fence {
    state: State,
    held: String,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum State {
    /// Nothing was let through yet.
    #[default]
    Opening,
    /// Behind an opening fence.
    Inside,
    /// There is no fence.
    Open,
}

impl Fence {
    /// Takes a piece of text; lets through what can be told.
    pub fn push(&mut self, text: &str, mut pass: impl FnMut(&str)) {
        match self.state {
            State::Open => pass(text),
            State::Inside => self.inside(text, &mut pass),
            State::Opening => {
                self.held.push_str(text);
                self.open(&mut pass);
            }
        }
    }

    /// The text is over.
    pub fn end(&mut self, mut pass: impl FnMut(&str)) {
        let held = std::mem::take(&mut self.held);
        let rest = match self.state {
            // The last thing inside the fence is its end, and the line break before it.
            State::Inside => match held.find("```") {
                Some(at) => held[..at].trim_end(),
                None => &held,
            },
            _ => &held,
        };
        if !rest.is_empty() {
            pass(rest);
        }
        self.state = State::Open;
    }

    fn open(&mut self, pass: &mut impl FnMut(&str)) {
        const MARK: &str = "```";
        let line = self.held.trim_start();
        let could_be = line.starts_with(MARK) || MARK.starts_with(line);
        if could_be && let Some(end) = line.find('\n') {
            let label = line[MARK.len().min(end)..end].trim_end();
            let is_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+.".contains(&byte);
            if line.starts_with(MARK) && label.bytes().all(is_label) {
                let rest = line[end + 1..].to_owned();
                self.held.clear();
                self.state = State::Inside;
                self.inside(&rest, pass);
                return;
            }
        } else if could_be && self.held.len() <= OPENING_LIMIT {
            return;
        }
        self.state = State::Open;
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            pass(&held);
        }
    }

    fn inside(&mut self, text: &str, pass: &mut impl FnMut(&str)) {
        self.held.push_str(text);
        let kept = self
            .held
            .trim_end_matches(|c: char| c == '`' || c.is_ascii_whitespace())
            .len();
        let at = if self.held.len() - kept > ENDING_LIMIT {
            self.held.len()
        } else {
            kept
        };
        if at > 0 {
            pass(&self.held[..at]);
            self.held.drain(..at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        for size in 1..=text.len().max(1) {
            let mut fence = Fence::default();
            let mut seen = String::new();
            let chars: Vec<char> = text.chars().collect();
            for piece in chars.chunks(size) {
                let piece: String = piece.iter().collect();
                fence.push(&piece, |text| seen.push_str(text));
            }
            fence.end(|text| seen.push_str(text));
            assert_eq!(seen, expected, "{text:?} in pieces of {size}");
        }
    }

    #[test]
    fn fences_go_and_everything_else_stays() {
        check("```json\n{\"a\":1}\n```", "{\"a\":1}");
        check("```\n{}\n```\n", "{}");
        check("\n  ```JSON \r\n[1]\n``` \n", "[1]");
        check("{\"a\":\"```\"}", "{\"a\":\"```\"}");
        check("```json\n{\"a\":\"x ``` y\"}\n```", "{\"a\":\"x ``` y\"}");
        check("```json\n{\"a\": 1", "{\"a\": 1");
        check("``", "``");
        check("", "");
        check("  ", "  ");
        check("`{}`", "`{}`");
        check("``` not a label\n{}", "``` not a label\n{}");
        check("Here:\n```json\n{}\n```", "Here:\n```json\n{}\n```");
        check("```json\n{\u{fc}}\n```", "{\u{fc}}");
        check("```json\n{\"a\":\"x ``` y\"}", "{\"a\":\"x ``` y\"}");
        check("\u{fc}```", "\u{fc}```");
    }

    #[test]
    fn nothing_is_held_for_ever() {
        let mut fence = Fence::default();
        let mut seen = 0;
        fence.push(&"`".repeat(OPENING_LIMIT + 1), |text| seen += text.len());
        assert_eq!(seen, OPENING_LIMIT + 1);
        let mut fence = Fence::default();
        fence.push("```\n", |_| panic!("held"));
        let mut seen = 0;
        fence.push(&" ".repeat(ENDING_LIMIT + 1), |text| seen += text.len());
        assert_eq!(seen, ENDING_LIMIT + 1);
    }
}
