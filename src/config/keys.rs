//! The table of keys, by groups: what each is, takes, and is when nobody sets it. The parts of the configuration, their
//! defaults, rustdoc and the manual come from it. Times and sizes are in the key's own unit here; who uses them asks for
//! durations and bytes (`units`).

use super::brokers::HostPort;
use super::choices::{self, Callback, Codecs, Overflow, Replay, ReplayRate};
use super::ranges;
use super::security::{Identification, Mechanism, Secret, SecurityProtocol};
use super::value::{self, FromValue, Value};
use crate::protocol::release::Release;
use std::path::PathBuf;

/// A key's entry in the manual.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// What it is about: the heading that it stands below.
    pub group: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Other names it answers to.
    pub aliases: &'static [&'static str],
    /// Unit of the value, empty when it has none.
    pub unit: &'static str,
    /// Default, as a user would write it in Lua.
    pub default: fn() -> String,
    /// What it does, with a space before each line.
    pub text: &'static str,
    /// Type and range, in words.
    pub takes: fn() -> String,
    pub(super) set: fn(&mut Config, &Value) -> Result<(), String>,
}

impl Key {
    /// Whether its value is not to be shown.
    pub fn is_secret(&self) -> bool {
        (self.takes)() == <Secret as FromValue>::takes(&())
    }
}

/// Declares the parts of the configuration, their defaults and the table of keys in one go. A row: what it does, then name:
/// type = default, what it takes, unit, other names. The default is written as a user would write it in Lua; where that is
/// no value of the key's, it is followed by what the manual says instead.
macro_rules! keys {
    ($( $group:literal $part:ident: $Part:ident { $(
        $(#[doc = $text:literal])+
        $name:ident: $type:ty = $default:expr $(=> $shown:literal)?, $bounds:expr, $unit:literal, [$($alias:literal),*];
    )+ } )+) => {
        /// A checked configuration, in the parts that are taken by those who go by them.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct Config { $( #[doc = concat!("The keys below \"", $group, "\".")] pub $part: $Part, )+ }

        $(
            #[doc = concat!("The keys below \"", $group, "\" in the manual, in their own units.")]
            #[derive(Debug, Clone, PartialEq)]
            pub struct $Part { $( $(#[doc = $text])+ pub $name: $type, )+ }

            impl Default for $Part {
                fn default() -> Self {
                    $Part { $( $name: default_of!($type, $bounds, $default $(=> $shown)?), )+ }
                }
            }
        )+

        /// Every key, in the manual's order.
        pub const KEYS: &[Key] = &[ $( $( Key {
            group: $group,
            name: stringify!($name),
            aliases: &[$($alias),*],
            unit: $unit,
            default: || shown!($default $(=> $shown)?),
            text: concat!($($text),+),
            takes: || <$type as FromValue>::takes(&$bounds),
            set: |config, value| {
                config.$part.$name = <$type as FromValue>::from_value(value, &$bounds)?;
                Ok(())
            },
        }, )+ )+ ];
    };
}

/// A default that Lua could give is read as if Lua gave it.
macro_rules! default_of {
    ($type:ty, $bounds:expr, $default:expr) => {
        <$type as FromValue>::from_value(&Value::from($default), &$bounds)
            .expect("a default is a value that its key takes, which a test sees")
    };
    ($type:ty, $bounds:expr, $default:expr => $shown:literal) => {
        $default
    };
}

macro_rules! shown {
    ($default:expr) => {
        Value::from($default).to_string()
    };
    ($default:expr => $shown:literal) => {
        $shown.to_owned()
    };
}

/// No bounds beyond the type's own.
const ANY: () = ();

keys! {
    "Brokers" brokers: BrokerConfig {
        /// The brokers that are asked first, at least two if the cluster has two: `{"h1:p1,h2:p2"}`, `{"h1:p1", "h2:p2"}`,
        /// `"h1:p1,h2:p2"` or `{{host = "h1", port = p1}}`. IPv6 addresses stand in brackets; a port that is missing is
        /// 9092. All other brokers of the cluster are learnt from these. This key is required.
        metadata_broker_list: Vec<HostPort> = Vec::new() => "{}", ANY, "", ["bootstrap_servers"];
        /// The name by which brokers know this client in their logs, metrics and quotas. Give each service a name of its
        /// own where quotas are by client id.
        client_id: String = "lkfk", ranges::CLIENT_ID, "", [];
        /// The topics that may be logged to; brokers are asked about them at start. For any other topic `log()` returns
        /// nil, and the message goes to `failed_cb` or, without one, to the backup file, with "topic unknown". When the
        /// list is empty every topic may be logged to. Set it where topic names come from outside.
        topics: Vec<String> = Vec::new() => "{}", value::TopicNames, "", [];
        /// Lets the broker make a topic that does not exist, if its own configuration (`auto.create.topics.enable`)
        /// allows that. With false, messages for a topic that does not exist wait for `message_timeout_ms` and then go to
        /// the backup.
        allow_auto_create_topics: bool = true, ANY, "", [];
        /// How often partitions and leaders are asked for when nothing is wrong. Errors cause a refresh of their own, so
        /// that this matters only for new partitions, which are found that much later.
        metadata_refresh_interval_ms: u64 = 60_000, ranges::METADATA_REFRESH_MS, "ms", ["topic_metadata_refresh_interval_ms", "metadata_max_age_ms"];
        /// How long name resolution, connect and the first exchange with a broker may take, each. Raise it for brokers far
        /// away; a lower one finds sooner that a broker is gone.
        socket_connection_setup_timeout_ms: u64 = 5_000, ranges::SETUP_TIMEOUT_MS, "ms", [];
        /// Turns TCP keep-alive on, so that a connection whose other end vanished is noticed when nothing is sent.
        socket_keepalive_enable: bool = true, ANY, "", [];
        /// The pause before the second attempt to connect to a broker. Each further pause is twice as long, up to
        /// `reconnect_backoff_max_ms`, with a jitter of 20%. It is ten times as long when authentication was refused.
        reconnect_backoff_ms: u64 = 100, ranges::RECONNECT_BACKOFF_MS, "ms", [];
        /// The longest pause between attempts to connect to a broker, before jitter.
        reconnect_backoff_max_ms: u64 = 1_000, ranges::RECONNECT_BACKOFF_MS, "ms", [];
        /// After this many failed attempts in a row to connect to a broker, none is made for `conn_retry_timeout`, unless
        /// no other broker is left to try. (The table in ngx_lua_lkfk's README says 2.)
        conn_retry_limit: u32 = 3, ranges::CONNECT_ATTEMPTS, "", [];
        /// How long a broker is left alone after `conn_retry_limit` failed attempts. It is tried all the same while it
        /// leads partitions that messages wait for. (The table in ngx_lua_lkfk's README says 200.)
        conn_retry_timeout: u64 = 60, ranges::LEFT_ALONE_S, "s", [];
        /// Asks each broker which versions of the protocol it speaks, and finds out which brokers are too old for the
        /// question (Kafka 0.8 and 0.9). With false no broker is asked, and all are spoken to as
        /// `broker_version_fallback` says.
        api_version_request: bool = true, ANY, "", [];
        /// The release of Kafka that all brokers are spoken to as when `api_version_request` is false. One that is newer
        /// than a broker may duplicate messages without end, so give the oldest release in the cluster.
        broker_version_fallback: Release = "0.9.0", ANY, "", [];
        /// How long a broker that was found to be Kafka 0.8 or 0.9 is not asked for its versions again. Each new connection
        /// makes sure that it still is one.
        api_version_fallback_ms: u64 = 1_200_000, ranges::OLD_BROKER_MEMORY_MS, "ms", [];
    }

    "Delivery" delivery: DeliveryConfig {
        /// Who must have a message before it counts as delivered: 1 is the partition's leader, -1 (or `"all"`) is all
        /// in-sync replicas, and 0 is nobody: then a message counts as delivered once it is written to the socket, and
        /// what a broker loses is lost. The default is ngx_lua_lkfk's. Set `"all"` where no message may be lost or
        /// duplicated: it turns `enable_idempotence` on, too.
        request_required_acks: i16 = 1, choices::Acks, "", ["acks"];
        /// Gives messages sequence numbers, by which brokers drop duplicates: nothing is duplicated or reordered by lost
        /// answers, moved leaders, a reload or kill -9 of a worker. It needs `request_required_acks = -1` and Kafka 0.11.
        /// By default it is on where both are there and the brokers allow it; with true nothing is sent to brokers that
        /// do not allow it.
        enable_idempotence: Option<bool> = None => "true with request_required_acks = -1, if the brokers allow it", ANY, "", [];
        /// How long a broker may take to answer a request; it is told this as the limit for its replicas. Half a second
        /// after that the connection is closed and what was in flight is sent again. Where brokers below Kafka 2.0 have
        /// quotas it must be longer than their longest pause.
        request_timeout_ms: u64 = 5_000, ranges::REQUEST_TIMEOUT_MS, "ms", [];
        /// How long a message may wait from `log()` on until it is sent, repetitions included. Then it is handed to
        /// `failed_cb` or, without one, written to the backup file. A message that is in flight waits for its answer, at
        /// most `request_timeout_ms` and half a second longer; one with a sequence number that was sent without an answer
        /// has no limit, since only the broker can say what became of it. The default is short; 120000 rides out the
        /// restart of a broker.
        message_timeout_ms: u64 = 5_000, ranges::MESSAGE_TIMEOUT_MS, "ms", ["delivery_timeout_ms"];
        /// How often a batch is sent again after a broker answered with an error that may pass. Lost connections and moved
        /// leaders are not counted, and neither are batches with sequence numbers (`enable_idempotence`): there
        /// `message_timeout_ms` is the limit.
        message_send_max_retries: u32 = 2, ranges::RETRIES, "", ["retries"];
        /// The pause before a batch or a metadata request is repeated. Each further repetition that counts
        /// (`message_send_max_retries`) waits twice as long, up to `retry_backoff_max_ms`, with a jitter of 20%. (The table
        /// in ngx_lua_lkfk's README says 200.)
        retry_backoff_ms: u64 = 100, ranges::RETRY_BACKOFF_MS, "ms", [];
        /// The longest pause between repetitions of a batch or of a metadata request, before jitter. Topics that no broker
        /// knows are asked about less often, the less the more of them there are.
        retry_backoff_max_ms: u64 = 1_000, ranges::RETRY_BACKOFF_MS, "ms", [];
        /// Linger: how long a batch may wait for more messages before it is sent. Longer lingers make fewer and larger
        /// requests; 0 sends each message as soon as a request may be sent. The default is ngx_lua_lkfk's; 50 is enough for
        /// most.
        queue_buffering_max_ms: u64 = 2_000, ranges::LINGER_MS, "ms", ["linger_ms"];
        /// The number of messages after which a batch is closed and sent. (The list in ngx_lua_lkfk's README says 5.)
        batch_num_messages: usize = 500, ranges::BATCH_MESSAGES, "messages", [];
        /// The number of bytes after which a batch is closed and sent, as they are expected to go over the wire. Keep it below
        /// the brokers' `message.max.bytes`.
        batch_size: usize = 1_000_000, ranges::BATCH_BYTES, "bytes", [];
        /// The largest message, key included, that `log()` takes. It may be a quarter of the queue at most
        /// (`queue_buffering_max_kbytes`). The broker has a limit of its own, `message.max.bytes`.
        message_max_bytes: usize = 1_000_000, ranges::MESSAGE_BYTES, "bytes", ["max_request_size"];
        /// The number of requests to one broker that may be in flight. Of one partition only one batch is in flight at a
        /// time, so that its order is kept; with `enable_idempotence` up to five are.
        max_in_flight_requests_per_connection: usize = 5, ranges::IN_FLIGHT, "requests", ["max_in_flight"];
        /// Sends a message's key to Kafka. With false the key chooses the partition and is not sent, as in ngx_lua_lkfk.
        send_key: bool = true, ANY, "", [];
        /// The compression of batches, by lkfk's thread and not by nginx's. Of several codecs, `"zstd,gzip"`, the first is used
        /// that a broker takes: zstd needs Kafka 2.1, the others any. Consumers find out themselves, if they know the codec.
        /// Batches become larger by it, since `batch_size` counts what they are expected to take once they are compressed;
        /// more messages have to come within `queue_buffering_max_ms`, and `batch_num_messages` may have to be raised. A
        /// batch that would not become smaller is sent as it is. `"lz4"` costs least; `"zstd"` makes the smallest batches, and
        /// is a good choice where the network or the brokers' disks are what is scarce.
        compression_codec: Codecs = "none", ANY, "", ["compression_type"];
        /// How much work the codec does: a higher level makes smaller batches and takes more processor time. gzip has 0 to 9,
        /// of which 0 compresses nothing, and zstd 1 to 22; a higher one is taken as the codec's highest. -1 is the codec's
        /// default, which is 6 with gzip and 3 with zstd. lz4 and snappy have a single level, whatever is set here.
        compression_level: i32 = -1, ranges::COMPRESSION_LEVEL, "", [];
    }

    "Queue" queue: QueueConfig {
        /// The number of messages that may wait in a worker's queue, those in flight included. Above that `log()` returns
        /// nil, "queue full". Each takes some 40 bytes of the worker's memory besides the queue's.
        queue_buffering_max_messages: u64 = 50_000, ranges::QUEUE_MESSAGES, "messages", [];
        /// The bytes that messages may take in a worker's queue, with at most 64 bytes of overhead each; the file is some
        /// 13% and half a MiB longer. Memory is asked for as messages wait, and given back after a peak; an idle queue
        /// takes less than 1 MiB. Multiply it by the number of workers to see what an outage takes of `/dev/shm`.
        queue_buffering_max_kbytes: u64 = 32_768, ranges::QUEUE_KBYTES, "KiB", [];
        /// The directory below which the queue files lie, in a directory lkfk-UID of mode 0700. A relative path lies below
        /// nginx's prefix. Where no file can be made in it the queue lies in `backpath`, with a warning; where its file
        /// system is full, so is the queue. It should lie on tmpfs, ramfs, ext4 or xfs: anywhere else (btrfs, ZFS,
        /// overlayfs, NFS) a full disk could end nginx's workers, so that the queue has no file there unless `backpath`
        /// lies on one of the four. What waits in a queue without a file is lost when a worker is killed or crashes; a
        /// warning says that it has none. The default survives a killed worker but no restart of the machine.
        queue_path: PathBuf = "/dev/shm", ANY, "", [];
        /// The name of this nginx. A worker adopts the queue files that dead workers of the same instance left, and no
        /// others. Give two servers that share `queue_path` or `backpath` names of their own, and one whose prefix changes
        /// with each start a name that stays.
        instance: String = String::new() => "prefix", ranges::INSTANCE, "", [];
        /// What happens when the queue fills up and the backup takes nothing either, or not as fast. `"reject"` leaves
        /// what is there, so that `log()` returns nil once the queue is full. `"drop_oldest"` drops the oldest messages
        /// that were never sent and cannot be, so that `log()` goes on taking new ones; they are counted in `dropped_cnt`.
        overflow: Overflow = "reject", ANY, "", [];
        /// Keeps the statistics of ngx_lua_lkfk in `lua_shared_dict kfk`, if there is one. `kfk.stats()` works without.
        kfk_status: bool = true, ANY, "", [];
    }

    "Backup" backup: BackupConfig {
        /// The directory of the backup files, one for each topic, for messages that could not be delivered. A relative
        /// path lies below nginx's prefix. A directory that is missing is made, with mode 0700, if the worker's user may.
        backpath: PathBuf = PathBuf::new() => "prefix .. \"/backup/\"", ANY, "", [];
        /// The size at which a backup file is rotated: TOPIC becomes TOPIC~1, the next one TOPIC~2, and so on.
        backup_max_bytes: u64 = 268_435_456, ranges::BACKUP_FILE_BYTES, "bytes", [];
        /// What all backup files together may take, or a little more where several workers write at once. Above that no
        /// line is added: messages that could not be delivered stay in the queue, the log and `kfk.stats()` say so, and
        /// `overflow` decides about a full queue.
        backup_total_bytes: u64 = 4_294_967_296, ranges::BACKUP_TOTAL_BYTES, "bytes", [];
        /// Which lines of the backup files are sent again once their topic can be delivered to: with true lkfk's own, with
        /// `"all"` also those that the original module, a `failed_cb` or anybody else wrote there, with false none. A file
        /// is removed when all of it was sent.
        replay: Replay = true, ANY, "", [];
        /// How many messages a second are replayed at most, by all workers of a `backpath` together; only one of them
        /// replays at a time. `"auto"` replays as many as Kafka takes while that worker logs nothing; beside new messages
        /// at most as many as Kafka acknowledged of those, fewer when they are acknowledged later because of it, and 1,000
        /// in any case. 0 replays as many as Kafka takes, whatever comes.
        replay_rate: ReplayRate = "auto", ranges::REPLAY_RATE, "messages/s", [];
    }

    "Security" security: SecurityConfig {
        /// How brokers are spoken to: `"plaintext"`, `"ssl"` by TLS, `"sasl_plaintext"` after authentication, `"sasl_ssl"` by
        /// TLS and after authentication. Without TLS whoever sees the network can read and change what is sent. TLS 1.2 and
        /// 1.3 are spoken.
        security_protocol: SecurityProtocol = "plaintext", ANY, "", [];
        /// The certificates of the authorities that brokers' certificates are trusted for, in PEM: a file, or a directory of
        /// files. Without it those of the system are trusted (`/etc/ssl/certs`, or what SSL_CERT_FILE and SSL_CERT_DIR name,
        /// which nginx hands to its workers only with `env SSL_CERT_FILE;`). A broker's own certificate, if it is
        /// self-signed, may stand here as well. A relative path lies below nginx's prefix, and nginx's workers must be able
        /// to read the file. A file that has changed is read again with the next connection.
        ssl_ca_location: PathBuf = PathBuf::new() => "the system's", ANY, "", ["ssl_cafile"];
        /// The same certificates themselves, instead of a path to them.
        ssl_ca_pem: Secret = Secret::default() => "nil", ANY, "", [];
        /// The certificate that lkfk shows to brokers, in PEM, followed by those between it and its authority. It is
        /// needed where brokers have `ssl.client.auth=required`. A certificate that is changed before it expires is used
        /// from the next connection on; fourteen days before the end a warning begins.
        ssl_certificate_location: PathBuf = PathBuf::new() => "nil", ANY, "", ["ssl_certfile"];
        /// The same certificates themselves, instead of a path to them.
        ssl_certificate_pem: Secret = Secret::default() => "nil", ANY, "", [];
        /// The private key of that certificate, in PEM. nginx's workers, which are not root as a rule, must be able to read
        /// it, and nobody else should be.
        ssl_key_location: PathBuf = PathBuf::new() => "nil", ANY, "", ["ssl_keyfile"];
        /// The same key itself, instead of a path to it. It is neither logged nor shown in an error, but Lua keeps a copy.
        ssl_key_pem: Secret = Secret::default() => "nil", ANY, "", [];
        /// The password of the private key, if it is encrypted (PKCS#8).
        ssl_key_password: Secret = Secret::default() => "nil", ANY, "", ["ssl_password"];
        /// Whether a broker's certificate must be for the host that is connected to, which is the name or address in
        /// `metadata_broker_list` or in the broker's `advertised.listeners`. `"none"` takes any name, so that whoever has a
        /// certificate of the same authority can pose as a broker; a warning at start says so.
        ssl_endpoint_identification_algorithm: Identification = "https", ANY, "", [];
        /// Whether a broker has to show a certificate that is trusted at all. With false anybody can pose as a broker, read
        /// what is sent, and take passwords; a warning at start says so.
        enable_ssl_certificate_verification: bool = true, ANY, "", [];
        /// How connections authenticate. SCRAM never sends the password, and has the broker show that it knows it, too;
        /// brokers have it from Kafka 0.10.2 on. What it sends is enough to try passwords out on, so let yours be long and
        /// random. PLAIN sends the password itself, and without TLS needs `insecure_plain`.
        sasl_mechanisms: Option<Mechanism> = None => "nil", ANY, "", ["sasl_mechanism"];
        /// The name of the user as whom connections authenticate.
        sasl_username: String = String::new() => "nil", ranges::USERNAME, "", [];
        /// The password of `sasl_username`. It is neither logged nor shown in an error.
        sasl_password: Secret = Secret::default() => "nil", ANY, "", [];
        /// Lets PLAIN send the password without TLS, or where certificates are not checked
        /// (`enable_ssl_certificate_verification`). Any host that poses as a broker gets it, too.
        insecure_plain: bool = false, ANY, "", [];
        /// How often a broker may have the password hashed for SCRAM, which costs processor time at each connection, on
        /// one more thread. Brokers of Kafka want 4,096 to 16,384. Fewer than 4,096 make a password easy to guess, and are
        /// refused.
        scram_max_iterations: u32 = 65_536, ranges::SCRAM_ITERATIONS, "", [];
    }

    "Callbacks" callbacks: CallbackConfig {
        /// A function that is called on the event loop with each message that could not be delivered, instead of writing
        /// it to the backup file: `msg.topic`, `msg.key`, `msg.str` (nil for a tombstone), `msg.headers` (a list of
        /// `{ name, value }`, or nil), `msg.timestamp`, `msg.err` (why) and `msg.code` (Kafka's error code, or nil). `kfk.cf` is the configuration without passwords and private keys; `kfk.fp[topic]:write(...)` appends to the
        /// topic's backup file. It may yield. When it throws, the message goes to the backup file.
        failed_cb: Callback = Callback(false) => "writes to the backup file", choices::Signature("kfk, msg"), "", [];
        /// A function that is called on the event loop for each message, and returns a partition from 0 to
        /// `partition_count - 1`. When it throws or returns anything else the default partitioner chooses, and a log line
        /// says so.
        partitioner: Callback = Callback(false) => "crc32(key) % count", choices::Signature("key, partition_count"), "", [];
    }

    "Exit" exit: ExitConfig {
        /// How long a worker that exits waits for acknowledgements. One that shuts down gracefully (-QUIT, a reload) waits
        /// as long as nginx's `worker_shutdown_timeout` lets it live, if that is longer. What is left then goes to the
        /// backup files. On -TERM nginx's master kills its workers after 1.5 s: what is not in the backup by then stays in
        /// the queue file, for the next worker.
        exit_timeout_ms: u64 = 1_000, ranges::EXIT_TIMEOUT_MS, "ms", [];
    }
}
