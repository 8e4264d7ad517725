//! Walking over the attributes of a message.

/// MAPPED-ADDRESS.
pub(crate) const MAPPED_ADDRESS: u16 = 0x0001;
/// XOR-MAPPED-ADDRESS.
pub(crate) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// XOR-MAPPED-ADDRESS as numbered in drafts before RFC 5389.
pub(crate) const XOR_MAPPED_ADDRESS_DRAFT: u16 = 0x8020;
/// SOFTWARE.
pub(crate) const SOFTWARE: u16 = 0x8022;
/// FINGERPRINT.
pub(crate) const FINGERPRINT: u16 = 0x8028;

/// Iterates over `type, value`; yields `None` once where an attribute is cut
/// off and then ends.
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let attribute = self.take();
        if attribute.is_none() {
            self.0 = &[];
        }
        Some(attribute)
    }
}

impl<'a> Attributes<'a> {
    fn take(&mut self) -> Option<(u16, &'a [u8])> {
        let (header, rest) = self.0.split_first_chunk::<4>()?;
        let [t0, t1, l0, l1] = *header;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let (value, _) = rest.split_at_checked(len)?;
        // Values are padded to four bytes; some senders omit the last padding.
        self.0 = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_be_bytes([t0, t1]), value))
    }
}
