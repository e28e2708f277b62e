//! What a command said: its beginning and its end, however much it was.

use std::collections::VecDeque;

/// What was written on a stream: the first bytes, and the last ones.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    most_head: usize,
    most_tail: usize,
    all: u64,
}

/// How a command ended and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; `None` when a signal ended it.
    pub status: Option<u32>,
    /// The signal that ended it.
    pub signal: Option<String>,
    /// What it wrote to standard output. In the middle of very much a line says how many bytes were left out.
    pub out: String,
    /// The end of what it wrote to both streams, in the order in which it came.
    pub tail: String,
}

impl Kept {
    pub(crate) fn new(most_head: usize, most_tail: usize) -> Self {
        Self { head: Vec::new(), tail: VecDeque::new(), most_head, most_tail, all: 0 }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.all += bytes.len() as u64;
        let (head, rest) = bytes.split_at(bytes.len().min(self.most_head - self.head.len()));
        self.head.extend(head);
        let rest = &rest[rest.len().saturating_sub(self.most_tail)..];
        let over = (self.tail.len() + rest.len()).saturating_sub(self.most_tail);
        self.tail.drain(..over);
        self.tail.extend(rest);
    }

    pub(crate) fn text(&self) -> String {
        let left_out = self.all - (self.head.len() + self.tail.len()) as u64;
        let mut text = String::from_utf8_lossy(&self.head).into_owned();
        if left_out > 0 {
            text.push_str(&format!("\n... {left_out} bytes left out ...\n"));
        }
        let (first, second) = self.tail.as_slices();
        text + &String::from_utf8_lossy(&[first, second].concat())
    }
}

impl Output {
    /// Whether it ended well.
    pub fn is_well(&self) -> bool {
        self.status == Some(0)
    }

    /// How it ended, in words: `exit 3`, `signal TERM`.
    pub fn ending(&self) -> String {
        match (&self.signal, self.status) {
            (Some(signal), _) => format!("signal {signal}"),
            (None, Some(status)) => format!("exit {status}"),
            (None, None) => "no exit status".to_owned(),
        }
    }
}
