-- The producers that are compared, behind one interface, with equal settings:
--   start(name, brokers, linger_ms[, codec, level[, ca]])
--                          once in each worker; the rest belongs to what was started
--   log(topic, key, payload) -> true | nil, err
--   tend()                 what a producer wants done now and then on the event loop
--   drain()                returns when all is acknowledged; may sleep

local assert, error, pairs, setmetatable = assert, error, pairs, setmetatable
local tonumber, tostring = tonumber, tostring
local getenv = os.getenv
local sleep = ngx.sleep

local BATCH, TIMEOUT_MS, QUEUE = 500, 60000, 100000


local starters = {}


function starters.lkfk(brokers, linger_ms, codec, level, ca)
  local kfk = require "lkfk.kfk"
  assert(kfk.init {
    metadata_broker_list = brokers,
    request_required_acks = 1,
    batch_num_messages = BATCH,
    queue_buffering_max_ms = linger_ms,
    message_timeout_ms = TIMEOUT_MS,
    queue_buffering_max_messages = QUEUE,
    queue_buffering_max_kbytes = 65536,
    compression_codec = codec,
    compression_level = level,
    security_protocol = ca and "ssl",
    ssl_ca_location = ca,
    queue_path = getenv "LKFK_SHM",
    backpath = getenv "LKFK_STAGE" .. "/backup",
  })
  return {
    log = kfk.log,
    tend = function() end,
    drain = function()
      assert(kfk.flush(60))
    end,
  }
end


-- Debian's package of that name: lua-resty-kafka 0.07, whose requests Kafka 4 refuses.
starters["lua-nginx-kafka"] = function(brokers, linger_ms)
  local host, port = brokers:match "^(.*):(%d+)$"
  local list = { { host = host, port = tonumber(port) } }
  local producer = require "nginx.kafka.producer":new(list, {
    producer_type = "async",
    required_acks = 1,
    batch_num = BATCH,
    flush_time = linger_ms,
    max_buffering = QUEUE,
  })
  return {
    log = function(topic, key, payload)
      return producer:send(topic, key, payload)
    end,
    tend = function() end,
    drain = function()
      while producer.flushing or producer.ringbuffer:left_num() > 0 do
        sleep(0.005)
      end
    end,
  }
end


local RDKAFKA = [[
  typedef struct rd_kafka_s rd_kafka_t;
  typedef struct rd_kafka_conf_s rd_kafka_conf_t;
  typedef struct rd_kafka_topic_s rd_kafka_topic_t;
  rd_kafka_conf_t *rd_kafka_conf_new(void);
  int rd_kafka_conf_set(rd_kafka_conf_t *, const char *name, const char *value, char *err, size_t);
  rd_kafka_t *rd_kafka_new(int type, rd_kafka_conf_t *, char *err, size_t);
  rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *, const char *topic, void *conf);
  int rd_kafka_produce(rd_kafka_topic_t *, int32_t partition, int flags, const char *payload,
                       size_t, const char *key, size_t, void *opaque);
  int rd_kafka_poll(rd_kafka_t *, int timeout_ms);
  int rd_kafka_outq_len(rd_kafka_t *);
]]

starters.librdkafka = function(brokers, linger_ms, codec, level)
  local ffi = require "ffi"
  ffi.cdef(RDKAFKA)
  local PRODUCER, ANY_PARTITION, COPY = 0, -1, 2
  local lib = ffi.load "librdkafka.so.1"
  local reason = ffi.new "char[256]"
  local conf = lib.rd_kafka_conf_new()
  for name, value in pairs {
    ["bootstrap.servers"] = brokers,
    ["acks"] = "1",
    ["batch.num.messages"] = BATCH,
    ["linger.ms"] = linger_ms,
    ["message.timeout.ms"] = TIMEOUT_MS,
    ["queue.buffering.max.messages"] = QUEUE,
    ["compression.codec"] = codec or "none",
    ["compression.level"] = level or -1,
  } do
    if lib.rd_kafka_conf_set(conf, name, tostring(value), reason, 256) ~= 0 then
      error(ffi.string(reason))
    end
  end
  local client = lib.rd_kafka_new(PRODUCER, conf, reason, 256)
  if client == nil then
    error(ffi.string(reason))
  end
  local topics = setmetatable({}, { __index = function(known, name)
    known[name] = lib.rd_kafka_topic_new(client, name, nil)
    return known[name]
  end })
  return {
    log = function(topic, key, payload)
      if lib.rd_kafka_produce(topics[topic], ANY_PARTITION, COPY, payload, #payload, key, #key,
                              nil) == 0 then
        return true
      end
      return nil, "queue full"
    end,
    tend = function()
      lib.rd_kafka_poll(client, 0)
    end,
    drain = function()
      while lib.rd_kafka_outq_len(client) > 0 do
        lib.rd_kafka_poll(client, 0)
        sleep(0.005)
      end
    end,
  }
end


local _M = {}


function _M.start(name, ...)
  for key, value in pairs(starters[name](...)) do
    _M[key] = value
  end
end


return _M
