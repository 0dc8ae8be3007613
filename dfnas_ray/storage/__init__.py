"""Shards and run directories on any filesystem that pyarrow knows: local, s3://, gs://."""
