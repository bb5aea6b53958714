"""The deployable flows of mltrack_tasks, one per file; installed as the package ``mltrack_flows``."""
