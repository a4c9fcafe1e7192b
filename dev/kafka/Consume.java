// Reads a topic with the consumer of the kafka-clients in the class path, from 0.10.1 on: Consume BOOTSTRAP TOPIC. Prints of
// each record, partition by partition and in order, "KEY SIZE:VALUE" and a line feed, -1 for what is null; and checks the
// checksums of all batches.

import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class Consume {
    private static final int MOST_BYTES = 64 << 20;

    public static void main(String[] arguments) throws Exception {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("check.crcs", true);
        settings.put("enable.auto.commit", false);
        settings.put("fetch.max.wait.ms", 20);
        settings.put("max.partition.fetch.bytes", MOST_BYTES);
        settings.put("key.deserializer", ByteArrayDeserializer.class);
        settings.put("value.deserializer", ByteArrayDeserializer.class);
        try (OutputStream out = new BufferedOutputStream(System.out);
                KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings)) {
            List<TopicPartition> partitions = consumer.partitionsFor(arguments[1]).stream()
                    .map(told -> new TopicPartition(told.topic(), told.partition()))
                    .collect(Collectors.toList());
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            for (TopicPartition partition : partitions) {
                consumer.assign(List.of(partition));
                consumer.seekToBeginning(List.of(partition));
                while (consumer.position(partition) < ends.get(partition)) {
                    for (ConsumerRecord<byte[], byte[]> record : poll(consumer)) {
                        print(out, record);
                    }
                }
            }
        }
    }

    /// poll(long) went with 4.0, and poll(Duration) came with 2.0.
    @SuppressWarnings("unchecked")
    private static ConsumerRecords<byte[], byte[]> poll(KafkaConsumer<byte[], byte[]> consumer)
            throws ReflectiveOperationException {
        Method poll;
        Object limit;
        try {
            poll = KafkaConsumer.class.getMethod("poll", Duration.class);
            limit = Duration.ofMillis(100);
        } catch (NoSuchMethodException before2) {
            poll = KafkaConsumer.class.getMethod("poll", long.class);
            limit = 100L;
        }
        try {
            return (ConsumerRecords<byte[], byte[]>) poll.invoke(consumer, limit);
        } catch (InvocationTargetException thrown) {
            throw new IllegalStateException(thrown.getCause());
        }
    }

    private static void print(OutputStream out, ConsumerRecord<byte[], byte[]> record) throws IOException {
        byte[] key = record.key();
        byte[] value = record.value();
        out.write(key == null ? "-1".getBytes(StandardCharsets.US_ASCII) : key);
        out.write((" " + (value == null ? -1 : value.length) + ":").getBytes(StandardCharsets.US_ASCII));
        if (value != null) {
            out.write(value);
        }
        out.write('\n');
    }
}
