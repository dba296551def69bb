//! From text to the tree of a specification: a recursive descent over a list of tokens.

use jiff::civil;

use super::{
    Date, Function, ID_PREFIX_LEN_MIN, NUMBER_LEN_MAX, Node, SPEC_DEPTH_MAX, SPEC_LEN_MAX, Side,
    SpecError, Word,
};
use crate::format::Trust;
use crate::id::RevisionId;

pub(super) fn parse(text: &str) -> Result<Node, SpecError> {
    if SPEC_LEN_MAX < text.len() {
        return Err(SpecError::TooLong { len: text.len() });
    }
    let mut parser = Parser { tokens: split(text), next: 0, depth: 0 };
    let root = parser.union()?;
    match parser.peek() {
        None => Ok(root),
        Some(_) => Err(parser.expected("',', '&' or the end")),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Open,
    Close,
    Comma,
    And,
    Dots,
    Word(&'a str),
}

/// Splits a text at the symbols of the grammar. Every byte but the spaces around words is in a token.
fn split(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let symbol = [
            ("(", Token::Open),
            (")", Token::Close),
            (",", Token::Comma),
            ("&", Token::And),
            ("..", Token::Dots),
        ];
        let (token, after) = symbol
            .iter()
            .find_map(|(symbol, token)| Some((*token, rest.strip_prefix(symbol)?)))
            .unwrap_or_else(|| {
                let (word, after) = rest.split_at(word_len(rest));
                (Token::Word(word.trim_end()), after)
            });
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

fn word_len(text: &str) -> usize {
    let symbol = text.find(['(', ')', ',', '&']).unwrap_or(text.len());
    let dots = text.find("..").unwrap_or(text.len());
    symbol.min(dots)
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).copied()
    }

    fn take(&mut self, token: Token<'_>) -> bool {
        let found = self.peek() == Some(token);
        if found {
            self.next += 1;
        }
        found
    }

    fn expected(&self, expected: &'static str) -> SpecError {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(Token::Open) => "'('".to_owned(),
            Some(Token::Close) => "')'".to_owned(),
            Some(Token::Comma) => "','".to_owned(),
            Some(Token::And) => "'&'".to_owned(),
            Some(Token::Dots) => "'..'".to_owned(),
            Some(Token::Word(word)) => quoted(word),
        };
        SpecError::Syntax { expected, found }
    }

    fn union(&mut self) -> Result<Node, SpecError> {
        let mut parts = vec![self.intersection()?];
        while self.take(Token::Comma) {
            parts.push(self.intersection()?);
        }
        Ok(one_or(parts, Node::Union))
    }

    fn intersection(&mut self) -> Result<Node, SpecError> {
        let mut parts = vec![self.range()?];
        while self.take(Token::And) {
            parts.push(self.range()?);
        }
        Ok(one_or(parts, Node::Intersection))
    }

    fn range(&mut self) -> Result<Node, SpecError> {
        let left = self.side()?;
        if !self.take(Token::Dots) {
            return match left {
                Some(Side::Revision(node)) => Ok(*node),
                Some(Side::Date(_)) => {
                    Err(self.expected("'..' before or after a date, as in 2026-01-31..,"))
                }
                None => Err(self.expected("a revision")),
            };
        }
        let right = self.side()?;
        Ok(Node::Range(left, right))
    }

    /// Reads a date or a single; `None` if neither begins here.
    fn side(&mut self) -> Result<Option<Side>, SpecError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                if let Some(date) = date(word) {
                    self.next += 1;
                    return Ok(Some(Side::Date(date)));
                }
            }
            Some(Token::Open) => {}
            _ => return Ok(None),
        }
        self.single().map(|node| Some(Side::Revision(Box::new(node))))
    }

    fn single(&mut self) -> Result<Node, SpecError> {
        let function = match self.peek() {
            Some(Token::Word(text)) => {
                self.next += 1;
                match (function(text), self.peek()) {
                    (Some(function), Some(Token::Open)) => Some(function),
                    _ => return word(text).map(Node::Word),
                }
            }
            _ => None,
        };
        let inner = self.parenthesis()?;
        Ok(match function {
            Some(function) => Node::Function(function, Box::new(inner)),
            None => inner,
        })
    }

    fn parenthesis(&mut self) -> Result<Node, SpecError> {
        if !self.take(Token::Open) {
            return Err(self.expected("a revision"));
        }
        if self.depth == SPEC_DEPTH_MAX {
            return Err(SpecError::TooDeep);
        }
        self.depth += 1;
        let inner = self.union()?;
        self.depth -= 1;
        if !self.take(Token::Close) {
            return Err(self.expected("')'"));
        }
        Ok(inner)
    }
}

fn one_or(mut parts: Vec<Node>, several: fn(Vec<Node>) -> Node) -> Node {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            several(parts)
        }
        None => several(parts),
    }
}

fn function(text: &str) -> Option<Function> {
    match text {
        "first" => Some(Function::First),
        "last" => Some(Function::Last),
        "not" => Some(Function::Not),
        "reverse" => Some(Function::Reverse),
        _ => None,
    }
}

fn word(text: &str) -> Result<Word, SpecError> {
    let syntax = |expected| SpecError::Syntax { expected, found: quoted(text) };
    match text {
        "latest" | "last" => return Ok(Word::Latest),
        "first" => return Ok(Word::First),
        "all" | "clean" | "local" => return Ok(Word::All),
        "remote" => return Ok(Word::Remote),
        "not" | "reverse" => return Err(syntax("'(' after a function")),
        _ => {}
    }
    if let Some(tag) = text.strip_prefix("tag:") {
        return match tag.trim() {
            "" => Err(syntax("a tag after 'tag:'")),
            tag => Ok(Word::Tag(tag.to_owned())),
        };
    }
    if let Some(name) = text.strip_prefix("trust:") {
        return trust(name.trim())
            .map(Word::Trust)
            .ok_or_else(|| syntax("trusted, distrusted, verified or damaged after 'trust:'"));
    }
    if let Some(server) = text.strip_prefix("server:") {
        return match server.trim() {
            "" => Err(syntax("a name after 'server:'")),
            _ => Ok(Word::Remote),
        };
    }
    if text.bytes().all(|symbol| symbol.is_ascii_digit()) && text.len() <= NUMBER_LEN_MAX {
        return text.parse().map(Word::Number).map_err(|_| syntax("a number"));
    }
    let is_id = text.bytes().all(|symbol| symbol.is_ascii_hexdigit());
    if is_id && (ID_PREFIX_LEN_MIN..=2 * RevisionId::LEN).contains(&text.len()) {
        return Ok(Word::Prefix(text.to_ascii_lowercase()));
    }
    Err(syntax(
        "a number, an id of at least 4 hexadecimal digits, latest, first, all, tag:TAG, ...",
    ))
}

fn trust(name: &str) -> Option<Trust> {
    match name {
        "trusted" => Some(Trust::Trusted),
        "distrusted" => Some(Trust::Distrusted),
        "verified" => Some(Trust::Verified),
        "damaged" => Some(Trust::Damaged),
        _ => None,
    }
}

/// Reads `2026-01-31`, `2026-01-31T12:00`, or either of them with seconds and a zone.
fn date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    // The readers of jiff know more forms than the language has, some of them all digits.
    if bytes.len() < 10 || bytes.get(4) != Some(&b'-') || bytes.get(7) != Some(&b'-') {
        return None;
    }
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(Date::Instant(instant));
    }
    text.parse::<civil::DateTime>().ok().map(Date::Local)
}

fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}
