"""The parts of ``s3_integration_demo.py``."""
