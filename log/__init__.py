"""The log: events, their Avro codec, and one protocol over memory, SQLite and Kafka."""
