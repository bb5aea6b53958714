"""Benchmarks: ratios, measured side by side in one run on a real server (``python -m benchmarks``)."""
