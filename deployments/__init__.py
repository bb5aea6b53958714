"""What an environment needs around the flows; installed as the package ``mltrack_deployments``."""
