"""New data starts work: messages about new records, each blob acted upon once."""
