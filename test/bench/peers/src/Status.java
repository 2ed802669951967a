import com.fasterxml.jackson.annotation.JsonInclude;
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
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** The last status of a device: the same JSON that Tidemark makes of the same records; the bench compares them. */
@JsonPropertyOrder({
  "deviceId", "rev", "reported", "connectivity", "firstSeenAt", "lastSeenAt", "counters", "sequence",
  "attributes"
})
@JsonInclude(JsonInclude.Include.NON_NULL)
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

  /** Which numbers were applied: ascending, disjoint, inclusive ranges. */
  @JsonPropertyOrder({"seen", "session", "at"})
  @JsonInclude(JsonInclude.Include.NON_NULL)
  public static final class Sequence {
    public List<long[]> seen = new ArrayList<>();
    public long session;
    public String at;
  }

  public String deviceId;
  public long rev;
  public LinkedHashMap<String, Metric> reported = new LinkedHashMap<>();
  public Connectivity connectivity;
  public String firstSeenAt;
  public String lastSeenAt;
  public Counters counters = new Counters();
  public Sequence sequence;
  public JsonNode attributes;

  private static final int MAX_RANGES = 16;
  private static final ObjectMapper MAPPER = new ObjectMapper();
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

  /** One message, or an array of them. */
  void fold(byte[] json, long receivedAt) {
    JsonNode said = parse(json);
    if (said.isArray()) for (JsonNode message : said) foldMessage(message, receivedAt);
    else foldMessage(said, receivedAt);
  }

  void replaceAttributes(byte[] json) {
    JsonNode said = parse(json);
    if (said.equals(attributes)) return;
    attributes = said;
    rev++;
  }

  /** Per metric the newest event time wins; at a tie, the later record. */
  private void foldMessage(JsonNode message, long receivedAt) {
    boolean enveloped = message.path("values").isObject();
    JsonNode ts = enveloped ? message.get("ts") : null;
    JsonNode seq = enveloped ? message.get("seq") : null;
    String at = ts == null ? null : iso(ts.asLong());
    if (seq != null && !admit(seq.asLong(), at)) {
      counters.duplicates++;
      return;
    }
    if (at == null) at = iso(receivedAt);
    boolean late = report("", enveloped ? message.get("values") : message, at);
    rev++;
    counters.messages++;
    if (late) counters.late++;
    String seenAt = iso(receivedAt);
    if (seenAt.compareTo(lastSeenAt) > 0) lastSeenAt = seenAt;
  }

  /** Nested objects become dotted names. True when a value is older than the one that is there. */
  private boolean report(String prefix, JsonNode values, String at) {
    boolean late = false;
    for (Map.Entry<String, JsonNode> entry : values.properties()) {
      String name = prefix.isEmpty() ? entry.getKey() : prefix + entry.getKey();
      JsonNode value = entry.getValue();
      if (value.isObject()) {
        late |= report(name + ".", value, at);
        continue;
      }
      Metric metric = reported.get(name);
      if (metric == null) {
        metric = new Metric();
        reported.put(name, metric);
      } else if (metric.at.compareTo(at) > 0) {
        late = true;
        continue;
      }
      metric.value = value;
      metric.at = at;
    }
    return late;
  }

  /** Notes the number as applied; false when it had been. */
  private boolean admit(long seq, String at) {
    if (sequence == null) {
      sequence = new Sequence();
      sequence.seen.add(new long[] {seq, seq});
      sequence.at = at;
      return true;
    }
    List<long[]> seen = sequence.seen;
    int i = seen.size();
    while (i > 0 && seen.get(i - 1)[0] > seq) i--;
    if (i > 0 && seq <= seen.get(i - 1)[1]) {
      // A number seen before, with a time newer than any before it: the device counts from the start again.
      if (at == null || sequence.at == null || at.compareTo(sequence.at) <= 0) return false;
      seen.clear();
      seen.add(new long[] {seq, seq});
    } else {
      insert(seen, i, seq);
    }
    if (at != null && (sequence.at == null || at.compareTo(sequence.at) > 0)) sequence.at = at;
    return true;
  }

  private static void insert(List<long[]> seen, int i, long seq) {
    boolean joinsBelow = i > 0 && seen.get(i - 1)[1] == seq - 1;
    boolean joinsAbove = i < seen.size() && seen.get(i)[0] == seq + 1;
    if (joinsBelow && joinsAbove) {
      seen.get(i - 1)[1] = seen.get(i)[1];
      seen.remove(i);
    } else if (joinsBelow) {
      seen.get(i - 1)[1] = seq;
    } else if (joinsAbove) {
      seen.get(i)[0] = seq;
    } else {
      seen.add(i, new long[] {seq, seq});
      if (seen.size() > MAX_RANGES) seen.remove(0);
    }
  }

  private static JsonNode parse(byte[] json) {
    try {
      return MAPPER.readTree(json);
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
