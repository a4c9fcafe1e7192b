//! The level of nginx's error log, for lines that are written without nginx.

use super::cycle::{self, Cycle};

/// Levels are 1 (`emerg`) to 8 (`debug`), or bits above these that say what is debugged.
const LEVELS: std::ops::RangeInclusive<usize> = 1..=i32::MAX as usize;

/// Whether nginx's error log takes lines of this level, by nginx's numbers: the more important, the smaller. True where
/// there is no nginx, and where what stands there is no level.
pub fn takes(level: usize) -> bool {
    cycle::current().and_then(level_of).is_none_or(|most| level <= most)
}

fn level_of(cycle: *const Cycle) -> Option<usize> {
    // SAFETY: a cycle and its log are valid while it is the current one, which is replaced on this thread alone.
    let level = unsafe { cycle.as_ref()?.log.as_ref()?.level };
    Some(level).filter(|level| LEVELS.contains(level))
}

#[cfg(test)]
mod tests {
    use super::super::cycle::Log;
    use super::*;
    use std::ptr::null;

    fn read(level: usize) -> Option<usize> {
        let log = Log { level };
        level_of(&Cycle { configuration: null(), pool: null(), log: &log })
    }

    #[test]
    fn flt_19_the_level_is_read_where_nginx_keeps_it() {
        assert_eq!(read(4), Some(4));
        let debug_all = 0x7fff_fff0;
        assert_eq!(read(debug_all), Some(debug_all));
        for not_a_level in [0, usize::MAX, 1 << 40] {
            assert_eq!(read(not_a_level), None);
        }
        assert_eq!(level_of(null()), None);
        assert_eq!(level_of(&Cycle { configuration: null(), pool: null(), log: null() }), None);
        assert!(takes(8), "there is no nginx");
    }
}
