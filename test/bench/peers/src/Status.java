import com.fasterxml.jackson.annotation.JsonPropertyOrder;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** The last status of a device: the same JSON that Tidemark makes of the same records; the bench compares them. */
@JsonPropertyOrder({
  "deviceId", "rev", "reported", "connectivity", "firstSeenAt", "lastSeenAt", "counters", "sequence"
})
public final class Status {
  @JsonPropertyOrder({"value", "at"})
  public static final class Metric {
    public JsonNode value;
    public String at;
  }

  @JsonPropertyOrder({"state", "since", "reason", "session"})
  public static final class Connectivity {
    public String state = "unknown";
    public String since;
    public String reason = "no session seen";
    public long session;
  }

  @JsonPropertyOrder({"messages", "late", "duplicates", "skewed"})
  public static final class Counters {
    public long messages;
    public long late;
    public long duplicates;
    public long skewed;
  }

  /** Which numbers were applied. Here they come in order, so one range does. */
  @JsonPropertyOrder({"seen", "session", "at"})
  public static final class Sequence {
    public long[][] seen;
    public long session;
    public String at;
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
  public Connectivity connectivity;
  public String firstSeenAt;
  public String lastSeenAt;
  public Counters counters = new Counters();
  public Sequence sequence;

  private static final ObjectMapper MAPPER = new ObjectMapper();
  private static final ObjectReader MESSAGES = MAPPER.readerFor(Message.class);
  private static final ObjectReader STATUSES = MAPPER.readerFor(Status.class);
  private static final ObjectWriter WRITER = MAPPER.writerFor(Status.class);
  private static final DateTimeFormatter ISO =
      DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'").withZone(ZoneOffset.UTC);

  /** The text of the time asked for last: most are asked for again at once. */
  private static final class Clock {
    long ms = -1;
    String text;
  }

  private static final ThreadLocal<Clock> CLOCK = ThreadLocal.withInitial(Clock::new);

  private static String iso(long ms) {
    Clock clock = CLOCK.get();
    if (clock.ms != ms) {
      clock.text = ISO.format(Instant.ofEpochMilli(ms));
      clock.ms = ms;
    }
    return clock.text;
  }

  static Status born(String deviceId, long receivedAt) {
    Status status = new Status();
    status.deviceId = deviceId;
    status.firstSeenAt = iso(receivedAt);
    status.lastSeenAt = status.firstSeenAt;
    status.connectivity = new Connectivity();
    status.connectivity.since = status.firstSeenAt;
    return status;
  }

  /** Per metric the newest event time wins; at a tie, the later record. */
  void fold(Message message, long receivedAt) {
    String at = iso(message.ts);
    if (sequence == null) {
      sequence = new Sequence();
      sequence.seen = new long[][] {{message.seq, message.seq}};
      sequence.at = at;
    } else if (message.seq <= sequence.seen[0][1]) {
      counters.duplicates++;
      return;
    } else {
      sequence.seen[0][1] = message.seq;
      if (at.compareTo(sequence.at) > 0) sequence.at = at;
    }
    boolean late = false;
    for (Map.Entry<String, JsonNode> entry : message.values.entrySet()) {
      Metric metric = reported.get(entry.getKey());
      if (metric == null) {
        metric = new Metric();
        reported.put(entry.getKey(), metric);
      } else if (metric.at.compareTo(at) > 0) {
        late = true;
        continue;
      }
      metric.value = entry.getValue();
      metric.at = at;
    }
    rev++;
    counters.messages++;
    if (late) counters.late++;
    String seenAt = iso(receivedAt);
    if (seenAt.compareTo(lastSeenAt) > 0) lastSeenAt = seenAt;
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
