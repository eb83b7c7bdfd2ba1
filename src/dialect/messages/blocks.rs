//! The order of an answer's blocks, of which one is open at a time.
//!
//! Upstreams may begin a call before the arguments of the one before have ended. What comes while a
//! call is open and not complete waits for it.

use std::collections::VecDeque;

use crate::json::{push_carried, push_key, push_string};

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// That the model will not answer, where a dialect tells it apart from text.
    Refusal,
    Thinking,
    Call,
}

/// Takes blocks in their order.
pub trait Holder {
    fn open(&mut self, kind: Kind, id: &str, name: &str);

    /// More of the open block.
    fn more(&mut self, kind: Kind, text: &str);

    /// What authenticates the open block, which is one of thinking.
    fn seal(&mut self, seal: &str);

    fn close(&mut self);
}

/// One block that waits, or that is held for an answer in one piece.
#[derive(Debug)]
pub struct Block {
    kind: Kind,
    index: u32,
    id: String,
    name: String,
    pub text: String,
    pub seal: String,
}

impl Block {
    pub fn new(kind: Kind, id: &str, name: &str) -> Block {
        Block {
            kind,
            index: 0,
            id: id.to_owned(),
            name: name.to_owned(),
            text: String::new(),
            seal: String::new(),
        }
    }

    /// About what it takes.
    fn weight(&self) -> usize {
        size_of::<Block>() + self.id.len() + self.name.len() + self.text.len() + self.seal.len()
    }

    pub fn push(&self, out: &mut Vec<u8>) {
        match self.kind {
            Kind::Text | Kind::Refusal => {
                out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
                push_string(out, &self.text);
            }
            Kind::Thinking => {
                out.extend_from_slice(b"{\"type\":\"thinking\",\"thinking\":");
                push_string(out, &self.text);
                push_key(out, b',', "signature");
                push_string(out, &self.seal);
            }
            Kind::Call => {
                out.extend_from_slice(b"{\"type\":\"tool_use\",\"id\":");
                push_string(out, &self.id);
                push_key(out, b',', "name");
                push_string(out, &self.name);
                push_key(out, b',', "input");
                self.push_input(out);
            }
        }
        out.push(b'}');
    }

    /// The arguments, which have to be an object here. A text that is none is told as what it is.
    fn push_input(&self, out: &mut Vec<u8>) {
        let text = self.text.trim();
        if text.is_empty() {
            out.extend_from_slice(b"{}");
        } else if text.starts_with('{') && is_json(text) {
            push_carried(out, text);
        } else {
            push_key(out, b'{', "arguments");
            push_string(out, text);
            out.push(b'}');
        }
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Which block is open, and what waits for its end.
#[derive(Debug, Default)]
pub struct Blocks {
    open: Option<Open>,
    waiting: VecDeque<Block>,
    /// What those take.
    held: usize,
    calls: usize,
}

#[derive(Debug)]
struct Open {
    kind: Kind,
    index: u32,
    sealed: bool,
    object: Nesting,
}

impl Open {
    /// Nothing of it can come any more.
    fn is_done(&self) -> bool {
        self.kind != Kind::Call || self.object.is_whole()
    }
}

impl Blocks {
    /// About how many bytes wait.
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many calls there were.
    pub fn next_call(&self) -> usize {
        self.calls
    }

    /// The last block, if something can be added to it.
    fn waits(&mut self) -> bool {
        !self.waiting.is_empty() || self.open.as_ref().is_some_and(|open| !open.is_done())
    }

    fn close(&mut self, out: &mut dyn Holder) {
        if self.open.take().is_some() {
            out.close();
        }
    }

    fn begin(&mut self, block: &Block, out: &mut dyn Holder) {
        self.close(out);
        out.open(block.kind, &block.id, &block.name);
        let mut object = Nesting::default();
        if block.kind == Kind::Call {
            object.take(&block.text);
        }
        if !block.text.is_empty() {
            out.more(block.kind, &block.text);
        }
        if !block.seal.is_empty() {
            out.seal(&block.seal);
        }
        self.open = Some(Open {
            kind: block.kind,
            index: block.index,
            sealed: !block.seal.is_empty(),
            object,
        });
    }

    fn wait(&mut self, block: Block) {
        self.held += block.weight();
        self.waiting.push_back(block);
    }

    /// Text, or readable thoughts.
    pub fn text(&mut self, kind: Kind, text: &str, out: &mut dyn Holder) {
        if text.is_empty() {
            return;
        }
        if self.waits() {
            match self.waiting.back_mut() {
                Some(last) if last.kind == kind && last.seal.is_empty() => {
                    last.text.push_str(text);
                    self.held += text.len();
                }
                _ => {
                    let mut block = Block::new(kind, "", "");
                    text.clone_into(&mut block.text);
                    self.wait(block);
                }
            }
            return;
        }
        match &self.open {
            Some(open) if open.kind == kind && !open.sealed => out.more(kind, text),
            _ => {
                let mut block = Block::new(kind, "", "");
                text.clone_into(&mut block.text);
                self.begin(&block, out);
            }
        }
    }

    /// What authenticates the thoughts before it, or what has none to stand with.
    pub fn seal(&mut self, seal: &str, out: &mut dyn Holder) {
        if self.waits() {
            match self.waiting.back_mut() {
                Some(last) if last.kind == Kind::Thinking && last.seal.is_empty() => {
                    seal.clone_into(&mut last.seal);
                    self.held += seal.len();
                }
                _ => {
                    let mut block = Block::new(Kind::Thinking, "", "");
                    seal.clone_into(&mut block.seal);
                    self.wait(block);
                }
            }
            return;
        }
        match &mut self.open {
            Some(open) if open.kind == Kind::Thinking && !open.sealed => {
                open.sealed = true;
                out.seal(seal);
            }
            _ => {
                let mut block = Block::new(Kind::Thinking, "", "");
                seal.clone_into(&mut block.seal);
                self.begin(&block, out);
            }
        }
    }

    pub fn call(&mut self, index: u32, id: &str, name: &str, out: &mut dyn Holder) {
        self.calls += 1;
        let mut block = Block::new(Kind::Call, id, name);
        block.index = index;
        match self.waits() {
            true => self.wait(block),
            false => self.begin(&block, out),
        }
    }

    pub fn arguments(&mut self, index: u32, fragment: &str, out: &mut dyn Holder) {
        if let Some(open) = &mut self.open
            && open.kind == Kind::Call
            && open.index == index
        {
            open.object.take(fragment);
            out.more(Kind::Call, fragment);
            while let Some(next) = self.next() {
                self.begin(&next, out);
            }
            return;
        }
        let mut calls = self.waiting.iter_mut().rev();
        let call = calls.find(|block| block.kind == Kind::Call && block.index == index);
        if let Some(call) = call {
            call.text.push_str(fragment);
            self.held += fragment.len();
        }
    }

    /// The next block that waits, once nothing is to be waited for.
    fn next(&mut self) -> Option<Block> {
        if self.open.as_ref().is_some_and(|open| !open.is_done()) {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.held = self.held.saturating_sub(next.weight());
        Some(next)
    }

    /// Closes the open block, so that something else can stand behind it. False: it is not complete.
    pub fn settle(&mut self, out: &mut dyn Holder) -> bool {
        let settles = !self.waits();
        if settles {
            self.close(out);
        }
        settles
    }

    /// Nothing follows: what waits comes out, complete or not.
    pub fn finish(&mut self, out: &mut dyn Holder) {
        self.held = 0;
        while let Some(next) = self.waiting.pop_front() {
            self.begin(&next, out);
        }
        self.close(out);
    }
}

/// Whether the braces of a JSON object that comes in pieces are all closed.
#[derive(Debug, Default)]
struct Nesting {
    depth: u32,
    begun: bool,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    fn is_whole(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_string
    }

    fn take(&mut self, piece: &str) {
        for byte in piece.bytes() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth = self.depth.saturating_add(1);
                    self.begun = true;
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what happens to it.
    #[derive(Default)]
    struct Told(String);

    impl Holder for Told {
        fn open(&mut self, kind: Kind, id: &str, name: &str) {
            self.0 += &format!("{kind:?}({id}{name}");
        }

        fn more(&mut self, _: Kind, text: &str) {
            self.0 += &format!(" {text}");
        }

        fn seal(&mut self, seal: &str) {
            self.0 += &format!(" ~{seal}");
        }

        fn close(&mut self) {
            self.0 += ")";
        }
    }

    fn told(run: impl Fn(&mut Blocks, &mut Told)) -> String {
        let (mut blocks, mut told) = (Blocks::default(), Told::default());
        run(&mut blocks, &mut told);
        blocks.finish(&mut told);
        assert_eq!(blocks.held(), 0);
        told.0
    }

    #[test]
    fn blocks_follow_each_other() {
        let told = told(|blocks, out| {
            blocks.text(Kind::Thinking, "a", out);
            blocks.text(Kind::Thinking, "b", out);
            blocks.text(Kind::Text, "c", out);
            blocks.text(Kind::Text, "", out);
            blocks.text(Kind::Text, "d", out);
            blocks.call(0, "i", "f", out);
            blocks.arguments(0, "{}", out);
            blocks.text(Kind::Text, "e", out);
        });
        assert_eq!(told, "Thinking( a b)Text( c d)Call(if {})Text( e)");
    }

    #[test]
    fn calls_that_are_mixed_come_apart() {
        let told = told(|blocks, out| {
            blocks.call(0, "i", "f", out);
            blocks.call(1, "j", "g", out);
            blocks.arguments(1, "{\"a\":", out);
            blocks.arguments(0, "{\"x\":\"}\\\"", out);
            blocks.text(Kind::Text, "t", out);
            assert!(blocks.held() > 0);
            blocks.arguments(0, "\"}", out);
            blocks.arguments(1, "[]}", out);
            blocks.call(2, "k", "h", out);
        });
        let calls = r#"Call(if {"x":"}\" "})Call(jg {"a": []})"#;
        assert_eq!(told, format!("{calls}Text( t)Call(kh)"));
    }

    #[test]
    fn a_call_without_its_end_is_told_as_far_as_it_came() {
        let told = told(|blocks, out| {
            blocks.call(0, "i", "f", out);
            blocks.arguments(0, "{\"a", out);
            blocks.call(1, "j", "g", out);
            blocks.arguments(7, "nobody's", out);
        });
        assert_eq!(told, "Call(if {\"a)Call(jg)");
    }

    #[test]
    fn a_seal_stands_with_the_thoughts_before_it() {
        let told = told(|blocks, out| {
            blocks.text(Kind::Thinking, "a", out);
            blocks.seal("1", out);
            blocks.seal("2", out);
            blocks.text(Kind::Thinking, "b", out);
            blocks.call(0, "i", "f", out);
            blocks.seal("3", out);
            blocks.call(1, "j", "g", out);
            blocks.arguments(0, "{}", out);
        });
        assert_eq!(
            told,
            "Thinking( a ~1)Thinking( ~2)Thinking( b)Call(if {})Thinking( ~3)Call(jg)"
        );
    }

    #[test]
    fn arguments_that_are_no_object_are_told_as_text() {
        for (text, input) in [
            ("", "{}"),
            (" {\"a\": 1} ", "{\"a\": 1}"),
            ("{\"a\":", r#"{"arguments":"{\"a\":"}"#),
            ("[1]", r#"{"arguments":"[1]"}"#),
        ] {
            let mut block = Block::new(Kind::Call, "i", "f");
            block.text = text.into();
            let mut out = Vec::new();
            block.push_input(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), input);
        }
    }
}
