//! Error codes: what a broker's answer means for what was sent.
//!
//! One row per code of Kafka 4.3, from which the constants are made as well. Names and the advice to
//! retry, or to refresh metadata first, are those of Kafka's Java client
//! (<https://kafka.apache.org/protocol#protocol_error_codes>). Persistence is our own reading of the
//! broker: `No` stands only where it refuses a batch before it appends, in this attempt. With acks
//! from all replicas NOT_LEADER_OR_FOLLOWER, UNKNOWN_TOPIC_OR_PARTITION and KAFKA_STORAGE_ERROR also
//! answer a batch that was appended and lost its leader while it waited for them, so they leave
//! doubt, as does OUT_OF_ORDER_SEQUENCE_NUMBER: a repeat of a batch older than the producer's last
//! five gets it too.

use std::fmt;

use Advice::{Final, Refresh, Retry};
use Persistence::{Maybe, No, Yes};

/// A code in an answer. Numbers that no Kafka release has used yet are kept as they are.
#[derive(Copy, Clone, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub i16);

/// Whether a batch is in the log after an answer to its Produce request.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash)]
pub enum Persistence {
    /// This attempt wrote nothing. An earlier attempt may have.
    No,
    /// Nobody knows: a batch that is sent again under another sequence may be there twice.
    Maybe,
    /// It is there, and need not be sent again.
    Yes,
}

impl ErrorCode {
    /// Kafka's name for the code, if it has one.
    pub fn name(self) -> Option<&'static str> {
        self.row().map(|row| row.name)
    }

    /// Whether the same request may succeed later.
    pub fn retriable(self) -> bool {
        self.row().is_some_and(|row| row.advice != Final)
    }

    /// Whether the request was built on stale metadata, which must be fetched before a retry.
    pub fn refresh_metadata(self) -> bool {
        self.row().is_some_and(|row| row.advice == Refresh)
    }

    /// Whether the batch is in the log, when this answers a Produce request.
    pub fn persistence(self) -> Persistence {
        self.row().map_or(Maybe, |row| row.persistence)
    }

    fn row(self) -> Option<&'static Row> {
        // The first row is -1.
        usize::try_from(i32::from(self.0) + 1).ok().and_then(|index| TABLE.get(index))
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "unknown error code ({})", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Advice {
    /// Asking again brings the same answer.
    Final,
    Retry,
    /// Refresh metadata, then retry.
    Refresh,
}

struct Row {
    code: ErrorCode,
    name: &'static str,
    advice: Advice,
    persistence: Persistence,
}

macro_rules! error_codes {
    ($($code:literal $name:ident: $advice:ident, $persistence:ident;)*) => {
        impl ErrorCode {
            $(
                #[doc = concat!("Error code ", $code, ".")]
                pub const $name: Self = Self($code);
            )*
        }

        const TABLE: &[Row] = &[$(
            Row {
                code: ErrorCode($code),
                name: stringify!($name),
                advice: $advice,
                persistence: $persistence,
            },
        )*];
    };
}

error_codes! {
    -1 UNKNOWN_SERVER_ERROR: Final, Maybe;
    0 NONE: Final, Yes;
    1 OFFSET_OUT_OF_RANGE: Final, Maybe;
    2 CORRUPT_MESSAGE: Retry, No;
    3 UNKNOWN_TOPIC_OR_PARTITION: Refresh, Maybe;
    4 INVALID_FETCH_SIZE: Final, Maybe;
    5 LEADER_NOT_AVAILABLE: Refresh, No;
    6 NOT_LEADER_OR_FOLLOWER: Refresh, Maybe;
    7 REQUEST_TIMED_OUT: Retry, Maybe;
    8 BROKER_NOT_AVAILABLE: Final, Maybe;
    9 REPLICA_NOT_AVAILABLE: Refresh, Maybe;
    10 MESSAGE_TOO_LARGE: Final, No;
    11 STALE_CONTROLLER_EPOCH: Final, Maybe;
    12 OFFSET_METADATA_TOO_LARGE: Final, Maybe;
    13 NETWORK_EXCEPTION: Refresh, Maybe;
    14 COORDINATOR_LOAD_IN_PROGRESS: Retry, Maybe;
    15 COORDINATOR_NOT_AVAILABLE: Retry, Maybe;
    16 NOT_COORDINATOR: Retry, Maybe;
    17 INVALID_TOPIC_EXCEPTION: Final, No;
    18 RECORD_LIST_TOO_LARGE: Final, No;
    19 NOT_ENOUGH_REPLICAS: Retry, No;
    20 NOT_ENOUGH_REPLICAS_AFTER_APPEND: Retry, Maybe;
    21 INVALID_REQUIRED_ACKS: Final, No;
    22 ILLEGAL_GENERATION: Final, Maybe;
    23 INCONSISTENT_GROUP_PROTOCOL: Final, Maybe;
    24 INVALID_GROUP_ID: Final, Maybe;
    25 UNKNOWN_MEMBER_ID: Final, Maybe;
    26 INVALID_SESSION_TIMEOUT: Final, Maybe;
    27 REBALANCE_IN_PROGRESS: Final, Maybe;
    28 INVALID_COMMIT_OFFSET_SIZE: Final, Maybe;
    29 TOPIC_AUTHORIZATION_FAILED: Final, No;
    30 GROUP_AUTHORIZATION_FAILED: Final, Maybe;
    31 CLUSTER_AUTHORIZATION_FAILED: Final, No;
    32 INVALID_TIMESTAMP: Final, No;
    33 UNSUPPORTED_SASL_MECHANISM: Final, No;
    34 ILLEGAL_SASL_STATE: Final, No;
    35 UNSUPPORTED_VERSION: Final, No;
    36 TOPIC_ALREADY_EXISTS: Final, Maybe;
    37 INVALID_PARTITIONS: Final, Maybe;
    38 INVALID_REPLICATION_FACTOR: Final, Maybe;
    39 INVALID_REPLICA_ASSIGNMENT: Final, Maybe;
    40 INVALID_CONFIG: Final, Maybe;
    41 NOT_CONTROLLER: Retry, Maybe;
    42 INVALID_REQUEST: Final, No;
    43 UNSUPPORTED_FOR_MESSAGE_FORMAT: Final, No;
    44 POLICY_VIOLATION: Final, No;
    45 OUT_OF_ORDER_SEQUENCE_NUMBER: Final, Maybe;
    46 DUPLICATE_SEQUENCE_NUMBER: Final, Yes;
    47 INVALID_PRODUCER_EPOCH: Final, No;
    48 INVALID_TXN_STATE: Final, No;
    49 INVALID_PRODUCER_ID_MAPPING: Final, No;
    50 INVALID_TRANSACTION_TIMEOUT: Final, Maybe;
    51 CONCURRENT_TRANSACTIONS: Retry, Maybe;
    52 TRANSACTION_COORDINATOR_FENCED: Final, Maybe;
    53 TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Final, No;
    54 SECURITY_DISABLED: Final, No;
    55 OPERATION_NOT_ATTEMPTED: Final, Maybe;
    56 KAFKA_STORAGE_ERROR: Refresh, Maybe;
    57 LOG_DIR_NOT_FOUND: Final, Maybe;
    58 SASL_AUTHENTICATION_FAILED: Final, No;
    59 UNKNOWN_PRODUCER_ID: Final, Maybe;
    60 REASSIGNMENT_IN_PROGRESS: Final, Maybe;
    61 DELEGATION_TOKEN_AUTH_DISABLED: Final, Maybe;
    62 DELEGATION_TOKEN_NOT_FOUND: Final, Maybe;
    63 DELEGATION_TOKEN_OWNER_MISMATCH: Final, Maybe;
    64 DELEGATION_TOKEN_REQUEST_NOT_ALLOWED: Final, Maybe;
    65 DELEGATION_TOKEN_AUTHORIZATION_FAILED: Final, Maybe;
    66 DELEGATION_TOKEN_EXPIRED: Final, Maybe;
    67 INVALID_PRINCIPAL_TYPE: Final, Maybe;
    68 NON_EMPTY_GROUP: Final, Maybe;
    69 GROUP_ID_NOT_FOUND: Final, Maybe;
    70 FETCH_SESSION_ID_NOT_FOUND: Retry, Maybe;
    71 INVALID_FETCH_SESSION_EPOCH: Retry, Maybe;
    72 LISTENER_NOT_FOUND: Refresh, Maybe;
    73 TOPIC_DELETION_DISABLED: Final, Maybe;
    74 FENCED_LEADER_EPOCH: Refresh, Maybe;
    75 UNKNOWN_LEADER_EPOCH: Retry, Maybe;
    76 UNSUPPORTED_COMPRESSION_TYPE: Final, No;
    77 STALE_BROKER_EPOCH: Final, Maybe;
    78 OFFSET_NOT_AVAILABLE: Retry, Maybe;
    79 MEMBER_ID_REQUIRED: Final, Maybe;
    80 PREFERRED_LEADER_NOT_AVAILABLE: Refresh, Maybe;
    81 GROUP_MAX_SIZE_REACHED: Final, Maybe;
    82 FENCED_INSTANCE_ID: Final, Maybe;
    83 ELIGIBLE_LEADERS_NOT_AVAILABLE: Refresh, Maybe;
    84 ELECTION_NOT_NEEDED: Refresh, Maybe;
    85 NO_REASSIGNMENT_IN_PROGRESS: Final, Maybe;
    86 GROUP_SUBSCRIBED_TO_TOPIC: Final, Maybe;
    87 INVALID_RECORD: Final, No;
    88 UNSTABLE_OFFSET_COMMIT: Retry, Maybe;
    89 THROTTLING_QUOTA_EXCEEDED: Retry, No;
    90 PRODUCER_FENCED: Final, No;
    91 RESOURCE_NOT_FOUND: Final, Maybe;
    92 DUPLICATE_RESOURCE: Final, Maybe;
    93 UNACCEPTABLE_CREDENTIAL: Final, Maybe;
    94 INCONSISTENT_VOTER_SET: Final, Maybe;
    95 INVALID_UPDATE_VERSION: Final, Maybe;
    96 FEATURE_UPDATE_FAILED: Final, Maybe;
    97 PRINCIPAL_DESERIALIZATION_FAILURE: Final, Maybe;
    98 SNAPSHOT_NOT_FOUND: Final, Maybe;
    99 POSITION_OUT_OF_RANGE: Final, Maybe;
    100 UNKNOWN_TOPIC_ID: Refresh, Maybe;
    101 DUPLICATE_BROKER_REGISTRATION: Final, Maybe;
    102 BROKER_ID_NOT_REGISTERED: Final, Maybe;
    103 INCONSISTENT_TOPIC_ID: Refresh, Maybe;
    104 INCONSISTENT_CLUSTER_ID: Final, Maybe;
    105 TRANSACTIONAL_ID_NOT_FOUND: Final, Maybe;
    106 FETCH_SESSION_TOPIC_ID_ERROR: Retry, Maybe;
    107 INELIGIBLE_REPLICA: Final, Maybe;
    108 NEW_LEADER_ELECTED: Final, Maybe;
    109 OFFSET_MOVED_TO_TIERED_STORAGE: Final, Maybe;
    110 FENCED_MEMBER_EPOCH: Final, Maybe;
    111 UNRELEASED_INSTANCE_ID: Final, Maybe;
    112 UNSUPPORTED_ASSIGNOR: Final, Maybe;
    113 STALE_MEMBER_EPOCH: Final, Maybe;
    114 MISMATCHED_ENDPOINT_TYPE: Final, Maybe;
    115 UNSUPPORTED_ENDPOINT_TYPE: Final, Maybe;
    116 UNKNOWN_CONTROLLER_ID: Final, Maybe;
    117 UNKNOWN_SUBSCRIPTION_ID: Final, Maybe;
    118 TELEMETRY_TOO_LARGE: Final, Maybe;
    119 INVALID_REGISTRATION: Final, Maybe;
    120 TRANSACTION_ABORTABLE: Final, No;
    121 INVALID_RECORD_STATE: Final, Maybe;
    122 SHARE_SESSION_NOT_FOUND: Retry, Maybe;
    123 INVALID_SHARE_SESSION_EPOCH: Retry, Maybe;
    124 FENCED_STATE_EPOCH: Final, Maybe;
    125 INVALID_VOTER_KEY: Final, Maybe;
    126 DUPLICATE_VOTER: Final, Maybe;
    127 VOTER_NOT_FOUND: Final, Maybe;
    128 INVALID_REGULAR_EXPRESSION: Final, Maybe;
    129 REBOOTSTRAP_REQUIRED: Final, Maybe;
    130 STREAMS_INVALID_TOPOLOGY: Final, Maybe;
    131 STREAMS_INVALID_TOPOLOGY_EPOCH: Final, Maybe;
    132 STREAMS_TOPOLOGY_FENCED: Final, Maybe;
    133 SHARE_SESSION_LIMIT_REACHED: Retry, Maybe;
}

// Rows are found by their place.
const _: () = {
    let mut index = 0;
    while index < TABLE.len() {
        assert!(TABLE[index].code.0 as isize + 1 == index as isize);
        index += 1;
    }
};
