//! Who adopts whose file.

use super::*;

const AUDIT: Owner<'static> = Owner { instance: "q", producer: "audit" };

fn leave(scratch: &Scratch, owner: Owner<'_>) -> String {
    let queue = Queue::create(scratch.dir(), owner, "1-2", layout::MIN_DATA_LEN, 0).unwrap();
    queue.path().file_name().unwrap().to_str().unwrap().to_owned()
}

fn refusal(scratch: &Scratch, name: &str, owner: Owner<'_>) -> Option<QueueError> {
    recovery::adopt(scratch.dir(), name, owner).err()
}

#[test]
fn nobody_adopts_the_file_of_another_producer_or_instance() {
    let scratch = Scratch::new();
    let all = [OWNER, AUDIT, Owner { instance: "q-audit", producer: "" }];
    for owner in all {
        let name = leave(&scratch, owner);
        for other in all {
            let refused = refusal(&scratch, &name, other);
            match refused {
                None => assert_eq!(other, owner),
                Some(QueueError::OfAnotherOwner { .. }) => assert_ne!(other, owner),
                Some(other) => panic!("{other}"),
            }
        }
        assert_eq!(recovery::list(&scratch.dir(), owner.instance).unwrap(), [&*name]);
        std::fs::remove_file(scratch.dir().path().join(name)).unwrap();
    }
}

#[test]
fn a_look_at_another_s_file_does_not_make_it_seem_to_be_in_use() {
    let scratch = Scratch::new();
    let name = leave(&scratch, AUDIT);
    let adopted = recovery::adopt(scratch.dir(), &name, AUDIT).unwrap();
    let refused = refusal(&scratch, &name, OWNER);
    assert!(matches!(refused, Some(QueueError::OfAnotherOwner { .. })));
    drop(adopted);
    assert!(refusal(&scratch, &name, AUDIT).is_none());
}

#[test]
fn the_header_counts_and_not_the_name() {
    let scratch = Scratch::new();
    let name = leave(&scratch, AUDIT);
    let below = scratch.dir().path().to_owned();
    std::fs::rename(below.join(&name), below.join("q-1-2.queue")).unwrap();
    assert!(matches!(
        refusal(&scratch, "q-1-2.queue", OWNER),
        Some(QueueError::OfAnotherOwner { .. })
    ));
    assert!(refusal(&scratch, "q-1-2.queue", AUDIT).is_none());
}

#[test]
fn names_that_are_none_are_refused_when_a_file_is_made() {
    let scratch = Scratch::new();
    for bad in ["", "a/b", "../x", "ü"] {
        let owner = Owner::of_default_producer(bad);
        let made = Queue::create(scratch.dir(), owner, "1", layout::MIN_DATA_LEN, 0);
        assert!(matches!(made.err(), Some(QueueError::InvalidName)), "{bad}");
    }
    assert_eq!(std::fs::read_dir(scratch.dir().path()).unwrap().count(), 0);
}

#[test]
fn an_end_that_outlives_its_queue_does_not_keep_the_file_locked() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let _writer = Writer::new(&queue, 10, 10);
    drop(queue);
    assert!(refusal(&scratch, NAME, OWNER).is_none());
}
