//! One file of the disk: copy-on-write pages, and every version that an unsynced sector has.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes that are written whole or not at all.
const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

type Sector = [u8; SECTOR_BYTES];

/// A page, and its hash once it was asked for.
#[derive(Clone, Debug)]
struct Page {
    bytes: [u8; PAGE_BYTES],
    hash: Cell<Option<u64>>,
}

/// The versions that a sector had since it was synced, the synced one first; the present one is in the page.
pub(super) type Older = BTreeMap<usize, Vec<Sector>>;

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    /// `None` is a page of zeros.
    pages: Vec<Option<Rc<Page>>>,
    length: usize,
    synced_length: usize,
    older: Older,
    /// What a failed sync dropped: a later sync does not write it.
    dropped: Older,
}

impl File {
    /// A file of zeros, its length durable with its name.
    pub(super) fn zeros(length: usize) -> Self {
        let pages = vec![None; length.div_ceil(PAGE_BYTES)];
        Self { pages, length, synced_length: length, ..Self::default() }
    }

    pub(super) const fn len(&self) -> usize {
        self.length
    }

    pub(super) fn read(&self, offset: usize, buffer: &mut [u8]) {
        let mut at = 0;
        while at < buffer.len() {
            let (page, within) = ((offset + at) / PAGE_BYTES, (offset + at) % PAGE_BYTES);
            let length = (PAGE_BYTES - within).min(buffer.len() - at);
            let target = &mut buffer[at..at + length];
            match &self.pages[page] {
                Some(page) => target.copy_from_slice(&page.bytes[within..within + length]),
                None => target.fill(0),
            }
            at += length;
        }
    }

    /// Writes, and keeps what was there before in each sector that changes.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if bytes.is_empty() {
            return;
        }
        self.grow(end);
        for sector in offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            let before = self.sector(sector);
            let from = offset.max(sector * SECTOR_BYTES);
            let to = end.min((sector + 1) * SECTOR_BYTES);
            let within = from % SECTOR_BYTES;
            let mut after = before;
            after[within..within + (to - from)].copy_from_slice(&bytes[from - offset..to - offset]);
            // A sector that keeps its bytes is the same whether it is written or not; but one beyond the end makes the file longer.
            if after != before || to > self.synced_length {
                self.older.entry(sector).or_default().push(before);
            }
        }
        self.put(offset, bytes);
    }

    fn grow(&mut self, end: usize) {
        self.length = self.length.max(end);
        let pages = self.length.div_ceil(PAGE_BYTES);
        if self.pages.len() < pages {
            self.pages.resize(pages, None);
        }
    }

    fn sector(&self, sector: usize) -> Sector {
        let mut bytes = [0; SECTOR_BYTES];
        let (page, within) = (sector * SECTOR_BYTES / PAGE_BYTES, sector * SECTOR_BYTES % PAGE_BYTES);
        if let Some(page) = &self.pages[page] {
            bytes.copy_from_slice(&page.bytes[within..within + SECTOR_BYTES]);
        }
        bytes
    }

    /// Changes bytes where they are.
    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let (page, within) = ((offset + at) / PAGE_BYTES, (offset + at) % PAGE_BYTES);
            let length = (PAGE_BYTES - within).min(bytes.len() - at);
            let changed = self.pages[page].get_or_insert_with(Page::zeroed);
            let changed = Rc::make_mut(changed);
            changed.bytes[within..within + length].copy_from_slice(&bytes[at..at + length]);
            changed.hash.set(None);
            at += length;
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.older.is_empty() && self.synced_length == self.length
    }

    pub(super) fn sync(&mut self) {
        self.older.clear();
        self.synced_length = self.length;
    }

    pub(super) fn sync_range(&mut self, offset: usize, length: usize) {
        let end = offset + length;
        self.older
            .retain(|sector, _| *sector < offset / SECTOR_BYTES || *sector >= end.div_ceil(SECTOR_BYTES));
        self.synced_length = self.synced_length.max(end);
    }

    pub(super) fn drop_dirty(&mut self) {
        for (sector, versions) in core::mem::take(&mut self.older) {
            self.dropped.entry(sector).or_default().extend(versions);
        }
    }

    /// Every unsynced sector with its versions before the present one.
    pub(super) fn dirty(&self) -> Cow<'_, Older> {
        if self.dropped.is_empty() {
            return Cow::Borrowed(&self.older);
        }
        let mut dirty = self.dropped.clone();
        for (sector, versions) in &self.older {
            dirty.entry(*sector).or_default().extend(versions);
        }
        Cow::Owned(dirty)
    }

    pub(super) fn crash(self: &Rc<Self>, chosen: &mut &[usize]) -> Rc<Self> {
        if self.is_clean() && self.dropped.is_empty() {
            return Rc::clone(self);
        }
        let mut after = Self { pages: self.pages.clone(), ..Self::default() };
        let mut length = self.synced_length;
        for (&sector, versions) in self.dirty().iter() {
            let (choice, rest) = chosen.split_first().expect("there is a choice for each sector");
            *chosen = rest;
            match versions.get(*choice) {
                Some(version) => after.put(sector * SECTOR_BYTES, version),
                None => length = length.max(self.length.min((sector + 1) * SECTOR_BYTES)),
            }
        }
        after.truncate(length);
        Rc::new(after)
    }

    fn truncate(&mut self, length: usize) {
        self.pages.truncate(length.div_ceil(PAGE_BYTES));
        // What is behind the end would be found again if the file grew.
        let end = self.pages.len() * PAGE_BYTES;
        if length < end {
            self.put(length, &[0; PAGE_BYTES][..end - length]);
        }
        (self.length, self.synced_length) = (length, length);
    }

    pub(super) fn hash(&self) -> u64 {
        let numbered = (1_u64..).zip(&self.pages);
        let of_page = |(number, page): (u64, &Option<Rc<Page>>)| {
            let hash = page.as_ref().map_or(0, |page| page.hash());
            if hash == 0 { 0 } else { mix(hash ^ number) }
        };
        numbered.map(of_page).fold(mix(self.length as u64), u64::wrapping_add)
    }
}

impl Page {
    fn zeroed() -> Rc<Self> {
        Rc::new(Self { bytes: [0; PAGE_BYTES], hash: Cell::new(Some(0)) })
    }

    /// 0 for a page of zeros, written or not.
    fn hash(&self) -> u64 {
        if let Some(hash) = self.hash.get() {
            return hash;
        }
        let word = |chunk: &[u8; 8]| u64::from_le_bytes(*chunk);
        let hash = self.bytes.as_chunks().0.iter().fold(0, |hash: u64, chunk| {
            (hash.rotate_left(5) ^ word(chunk)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        self.hash.set(Some(hash));
        hash
    }
}

/// Spreads a word over all bits.
pub(super) const fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let word = (word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    word ^ word >> 32
}
