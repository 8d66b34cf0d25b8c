"""The click log: every accepted click in a Redis stream, and from there in Parquet files."""
