//! Just enough of a JSON reader for a header: front to back, every error with its byte, depth bounded.

use std::fmt::Arguments;
use std::path::Path;

use crate::error::{FormatError, Place, Result, preview};

/// Levels of lists and objects that may be skipped over: a header needs none.
const MAX_DEPTH: usize = 32;

pub(super) struct Json<'t> {
    text: &'t str,
    pos: usize,
    path: &'t Path,
    /// Bytes of the file before the text.
    before: u64,
}

impl<'t> Json<'t> {
    pub(super) fn new(text: &'t str, path: &'t Path, before: u64) -> Self {
        Self { text, pos: 0, path, before }
    }

    pub(super) fn place(&self, at: usize, field: impl ToString) -> Place {
        Place { path: self.path.into(), offset: self.before + at as u64, field: field.to_string() }
    }

    /// Where the next token begins.
    pub(super) fn position(&mut self) -> usize {
        let rest = &self.text.as_bytes()[self.pos..];
        self.pos += rest.iter().position(|b| !b" \t\r\n".contains(b)).unwrap_or(rest.len());
        self.pos
    }

    fn peek(&mut self) -> Option<u8> {
        let at = self.position();
        self.text.as_bytes().get(at).copied()
    }

    pub(super) fn invalid<T>(&self, at: usize, field: Arguments<'_>, expected: impl Into<String>) -> Result<T> {
        let rest = &self.text.as_bytes()[at..];
        let end = rest.iter().take(24).position(|b| b",:{}[] \n".contains(b)).unwrap_or(rest.len().min(24));
        let shown = &rest[..end.max(1).min(rest.len())];
        let found = if shown.is_empty() { "the end of the header".to_owned() } else { preview(shown) };
        Err(FormatError::Invalid { place: self.place(at, field), found, expected: expected.into() })
    }

    /// Passes `byte` if it comes next.
    pub(super) fn accept(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.pos += usize::from(there);
        there
    }

    /// Passes `word` if it comes next.
    pub(super) fn accept_word(&mut self, word: &str) -> bool {
        let at = self.position();
        let there = self.text[at..].starts_with(word);
        self.pos += if there { word.len() } else { 0 };
        there
    }

    pub(super) fn expect(&mut self, byte: u8, field: Arguments<'_>) -> Result<()> {
        match self.accept(byte) {
            true => Ok(()),
            false => self.invalid(self.pos, field, format!("'{}'", char::from(byte))),
        }
    }

    /// Fails unless nothing but white space is left.
    pub(super) fn end(&mut self, field: Arguments<'_>) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.invalid(self.pos, field, "nothing after the closing '}'"),
        }
    }

    /// Calls `item` for each item of a list or object that closes with `close`; the opening is passed already.
    pub(super) fn items(
        &mut self,
        close: u8,
        field: Arguments<'_>,
        mut item: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        if self.accept(close) {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.accept(close) {
                return Ok(());
            }
            if !self.accept(b',') {
                return self.invalid(self.pos, field, format!("',' or '{}'", char::from(close)));
            }
        }
    }

    /// A string, its escapes resolved.
    pub(super) fn string(&mut self, field: Arguments<'_>) -> Result<String> {
        self.expect(b'"', field)?;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.pos..];
            let Some(n) = rest.bytes().position(|b| b == b'"' || b == b'\\' || b < b' ') else {
                return self.invalid(self.text.len(), field, "'\"'");
            };
            out.push_str(&rest[..n]);
            self.pos += n + 1;
            match rest.as_bytes()[n] {
                b'"' => return Ok(out),
                b'\\' => out.push(self.escape(field)?),
                _ => return self.invalid(self.pos - 1, field, "no control characters in a string"),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self, field: Arguments<'_>) -> Result<char> {
        let at = self.pos - 1;
        let code = self.text.as_bytes().get(self.pos).copied();
        self.pos += 1;
        let plain = match code {
            Some(b @ (b'"' | b'\\' | b'/')) => char::from(b),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let Some(high) = self.hex4() else { return self.bad_escape(at, field) };
                let unit = match high {
                    // A character in two halves.
                    0xd800..0xdc00 if self.text[self.pos..].starts_with("\\u") => {
                        self.pos += 2;
                        match self.hex4() {
                            Some(low @ 0xdc00..0xe000) => 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00),
                            _ => return self.bad_escape(at, field),
                        }
                    }
                    other => other,
                };
                match char::from_u32(unit) {
                    Some(c) => c,
                    None => return self.bad_escape(at, field),
                }
            }
            _ => return self.bad_escape(at, field),
        };
        Ok(plain)
    }

    fn bad_escape<T>(&self, at: usize, field: Arguments<'_>) -> Result<T> {
        self.invalid(at, field, "an escape that JSON has")
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.pos..self.pos + 4)?;
        self.pos += 4;
        digits.iter().try_fold(0, |n, b| Some(n * 16 + char::from(*b).to_digit(16)?))
    }

    /// A whole number of at least 0, without exponent.
    pub(super) fn u64(&mut self, field: Arguments<'_>) -> Result<u64> {
        const EXPECTED: &str = "a whole number from 0 to 18446744073709551615";
        let at = self.position();
        let rest = &self.text.as_bytes()[at..];
        let n = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
        let goes_on = rest.get(n).is_some_and(|b| b".eE+-".contains(b)) || (n > 1 && rest[0] == b'0');
        match self.text[at..at + n].parse() {
            Ok(value) if !goes_on => {
                self.pos += n;
                Ok(value)
            }
            _ => self.invalid(at, field, EXPECTED),
        }
    }

    /// Passes any value.
    pub(super) fn skip(&mut self, field: Arguments<'_>) -> Result<()> {
        self.skip_value(field, 0)
    }

    fn skip_value(&mut self, field: Arguments<'_>, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            let place = self.place(self.pos, format_args!("nested values in {field}"));
            return Err(FormatError::Limit { place, found: depth as u64, limit: MAX_DEPTH as u64 });
        }
        let at = self.position();
        match self.peek() {
            Some(b'"') => self.string(field).map(drop),
            Some(b'{') => {
                self.pos += 1;
                self.items(b'}', field, |json| {
                    json.string(field)?;
                    json.expect(b':', field)?;
                    json.skip_value(field, depth + 1)
                })
            }
            Some(b'[') => {
                self.pos += 1;
                self.items(b']', field, |json| json.skip_value(field, depth + 1))
            }
            _ => {
                let rest = &self.text[at..];
                let n = rest.bytes().position(|b| !b.is_ascii_alphanumeric() && !b"+-.".contains(&b));
                let word = &rest[..n.unwrap_or(rest.len())];
                // Whether it is a number to the letter does not matter for what nobody reads.
                if !matches!(word, "true" | "false" | "null") && word.parse::<f64>().is_err() {
                    return self.invalid(at, field, "a JSON value");
                }
                self.pos += word.len();
                Ok(())
            }
        }
    }
}

/// `text` as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
