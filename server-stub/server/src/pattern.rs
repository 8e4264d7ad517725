//! Regular expressions of parameter rules, without backtracking: a subset of
//! RE2 (alternation, groups, classes, `* + ? {m,n}`, anchors, escapes), run as
//! a set of states. A pattern outside the subset matches everything, because
//! the template's author, not the caller, would be at fault.

/// Whether a pattern is found in a text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    match Program::compile(pattern) {
        Some(program) => program.run(text),
        None => true,
    }
}

/// Instructions a program may have.
const MAX_SIZE: usize = 4096;
const MAX_DEPTH: usize = 50;

#[derive(Clone, Debug)]
enum Op {
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
    Start,
    End,
    Split(usize, usize),
    Jump(usize),
    Match,
}

#[derive(Clone, Debug)]
enum Node {
    Empty,
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
    Start,
    End,
    Concat(Vec<Self>),
    Either(Vec<Self>),
    Repeat {
        node: Box<Self>,
        min: usize,
        max: Option<usize>,
    },
}

struct Program(Vec<Op>);

impl Program {
    fn compile(pattern: &str) -> Option<Self> {
        let chars: Vec<char> = pattern.chars().collect();
        let mut parser = Parser { chars, at: 0 };
        let node = parser.either(0)?;
        if parser.at != parser.chars.len() {
            return None;
        }
        let mut program = Self(Vec::new());
        program.emit(&node)?;
        program.0.push(Op::Match);
        Some(program)
    }

    fn emit(&mut self, node: &Node) -> Option<()> {
        if self.0.len() > MAX_SIZE {
            return None;
        }
        match node {
            Node::Empty => {}
            Node::Class { ranges, negated } => self.0.push(Op::Class {
                ranges: ranges.clone(),
                negated: *negated,
            }),
            Node::Start => self.0.push(Op::Start),
            Node::End => self.0.push(Op::End),
            Node::Concat(nodes) => nodes.iter().try_for_each(|node| self.emit(node))?,
            Node::Either(nodes) => self.emit_either(nodes)?,
            Node::Repeat { node, min, max } => self.emit_repeat(node, *min, *max)?,
        }
        Some(())
    }

    fn emit_either(&mut self, nodes: &[Node]) -> Option<()> {
        let mut jumps = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            if index + 1 == nodes.len() {
                self.emit(node)?;
                break;
            }
            let split = self.0.len();
            self.0.push(Op::Jump(0));
            self.emit(node)?;
            jumps.push(self.0.len());
            self.0.push(Op::Jump(0));
            self.set(split, Op::Split(split + 1, self.0.len()));
        }
        let end = self.0.len();
        for jump in jumps {
            self.set(jump, Op::Jump(end));
        }
        Some(())
    }

    fn emit_repeat(&mut self, node: &Node, min: usize, max: Option<usize>) -> Option<()> {
        for _ in 0..min {
            self.emit(node)?;
        }
        match max {
            None => {
                let split = self.0.len();
                self.0.push(Op::Jump(0));
                self.emit(node)?;
                self.0.push(Op::Jump(split));
                self.set(split, Op::Split(split + 1, self.0.len()));
            }
            Some(max) => {
                let mut splits = Vec::new();
                for _ in min..max {
                    splits.push(self.0.len());
                    self.0.push(Op::Jump(0));
                    self.emit(node)?;
                }
                let end = self.0.len();
                for split in splits {
                    self.set(split, Op::Split(split + 1, end));
                }
            }
        }
        Some(())
    }

    fn set(&mut self, at: usize, op: Op) {
        if let Some(slot) = self.0.get_mut(at) {
            *slot = op;
        }
    }

    fn run(&self, text: &str) -> bool {
        let chars: Vec<char> = text.chars().collect();
        let mut states = vec![false; self.0.len()];
        for at in 0..=chars.len() {
            // The pattern may begin anywhere.
            if self.follow(0, at, chars.len(), &mut states) {
                return true;
            }
            let Some(c) = chars.get(at) else { break };
            let mut next = vec![false; self.0.len()];
            for (index, op) in self.0.iter().enumerate() {
                let active = states.get(index).copied().unwrap_or(false);
                if let (true, Op::Class { ranges, negated }) = (active, op) {
                    let inside = ranges.iter().any(|(low, high)| low <= c && c <= high);
                    if inside != *negated && self.follow(index + 1, at + 1, chars.len(), &mut next)
                    {
                        return true;
                    }
                }
            }
            states = next;
        }
        false
    }

    /// Marks every state reachable without reading; says whether it is the
    /// end.
    fn follow(&self, from: usize, at: usize, length: usize, states: &mut [bool]) -> bool {
        let mut stack = vec![from];
        while let Some(index) = stack.pop() {
            let Some(seen) = states.get_mut(index) else {
                continue;
            };
            if std::mem::replace(seen, true) {
                continue;
            }
            match self.0.get(index) {
                Some(Op::Match) => return true,
                Some(Op::Jump(to)) => stack.push(*to),
                Some(Op::Split(a, b)) => stack.extend([*a, *b]),
                Some(Op::Start) if at == 0 => stack.push(index + 1),
                Some(Op::End) if at == length => stack.push(index + 1),
                _ => {}
            }
        }
        false
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    fn either(&mut self, depth: usize) -> Option<Node> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mut nodes = vec![self.concat(depth)?];
        while self.eat('|') {
            nodes.push(self.concat(depth)?);
        }
        Some(Node::Either(nodes))
    }

    fn concat(&mut self, depth: usize) -> Option<Node> {
        let mut nodes = Vec::new();
        while let Some(c) = self.peek() {
            if c == '|' || c == ')' {
                break;
            }
            let atom = self.atom(depth)?;
            nodes.push(self.repeat(atom)?);
        }
        Some(if nodes.is_empty() {
            Node::Empty
        } else {
            Node::Concat(nodes)
        })
    }

    fn repeat(&mut self, node: Node) -> Option<Node> {
        let (min, max) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => return self.counted(node),
            _ => return Some(node),
        };
        self.at += 1;
        // A lazy mark changes what is matched, not whether.
        self.eat('?');
        Some(Node::Repeat {
            node: Box::new(node),
            min,
            max,
        })
    }

    fn counted(&mut self, node: Node) -> Option<Node> {
        self.at += 1;
        let min = self.number()?;
        let max = if self.eat(',') {
            if self.peek() == Some('}') {
                None
            } else {
                Some(self.number()?)
            }
        } else {
            Some(min)
        };
        if !self.eat('}') || max.is_some_and(|max| max < min) {
            return None;
        }
        Some(Node::Repeat {
            node: Box::new(node),
            min,
            max,
        })
    }

    fn number(&mut self) -> Option<usize> {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(char::is_ascii_digit) {
            text.push(c);
            self.at += 1;
        }
        text.parse().ok().filter(|n| *n <= 1000)
    }

    fn atom(&mut self, depth: usize) -> Option<Node> {
        Some(match self.take()? {
            '^' => Node::Start,
            '$' => Node::End,
            '.' => Node::Class {
                ranges: vec![('\n', '\n')],
                negated: true,
            },
            '(' => {
                if self.eat('?') && !self.eat(':') {
                    return None;
                }
                let node = self.either(depth + 1)?;
                if !self.eat(')') {
                    return None;
                }
                node
            }
            '[' => self.class()?,
            '\\' => {
                let (ranges, negated) = escape(self.take()?)?;
                Node::Class { ranges, negated }
            }
            '*' | '+' | '?' => return None,
            c => Node::Class {
                ranges: vec![(c, c)],
                negated: false,
            },
        })
    }

    fn class(&mut self) -> Option<Node> {
        let negated = self.eat('^');
        let mut ranges = Vec::new();
        loop {
            let c = self.take()?;
            if c == ']' && !ranges.is_empty() {
                return Some(Node::Class { ranges, negated });
            }
            let low = match c {
                '\\' => {
                    let (more, inverted) = escape(self.take()?)?;
                    match more.as_slice() {
                        [(a, b)] if a == b && !inverted => *a,
                        _ if inverted => return None,
                        _ => {
                            ranges.extend(more);
                            continue;
                        }
                    }
                }
                '[' if self.peek() == Some(':') => return None,
                c => c,
            };
            let next = self.chars.get(self.at + 1).copied();
            let high = if self.peek() == Some('-') && next.is_some_and(|c| c != ']') {
                self.at += 1;
                match self.take()? {
                    '\\' => self.take()?,
                    c => c,
                }
            } else {
                low
            };
            ranges.push((low, high));
        }
    }
}

fn escape(c: char) -> Option<(Vec<(char, char)>, bool)> {
    let word = vec![('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
    let space = vec![('\t', '\n'), ('\x0c', '\r'), (' ', ' ')];
    Some(match c {
        'd' => (vec![('0', '9')], false),
        'D' => (vec![('0', '9')], true),
        'w' => (word, false),
        'W' => (word, true),
        's' => (space, false),
        'S' => (space, true),
        'n' => (vec![('\n', '\n')], false),
        't' => (vec![('\t', '\t')], false),
        'r' => (vec![('\r', '\r')], false),
        c if c.is_ascii_alphanumeric() => return None,
        c => (vec![(c, c)], false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn common_rules() {
        for (pattern, yes, no) in [
            ("^[a-z]+$", "abc", "aBc"),
            ("^[a-z][a-z0-9-]{2,5}$", "ab-9", "a1234567"),
            ("foo|bar", "xbarx", "baz"),
            ("^(?:eu|us)-\\d{2}$", "eu-01", "eu-1"),
            ("^\\S+@\\S+\\.com$", "a@b.com", "a b@c.com"),
            ("^a?b*c+$", "bbcc", "ab"),
            ("^$", "", "x"),
        ] {
            assert!(matches(pattern, yes), "{pattern} {yes}");
            assert!(!matches(pattern, no), "{pattern} {no}");
        }
    }

    #[test]
    fn nested_repeats_stay_fast() {
        assert!(!matches("^(a+)+$", &("a".repeat(5000) + "b")));
    }

    proptest! {
        #[test]
        fn never_panics(pattern in "[\\[\\](){}|*+?^$\\\\a-c0-9,-]{0,20}", text in "[a-c]{0,10}") {
            let _ = matches(&pattern, &text);
        }
    }
}
