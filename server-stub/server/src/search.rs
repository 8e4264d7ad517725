//! The grammar of `q`: terms split at spaces outside double quotes, each
//! `key:value` or a bare word. Everything is compared in lower case.

use crate::error::ApiError;

/// One term; the key of a bare word is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// A query that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(String);

impl Malformed {
    pub(crate) fn into_api(self, message: &str) -> ApiError {
        ApiError::bad_request(message).field("q", self.0)
    }
}

/// Splits a query into its terms. Several bare words become one.
pub(crate) fn parse(query: &str) -> Result<Vec<Term>, Malformed> {
    let query = query.to_lowercase();
    let mut terms = Vec::new();
    let mut words: Vec<String> = Vec::new();
    for element in split(&query, |c| c == ' ') {
        if element.is_empty() {
            continue;
        }
        if element.starts_with(':') || element.ends_with(':') {
            return Err(Malformed(format!(
                "Query element {element:?} cannot start or end with ':'"
            )));
        }
        let parts = split(element, |c| c == ':');
        match parts.as_slice() {
            [word] => words.push(unquote(word)),
            [key, value] => terms.push(Term {
                key: unquote(key),
                value: unquote(value),
            }),
            _ => {
                return Err(Malformed(format!(
                    "Query element {element:?} can only contain 1 ':'"
                )));
            }
        }
    }
    if !words.is_empty() {
        terms.push(Term {
            key: String::new(),
            value: words.join(" "),
        });
    }
    Ok(terms)
}

fn split(text: &str, separator: fn(char) -> bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut quoted = false;
    let mut start = 0;
    for (index, c) in text.char_indices() {
        if c == '"' {
            quoted = !quoted;
        }
        if !quoted && separator(c) {
            parts.push(text.get(start..index).unwrap_or_default());
            start = index + c.len_utf8();
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

fn unquote(text: &str) -> String {
    text.trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn term(key: &str, value: &str) -> Term {
        Term {
            key: key.into(),
            value: value.into(),
        }
    }

    #[test]
    fn what_clients_send() {
        assert_eq!(parse("owner:me").unwrap(), [term("owner", "me")]);
        assert_eq!(parse("owner:\"me\"").unwrap(), [term("owner", "me")]);
        let two = parse("owner:Me name:x").unwrap();
        assert_eq!(two, [term("owner", "me"), term("name", "x")]);
        assert_eq!(
            parse("exact_name:\"a b:c\"").unwrap(),
            [term("exact_name", "a b:c")]
        );
        assert_eq!(parse("admin/dev").unwrap(), [term("", "admin/dev")]);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn malformed_terms_are_named() {
        assert_eq!(
            parse("a:b:c").unwrap_err().0,
            "Query element \"a:b:c\" can only contain 1 ':'"
        );
        assert_eq!(
            parse(":owner").unwrap_err().0,
            "Query element \":owner\" cannot start or end with ':'"
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,80}") {
            let _ = parse(&text);
        }
    }
}
