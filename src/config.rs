//! The configuration: one table of keys, from which the parser, its error messages and the manual come.
//!
//! Keys are librdkafka's with underscores, or the original module's. A value is refused here or never:
//! what is in a [`Config`] has the right type and lies within its range.

mod brokers;
mod choices;
mod security;
mod value;

pub use brokers::HostPort;
pub use choices::{Callback, Codec, Overflow, Replay, ReplayRate};
pub use security::{Credentials, FEWEST_ITERATIONS, Mechanism, Secret, SecurityProtocol};
pub use value::Value;

use crate::protocol::release::Release;
use std::path::{Path, PathBuf};
use value::FromValue;

/// Why a configuration was refused. The text names the key and what it takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Nobody knows this key.
    #[error("not valid kafka conf: {key}{}", nearest.as_ref().map(|n| format!(" (did you mean {n}?)")).unwrap_or_default())]
    UnknownKey {
        /// The key.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
    },
    /// The value is of the wrong type or out of range.
    #[error("{key}: expected {expected}, got {got}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// What the key takes.
        expected: String,
        /// What was given.
        got: String,
    },
    /// Two values that do not go together, or a required one is missing.
    #[error("{0}")]
    Conflict(String),
}

/// A key's row in the manual.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Name.
    pub name: &'static str,
    /// Other names it answers to.
    pub aliases: &'static [&'static str],
    /// Unit of the value, empty when it has none.
    pub unit: &'static str,
    /// Default, as a user would write it in Lua.
    pub default: &'static str,
    /// What it does.
    pub text: &'static str,
    /// Type and range, in words.
    pub takes: fn() -> String,
    set: fn(&mut Config, &Value) -> Result<(), String>,
}

/// Declares the struct, its defaults and the table of keys in one go.
macro_rules! keys {
    ($( $name:ident: $type:ty = $default:expr, $shown:literal, $bounds:expr, $unit:literal, [$($alias:literal),*], $text:literal; )*) => {
        /// A checked configuration. The fields are described in [`KEYS`].
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs, reason = "the texts are in KEYS, from which the manual is printed")]
        pub struct Config { $( pub $name: $type, )* }

        impl Default for Config {
            fn default() -> Self {
                Config { $( $name: $default, )* }
            }
        }

        /// Every key, in the manual's order.
        pub const KEYS: &[Key] = &[ $( Key {
            name: stringify!($name),
            aliases: &[$($alias),*],
            unit: $unit,
            default: $shown,
            text: $text,
            takes: || <$type as FromValue>::takes(&$bounds),
            set: |config, value| {
                config.$name = <$type as FromValue>::from_value(value, &$bounds)?;
                Ok(())
            },
        }, )* ];
    };
}

/// No bounds beyond the type's own.
const ANY: () = ();

keys! {
    metadata_broker_list: Vec<HostPort> = Vec::new(), "{}", ANY, "", ["bootstrap_servers"],
        "Brokers to ask first, at least two if there are two: {\"h1:p1,h2:p2\"}, {\"h1:p1\", \"h2:p2\"}, \"h1:p1,h2:p2\" or {{host = \"h1\", port = p1}}. IPv6 addresses stand in brackets; the port is 9092 when missing. The others are learnt from these. Required.";
    client_id: String = "lkfk".into(), "\"lkfk\"", value::Length(0, 255), "", [],
        "Name the brokers see in their logs, metrics and quotas.";
    topics: Vec<String> = Vec::new(), "{}", value::TopicNames, "", [],
        "Topics that may be logged to; their metadata is asked for at start. For any other topic log() returns nil, and the message goes to failed_cb or, without one, to the backup file, with \"topic unknown\". Empty: every topic may.";
    request_required_acks: i16 = 1, "1", choices::Acks, "", ["acks"],
        "Who must have a message before it counts as sent: 1 the partition's leader, -1 (or \"all\") all in-sync replicas, 0 nobody: then a message counts as sent once it is written to the socket, and what a broker loses is lost.";
    enable_idempotence: Option<bool> = None, "true with request_required_acks = -1, if the brokers allow it", ANY, "", [],
        "Numbers the messages, so that brokers drop what reaches them twice: no duplicates and no other order after lost answers, moved leaders, a reload or kill -9 of a worker. Needs request_required_acks = -1 and Kafka 0.11. true: nothing is sent to brokers that do not allow it.";
    request_timeout_ms: u64 = 5_000, "5000", 1..=900_000, "ms", [],
        "How long a broker may take to answer; also sent to it as the limit for the replicas. When it is over the connection is closed and the request repeated.";
    message_timeout_ms: u64 = 5_000, "5000", 1..=2_147_483_647, "ms", ["delivery_timeout_ms"],
        "How long a message may take from log() to acknowledgement, transfer and retries included. After that it goes to the backup file.";
    message_send_max_retries: u32 = 2, "2", 0..=10_000_000, "", ["retries"],
        "How often a batch is sent again after a broker answered with an error that may pass. Lost connections and moved leaders are not counted; message_timeout_ms bounds those.";
    retry_backoff_ms: u64 = 100, "100", 1..=300_000, "ms", [],
        "Pause before the first repetition of a batch or of a metadata request; doubled each time, give or take a fifth. (The table in ngx_lua_lkfk's README says 200.)";
    retry_backoff_max_ms: u64 = 1_000, "1000", 1..=300_000, "ms", [],
        "Longest such pause.";
    metadata_refresh_interval_ms: u64 = 60_000, "60000", 100..=3_600_000, "ms", ["topic_metadata_refresh_interval_ms", "metadata_max_age_ms"],
        "How often partitions and leaders are asked for when nothing is wrong. Errors cause a refresh of their own.";
    allow_auto_create_topics: bool = true, "true", ANY, "", [],
        "Lets the broker make a topic that does not exist, if its own configuration allows that.";
    queue_buffering_max_ms: u64 = 2_000, "2000", 0..=900_000, "ms", ["linger_ms"],
        "Linger: how long a batch may wait for more messages before it is sent.";
    queue_buffering_max_messages: u64 = 50_000, "50000", 1..=100_000_000, "messages", [],
        "Messages that may wait in a worker's queue, in flight ones included. Above that log() returns nil, \"queue full\".";
    queue_buffering_max_kbytes: u64 = 32_768, "32768", 64..=2_097_152, "KiB", [],
        "Bytes that a worker's queue may take, with at most 64 bytes of overhead for each message. Memory is asked for as messages wait, and given back after a peak; an idle queue takes less than 1 MiB.";
    queue_path: PathBuf = "/dev/shm".into(), "\"/dev/shm\"", ANY, "", [],
        "Directory below which the queue files lie, in a directory lkfk-UID of mode 0700. A relative path lies below nginx's prefix. Where no file can be made in it, backpath is used, with a warning; where its file system is full, so is the queue. It should lie on tmpfs, ramfs, ext4 or xfs: anywhere else (btrfs, ZFS, overlayfs, NFS, ...) a full disk could end nginx's workers, so the queue has no file there unless backpath lies on one of the four, and what waits in it is lost when a worker is killed or crashes, which a warning says.";
    batch_num_messages: usize = 500, "500", 1..=1_000_000, "messages", [],
        "Messages after which a batch is closed. (The list in ngx_lua_lkfk's README says 5.)";
    batch_size: usize = 1_000_000, "1000000", 1_024..=1_000_000_000, "bytes", [],
        "Bytes after which a batch is closed.";
    message_max_bytes: usize = 1_000_000, "1000000", 1_000..=268_435_456, "bytes", ["max_request_size"],
        "Largest message, key included, that log() takes. At most a quarter of the queue. The broker has a limit of its own (message.max.bytes).";
    max_in_flight_requests_per_connection: usize = 5, "5", 1..=1_000, "requests", ["max_in_flight"],
        "Requests to one broker that may wait for their answers. Of one partition only one batch is ever in flight, so that its order is kept; with enable_idempotence up to five.";
    send_key: bool = true, "true", ANY, "", [],
        "Sends the key to Kafka. The original used it to choose the partition only; false restores that.";
    failed_cb: Callback = Callback(false), "writes to the backup file", choices::Signature("kfk, msg"), "", [],
        "Called on the event loop with each message that could not be delivered, instead of writing it to the backup file: msg.topic, msg.key, msg.str, and msg.err (why), msg.code (Kafka's error code, or nil). kfk.cf is the configuration without sasl_password, kfk.fp[topic]:write(...) appends to the topic's backup file. It may yield. When it throws, the message goes to the backup file.";
    partitioner: Callback = Callback(false), "crc32(key) % count", choices::Signature("key, partition_count"), "", [],
        "Called on the event loop for each message; returns a partition from 0 to partition_count - 1. Anything else, or an error, means the default partitioner, and a log line.";
    instance: String = String::new(), "prefix", value::Length(1, 255), "", [],
        "Which nginx this is. A worker adopts the queue files that dead workers of the same instance left, and no others. Give two servers that share queue_path or backpath names of their own, and one whose prefix changes with each start a name that stays.";
    kfk_status: bool = true, "true", ANY, "", [],
        "Keeps statistics in lua_shared_dict kfk, if there is one.";
    backpath: PathBuf = PathBuf::new(), "prefix .. \"/backup/\"", ANY, "", [],
        "Directory of the backup files, one per topic, for messages that could not be delivered. A relative path lies below nginx's prefix. It is made when it is missing, with mode 0700.";
    backup_max_bytes: u64 = 268_435_456, "268435456", 65_536..=1_099_511_627_776, "bytes", [],
        "Size at which a backup file is rotated: TOPIC becomes TOPIC~1, the next one TOPIC~2, and so on.";
    backup_total_bytes: u64 = 4_294_967_296, "4294967296", 65_536..=1_125_899_906_842_624, "bytes", [],
        "What all backup files may take together. Above that no line is added: messages that could not be delivered stay in the queue, the log and kfk.stats() say so, and overflow decides about a full queue.";
    replay: Replay = Replay::Own, "true", ANY, "", [],
        "Sends the lines of the backup files again once their topic can be delivered to: true those of lkfk's own, \"all\" also those that the original module, a failed_cb or anybody else wrote there, false none. A file is removed when all of it was sent.";
    replay_rate: ReplayRate = ReplayRate::Auto, "\"auto\"", 0..=10_000_000, "messages/s", [],
        "How many messages a second are replayed at most, by all workers of a backpath together; only one of them replays at a time. \"auto\": as many as Kafka takes while that worker logs nothing; beside new messages at most as many as it has acknowledged of those, fewer when they are acknowledged later because of it, and 1,000 in any case. 0: as many as Kafka takes, whatever comes.";
    overflow: Overflow = Overflow::Reject, "\"reject\"", ANY, "", [],
        "What happens when the queue fills up and the backup takes nothing either, or not as fast: \"reject\" leaves what is there, so that log() returns nil once the queue is full; \"drop_oldest\" drops the oldest messages that were never sent and cannot be, so that it takes new ones.";
    reconnect_backoff_ms: u64 = 100, "100", 1..=3_600_000, "ms", [],
        "Pause before the second attempt to connect to a broker; doubled each time, give or take a fifth. Ten times as long when authentication was refused.";
    reconnect_backoff_max_ms: u64 = 1_000, "1000", 1..=3_600_000, "ms", [],
        "Longest such pause.";
    conn_retry_limit: u32 = 3, "3", 1..=1_000_000, "", [],
        "After this many failed connects in a row a broker rests for conn_retry_timeout, unless no other is left to try. (The table in ngx_lua_lkfk's README says 2.)";
    conn_retry_timeout: u64 = 60, "60", 1..=86_400, "s", [],
        "How long it rests. Messages that only this broker can take are offered to it all the same. (The table in ngx_lua_lkfk's README says 200.)";
    socket_connection_setup_timeout_ms: u64 = 5_000, "5000", 100..=300_000, "ms", [],
        "How long name resolution, connect and the first exchange with a broker may take, each.";
    socket_keepalive_enable: bool = true, "true", ANY, "", [],
        "TCP keep-alive, so that a silently dead connection is noticed when nothing is sent.";
    security_protocol: SecurityProtocol = SecurityProtocol::Plaintext, "\"plaintext\"", ANY, "", [],
        "How brokers are spoken to: \"plaintext\" as they are, \"sasl_plaintext\" after authentication. There is no TLS in this version: what is sent can be read, and changed, on the way.";
    sasl_mechanisms: Option<Mechanism> = None, "nil", ANY, "", ["sasl_mechanism"],
        "How connections authenticate. SCRAM never sends the password, and has the broker show that it knows it, too; brokers have it from Kafka 0.10.2 on. What it sends is enough to try passwords out on, so let yours be long and random. PLAIN sends the password itself.";
    sasl_username: String = String::new(), "nil", value::Length(1, 255), "", [],
        "Who authenticates.";
    sasl_password: Secret = Secret::default(), "nil", ANY, "", [],
        "With what. It is neither logged nor shown in an error.";
    insecure_plain: bool = false, "false", ANY, "", [],
        "Lets PLAIN send the password though there is no TLS. Any host that poses as a broker gets it, too.";
    scram_max_iterations: u32 = 65_536, "65536", security::FEWEST_ITERATIONS..=10_000_000, "", [],
        "How often a broker may have the password hashed for SCRAM, which costs processor time at each connection, on one more thread. (Brokers of Kafka want 4,096 to 16,384.) Fewer than 4,096 make a password easy to guess, and are refused.";
    api_version_request: bool = true, "true", ANY, "", [],
        "Asks each broker which versions it speaks, and finds out by itself those that are too old for the question (0.8 and 0.9). False: none is asked, and all are spoken to as broker_version_fallback says.";
    broker_version_fallback: Release = Release::V0_9, "\"0.9.0\"", ANY, "", [],
        "With api_version_request = false: the release of Kafka that all brokers are spoken to as. One that is too new for a broker may duplicate messages without end: give the cluster's oldest.";
    api_version_fallback_ms: u64 = 1_200_000, "1200000", 0..=604_800_000, "ms", [],
        "How long a broker that was found to be 0.8 or 0.9 is not asked for its versions again. Each new connection makes sure that it still is.";
    exit_timeout_ms: u64 = 1_000, "1000", 0..=300_000, "ms", [],
        "How long a worker that exits waits for acknowledgements. One that shuts down gracefully (-QUIT, reload) waits as long as nginx's worker_shutdown_timeout lets it live, if that is longer. What is left then goes to the backup files. On -TERM nginx's master kills its workers after 1.5 s: what is not in the backup by then stays in the queue file, for the next worker.";
    compression_codec: Codec = Codec::None, "\"none\"", ANY, "", ["compression_type"],
        "Compression of batches. This version knows \"none\".";
}

impl Config {
    /// Lays `entries` over the defaults. `prefix` is nginx's, from which the default of `backpath` comes and below which
    /// relative paths lie. The last of two equal keys wins.
    pub fn parse(entries: &[(String, Value)], prefix: &str) -> Result<Config, ConfigError> {
        let mut config = Config {
            backpath: PathBuf::from("backup"),
            instance: prefix.to_owned(),
            ..Config::default()
        };
        for (name, value) in entries {
            let key = find(name)?;
            (key.set)(&mut config, value).map_err(|got| ConfigError::BadValue {
                key: key.name,
                expected: (key.takes)(),
                got,
            })?;
        }
        // As nginx treats its own paths: where it was started from does not matter. People read them in the log, so
        // without a second slash, or whatever else they may as well do without.
        for path in [&mut config.backpath, &mut config.queue_path] {
            *path = Path::new(prefix).join(&*path).components().collect();
        }
        config.check()?;
        Ok(config)
    }

    /// Checks what no key can check alone.
    fn check(&self) -> Result<(), ConfigError> {
        let conflict = |text: String| Err(ConfigError::Conflict(text));
        if self.metadata_broker_list.is_empty() {
            return conflict(
                "metadata_broker_list is empty: set it to at least one \"host:port\"".into(),
            );
        }
        let quarter = self.queue_buffering_max_kbytes as usize * 1024 / 4;
        if self.message_max_bytes > quarter {
            return conflict(format!(
                "message_max_bytes ({}) is more than a quarter of the queue: raise \
                 queue_buffering_max_kbytes to at least {}",
                self.message_max_bytes,
                (self.message_max_bytes * 4).div_ceil(1024),
            ));
        }
        if self.enable_idempotence == Some(true) && self.request_required_acks != -1 {
            return conflict(format!(
                "enable_idempotence needs request_required_acks = -1, not {}",
                self.request_required_acks
            ));
        }
        if self.backup_total_bytes < self.backup_max_bytes {
            return conflict(format!(
                "backup_total_bytes ({}) is less than backup_max_bytes ({})",
                self.backup_total_bytes, self.backup_max_bytes
            ));
        }
        // Every byte may be escaped, and a line has a time and a topic.
        let longest_line = 2 * self.message_max_bytes as u64 + 1024;
        if self.backup_total_bytes < longest_line {
            return conflict(format!(
                "backup_total_bytes ({}) cannot hold a message of message_max_bytes ({}): raise it \
                 to at least {longest_line}",
                self.backup_total_bytes, self.message_max_bytes,
            ));
        }
        self.check_security()?;
        for (low, high, names) in [
            (self.retry_backoff_ms, self.retry_backoff_max_ms, "retry_backoff"),
            (self.reconnect_backoff_ms, self.reconnect_backoff_max_ms, "reconnect_backoff"),
        ] {
            if low > high {
                return conflict(format!(
                    "{names}_ms ({low}) is more than {names}_max_ms ({high})"
                ));
            }
        }
        Ok(())
    }
}

/// The row of a key or of one of its aliases. Dots count as underscores, as librdkafka writes them.
fn find(name: &str) -> Result<&'static Key, ConfigError> {
    let plain = name.replace('.', "_");
    KEYS.iter().find(|key| key.name == plain || key.aliases.contains(&&*plain)).ok_or_else(|| {
        let nearest = KEYS
            .iter()
            .flat_map(|key| std::iter::once(key.name).chain(key.aliases.iter().copied()))
            .map(|known| (distance(&plain, known), known))
            .min()
            .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
            .map(|(_, known)| known);
        ConfigError::UnknownKey { key: value::shown(name.as_bytes()), nearest }
    })
}

/// Edits that turn one word into the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    // A key nobody would mistype must not cost a quadratic comparison.
    if a.len() > 128 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.as_bytes().to_vec())
    }

    fn parse(entries: &[(&str, Value)]) -> Result<Config, ConfigError> {
        let mut all = vec![("metadata_broker_list".to_owned(), text("b:1"))];
        all.extend(entries.iter().map(|(key, value)| (key.to_string(), value.clone())));
        Config::parse(&all, "/prefix")
    }

    fn error(entries: &[(&str, Value)]) -> String {
        parse(entries).unwrap_err().to_string()
    }

    #[test]
    fn defaults_shown_in_the_manual_are_the_defaults() {
        for key in KEYS {
            let shown = match key.default {
                shown @ ("true" | "false") => Value::Bool(shown == "true"),
                "nil" | "{}" | "prefix" | "prefix .. \"/backup/\"" => continue,
                _ if ["failed_cb", "partitioner", "enable_idempotence"].contains(&key.name) => {
                    continue;
                }
                quoted if quoted.starts_with('"') => text(quoted.trim_matches('"')),
                number => Value::Int(number.parse().unwrap()),
            };
            let mut config = Config::default();
            (key.set)(&mut config, &shown).unwrap();
            assert_eq!(config, Config::default(), "{}", key.name);
        }
    }

    #[test]
    fn unknown_key_names_the_nearest_known_one() {
        assert_eq!(
            error(&[("batch_num_mesages", Value::Int(1))]),
            "not valid kafka conf: batch_num_mesages (did you mean batch_num_messages?)"
        );
        assert_eq!(error(&[("zebra", Value::Int(1))]), "not valid kafka conf: zebra");
    }

    #[test]
    fn wrong_type_and_range_say_what_was_expected() {
        assert_eq!(
            error(&[("batch_num_messages", text("many"))]),
            "batch_num_messages: expected an integer from 1 to 1000000, got \"many\""
        );
        assert_eq!(
            error(&[("batch_num_messages", Value::Int(0))]),
            "batch_num_messages: expected an integer from 1 to 1000000, got 0"
        );
        assert_eq!(
            error(&[("send_key", Value::Int(1))]),
            "send_key: expected true or false, got 1"
        );
        assert!(error(&[("request_required_acks", Value::Int(2))]).contains("expected 1, 0"));
        assert!(error(&[("topics", text("a/b"))]).starts_with("topics: expected"));
    }

    #[test]
    fn aliases_and_dots_reach_the_same_key() {
        let config = parse(&[("linger.ms", Value::Int(7)), ("acks", text("all"))]).unwrap();
        assert_eq!(config.queue_buffering_max_ms, 7);
        assert_eq!(config.request_required_acks, -1);
    }

    #[test]
    fn whole_floats_and_numbers_in_text_count_as_integers() {
        let config = parse(&[
            ("request_timeout_ms", Value::Float(250.0)),
            ("message_timeout_ms", text("300")),
        ]);
        let config = config.unwrap();
        assert_eq!((config.request_timeout_ms, config.message_timeout_ms), (250, 300));
        assert!(parse(&[("request_timeout_ms", Value::Float(0.5))]).is_err());
    }

    #[test]
    fn message_larger_than_a_quarter_of_the_queue_is_a_conflict_that_says_what_to_raise() {
        let error = error(&[("queue_buffering_max_kbytes", Value::Int(1024))]);
        assert!(error.contains("raise queue_buffering_max_kbytes to at least 3907"), "{error}");
    }

    #[test]
    fn a_release_is_taken_in_the_forms_that_librdkafka_takes() {
        let parsed = |release: &str| parse(&[("broker.version.fallback", text(release))]);
        for (release, produce) in [("0.8.2", 0), ("0.9.0.1", 0), ("0.10.0", 2), ("2.8.2", 9)] {
            let versions = parsed(release).unwrap().broker_version_fallback.versions();
            assert_eq!(versions.produce, produce, "{release}");
        }
        assert_eq!(
            parsed("0.7.2").unwrap_err().to_string(),
            "broker_version_fallback: expected a release of Kafka from 0.8 on, such as \"0.8.2\" or \
             \"0.10.2.1\", got \"0.7.2\""
        );
        assert!(parse(&[("broker_version_fallback", Value::Float(0.9))]).is_err());
    }

    #[test]
    fn replay_and_overflow_take_their_words_and_the_rate_a_number_as_well() {
        let replay = |value: Value| parse(&[("replay", value)]).map(|config| config.replay);
        assert_eq!(replay(Value::Bool(false)), Ok(Replay::Off));
        assert_eq!(replay(text("all")), Ok(Replay::All));
        assert_eq!(
            replay(text("own")).unwrap_err().to_string(),
            "replay: expected true, false or \"all\", got \"own\""
        );
        let rate = |value: Value| parse(&[("replay_rate", value)]).map(|config| config.replay_rate);
        assert_eq!(rate(text("auto")), Ok(ReplayRate::Auto));
        assert_eq!(rate(Value::Int(50)), Ok(ReplayRate::Fixed(50)));
        assert_eq!(
            rate(text("fast")).unwrap_err().to_string(),
            "replay_rate: expected \"auto\" or an integer from 0 to 10000000, got \"fast\""
        );
        let overflow = parse(&[("overflow", text("drop_oldest"))]).unwrap().overflow;
        assert_eq!(overflow, Overflow::DropOldest);
        assert_eq!(
            error(&[("overflow", text("block"))]),
            "overflow: expected \"reject\" or \"drop_oldest\", got \"block\""
        );
    }

    #[test]
    fn directory_of_the_backup_holds_one_file_at_least() {
        let error = error(&[("backup_total_bytes", Value::Int(65_536))]);
        assert_eq!(error, "backup_total_bytes (65536) is less than backup_max_bytes (268435456)");
        let small = Value::Int(65_536);
        let error = parse(&[("backup_total_bytes", small.clone()), ("backup_max_bytes", small)]);
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("raise it to at least 2001024"), "{error}");
    }

    #[test]
    fn backpath_and_instance_default_to_the_prefix() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.backpath, PathBuf::from("/prefix/backup"));
        assert_eq!(config.instance, "/prefix");
        assert_eq!(parse(&[("instance", text("edge"))]).unwrap().instance, "edge");
        assert!(parse(&[("instance", text(""))]).is_err());
    }

    #[test]
    fn flt_25_relative_paths_go_by_the_prefix() {
        for key in ["backpath", "queue_path"] {
            let path = |given: &str| {
                let config = parse(&[(key, text(given))]).unwrap();
                if key == "backpath" { config.backpath } else { config.queue_path }
            };
            assert_eq!(path("spool/lkfk"), PathBuf::from("/prefix/spool/lkfk"));
            assert_eq!(path("/var/lib/lkfk"), PathBuf::from("/var/lib/lkfk"));
        }
    }

    #[test]
    fn flt_26_paths_have_no_double_slash() {
        let config = parse(&[("backpath", text("/prefix//backup/"))]).unwrap();
        assert_eq!(config.backpath.to_str(), Some("/prefix/backup"));
        assert_eq!(config.backpath.join("t").to_str(), Some("/prefix/backup/t"));
        let broker = [("metadata_broker_list".to_owned(), text("b:1"))];
        let config = Config::parse(&broker, "/usr//share/nginx/").unwrap();
        assert_eq!(config.backpath.to_str(), Some("/usr/share/nginx/backup"));
    }

    #[test]
    fn key_names_and_aliases_are_unique() {
        let mut names: Vec<&str> =
            KEYS.iter().flat_map(|k| k.aliases.iter().copied().chain([k.name])).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
