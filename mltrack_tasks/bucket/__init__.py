"""The configuration of a bucket: what is wished, what is there, the difference, and how it is applied."""
