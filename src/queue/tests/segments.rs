//! How a data area is divided, and who has its places.

use crate::queue::layout::{MAX_DATA_LEN, MIN_DATA_LEN};
use crate::queue::places::{Places, Want};
use crate::queue::segments::{Division, Entry, MAX_SEGMENT_LEN, MAX_SEGMENTS};
use proptest::prelude::*;

proptest! {
    #[test]
    fn every_size_has_a_division(bits in 16..=31u32, more in 0..1u64 << 31) {
        let asked = ((1 << bits) + more % (1 << bits)).clamp(MIN_DATA_LEN, MAX_DATA_LEN);
        let division = Division::of_new(asked);
        let (len, count) = (division.segment_len(), division.count());
        prop_assert!(division.data_len() >= asked && division.data_len() - asked < len);
        prop_assert!(count >= 16 && count as usize <= MAX_SEGMENTS);
        prop_assert_eq!(Division::of_file(division.data_len(), len as u32), Some(division));
    }

    #[test]
    fn an_entry_says_where_slots_go_on(
        resume in 0..MAX_SEGMENT_LEN / 32,
        place in 0..MAX_SEGMENTS as u32,
    ) {
        for entry in [Entry::Gone(resume * 32), Entry::At(place)] {
            prop_assert_eq!(Entry::decode(entry.encode()), entry);
        }
    }

    #[test]
    fn no_place_is_given_twice_and_none_gets_lost(
        count in 1..200u32,
        steps in proptest::collection::vec((0..6u32, 0..50u64), 1..200),
    ) {
        let places = Places::new(count);
        let mut held: Vec<u32> = Vec::new();
        let mut ready: Vec<u32> = Vec::new();
        for (kind, amount) in steps {
            let counts = places.counts();
            prop_assert_eq!(counts.taken as usize, held.len());
            prop_assert_eq!(counts.ready as usize, ready.len());
            prop_assert_eq!(counts.empty as usize, count as usize - held.len() - ready.len());
            let is_free = |place: &u32| !held.contains(place);
            match kind {
                0 => {
                    if !held.is_empty() {
                        let place = held.swap_remove(amount as usize % held.len());
                        places.give_back(place);
                        // Twice is once.
                        places.give_back(place);
                        ready.push(place);
                    }
                }
                1 => {
                    let lowest = (0..count).find(|place| is_free(place) && !ready.contains(place));
                    prop_assert_eq!(places.begin_fill(), lowest);
                    if let Some(place) = lowest {
                        prop_assert_eq!(places.take(place), None);
                        places.settle(place, amount % 2 == 0);
                        ready.extend((amount % 2 == 0).then_some(place));
                    }
                }
                2 => {
                    let highest = ready.iter().copied().max();
                    prop_assert_eq!(places.begin_empty(), highest);
                    if let Some(place) = highest {
                        prop_assert_eq!(places.take(place), None);
                        places.settle(place, false);
                        ready.retain(|ready| *ready != place);
                    }
                }
                _ => {
                    let want = if kind == 3 { Want::Ready } else { Want::Free };
                    let run = amount as u32 % 8 + 1;
                    let is_wanted = |place: u32| match want {
                        Want::Ready => ready.contains(&place),
                        Want::Free => is_free(&place),
                    };
                    let first = (0..count).find(|first| {
                        first + run <= count && (*first..first + run).all(is_wanted)
                    });
                    prop_assert_eq!(places.lowest_run(run, want), first);
                    let lowest = ready.iter().copied().min();
                    let lowest = lowest.or_else(|| (0..count).find(|place| is_wanted(*place)));
                    prop_assert_eq!(places.lowest(want), lowest);
                    let Some(first) = first else { continue };
                    prop_assert!(places.is_free_run(first, run, want));
                    for place in first..first + run {
                        prop_assert_eq!(places.take(place), Some(ready.contains(&place)));
                        prop_assert_eq!(places.take(place), None);
                        ready.retain(|ready| *ready != place);
                        held.push(place);
                    }
                    prop_assert!(!places.is_free_run(first, run, want));
                }
            }
        }
    }
}
