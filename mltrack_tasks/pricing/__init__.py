"""Prices and bills of S3, without any request: what bytes cost, and what they would cost elsewhere."""
