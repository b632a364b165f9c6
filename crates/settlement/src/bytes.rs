//! This crate's own bytes: big-endian, without padding, counts of 32 bits before lists.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// The bytes end before the value does, or say what no value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truncated;

/// What has been written.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

macro_rules! numbers {
    ($($number:ident),*) => {
        impl Writer {
            $(pub(crate) fn $number(&mut self, value: $number) -> &mut Self {
                self.raw(&value.to_be_bytes())
            })*
        }

        impl Reader<'_> {
            $(pub(crate) fn $number(&mut self) -> Result<$number, Truncated> {
                self.array().map($number::from_be_bytes)
            })*
        }
    };
}

numbers!(u8, u16, u32, u64, u128);

impl Writer {
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.u32(u32::try_from(items.len()).expect("no list has 2^32 items"));
        items.for_each(|item| write(self, item));
    }

    pub(crate) fn map<K, V>(&mut self, map: &BTreeMap<K, V>, mut write: impl FnMut(&mut Self, &K, &V)) {
        self.list(map.iter(), |to, (key, value)| write(to, key, value));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(u32::try_from(bytes.len()).expect("no value has 4 GiB")).raw(bytes)
    }
}

/// What is left to read.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (part, rest) = self.0.split_first_chunk::<N>().ok_or(Truncated)?;
        self.0 = rest;
        Ok(*part)
    }

    /// A count is not trusted with memory before its items are there.
    pub(crate) fn list<T, E: From<Truncated>>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, E>,
    ) -> Result<Vec<T>, E> {
        let count = self.u32()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    pub(crate) fn map<K: Ord, V>(
        &mut self,
        read: impl FnMut(&mut Self) -> Result<(K, V), Truncated>,
    ) -> Result<BTreeMap<K, V>, Truncated> {
        let items = self.list(read)?;
        if items.is_sorted_by(|a, b| a.0 < b.0) { Ok(items.into_iter().collect()) } else { Err(Truncated) }
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, Truncated> {
        let length = usize::try_from(self.u32()?).map_err(|_| Truncated)?;
        let (part, rest) = self.0.split_at_checked(length).ok_or(Truncated)?;
        self.0 = rest;
        Ok(part.to_vec())
    }

    /// Nothing follows.
    pub(crate) fn end(&self) -> Result<(), Truncated> {
        if self.0.is_empty() { Ok(()) } else { Err(Truncated) }
    }
}
