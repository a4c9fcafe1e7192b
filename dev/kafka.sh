#!/usr/bin/env bash
# Kafka brokers of the stage, each in $STAGE/kafka/NAME, on 127.0.0.1: clusters of one node, or of
# several. From Kafka 3 on they are KRaft nodes; those before, from 0.8.2.2, have a ZooKeeper of their
# own, which comes with them, outlives a kill and goes with a stop.
#   fetch [VERSION]                  jars from Maven into target/kafka/VERSION; the default is in
#                                    kafka/pom.xml
#   start NAME [VERSION] [KEY=VALUE ...] [--FORMAT-OPTION=VALUE ...]
#                                    returns when the broker answers; $STAGE/kafka/NAME/env then
#                                    holds BOOTSTRAP, PID, VERSION. KEY=VALUE are lines of
#                                    server.properties, --... goes to the format tool
#                                    (--add-scram=...). --sasl=USER:PASSWORD adds a listener that wants
#                                    authentication, SASL in env: with SCRAM, or PLAIN. Brokers before
#                                    0.10.2 have none. --tls=DIR adds listeners with the certificates that
#                                    dev/kafka/certificates.sh made there: TLS_NAME with each of a
#                                    broker's, MTLS that wants one of a client, TLS_OLD with TLS 1.1 alone,
#                                    SASL_SSL with --sasl. Started again, it keeps ports, properties and
#                                    data
#   cluster NAME PORT PORT... [KEY=VALUE ...]
#                                    one cluster of as many nodes, NAME-1, NAME-2 and so on, each a
#                                    NAME to the verbs below and to start. All hold all records; one
#                                    counts when all but one have it. Other brokers are told to use
#                                    BOOTSTRAP; who comes by the address CLIENT in env is told that
#                                    the nodes are at PORT, PORT..., where a proxy may stand
#   stop | kill | pause | resume | restart NAME
#   topic NAME TOPIC PARTITIONS [KEY=VALUE ...]
#   delete NAME TOPIC
#   grow NAME TOPIC PARTITIONS       so many from now on
#   lead NAME TOPIC PARTITIONS NODE  makes node NODE the leader of partition 0, the next one that of
#                                    partition 1, and so on
#   consume NAME TOPIC FORMAT        all records from first to last, in kcat's format
#   read NAME TOPIC                  the same with Java's consumer of that release, as "KEY SIZE:VALUE"
#   codecs NAME TOPIC                "CODEC BATCHES BYTES" lines about what the broker has stored, in
#                                    LKFK_KAFKA_DATA where its log.dirs is another one
#   tool NAME CLASS [ARGUMENT ...]   a Java tool with --bootstrap-server, as in
#                                    tool main org.apache.kafka.tools.TopicCommand --list
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

DEFAULT_VERSION=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' dev/kafka/pom.xml)
CLUSTER_ID=AAAAAAAAAAAAAAAAAAAAAQ
# Whose kafka-tools Maven does not have: no topic commands and the like.
WITHOUT_TOOLS='4.4.0'
SCRAM='SCRAM-SHA-256 SCRAM-SHA-512'
ZOOKEEPER_CLASS=org.apache.zookeeper.server.quorum.QuorumPeerMain

usage() {
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
  exit 2
}

# before VERSION OTHER: whether it is the older one.
before() {
  ! printf '%s\n' "$2" "$1" | sort -V --check=quiet
}

# --- Jars ---

# jars_dir VERSION
jars_dir() {
  printf '%s/target/kafka/%s' "$ROOT" "$1"
}

fetch() {
  local version=${1:-$DEFAULT_VERSION} dir lock
  dir=$(jars_dir "$version")
  if [[ -f $dir/complete ]]; then return; fi
  mkdir -p "$dir"
  exec {lock}>"$dir/lock"
  flock "$lock"
  if [[ ! -f $dir/complete ]]; then
    copy_jars "$version" "$dir"
    if ! before "$version" 3; then archive_classes "$version"; fi
    touch "$dir/complete"
  fi
  exec {lock}>&-
}

copy_jars() {
  local version=$1 dir=$2 pom=pom.xml options=()
  echo "Kafka $version: jars from Maven"
  if before "$version" 3; then
    pom=zookeeper.xml
    if before "$version" 0.10.2; then options=(-Dscala.version=2.11); fi
  elif [[ " $WITHOUT_TOOLS " == *" $version "* ]]; then
    options=(-P '!tools')
  fi
  rm -rf "${dir:?}/lib"
  # Else Maven believes for a day that what was out of reach once is not there.
  mvn --batch-mode --update-snapshots -f "$ROOT/dev/kafka/$pom" "-Dkafka.version=$version" "${options[@]}" \
    -DincludeScope=runtime "-DoutputDirectory=$dir/lib" dependency:copy-dependencies 2>&1 |
    tee "$dir/maven.log" | sed -un 's:^\[INFO\] Downloaded from .*/\([^/ ]*\.jar\) .*:  \1:p' ||
    maven_failed "$version" "$dir/maven.log"
}

# maven_failed VERSION LOG: its reason, and what can be done about the usual one, a repository that is out of reach.
maven_failed() {
  die "Maven could not fetch Kafka $1:
$(maven_reason "$2" || sed 's/^/    /' "$2" | tail -n 5)
  All that it said is in $2.
  It takes Maven's central repository. Behind a proxy, or with a mirror, name that in ~/.m2/settings.xml, and run this
  again: what was fetched stays."
}

# maven_reason LOG: fails where it gives none.
maven_reason() {
  grep -E '^\[(WARNING|ERROR)\] .' "$1" | grep -vE ' -[eX] switch|articles:$|^\[ERROR\] \[Help' |
    tail -n 5 | sed 's/^/    /'
}

# The JVM's class archive halves the start. One broker runs and ends to leave it behind.
archive_classes() {
  local version=$1 name=archive.$$
  echo "Kafka $version: class archive"
  stage_join
  KAFKA_ARCHIVE=1 start "$name" "$version"
  halt "$SPAWNED" TERM 30 || die 'the broker did not stop'
  rm -rf "$STAGE/kafka/$name"
}

# java_command VERSION CLASS [OPTION...]: sets JAVA, the command up to the class. The archive belongs to one
# JVM, so its name holds that JVM's date.
java_command() {
  local version=$1 class=$2 dir jvm jar archive path=''
  dir=$(jars_dir "$version")
  jvm=$(stat -Lc %Y "$(command -v java)")
  archive=$dir/$class.$jvm.jsa
  for jar in "$dir"/lib/*.jar; do path+=:$jar; done
  JAVA=(java -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xlog:disable -Xlog:all=error
    "-Dlog4j.configuration=file:$ROOT/dev/kafka/log4j.properties"
    -Dorg.slf4j.simpleLogger.showDateTime=true
    '-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS')
  if [[ -f $archive ]]; then
    JAVA+=("-XX:SharedArchiveFile=$archive")
  elif [[ -n ${KAFKA_ARCHIVE:-} ]]; then
    JAVA+=("-XX:ArchiveClassesAtExit=$archive")
  fi
  # shellcheck disable=SC2206 # words, as in Kafka's own scripts
  JAVA+=(${KAFKA_OPTS:-} "${@:3}" -cp "${path#:}")
}

# --- A broker ---

broker_dir() {
  printf '%s/kafka/%s' "$STAGE" "$1"
}

# value NAME KEY: from the broker's env file.
value() {
  local file
  file=$(broker_dir "$1")/env
  [[ -f $file ]] || die "no broker $1 here"
  sed -n "s/^$2=//p" "$file"
}

start() {
  local name=$1 version='' lines=() options=() sasl='' tls='' argument dir pid
  shift
  dir=$(broker_dir "$name")
  if [[ ${1:-} =~ ^[0-9]+\.[0-9.]+$ ]]; then version=$1; shift; fi
  for argument in "$@"; do
    case $argument in
      --sasl=*:*) sasl=${argument#*=} ;;
      --tls=*) tls=${argument#*=} ;;
      --*=*) options+=("$argument") ;;
      *=*) lines+=("$argument") ;;
      *) usage ;;
    esac
  done
  if [[ -f $dir/env ]]; then
    version=$(value "$name" VERSION) pid=$(value "$name" PID)
    if running "$pid"; then
      (( $# == 0 )) || die "broker $name is running already"
      return
    fi
    if (( ${#lines[@]} )); then printf '%s\n' "${lines[@]}" >>"$dir/server.properties"; fi
  else
    version=${version:-$DEFAULT_VERSION}
    if [[ -z ${KAFKA_ARCHIVE:-} ]]; then fetch "$version"; fi
    make_broker "$dir" "$version"
    if before "$version" 0.10.2; then sasl=''; fi
    if [[ -n $sasl ]]; then
      add_sasl "$dir" "${sasl%%:*}" "${sasl#*:}"
      for argument in $SCRAM; do
        options+=("--add-scram=$argument=[name=${sasl%%:*},password=${sasl#*:}]")
      done
    fi
    if [[ -n $tls ]]; then add_tls "$dir" "$tls" "$sasl"; fi
    if (( ${#lines[@]} )); then printf '%s\n' "${lines[@]}" >>"$dir/server.properties"; fi
    if ! before "$version" 3; then format "$dir" "$version" "${options[@]}"; fi
  fi
  if before "$version" 3; then
    run_zookeeper "$name" "$dir" "$version"
    if [[ -n $sasl ]]; then add_user "$name" "$version" "${sasl%%:*}" "${sasl#*:}"; fi
  fi
  run_broker "$name" "$dir" "$version"
}

make_broker() {
  local dir=$1 version=$2 client controller
  mkdir -p "$dir"
  free_port; client=$PORT
  free_port; controller=$PORT
  write_env "$dir" "$version" "$client" 1 1
  if before "$version" 3; then
    make_zookeeper "$dir" "$controller"
    zookeeper_properties "$client" "$controller" >"$dir/server.properties"
  else
    kraft_properties "$client" 1 "1@127.0.0.1:$controller" >"$dir/server.properties"
  fi
  small_properties "$dir" 1 >>"$dir/server.properties"
}

# write_env DIR VERSION PORT NODE NODES: which of how many nodes it is.
write_env() {
  printf '%s\n' "BOOTSTRAP=127.0.0.1:$3" 'PID=0' "VERSION=$2" "NODE=$4" "NODES=$5" >"$1/env"
}

# --- Authentication ---

# add_listener DIR NAME PROTOCOL: one more; its address is NAME in env.
add_listener() {
  local address
  free_port; address=127.0.0.1:$PORT
  echo "$2=$address" >>"$1/env"
  sed -i "s,^\(listeners=.*\|advertised.listeners=.*\)$,\1\,$2://$address,
    s,^\(listener.security.protocol.map=.*\)$,\1\,$2:$3," "$1/server.properties"
}

# add_sasl DIR USER PASSWORD: who PLAIN lets in at the listeners that want authentication. Those before 0.10.2 know no
# names of listeners but those of protocols.
add_sasl() {
  add_listener "$1" SASL_PLAINTEXT SASL_PLAINTEXT
  echo "SASL=127.0.0.1:$PORT" >>"$1/env"
  echo "sasl.enabled.mechanisms=PLAIN,${SCRAM// /,}" >>"$1/server.properties"
  cat >"$1/jaas.conf" <<JAAS
KafkaServer {
  org.apache.kafka.common.security.plain.PlainLoginModule required user_$2="$3";
  org.apache.kafka.common.security.scram.ScramLoginModule required;
};
JAAS
}

# add_tls DIR CERTIFICATES SASL: a listener for each certificate of a broker; one that wants a certificate; one that wants
# authentication, where anybody may authenticate; one that has no version of TLS that is still in use.
add_tls() {
  local dir=$1 certificates=$2 file name names=(MTLS TLS_OLD)
  for file in "$certificates"/broker-*.pem; do
    name=${file##*/broker-}
    name=${name%.pem}
    names+=("TLS_${name^^}")
  done
  for name in "${names[@]}"; do add_listener "$dir" "$name" SSL; done
  if [[ -n $3 ]]; then
    add_listener "$dir" SASL_SSL SASL_SSL
    names+=(SASL_SSL)
  fi
  for name in "${names[@]}"; do
    file=$certificates/broker-good.pem
    if [[ $name == TLS_* && $name != TLS_OLD ]]; then
      file=${name#TLS_}
      file=$certificates/broker-${file,,}.pem
    fi
    name=listener.name.${name,,}
    printf '%s\n' "$name.ssl.keystore.type=PEM" "$name.ssl.keystore.location=$(property "$file")"
  done >>"$dir/server.properties"
  cat >>"$dir/server.properties" <<PROPERTIES
listener.name.mtls.ssl.client.auth=required
listener.name.mtls.ssl.truststore.type=PEM
listener.name.mtls.ssl.truststore.location=$(property "$certificates/ca.pem")
listener.name.tls_old.ssl.enabled.protocols=TLSv1.1
listener.name.tls_old.ssl.protocol=TLSv1.1
PROPERTIES
}

# add_user NAME VERSION USER PASSWORD: who SCRAM lets in, with ZooKeeper.
add_user() {
  local mechanism answer
  java_command "$2" kafka.admin.ConfigCommand
  for mechanism in $SCRAM; do
    answer=$("${JAVA[@]}" -Dlevel=OFF kafka.admin.ConfigCommand --zookeeper "$(value "$1" ZOOKEEPER)" \
      --alter --entity-type users --entity-name "$3" --add-config "$mechanism=[password=$4]" 2>&1) ||
      die "user $3: $(head -n 3 <<<"$answer")"
  done
}

# --- ---

# property TEXT: as it stands in a file of properties, which Java reads as Latin-1.
property() {
  local i letter code
  for (( i = 0; i < ${#1}; i++ )); do
    letter=${1:i:1}
    printf -v code %d "'$letter"
    if (( code == 92 )); then # a backslash
      printf '%s%s' "$letter" "$letter"
    elif (( code < 127 )); then
      printf %s "$letter"
    elif (( code < 65536 )); then
      printf '\\u%04x' "$code"
    else # a pair of surrogates
      printf '\\u%04x\\u%04x' $(( 55232 + code / 1024 )) $(( 56320 + code % 1024 ))
    fi
  done
}

# small_properties DIR NODES: what all brokers here have.
small_properties() {
  local acknowledged=$(( $2 > 1 ? $2 - 1 : 1 ))
  cat <<PROPERTIES
log.dirs=$(property "$1/data")
# All records are on all nodes.
default.replication.factor=$2
min.insync.replicas=$acknowledged
offsets.topic.replication.factor=$2
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=$2
transaction.state.log.min.isr=$acknowledged
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
# Small.
log.cleaner.dedupe.buffer.size=2097152
PROPERTIES
}

# kraft_properties PORT NODE VOTERS
kraft_properties() {
  local controller=${3#*"$2@"}
  controller=${controller%%,*}
  cat <<PROPERTIES
process.roles=broker,controller
node.id=$2
controller.quorum.voters=$3
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$1,CONTROLLER://$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$1
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
# Back soon after a kill.
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=200
PROPERTIES
}

# --- A cluster ---

cluster() {
  local name=$1 ports=() lines=() voters='' argument node starting=()
  shift
  for argument in "$@"; do
    case $argument in
      *=*) lines+=("$argument") ;;
      *) ports+=("$argument") ;;
    esac
  done
  (( ${#ports[@]} > 1 )) || usage
  [[ ! -f $(broker_dir "$name-1")/env ]] || die "a cluster $name is here already"
  fetch "$DEFAULT_VERSION"
  for node in "${!ports[@]}"; do
    free_port
    voters+=,$(( node + 1 ))@127.0.0.1:$PORT
  done
  for node in "${!ports[@]}"; do
    make_node "$name" "$(( node + 1 ))" "${#ports[@]}" "${voters#,}" "${ports[node]}" "${lines[@]}"
    {
      format "$(broker_dir "$name-$(( node + 1 ))")" "$DEFAULT_VERSION"
      start "$name-$(( node + 1 ))"
    } &
    starting+=($!)
  done
  for node in "${starting[@]}"; do wait "$node" || die "cluster $name did not start"; done
}

# make_node CLUSTER NODE NODES VOTERS ADVERTISED-PORT KEY=VALUE...
make_node() {
  local dir client node
  dir=$(broker_dir "$1-$2")
  mkdir -p "$dir"
  free_port; node=$PORT
  free_port; client=$PORT
  write_env "$dir" "$DEFAULT_VERSION" "$node" "$2" "$3"
  echo "CLIENT=127.0.0.1:$client" >>"$dir/env"
  {
    kraft_properties "$node" "$2" "$4" | sed "
      s,^\(listeners=.*\),\1\,CLIENT://127.0.0.1:$client,
      s,^\(advertised.listeners=.*\),\1\,CLIENT://127.0.0.1:$5,
      s,^\(listener.security.protocol.map=.*\),\1\,CLIENT:PLAINTEXT,"
    small_properties "$dir" "$3"
    echo 'inter.broker.listener.name=PLAINTEXT'
    # Three nodes on a busy machine are not to lose each other.
    printf '%s\n' 'broker.session.timeout.ms=3000' 'broker.heartbeat.interval.ms=500' "${@:6}"
  } >"$dir/server.properties"
}

# zookeeper_properties PORT ZOOKEEPER-PORT: 0.8 knows no listeners; all others take those.
zookeeper_properties() {
  cat <<PROPERTIES
broker.id=1
port=$1
host.name=127.0.0.1
advertised.host.name=127.0.0.1
listeners=PLAINTEXT://127.0.0.1:$1
advertised.listeners=PLAINTEXT://127.0.0.1:$1
zookeeper.connect=127.0.0.1:$2
# Back soon after a kill.
zookeeper.session.timeout.ms=1500
PROPERTIES
}

format() {
  local dir=$1 version=$2
  shift 2
  java_command "$version" kafka.tools.StorageTool
  "${JAVA[@]}" kafka.tools.StorageTool format -t "$CLUSTER_ID" -c "$dir/server.properties" "$@" \
    </dev/null >"$dir/format.log" 2>&1 || die "format failed: $(tail -n 5 "$dir/format.log")"
}

run_broker() {
  local name=$1 dir=$2 version=$3 patience=600 options=()
  if [[ -f $dir/jaas.conf ]]; then options=("-Djava.security.auth.login.config=$dir/jaas.conf"); fi
  java_command "$version" kafka.Kafka "${options[@]}"
  spawn "$dir/server.log" "${JAVA[@]}" kafka.Kafka "$dir/server.properties"
  sed -i "s/^PID=.*/PID=$SPAWNED/" "$dir/env"
  until answers "$name"; do
    if ! running "$SPAWNED" || (( patience-- == 0 )); then
      halt "$SPAWNED" KILL 1 || true
      die "broker $name did not start: $(tail -n 15 "$dir/server.log")"
    fi
    sleep 0.05
  done
}

# A broker that is not ready yet lists no broker, then no topics, then no leaders. 0.8 lists no
# broker either while it has no topic. One of several is ready when it lists itself: leaders may have to
# wait for the others.
answers() {
  local bootstrap partitions=0 list
  bootstrap=$(value "$1" BOOTSTRAP)
  listening "${bootstrap##*:}" || return 1
  if (( $(value "$1" NODES) == 1 )); then
    partitions=$(find "$(broker_dir "$1")/data" -maxdepth 1 -regex '.*-[0-9]+' \
      ! -name '__cluster_metadata-*' 2>/dev/null | wc -l)
  fi
  if (( partitions == 0 )) && before "$(value "$1" VERSION)" 0.9; then
    is_registered "$(value "$1" ZOOKEEPER)"
  else
    kcat_command "$1"
    list=$("${KCAT[@]}" -L -m 2 2>/dev/null) &&
      [[ $list == *"  broker $(value "$1" NODE) at "* ]] &&
      (( $(grep -c 'partition .*, leader [0-9]' <<<"$list") >= partitions ))
  fi
}

# kcat_command NAME: sets KCAT, which is told what it cannot ask for.
kcat_command() {
  local version
  version=$(value "$1" VERSION)
  KCAT=(kcat -b "$(value "$1" BOOTSTRAP)")
  if before "$version" 0.10; then
    KCAT+=(-X api.version.request=false -X "broker.version.fallback=$version")
  fi
}

# stop NAME SIGNAL
stop() {
  local pid
  pid=$(value "$1" PID)
  halt "$pid" "$2" 10 || true
  pid=$(value "$1" ZOOKEEPER_PID)
  if [[ -n $pid && $2 == TERM ]]; then halt "$pid" TERM 10 || true; fi
}

signal() {
  local pid
  pid=$(value "$1" PID)
  running "$pid" || die "broker $1 is not running"
  kill "-$2" "$pid"
}

# --- A broker's ZooKeeper ---

# make_zookeeper DIR PORT
make_zookeeper() {
  cat >"$1/zookeeper.properties" <<PROPERTIES
dataDir=$(property "$1/zookeeper")
clientPort=$2
clientPortAddress=127.0.0.1
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=dump
# A session lasts two ticks at least.
tickTime=250
PROPERTIES
  printf '%s\n' "ZOOKEEPER=127.0.0.1:$2" 'ZOOKEEPER_PID=0' >>"$1/env"
}

# run_zookeeper NAME DIR VERSION: unless it runs. Returns when no broker is registered: one that was
# killed stays so until its session is over, and keeps its successor out.
run_zookeeper() {
  local name=$1 dir=$2 version=$3 address pid patience=600
  address=$(value "$name" ZOOKEEPER)
  pid=$(value "$name" ZOOKEEPER_PID)
  if ! running "$pid"; then
    java_command "$version" "$ZOOKEEPER_CLASS"
    spawn "$dir/zookeeper.log" "${JAVA[@]}" "$ZOOKEEPER_CLASS" "$dir/zookeeper.properties"
    pid=$SPAWNED
    sed -i "s/^ZOOKEEPER_PID=.*/ZOOKEEPER_PID=$pid/" "$dir/env"
  fi
  until listening "${address##*:}" && ! is_registered "$address"; do
    if ! running "$pid" || (( patience-- == 0 )); then
      halt "$pid" KILL 1 || true
      die "ZooKeeper of $name did not start: $(tail -n 15 "$dir/zookeeper.log")"
    fi
    sleep 0.05
  done
}

# is_registered ADDRESS: whether that ZooKeeper holds a broker for alive.
is_registered() {
  local dump
  exec 3<>"/dev/tcp/127.0.0.1/${1##*:}" || return 1
  echo dump >&3
  dump=$(timeout 5 cat <&3)
  exec 3>&-
  [[ $dump == */brokers/ids/1* ]]
}

# --- Topics and records ---

# topic NAME TOPIC PARTITIONS KEY=VALUE...: returns when every partition has a leader.
topic() {
  local bootstrap led patience=200
  bootstrap=$(value "$1" BOOTSTRAP)
  if before "$(value "$1" VERSION)" 0.11; then
    create_topic_in_zookeeper "$@"
  else
    create_topic "${bootstrap##*:}" "$(value "$1" NODES)" "${@:2}"
  fi
  kcat_command "$1"
  until led=$("${KCAT[@]}" -L -t "$2" 2>/dev/null | grep -c 'partition .*, leader [0-9]') &&
    (( led == $3 )); do
    if (( patience-- == 0 )); then die "topic $2: $led of $3 partitions have a leader"; fi
    sleep 0.05
  done
}

# CreateTopics v2, written by hand: a JVM for one request takes a second.
# https://kafka.apache.org/protocol.html#The_Messages_CreateTopics
create_topic() {
  local port=$1 replicas=$2 topic=$3 partitions=$4 setting body answer patience=100
  shift 4
  body=$(int32 1)$(text "$topic")$(int32 "$partitions")$(int16 "$replicas")$(int32 0)$(int32 $#)
  for setting in "$@"; do body+=$(text "${setting%%=*}")$(text "${setting#*=}"); done
  # time-out, create for real; a broker that was paused is fenced (38) until it was heard of again
  while answer=$(ask "$port" "$(int16 19)$(int16 2)" "$body$(int32 10000)00") &&
    (( $(topic_error "$answer") == 38 && patience-- > 0 )); do
    sleep 0.1
  done
  told_of_topic "$topic" "$answer"
}

# topic_error ANSWER: the error in an answer about one topic.
topic_error() {
  local answer=${1:24}
  answer=${answer:$(( 4 + 2 * 16#${answer:0:4} ))}
  echo $(( 16#${answer:0:4} ))
}

# DeleteTopics v1.
delete() {
  local port
  port=$(value "$1" BOOTSTRAP)
  told_of_topic "$2" \
    "$(ask "${port##*:}" "$(int16 20)$(int16 1)" "$(int32 1)$(text "$2")$(int32 10000)")"
}

# CreatePartitions v0.
grow() {
  local port body
  port=$(value "$1" BOOTSTRAP)
  body=$(int32 1)$(text "$2")$(int32 "$3")ffffffff$(int32 10000)00 # wherever the broker likes
  told_of_topic "$2" "$(ask "${port##*:}" "$(int16 37)$(int16 0)" "$body")"
}

# told_of_topic TOPIC ANSWER: correlation id, throttle time, one topic: its name, the error code,
# perhaps a message.
told_of_topic() {
  local answer=${2:24} code
  answer=${answer:$(( 4 + 2 * 16#${answer:0:4} ))}
  code=$(( 16#${answer:0:4} ))
  if (( code == 36 )); then die "topic $1 exists already"; fi
  if (( code != 0 )); then die "topic $1: error $code $(bytes "${answer:8}")"; fi
}

# Below 0.11 there is no CreateTopics v2.
create_topic_in_zookeeper() {
  local name=$1 topic=$2 partitions=$3 setting options=() answer
  shift 3
  for setting in "$@"; do options+=(--config "$setting"); done
  java_command "$(value "$name" VERSION)" kafka.admin.TopicCommand
  answer=$("${JAVA[@]}" -Dlevel=OFF kafka.admin.TopicCommand \
    --zookeeper "$(value "$name" ZOOKEEPER)" --create --topic "$topic" \
    --partitions "$partitions" --replication-factor 1 "${options[@]}" 2>&1) || true
  # Its exit code says nothing in 0.8.
  [[ $answer == *"Created topic \"$topic\""* ]] || die "topic $topic: $(head -n 3 <<<"$answer")"
}

# lead NAME TOPIC PARTITIONS NODE: puts the replicas of each partition into an order that begins with
# the leader to be, and has the first of each elected: AlterPartitionReassignments v0, ElectLeaders v2.
lead() {
  local topic=$2 partitions=$3 nodes port node body partition replica
  nodes=$(value "$1" NODES)
  port=$(value "$1" BOOTSTRAP)
  port=${port##*:}
  body=00$(int32 10000)$(length 1)$(short_text "$topic")$(length "$partitions")
  for (( partition = 0; partition < partitions; partition++ )); do
    body+=$(int32 "$partition")$(length "$nodes")
    for (( replica = 0; replica < nodes; replica++ )); do
      node=$(( ($4 - 1 + partition + replica) % nodes + 1 ))
      body+=$(int32 "$node")
    done
    body+=00
  done
  told "leaders of $topic" "$(ask "$port" "$(int16 45)$(int16 0)" "${body}0000")"
  body=0000$(length 1)$(short_text "$topic")$(length "$partitions")
  for (( partition = 0; partition < partitions; partition++ )); do body+=$(int32 "$partition"); done
  told "election of $topic" "$(ask "$port" "$(int16 43)$(int16 2)" "${body}00$(int32 10000)00")"
}

# told WHAT ANSWER: correlation id, tags, throttle time, error code.
told() {
  local code=$(( 16#${2:18:4} ))
  if (( code != 0 )); then die "$1: error $code"; fi
}

# ask PORT KEY-AND-VERSION BODY: prints the answer from its correlation id on; all in hex.
ask() {
  local answer body
  body=$2$(int32 7)$(text lkfk-dev)$3                     # correlation id, client id
  { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || die "no broker on port $1"
  bytes "$(int32 $(( ${#body} / 2 )))$body" >&3
  answer=$(timeout 15 head -c 4 <&3 | hex)
  timeout 15 head -c "$(( 16#${answer:-0} ))" <&3 | hex
  exec 3>&-
}

int16() { printf '%04x' "$1"; }
int32() { printf '%08x' "$1"; }
text() { printf '%04x' "${#1}"; printf %s "$1" | hex; }
# As newer requests have them: below 127.
length() { printf '%02x' "$(( $1 + 1 ))"; }
short_text() { length "${#1}"; printf %s "$1" | hex; }
hex() { od -An -v -tx1 | tr -d ' \n'; }
# shellcheck disable=SC2001,SC2059 # the format is the bytes
bytes() { printf "$(sed 's/../\\x&/g' <<<"$1")"; }

consume() {
  kcat_command "$1"
  "${KCAT[@]}" -C -q -e -o beginning -t "$2" -f "$3" -X check.crcs=true -X fetch.wait.max.ms=20 \
    -X fetch.message.max.bytes=16777216
}

# The consumer of 0.8 reads by way of ZooKeeper, and waits for more until it is told that there is no more.
read_topic() {
  local version config
  version=$(value "$1" VERSION)
  if before "$version" 0.10.1; then
    config=$(broker_dir "$1")/consumer.properties
    printf '%s\n' "group.id=$2" fetch.message.max.bytes=16777216 consumer.timeout.ms=3000 >"$config"
    java_command "$version" kafka.tools.ConsoleConsumer
    { "${JAVA[@]}" -Dlevel=OFF kafka.tools.ConsoleConsumer --zookeeper "$(value "$1" ZOOKEEPER)" --topic "$2" \
      --from-beginning --consumer.config "$config" --property print.key=true --property key.separator=' ' \
      2>/dev/null || true; } | LC_ALL=C awk '{ key = $1; sub(/^[^ ]* /, ""); print key " " length($0) ":" $0 }'
  else
    java_command "$version" Consume
    "${JAVA[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=error -Dlevel=ERROR dev/kafka/Consume.java \
      "$(value "$1" BOOTSTRAP)" "$2"
  fi
}

codecs() {
  find "${LKFK_KAFKA_DATA:-$(broker_dir "$1")/data}" -path "*/$2-*/*.log" -exec luajit dev/kafka/codecs.lua {} +
}

tool() {
  local bootstrap version
  bootstrap=$(value "$1" BOOTSTRAP)
  version=$(value "$1" VERSION)
  java_command "$version" "$2"
  "${JAVA[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=error -Dlevel=ERROR "$2" \
    --bootstrap-server "$bootstrap" "${@:3}"
}

# --- ---

verb=${1:-}
[[ $verb == fetch || $# -ge 2 ]] || usage
if [[ $verb != fetch ]]; then stage_join; fi
case $verb in
  fetch) fetch "${2:-}" ;;
  start) start "${@:2}" ;;
  stop) stop "$2" TERM ;;
  kill) stop "$2" KILL ;;
  restart) stop "$2" TERM; start "$2" ;;
  cluster) cluster "${@:2}" ;;
  lead) (( $# == 5 )) || usage; lead "${@:2}" ;;
  pause) signal "$2" STOP ;;
  resume) signal "$2" CONT ;;
  topic) (( $# >= 4 )) || usage; topic "${@:2}" ;;
  read) (( $# >= 3 )) || usage; read_topic "${@:2}" ;;
  codecs) (( $# == 3 )) || usage; codecs "${@:2}" ;;
  delete) (( $# == 3 )) || usage; delete "${@:2}" ;;
  grow) (( $# == 4 )) || usage; grow "${@:2}" ;;
  consume) (( $# == 4 )) || usage; consume "${@:2}" ;;
  tool) (( $# >= 3 )) || usage; tool "${@:2}" ;;
  *) usage ;;
esac
