// Kafka's own console consumer, with Apache Avro and a schema file. Nothing here knows refold but for the five bytes
// before each Avro body, which are Confluent's framing. Its first argument is the schema, the others are the console's.

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Arrays;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.tools.consumer.ConsoleConsumer;

public class EventText implements Deserializer<GenericRecord> {
    private static final int FRAME = 5;
    private static Schema schema;

    public static void main(String[] arguments) throws Exception {
        schema = new Schema.Parser().parse(new File(arguments[0]));
        ConsoleConsumer.main(Arrays.copyOfRange(arguments, 1, arguments.length));
    }

    @Override
    public GenericRecord deserialize(String topic, byte[] value) {
        GenericDatumReader<GenericRecord> reader = new GenericDatumReader<>(schema);
        try {
            return reader.read(
                null, DecoderFactory.get().binaryDecoder(value, FRAME, value.length - FRAME, null));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
