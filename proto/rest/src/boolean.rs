//! Truth values in queries, flags and environment variables.

/// The truth value that `text` writes, in one of the forms that Coder's
/// programs take; `None` for everything else, and for nothing.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::boolean;

    #[test]
    fn only_whole_words_count() {
        assert_eq!(boolean("True"), Some(true));
        assert_eq!(boolean("f"), Some(false));
        for text in ["", "yes", "tRUE", " true", "01"] {
            assert_eq!(boolean(text), None, "{text:?}");
        }
    }
}
