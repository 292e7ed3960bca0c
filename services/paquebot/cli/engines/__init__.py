"""The three engines of a local platform, run from their wheels: NATS JetStream, SeaweedFS's S3 and PostgreSQL.

`NatsEngine`, `S3Engine` and `PostgresEngine` describe an engine; `engine.start_engine` runs one as a
`process.ManagedProcess`. The same code serves `paquebot up`, `paquebot engine` and the tests.
"""
