//! Fixed-length hexadecimal text forms.

use crate::{KEY_LEN, KeyError};

/// Reads `prefix` followed by exactly 64 hexadecimal digits of either case.
pub(crate) fn parse(text: &str, prefix: &'static str) -> Result<[u8; KEY_LEN], KeyError> {
    let digits = text.strip_prefix(prefix).ok_or(KeyError::Prefix(prefix))?;
    if digits.len() != 2 * KEY_LEN {
        return Err(KeyError::Length);
    }
    let mut key = [0; KEY_LEN];
    hex::decode_to_slice(digits, &mut key).map_err(|_| KeyError::Hex)?;
    Ok(key)
}
