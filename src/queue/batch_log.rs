//! The batch log: which batches were sent, in a part of the file that only the reader writes. An entry names a batch's
//! partition, its producer's id and epoch, its first sequence number, and where its records lie. So a batch of 500
//! records takes some ten cache lines to write down, however far apart its records are.
//!
//! # Invariants
//! - An entry counts once its first word, the *commit*, is written, which is written last and withdrawn in one store.
//!   Whoever is killed before that has written nothing, and has not sent the batch.
//! - Where two entries name a record, the newer one counts. That is so for a moment only: the older one is withdrawn
//!   once the newer one is committed, so that a record is never without one, and no older one comes back later.
//! - A part of a batch that may be in the log as a whole replaces its entry together with that of the rest: both are
//!   written, then the whole is withdrawn. In between the rest is known by the whole, see [`stamps`](super::stamps).
//! - An entry stays until all of its records are done, or one of them is known not to be in the log.
//! - No entry is believed before its checksum and its bounds are checked.
//!
//! # Format
//! The log consists of blocks of 64 bytes; an entry takes as many in a row as it needs.
//! ```text
//! 0   u32  commit: bytes of the entry, 0 when there is none here
//! 4   u32  CRC32C of the number of the block and the bytes that follow
//! 8   u64  serial number: the newest entry has the highest
//! 16  u64  position of the first record
//! 24  i64  producer id
//! 32  i32  sequence number of the first record
//! 36  u32  partition
//! 40  u32  records
//! 44  i16  producer epoch
//! 46  u16  1 for a part of a batch that may be in the log as a whole, otherwise 0
//! 48       for each of the other records: how far behind the one before it lies, in granules, as a signed varint
//! ```

use super::layout::{Areas, FIRST_LOG_LEN, GRANULE};
use super::mapping::{Format, Mapping};
use super::space::Space;
use super::stamps::{OpenBatch, Stamp};
use crate::crash_points::crash_point;
use crate::protocol::record_batch::ProducerStamp;
use crate::protocol::sequence::advance;
use crate::varint::{put_varint, take_varint32, unzigzag, zigzag};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a block.
const BLOCK: usize = 64;
/// Bytes of an entry before the distances.
const HEAD: usize = 48;
/// Bytes that the log grows by.
const STEP: usize = 16 * 1024;
/// Entries that are looked at in a turn, whether all of their records are done.
const LOOKS: usize = 32;
/// Turns without an entry after which what the log grew by is given back.
const IDLE_TURNS: u32 = 64;

/// There is no room to write down that a batch is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room to write down which batches are sent")]
pub struct NoRoom;

/// A batch that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    serial: u64,
    partition: u32,
    stamp: ProducerStamp,
    is_part: bool,
    positions: Vec<u64>,
}

impl Entry {
    /// What of this batch stands behind its first `count` records, as a part by itself.
    fn rest_behind(&self, count: usize) -> Option<Entry> {
        let positions = self.positions.get(count..).filter(|rest| !rest.is_empty())?.to_vec();
        let base_sequence = advance(self.stamp.base_sequence, count);
        let stamp = ProducerStamp { base_sequence, ..self.stamp };
        Some(Entry { stamp, is_part: true, positions, ..*self })
    }

    /// Its bytes, without commit and checksum.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        let first = self.positions.first().copied().unwrap_or_default();
        bytes.extend(self.serial.to_ne_bytes());
        bytes.extend(first.to_ne_bytes());
        bytes.extend(self.stamp.producer_id.to_ne_bytes());
        bytes.extend(self.stamp.base_sequence.to_ne_bytes());
        bytes.extend(self.partition.to_ne_bytes());
        bytes.extend((self.positions.len() as u32).to_ne_bytes());
        bytes.extend(self.stamp.epoch.to_ne_bytes());
        bytes.extend(u16::from(self.is_part).to_ne_bytes());
        for pair in self.positions.windows(2) {
            let distance = pair[1].wrapping_sub(pair[0]) as i64 / GRANULE as i64;
            put_varint(&mut bytes, zigzag(distance));
        }
        bytes
    }

    /// What stands in block `block`, if that is whole.
    fn decode(block: usize, bytes: &[u8]) -> Option<Entry> {
        let (head, mut distances) = bytes.split_at_checked(HEAD)?;
        let u32_at = |at: usize| Some(u32::from_ne_bytes(head[at..at + 4].try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(head[at..at + 8].try_into().ok()?));
        if u32_at(4)? != check(block, bytes) {
            return None;
        }
        let mut position = u64_at(16)?;
        let mut positions = vec![position];
        while !distances.is_empty() {
            let distance = unzigzag(u64::from(take_varint32(&mut distances)?));
            position = position.wrapping_add((distance * GRANULE as i64) as u64);
            positions.push(position);
        }
        let stamp = ProducerStamp {
            producer_id: u64_at(24)? as i64,
            epoch: u32_at(44)? as u16 as i16,
            base_sequence: u32_at(32)? as i32,
        };
        let (serial, partition) = (u64_at(8)?, u32_at(36)?);
        let is_part = u16::from_ne_bytes([head[46], head[47]]) != 0;
        let entry = Entry { serial, partition, stamp, is_part, positions };
        let is_whole = entry.positions.len() == u32_at(40)? as usize;
        let is_possible = serial <= u64::MAX / 2
            && stamp.base_sequence >= 0
            && Stamp::of_record(stamp, entry.partition, 0, 1).is_possible();
        (is_whole && is_possible).then_some(entry)
    }

    fn is_same_batch(&self, other: &Entry) -> bool {
        (self.partition, self.stamp, self.is_part, &self.positions)
            == (other.partition, other.stamp, other.is_part, &other.positions)
    }
}

fn check(block: usize, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(block as u32, &bytes[8..])
}

/// An entry of ours.
struct Live {
    blocks: Range<usize>,
    /// One of its records that was not done when it was last looked at.
    witness: u64,
}

/// The log, and what we remember of it.
pub(super) struct BatchLog {
    map: Arc<Mapping>,
    /// Where it lies in the file, and how long it may become.
    start: usize,
    most: usize,
    /// For each block that has memory whether it is free.
    free: Vec<bool>,
    /// No block before this one is free.
    lowest: usize,
    /// What an earlier reader left, until [`keep_open`](Self::keep_open) decides about it.
    inherited: Vec<(Range<usize>, Entry)>,
    /// Entries by the position of their first record, which no two have in common.
    live: HashMap<u64, Live>,
    /// Their keys, in the order in which they are looked at.
    order: VecDeque<u64>,
    next_serial: u64,
    idle_turns: u32,
}

impl BatchLog {
    /// The log of a file, with all that is whole in it.
    pub fn new(map: &Arc<Mapping>) -> BatchLog {
        let areas = Areas::of(map.division().data_len());
        let (start, most) = match map.format() {
            Format::V3 => (areas.log, areas.log_len),
            Format::V2 => (0, 0),
        };
        let len = most.min(map.cursors().log_len() as usize);
        let mut log = BatchLog {
            map: map.clone(),
            start,
            most,
            free: vec![true; len / BLOCK],
            lowest: 0,
            inherited: Vec::new(),
            live: HashMap::new(),
            order: VecDeque::new(),
            next_serial: 0,
            idle_turns: 0,
        };
        log.find_inherited();
        log
    }

    fn find_inherited(&mut self) {
        let mut block = 0;
        while block < self.free.len() {
            let Some(entry) = self.entry(block) else {
                block += 1;
                continue;
            };
            let blocks = block..block + self.bytes_in(block).div_ceil(BLOCK);
            block = blocks.end;
            self.free[blocks.clone()].fill(false);
            self.next_serial = self.next_serial.max(entry.serial.saturating_add(1));
            self.inherited.push((blocks, entry));
        }
        self.inherited.sort_by_key(|(_, entry)| entry.serial);
    }

    fn commit_word(&self, block: usize) -> &AtomicU32 {
        assert!(block < self.free.len());
        // SAFETY: the block has memory and lies inside the mapping, at a multiple of 64; any bytes are a valid atomic.
        unsafe { &*self.map.base().add(self.start + block * BLOCK).cast() }
    }

    /// Bytes of the entry that begins in `block`, as its commit says: 0 when there is none. Never more than there are.
    fn bytes_in(&self, block: usize) -> usize {
        let bytes = self.commit_word(block).load(Ordering::Acquire) as usize;
        if bytes <= (self.free.len() - block) * BLOCK { bytes } else { 0 }
    }

    fn entry(&self, block: usize) -> Option<Entry> {
        let len = self.bytes_in(block);
        if len < HEAD {
            return None;
        }
        let mut bytes = vec![0; len];
        // SAFETY: `len` bytes from the block on have memory and lie inside the mapping.
        unsafe {
            let from = self.map.base().add(self.start + block * BLOCK);
            bytes.as_mut_ptr().copy_from_nonoverlapping(from, len);
        }
        Entry::decode(block, &bytes)
    }

    // ------------------------------------------------------------------------------- what was found

    /// The stamps of the records that an earlier reader sent: by position, the newest of each.
    pub fn stamps(&self) -> HashMap<u64, Stamp> {
        let mut stamps = HashMap::new();
        for (_, entry) in &self.inherited {
            let count = entry.positions.len();
            for (index, position) in entry.positions.iter().enumerate() {
                stamps.insert(
                    *position,
                    Stamp::of_record(entry.stamp, entry.partition, index, count)
                        .part(entry.is_part),
                );
            }
        }
        stamps
    }

    /// Keeps the entries of the batches that are open, and withdraws all others that an earlier reader left. What was
    /// left of a batch when it was cut in two, and is known by the entry of the whole alone, gets one of its own before.
    pub fn keep_open(&mut self, records: &mut Space, open: &[OpenBatch]) {
        let by_first: HashMap<u64, &OpenBatch> =
            open.iter().map(|batch| (batch.positions[0], batch)).collect();
        let inherited = std::mem::take(&mut self.inherited);
        // The newest entry of a batch is the one that counted.
        let newest: HashMap<u64, u64> =
            inherited.iter().map(|(_, entry)| (entry.positions[0], entry.serial)).collect();
        let (kept, stale): (Vec<_>, Vec<_>) = inherited.into_iter().partition(|(_, entry)| {
            let first = entry.positions[0];
            let is_open = by_first.get(&first).is_some_and(|batch| {
                batch.positions == entry.positions && batch.stamp == entry.stamp
            });
            is_open && newest.get(&first) == Some(&entry.serial)
        });
        for (blocks, entry) in kept {
            self.remember(records, blocks, &entry);
        }
        // A file of version 2 has no log: its stamps stand in the slots.
        let has_log = self.most > 0;
        for batch in open.iter().filter(|_| has_log) {
            if !self.live.contains_key(&batch.positions[0]) {
                let OpenBatch { partition, stamp, is_part, ref positions, .. } = *batch;
                // Without room it is on record once it is about to be sent.
                let _ = self.put(records, partition, stamp, is_part, positions);
            }
        }
        // The older ones first: as long as a newer one is there, no older one comes back.
        for (blocks, _) in stale {
            self.withdraw(blocks);
        }
    }

    fn remember(&mut self, records: &mut Space, blocks: Range<usize>, entry: &Entry) {
        for position in &entry.positions {
            records.set_stamped(*position, true);
        }
        let (first, last) = (entry.positions[0], entry.positions[entry.positions.len() - 1]);
        self.live.insert(first, Live { blocks, witness: last });
        self.order.push_back(first);
    }

    fn withdraw(&mut self, blocks: Range<usize>) {
        self.commit_word(blocks.start).store(0, Ordering::Release);
        self.lowest = self.lowest.min(blocks.start);
        self.free[blocks].fill(true);
    }

    // ------------------------------------------------------------------------------ what is written

    /// Writes down that the records at `positions` are about to be sent as one batch, or as a part of the one that is
    /// on record.
    pub fn put(
        &mut self,
        records: &mut Space,
        partition: u32,
        stamp: ProducerStamp,
        is_part: bool,
        positions: &[u64],
    ) -> Result<(), NoRoom> {
        let Some(first) = positions.first() else { return Ok(()) };
        let serial = self.next_serial;
        let entry = Entry { serial, partition, stamp, is_part, positions: positions.to_vec() };
        let known = self.live.get(first).and_then(|live| self.entry(live.blocks.start));
        if known.as_ref().is_some_and(|known| known.is_same_batch(&entry)) {
            return Ok(());
        }
        let whole = known.filter(|known| is_part && known.positions.starts_with(positions));
        let rest = whole.and_then(|whole| whole.rest_behind(positions.len()));
        let bytes = entry.encode();
        let blocks = self.room_for(records, bytes.len().div_ceil(BLOCK)).ok_or(NoRoom)?;
        self.free[blocks.clone()].fill(false);
        let rest = match rest {
            None => None,
            Some(rest) => {
                let rest = Entry { serial: serial + 1, ..rest };
                let bytes = rest.encode();
                let Some(place) = self.room_for(records, bytes.len().div_ceil(BLOCK)) else {
                    self.free[blocks].fill(true);
                    self.lowest = 0;
                    return Err(NoRoom);
                };
                self.free[place.clone()].fill(false);
                Some((place, rest, bytes))
            }
        };
        self.next_serial += 2;
        self.write(blocks.start, bytes);
        let older = self.overlapping(records, positions);
        if let Some((place, _, bytes)) = &rest {
            self.write(place.start, bytes.clone());
        }
        for older in older {
            self.remove(records, older);
        }
        self.remember(records, blocks, &entry);
        if let Some((place, rest, _)) = rest {
            self.remember(records, place, &rest);
        }
        Ok(())
    }

    fn write(&mut self, block: usize, mut bytes: Vec<u8>) {
        let check = check(block, &bytes);
        bytes[4..8].copy_from_slice(&check.to_ne_bytes());
        // The commit is not among them: that of a free block is 0 already, or that of bytes in the middle of an entry
        // that is gone, which no checksum bears out.
        self.commit_word(block).store(0, Ordering::Release);
        let half = bytes.len() / 2;
        // SAFETY: the blocks have memory and lie inside the mapping; nobody else writes here, and nobody reads them
        // before the commit.
        unsafe {
            let at = self.map.base().add(self.start + block * BLOCK);
            at.add(4).copy_from_nonoverlapping(bytes[4..].as_ptr(), half - 4);
            crash_point("record half stamped");
            at.add(half).copy_from_nonoverlapping(bytes[half..].as_ptr(), bytes.len() - half);
        }
        crash_point("batch half stamped");
        self.commit_word(block).store(bytes.len() as u32, Ordering::Release);
    }

    /// So many free blocks in a row.
    fn room_for(&mut self, records: &mut Space, count: usize) -> Option<Range<usize>> {
        if let Some(blocks) = self.free_run(count) {
            return Some(blocks);
        }
        for first in self.order.iter().copied().collect::<Vec<_>>() {
            self.remove_if_done(records, first);
        }
        self.order.retain(|first| self.live.contains_key(first));
        match self.free_run(count) {
            Some(blocks) => Some(blocks),
            None => {
                self.grow(count * BLOCK)?;
                self.free_run(count)
            }
        }
    }

    fn free_run(&mut self, count: usize) -> Option<Range<usize>> {
        while self.free.get(self.lowest) == Some(&false) {
            self.lowest += 1;
        }
        let mut length = 0;
        for block in self.lowest..self.free.len() {
            length = if self.free[block] { length + 1 } else { 0 };
            if length == count {
                return Some(block + 1 - count..block + 1);
            }
        }
        None
    }

    fn grow(&mut self, bytes: usize) -> Option<()> {
        let len = self.free.len() * BLOCK;
        let grown = (len + bytes.next_multiple_of(STEP)).min(self.most);
        self.map.allocate(self.start + len..self.start + grown).ok()?;
        self.map.cursors().set_log_len(grown as u64);
        self.free.resize(grown / BLOCK, true);
        Some(())
    }

    /// First records of the entries that have a record in common with `positions`.
    fn overlapping(&self, records: &Space, positions: &[u64]) -> Vec<u64> {
        if !positions.iter().any(|position| records.is_stamped(*position)) {
            return Vec::new();
        }
        let positions: HashSet<u64> = positions.iter().copied().collect();
        self.entries_with(|position| positions.contains(&position))
    }

    fn entries_with(&self, is_meant: impl Fn(u64) -> bool) -> Vec<u64> {
        let has = |live: &Live| {
            let entry = self.entry(live.blocks.start);
            entry.is_some_and(|entry| entry.positions.iter().any(|position| is_meant(*position)))
        };
        self.live.iter().filter(|(_, live)| has(live)).map(|(first, _)| *first).collect()
    }

    /// The record at `position` is known not to be in the log: its batch is no longer one that was sent.
    pub fn forget(&mut self, records: &mut Space, position: u64) {
        if records.is_stamped(position) {
            for first in self.entries_with(|other| other == position) {
                self.remove(records, first);
            }
            records.set_stamped(position, false);
        }
    }

    fn remove(&mut self, records: &mut Space, first: u64) {
        let Some(live) = self.live.remove(&first) else { return };
        let entry = self.entry(live.blocks.start);
        self.withdraw(live.blocks);
        for position in entry.into_iter().flat_map(|entry| entry.positions) {
            records.set_stamped(position, false);
        }
    }

    // ------------------------------------------------------------------------------- what is done

    /// Looks at some entries, whether all of their records are done. To be called once a turn.
    pub fn sweep(&mut self, records: &mut Space) {
        for _ in 0..LOOKS.min(self.order.len()) {
            let Some(first) = self.order.pop_front() else { break };
            if !self.remove_if_done(records, first) && self.live.contains_key(&first) {
                self.order.push_back(first);
            }
        }
        let is_idle = self.live.is_empty() && self.inherited.is_empty();
        self.idle_turns = if is_idle { self.idle_turns.saturating_add(1) } else { 0 };
        if self.idle_turns == IDLE_TURNS {
            self.shrink();
        }
    }

    /// Withdraws an entry if all of its records are done; true if it is gone.
    fn remove_if_done(&mut self, records: &mut Space, first: u64) -> bool {
        let Some(live) = self.live.get(&first) else { return true };
        if records.is_held(live.witness) {
            return false;
        }
        let positions = self.entry(live.blocks.start).map(|entry| entry.positions);
        let held = positions.into_iter().flatten().find(|position| records.is_held(*position));
        match (held, self.live.get_mut(&first)) {
            (Some(held), Some(live)) => {
                live.witness = held;
                false
            }
            _ => {
                self.remove(records, first);
                true
            }
        }
    }

    /// Gives back what the log grew by.
    fn shrink(&mut self) {
        let len = self.free.len() * BLOCK;
        if len > FIRST_LOG_LEN {
            self.map.cursors().set_log_len(FIRST_LOG_LEN as u64);
            self.free.truncate(FIRST_LOG_LEN / BLOCK);
            // Refused, it stays allocated.
            let _ = self.map.give_back(self.start + FIRST_LOG_LEN..self.start + len);
        }
        self.lowest = 0;
    }
}
