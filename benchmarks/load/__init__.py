"""Open-loop load on the service; run it as ``python -m benchmarks.load``."""
