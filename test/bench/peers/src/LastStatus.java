import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * Tidemark's processor as a Kafka Streams application: exactly_once_v2, a RocksDB store with its changelog, and a cache
 * of the same size. Prints an event a line, as JSON: state, first (record), restored, committed (all that the topic held at
 * the start). Arguments: brokers, application id, topic, state folder, threads, standbys, session timeout in ms.
 */
public final class LastStatus {
  private static final String STORE = "status";
  private static final long CACHE_BYTES = 80L * 1024 * 1024;
  private static final int POLL_MS = 10;
  private static final AtomicLong FIRST = new AtomicLong();

  static final class Fold implements Processor<String, byte[], Void, Void> {
    private KeyValueStore<String, Status> store;

    @Override
    public void init(ProcessorContext<Void, Void> context) {
      store = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<String, byte[]> record) {
      if (FIRST.get() == 0 && FIRST.compareAndSet(0, System.currentTimeMillis())) say("first", "");
      Status status = store.get(record.key());
      if (status == null) status = Status.born(record.key(), record.timestamp());
      Header kind = record.headers().lastHeader("kind");
      if (kind == null) status.fold(record.value(), record.timestamp());
      else status.replaceAttributes(record.value());
      store.put(record.key(), status);
    }
  }

  /** From the first start of a restore to the last end, over all partitions. */
  static final class Restores implements StateRestoreListener {
    private final Map<TopicPartition, Long> open = new HashMap<>();
    private long began;
    private long records;

    @Override
    public synchronized void onRestoreStart(TopicPartition partition, String store, long from, long to) {
      if (began == 0) began = System.currentTimeMillis();
      open.put(partition, to);
    }

    @Override
    public void onBatchRestored(TopicPartition partition, String store, long end, long count) {}

    @Override
    public synchronized void onRestoreEnd(TopicPartition partition, String store, long total) {
      records += total;
      open.remove(partition);
      say("restored", ",\"records\":" + records + ",\"open\":" + open.size() + ",\"began\":" + began);
    }
  }

  public static void main(String[] args) throws Exception {
    String brokers = args[0];
    String application = args[1];
    String topic = args[2];
    Properties properties = new Properties();
    properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
    properties.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
    properties.put(StreamsConfig.STATE_DIR_CONFIG, args[3]);
    properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, args[4]);
    properties.put(StreamsConfig.NUM_STANDBY_REPLICAS_CONFIG, args[5]);
    properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, CACHE_BYTES);
    properties.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    // A second instance has its share at once, not after a probing rebalance, ten minutes later.
    properties.put(StreamsConfig.ACCEPTABLE_RECOVERY_LAG_CONFIG, Long.MAX_VALUE);
    properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), args[6]);
    properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");

    Topology topology = new Topology();
    topology.addSource("telemetry", Serdes.String().deserializer(), Serdes.ByteArray().deserializer(), topic);
    topology.addProcessor("fold", Fold::new, "telemetry");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), Serdes.String(), Status.serde())
            .withCachingEnabled()
            .withLoggingEnabled(Map.of()),
        "fold");

    CountDownLatch ended = new CountDownLatch(1);
    try (KafkaStreams streams = new KafkaStreams(topology, properties)) {
      streams.setGlobalStateRestoreListener(new Restores());
      streams.setStateListener((now, before) -> {
        say("state", ",\"state\":\"" + now + "\"");
        if (now == KafkaStreams.State.ERROR) ended.countDown();
      });
      Runtime.getRuntime().addShutdownHook(new Thread(ended::countDown));
      streams.start();
      try (Admin admin = Admin.create(Map.of("bootstrap.servers", brokers))) {
        untilCommitted(admin, application, topic);
      }
      ended.await();
    }
  }

  /** Waits until what the topic holds now is committed. */
  private static void untilCommitted(Admin admin, String application, String topic) throws Exception {
    var description = admin.describeTopics(java.util.List.of(topic)).allTopicNames().get().get(topic);
    Map<TopicPartition, OffsetSpec> ask = description.partitions().stream()
        .collect(Collectors.toMap(info -> new TopicPartition(topic, info.partition()), info -> OffsetSpec.latest()));
    var ends = admin.listOffsets(ask).all().get();
    long end = ends.values().stream().mapToLong(info -> info.offset()).sum();
    while (true) {
      var offsets = admin.listConsumerGroupOffsets(application).partitionsToOffsetAndMetadata().get();
      long committed = offsets.values().stream().filter(o -> o != null).mapToLong(o -> o.offset()).sum();
      if (committed >= end) {
        say("committed", ",\"records\":" + end);
        return;
      }
      Thread.sleep(POLL_MS);
    }
  }

  private static void say(String event, String members) {
    long now = System.currentTimeMillis();
    synchronized (System.out) {
      System.out.println("{\"event\":\"" + event + "\",\"at\":" + now + members + "}");
      System.out.flush();
    }
  }
}
