"""Collecting: what no record needs any more is found, listed in a plan, and deleted while others write."""
