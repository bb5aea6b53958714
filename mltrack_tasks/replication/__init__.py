"""Replication: a second store that has what the first has, in another region, account or server."""
