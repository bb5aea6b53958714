"""Tables: SQL over stored data, and the rows of the run catalogue."""
