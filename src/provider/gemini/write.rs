//! Writing JSON straight into bytes.

use serde::Serialize;

use crate::json::push_string;

/// An object or an array that is being written. Its closing bracket is `end`'s.
pub struct Nest<'b> {
    pub out: &'b mut Vec<u8>,
    empty: bool,
    close: u8,
}

impl<'b> Nest<'b> {
    pub fn object(out: &'b mut Vec<u8>) -> Self {
        out.push(b'{');
        Nest {
            out,
            empty: true,
            close: b'}',
        }
    }

    pub fn array(out: &'b mut Vec<u8>) -> Self {
        out.push(b'[');
        Nest {
            out,
            empty: true,
            close: b']',
        }
    }

    pub fn end(self) {
        self.out.push(self.close);
    }

    pub fn is_empty(&self) -> bool {
        self.empty
    }

    /// The place of the next array item.
    pub fn item(&mut self) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.empty, false) {
            self.out.push(b',');
        }
        self.out
    }

    /// The place of the value of `key`, which is one of our own names and needs no escaping.
    pub fn key(&mut self, key: &str) -> &mut Vec<u8> {
        let out = self.item();
        out.push(b'"');
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":");
        out
    }

    pub fn string(&mut self, key: &str, text: &str) {
        push_string(self.key(key), text);
    }

    pub fn raw(&mut self, key: &str, json: &str) {
        self.key(key).extend_from_slice(json.as_bytes());
    }

    /// A number, a flag, a list of strings.
    pub fn value(&mut self, key: &str, value: &impl Serialize) {
        serde_json::to_writer(self.key(key), value).expect("writing to memory does not fail");
    }
}
