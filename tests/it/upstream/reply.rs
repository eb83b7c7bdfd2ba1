//! What the scripted upstream answers: a list of steps, each of them plain bytes or a pause.

use std::time::Duration;

use serde_json::Value;

/// One answer. What is written between two pauses leaves in one piece.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub enum Step {
    /// Status and headers.
    Head(u16, Vec<(String, String)>),
    /// Bytes as they are: a body whose length the head tells, or anything else.
    Raw(Vec<u8>),
    /// One chunk of a chunked body.
    Chunk(Vec<u8>),
    /// The last chunk.
    End,
    /// What was written so far leaves now.
    Flush,
    /// Waits until the test opens the gate of this name.
    Gate(String),
    Delay(Duration),
    /// An orderly end of the connection.
    Close,
    /// A reset.
    Reset,
    /// Says nothing more until the peer leaves.
    Hang,
}

impl Reply {
    /// A whole body with its length.
    pub fn whole(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
        let body = body.into();
        let headers = vec![
            ("Content-Type".to_string(), content_type.to_string()),
            ("Content-Length".to_string(), body.len().to_string()),
        ];
        Reply {
            steps: vec![Step::Head(status, headers), Step::Raw(body)],
        }
    }

    pub fn json(status: u16, body: &Value) -> Reply {
        Reply::whole(status, "application/json", body.to_string())
    }

    /// The head of an event stream in chunks. It leaves together with the first event.
    pub fn stream() -> Reply {
        let headers = [
            ("Content-Type", "text/event-stream"),
            ("Transfer-Encoding", "chunked"),
        ];
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_string()));
        Reply {
            steps: vec![Step::Head(200, headers.into())],
        }
    }

    /// No answer at all: only what is added.
    pub fn silence() -> Reply {
        Reply::default()
    }

    pub fn then(mut self, step: Step) -> Reply {
        self.steps.push(step);
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Reply {
        let head = self.steps.iter_mut().find_map(|step| match step {
            Step::Head(_, headers) => Some(headers),
            _ => None,
        });
        head.expect("the reply has a head")
            .push((name.to_string(), value.to_string()));
        self
    }

    /// Nothing leaves, not even the head, before the gate is open.
    pub fn behind(mut self, gate: &str) -> Reply {
        self.steps.insert(0, Step::Gate(gate.to_string()));
        self
    }

    /// One event of a stream, in one chunk and one write. `text` ends with its blank line.
    pub fn event(self, text: &str) -> Reply {
        self.then(Step::Chunk(text.as_bytes().to_vec()))
            .then(Step::Flush)
    }

    pub fn events<T: AsRef<str>>(self, events: &[T]) -> Reply {
        events
            .iter()
            .fold(self, |reply, event| reply.event(event.as_ref()))
    }

    pub fn end(self) -> Reply {
        self.then(Step::End)
    }

    pub fn flush(self) -> Reply {
        self.then(Step::Flush)
    }

    pub fn raw(self, bytes: impl Into<Vec<u8>>) -> Reply {
        self.then(Step::Raw(bytes.into()))
    }

    pub fn gate(self, name: &str) -> Reply {
        self.then(Step::Gate(name.to_string()))
    }

    pub fn delay(self, wait: Duration) -> Reply {
        self.then(Step::Delay(wait))
    }

    pub fn close(self) -> Reply {
        self.then(Step::Close)
    }

    pub fn reset(self) -> Reply {
        self.then(Step::Reset)
    }

    pub fn hang(self) -> Reply {
        self.then(Step::Hang)
    }
}

impl Step {
    /// What the step puts on the wire; `None` for a pause or an end.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Step::Head(status, headers) => {
                let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                head.push_str("\r\n");
                Some(head.into_bytes())
            }
            Step::Raw(bytes) => Some(bytes.clone()),
            // An empty chunk would be the last one.
            Step::Chunk(bytes) if bytes.is_empty() => Some(Vec::new()),
            Step::Chunk(bytes) => {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend_from_slice(bytes);
                chunk.extend_from_slice(b"\r\n");
                Some(chunk)
            }
            Step::End => Some(b"0\r\n\r\n".to_vec()),
            _ => None,
        }
    }
}
