//! Bugs that the simulation, and one that the queue's model, must find: each is put where it would be made, and is
//! there only while a test asks for it. What no seed catches is a hole in the simulation.

/// A bug.
#[cfg_attr(not(test), allow(dead_code, reason = "some are made by the simulation itself"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A batch goes out without its stamp.
    SkipStamp,
    /// A repeated batch gets new numbers.
    NewNumbersOnRetry,
    /// Others follow a batch that is repeated.
    FollowRepeat,
    /// Others follow the first batch that a broker gets from us.
    FollowUnknown,
    /// A restart does not wait for what comes before the gap.
    RestartEarly,
    /// A restart keeps the epoch.
    KeepEpoch,
    /// Batches that come back stand in the order of their return.
    PutBackUnordered,
    /// What may be in the log expires.
    ExpireInDoubt,
    /// Doubt is forgotten when a connection breaks.
    ForgetDoubt,
    /// A batch is lost with its connection.
    LoseOnDisconnect,
    /// "Not enough replicas" counts as success.
    RefusalIsSuccess,
    /// Two batches are in flight without idempotence.
    TwoInFlight,
    /// Records are reported twice.
    ReportTwice,
    /// Numbers do not go around.
    NoWrap,
    /// A batch that is cut in two keeps the first number in both halves.
    SplitKeepsNumber,
    /// A found batch is repeated without its done records.
    RepeatOpenRecordsOnly,
    /// Stamps are not written down.
    StampNotKept,
    /// A batch has records of two queue files.
    MixQueues,
    /// A broker that does not recognise a batch in doubt is taken to say that it is not in the log.
    TrustRefusal,
    /// A batch that may be in the log is cut in two.
    SplitInDoubt,
    /// What failed keeps its stamp.
    KeepFailedStamp,
    /// A broker's pause for its quota counts against the requests that wait at the broker meanwhile.
    IgnorePause,
    /// That a broker hangs up on what is too large is not recognised.
    IgnoreHangUps,
    /// A part of a batch that may be in the log as a whole is taken for one by itself.
    CutForgetsDoubt,
    /// The wall clock is taken to be right.
    TrustWallClock,
    /// The reader does not hold the slots that it hands out.
    FreeSlotEarly,
}

/// Those of the simulation: all but the queue's own.
#[cfg(test)]
pub(crate) const BUGS: [Bug; 25] = [
    Bug::SkipStamp,
    Bug::NewNumbersOnRetry,
    Bug::FollowRepeat,
    Bug::FollowUnknown,
    Bug::RestartEarly,
    Bug::KeepEpoch,
    Bug::PutBackUnordered,
    Bug::ExpireInDoubt,
    Bug::ForgetDoubt,
    Bug::LoseOnDisconnect,
    Bug::RefusalIsSuccess,
    Bug::TwoInFlight,
    Bug::ReportTwice,
    Bug::NoWrap,
    Bug::SplitKeepsNumber,
    Bug::RepeatOpenRecordsOnly,
    Bug::StampNotKept,
    Bug::MixQueues,
    Bug::TrustRefusal,
    Bug::SplitInDoubt,
    Bug::KeepFailedStamp,
    Bug::IgnorePause,
    Bug::IgnoreHangUps,
    Bug::CutForgetsDoubt,
    Bug::TrustWallClock,
];

#[cfg(test)]
thread_local! {
    static SEEDED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Makes `bug` on this thread, or none.
#[cfg(test)]
pub(crate) fn seed(bug: Option<Bug>) {
    SEEDED.set(bug);
}

/// Whether the bug is to be made. Never, outside of tests.
#[cfg(test)]
pub(crate) fn is_seeded(bug: Bug) -> bool {
    SEEDED.get() == Some(bug)
}

/// Whether the bug is to be made. Never, outside of tests.
#[cfg(not(test))]
pub(crate) const fn is_seeded(_: Bug) -> bool {
    false
}
