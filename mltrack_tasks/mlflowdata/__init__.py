"""What MLflow 2.x and 3.x leave on disk, read without MLflow: file stores and SQLite databases.

All that is read here may have been written by others: damage and malice end in IntegrityError for the one
run, model or experiment, and nothing of it is ever executed.
"""
