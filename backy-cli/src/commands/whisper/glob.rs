//! Patterns for names of metrics, as the `fnmatch` of a shell and of Python has them: `*`, `?`, `[...]`, `[!...]`.
//!
//! A `*` crosses dots: `carbon.*` means all metrics below `carbon`. Case matters.

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(Vec<Token>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// This letter.
    Letter(char),
    /// Any one letter.
    Any,
    /// Any letters, or none.
    Run,
    /// One letter that lies in one of the ranges, or in none of them.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// Reads a pattern. There is no wrong one: a `[` without its `]` means itself.
    pub(super) fn new(pattern: &str) -> Self {
        let letters: Vec<char> = pattern.chars().collect();
        let mut tokens = Vec::new();
        let mut index = 0;
        while let Some(letter) = letters.get(index) {
            index += 1;
            match letter {
                '*' if tokens.last() == Some(&Token::Run) => {}
                '*' => tokens.push(Token::Run),
                '?' => tokens.push(Token::Any),
                '[' => match class(&letters[index..]) {
                    Some((token, len)) => {
                        tokens.push(token);
                        index += len;
                    }
                    None => tokens.push(Token::Letter('[')),
                },
                other => tokens.push(Token::Letter(*other)),
            }
        }
        Self(tokens)
    }

    /// Returns whether the pattern matches the whole of `name`. Time is at most the product of both lengths.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut token, mut place) = (0, 0);
        // Where to go on if what follows the last run does not match: the run takes one letter more.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let next = name.get(place);
            match (self.0.get(token), next) {
                (Some(Token::Run), _) => {
                    token += 1;
                    retry = Some((token, place));
                    continue;
                }
                (None, None) => return true,
                (Some(wanted), Some(letter)) if wanted.takes(*letter) => {
                    token += 1;
                    place += 1;
                    continue;
                }
                _ => {}
            }
            match &mut retry {
                Some((after_run, begin)) if *begin < name.len() => {
                    *begin += 1;
                    (token, place) = (*after_run, *begin);
                }
                _ => return false,
            }
        }
    }
}

impl Token {
    fn takes(&self, letter: char) -> bool {
        match self {
            Self::Letter(own) => *own == letter,
            Self::Any => true,
            Self::Run => false,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&letter)) != *negated
            }
        }
    }
}

/// Reads a class behind its `[`, and returns how many letters it takes with its `]`.
fn class(letters: &[char]) -> Option<(Token, usize)> {
    let negated = letters.first() == Some(&'!');
    let begin = usize::from(negated);
    // A `]` at the beginning is one of the letters.
    let end = (begin + 1..letters.len()).find(|index| letters[*index] == ']')?;
    let inside = &letters[begin..end];
    let (mut ranges, mut index) = (Vec::new(), 0);
    while let Some(first) = inside.get(index) {
        match (inside.get(index + 1), inside.get(index + 2)) {
            (Some('-'), Some(last)) => {
                ranges.push((*first, *last));
                index += 3;
            }
            _ => {
                ranges.push((*first, *first));
                index += 1;
            }
        }
    }
    Some((Token::Class { negated, ranges }, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_those_of_a_shell() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "carbon.agents.a", true),
            ("carbon.*", "carbon.agents.host.cpu", true),
            ("carbon.*", "carbon", false),
            ("carbon.*.cpu", "carbon.a.b.cpu", true),
            ("carbon.*.cpu", "carbon.cpu", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[ab]x", "bx", true),
            ("[!ab]x", "bx", false),
            ("[!ab]x", "cx", true),
            ("[a-c]", "b", true),
            ("[]]", "]", true),
            ("[!]]", "]", false),
            ("[-a]", "-", true),
            ("[a", "[a", true),
            ("A", "a", false),
            ("**b", "aab", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), expected, "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn many_runs_do_not_take_for_ever() {
        let glob = Glob::new(&"*a".repeat(50));
        assert!(!glob.matches(&format!("{}b", "a".repeat(5000))));
        assert!(glob.matches(&"a".repeat(5000)));
    }
}
