//! The door for this repository's own tests, fuzz targets, benches and examples, which are crates of their own: what they
//! use, and no more. It is no interface, and changes without notice.

pub mod config {
    pub use crate::config::{
        Config, Credentials, FEWEST_ITERATIONS, HostPort, KEYS, Mechanism, Value,
    };
}

pub mod backup {
    pub use crate::backup::{Backlog, BackupDir, Limits, LineBatch};
    pub mod backlog {
        pub use crate::backup::backlog::Which;
    }
    pub mod format {
        pub use crate::backup::format::{Line, Writing, put, read};
    }
}

pub mod crash_points {
    pub use crate::crash_points::POINTS;
    #[cfg(feature = "crash_points")]
    pub use crate::crash_points::{Held, hold};
}

#[cfg(feature = "net")]
pub mod driver {
    pub use crate::driver::Driver;
    pub mod lua {
        pub use crate::driver::lua::Append;
    }
}

#[cfg(feature = "net")]
pub mod ffi {
    pub use crate::ffi::{API, codes};
    pub mod records {
        pub use crate::ffi::records::lkfk_record;
    }
}

pub mod manual {
    pub use crate::manual::{configuration, statistics};
}

#[cfg(feature = "net")]
pub mod net {
    pub use crate::net::{AnswerRoom, frame};
    pub mod sasl {
        pub use crate::net::sasl::Client;
    }
}

pub mod producer {
    pub use crate::producer::{
        Action, ConnId, NewRecord, Producer, Record, RecordId, RequestId, Rules, Time, TopicId,
    };
}

/// The wire format.
pub mod protocol {
    pub use crate::protocol::{
        api_versions, error_code, header, init_producer_id, message_set, metadata, primitives,
        produce, record_batch, sasl,
    };
}

pub mod queue {
    pub use crate::queue::{
        Flags, Owner, Provisioner, PushError, Queue, QueueDir, Reader, Writer, recovery,
    };
    pub mod layout {
        pub use crate::queue::layout::{Areas, DONE_OFFSET, MAP_OFFSET, NO_PARTITION};
    }
}

pub mod record {
    pub use crate::record::{Headers, HeadersBuf, Record};
}

pub mod report_kind {
    pub use crate::report_kind::{Level, ReportKind};
}

pub mod stats {
    pub use crate::stats::{ROWS, Stats};
}

#[cfg(feature = "net")]
pub mod worker {
    pub use crate::worker::{
        Entry, Handle, InitError, Producer, Refusal, close, find, init, start, with,
    };
}
