"""What check_access looks at, one module for each kind of question."""
