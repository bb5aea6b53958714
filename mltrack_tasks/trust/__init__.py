"""Trust in a store: what its records need, whether that is there, and healing it where it is not."""
