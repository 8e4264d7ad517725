//! Data types of RFC 4251 §5.

use num_bigint::BigUint;

use crate::error::Error;

/// Reads fields off the front of a message. Running past the end is
/// [`Error::Malformed`] with the name of the message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a [u8], what: &'static str) -> Self {
        Self {
            rest: message,
            what,
        }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (head, tail) = self
            .rest
            .split_at_checked(len)
            .ok_or(Error::Malformed(self.what))?;
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, tail) = self
            .rest
            .split_first_chunk()
            .ok_or(Error::Malformed(self.what))?;
        self.rest = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Error> {
        Ok(self.u8()? != 0)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn string(&mut self) -> Result<&'a [u8], Error> {
        let len = self.u32()?;
        self.bytes(usize::try_from(len).map_err(|_| Error::Malformed(self.what))?)
    }

    /// A string that names something; other than ASCII is malformed.
    pub(crate) fn name(&mut self) -> Result<&'a str, Error> {
        let text = std::str::from_utf8(self.string()?).map_err(|_| Error::Malformed(self.what))?;
        if text.is_ascii() {
            Ok(text)
        } else {
            Err(Error::Malformed(self.what))
        }
    }

    /// A number that must be positive.
    pub(crate) fn positive(&mut self) -> Result<BigUint, Error> {
        let bytes = self.string()?;
        if bytes.first().is_none_or(|b| b & 0x80 != 0) {
            return Err(Error::Malformed(self.what));
        }
        Ok(BigUint::from_bytes_be(bytes))
    }
}

/// Appends fields to a message.
pub(crate) trait Write {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn put_bool(&mut self, value: bool) {
        self.put_u8(value.into());
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// Strings of this server are far below 4 GiB.
    fn put_string(&mut self, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.put(value);
    }

    /// A positive number in the shortest form.
    fn put_mpint(&mut self, big_endian: &[u8]) {
        let start = big_endian.iter().position(|b| *b != 0);
        let digits = &big_endian[start.unwrap_or(big_endian.len())..];
        let sign = digits.first().is_some_and(|b| b & 0x80 != 0);
        let len = digits.len() + usize::from(sign);
        self.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
        if sign {
            self.put_u8(0);
        }
        self.put(digits);
    }
}

impl Write for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 4251 §5.
    #[test]
    fn numbers_have_the_shortest_form() {
        for (number, encoded) in [
            (&b""[..], &b"\0\0\0\0"[..]),
            (b"\0\0", b"\0\0\0\0"),
            (
                b"\x09\xa3\x78\xf9\xb2\xe3\x32\xa7",
                b"\0\0\0\x08\x09\xa3\x78\xf9\xb2\xe3\x32\xa7",
            ),
            (b"\x80", b"\0\0\0\x02\0\x80"),
            (b"\0\x7f", b"\0\0\0\x01\x7f"),
        ] {
            let mut out = Vec::new();
            out.put_mpint(number);
            assert_eq!(out, encoded);
        }
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        let mut reader = Reader::new(b"\0\0\0\x05abcd", "test");
        assert!(matches!(reader.string(), Err(Error::Malformed("test"))));
        let mut reader = Reader::new(b"\0\0\0\x04abcd", "test");
        assert_eq!(reader.name().unwrap(), "abcd");
        assert!(reader.u8().is_err());
        let mut negative = Reader::new(b"\0\0\0\x01\x80", "test");
        assert!(negative.positive().is_err());
    }
}
