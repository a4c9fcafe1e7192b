//! The table of topic names in a queue file: the writer appends, the reader follows. A topic's id is its place in the
//! table. An entry is a length of two bytes and the name.

use super::layout;
use super::mapping::Mapping;
use crate::topic_name;
use std::sync::atomic::Ordering;

/// Bytes of the table that get memory at a time.
const STEP: usize = layout::PAGE;

/// Why a topic was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not a name Kafka takes.
    #[error("not a valid topic name: 1 to 249 of a-z A-Z 0-9 . _ - and neither . nor ..")]
    Invalid,
    /// The table in the file is full.
    #[error("too many topics for one queue")]
    TableFull,
    /// The file system that the queue lies on is full.
    #[error("queue full: no memory for another topic where queue_path lies")]
    NoSpace,
}

/// The writer's side.
#[derive(Default)]
pub(super) struct TopicTable {
    names: Vec<Box<str>>,
    /// Bytes of the table that have memory.
    allocated: usize,
}

impl TopicTable {
    /// How many topics there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// A table that goes on where another writer ended.
    #[cfg(test)]
    pub fn of(names: Vec<Box<str>>) -> TopicTable {
        TopicTable { names, allocated: 0 }
    }

    /// Id of `name`, which is entered when it is new.
    pub fn id(&mut self, map: &Mapping, name: &str) -> Result<u16, TopicError> {
        if let Some(id) = self.names.iter().position(|topic| &**topic == name) {
            return Ok(id as u16);
        }
        if !topic_name::is_valid(name) {
            return Err(TopicError::Invalid);
        }
        let id = u16::try_from(self.names.len()).map_err(|_| TopicError::TableFull)?;
        let used = map.identity().topics_used.load(Ordering::Relaxed) as usize;
        let end = used + 2 + name.len();
        if end > layout::TOPICS_LEN {
            return Err(TopicError::TableFull);
        }
        self.allocate(map, end)?;
        // SAFETY: the entry lies inside the topic table (checked above), which only the writer writes
        // and whose bytes from `used` on nobody reads before the store below.
        unsafe {
            let at = map.base().add(layout::TOPICS_OFFSET + used);
            at.cast::<u16>().write_unaligned(name.len() as u16);
            at.add(2).copy_from_nonoverlapping(name.as_ptr(), name.len());
        }
        crate::crash_points::crash_point("topic copied");
        map.identity().topics_used.store(end as u32, Ordering::Release);
        self.names.push(name.into());
        Ok(id)
    }

    /// Sees to it that the first `end` bytes of the table have memory.
    fn allocate(&mut self, map: &Mapping, end: usize) -> Result<(), TopicError> {
        while self.allocated < end {
            let start = layout::TOPICS_OFFSET + self.allocated;
            map.allocate(start..start + STEP).map_err(|_| TopicError::NoSpace)?;
            self.allocated += STEP;
        }
        Ok(())
    }
}

/// The reader's side: names are checked once, when their id is first asked for.
#[derive(Default)]
pub(super) struct TopicNames {
    names: Vec<Box<str>>,
    read: usize,
}

impl TopicNames {
    /// Name of a topic id; `None` when the table does not have it or its entry is no topic name.
    pub fn get(&mut self, map: &Mapping, id: u16) -> Option<&str> {
        if id as usize >= self.names.len() {
            self.read_on(map);
        }
        self.names.get(id as usize).map(|name| &**name)
    }

    fn read_on(&mut self, map: &Mapping) {
        let used = map.identity().topics_used.load(Ordering::Acquire) as usize;
        let used = used.min(layout::TOPICS_LEN);
        while self.read + 2 <= used {
            // SAFETY: both reads end before `used`, inside the topic table, whose entries up to there
            // the writer released and never changes.
            let name = unsafe {
                let at = map.base().add(layout::TOPICS_OFFSET + self.read);
                let len = at.cast::<u16>().read_unaligned() as usize;
                if self.read + 2 + len > used {
                    return;
                }
                std::slice::from_raw_parts(at.add(2), len)
            };
            let Ok(name) = std::str::from_utf8(name) else { return };
            if !topic_name::is_valid(name) {
                return;
            }
            self.read += 2 + name.len();
            self.names.push(name.into());
        }
    }
}
