import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** The last status of a device, folded as Tidemark folds it. Times are epoch ms, which costs less than ISO 8601 text. */
public final class Status {
  public static final class Metric {
    public JsonNode value;
    public long at;
  }

  public static final class Counters {
    public long messages;
    public long late;
    public long duplicates;
  }

  /** What a device says. */
  public static final class Message {
    public long ts;
    public long seq;
    public LinkedHashMap<String, JsonNode> values;
  }

  public String deviceId;
  public long rev;
  public LinkedHashMap<String, Metric> reported = new LinkedHashMap<>();
  public long firstSeenAt;
  public long lastSeenAt;
  public Counters counters = new Counters();
  /** The highest applied. */
  public long seq = -1;

  private static final ObjectMapper MAPPER = new ObjectMapper();
  private static final ObjectReader MESSAGES = MAPPER.readerFor(Message.class);
  private static final ObjectReader STATUSES = MAPPER.readerFor(Status.class);
  private static final ObjectWriter WRITER = MAPPER.writerFor(Status.class);

  /** Per metric the newest event time wins; at a tie, the later record. */
  public void fold(Message message, long receivedAt) {
    if (message.seq <= seq) {
      counters.duplicates++;
      return;
    }
    seq = message.seq;
    boolean late = false;
    for (Map.Entry<String, JsonNode> entry : message.values.entrySet()) {
      Metric metric = reported.computeIfAbsent(entry.getKey(), name -> new Metric());
      if (metric.at <= message.ts) {
        metric.value = entry.getValue();
        metric.at = message.ts;
      } else {
        late = true;
      }
    }
    rev++;
    counters.messages++;
    if (late) counters.late++;
    if (firstSeenAt == 0) firstSeenAt = receivedAt;
    lastSeenAt = Math.max(lastSeenAt, receivedAt);
  }

  static Message message(byte[] json) {
    try {
      return MESSAGES.readValue(json);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  static Serde<Status> serde() {
    return Serdes.serdeFrom(
        (topic, status) -> {
          try {
            return status == null ? null : WRITER.writeValueAsBytes(status);
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        },
        (topic, json) -> {
          try {
            return json == null ? null : STATUSES.readValue(json);
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        });
  }
}
