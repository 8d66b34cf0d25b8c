"""Clicks on their way to the next training: a bounded stream in Redis, moved to Parquet files."""
