"""What the demo lets in of the machine's settings: those of AWS if a bucket is named, and no others.

Prefect reads its settings from the environment, from a profile, and from ``.env``, ``prefect.toml`` and
``pyproject.toml`` in the working directory; boto3 from the environment and ``~/.aws``. Any of these may
point to production. So this module imports neither, and runs before both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

LOOPBACK = "127.0.0.1,localhost"
_AWS_PATHS = (
    *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
    *("AWS_CA_BUNDLE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
)


def enter(home: Path, *, keep_aws: bool) -> None:
    """Make this process, and the children it will start, deaf to the machine's settings.

    Replaces the environment and the working directory by ``home``, an empty folder of the demo's own.
    """
    environment = sealed(os.environ, home, keep_aws=keep_aws)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(home)


def sealed(environ: Mapping[str, str], home: Path, *, keep_aws: bool) -> dict[str, str]:
    """Work out the environment for the demo -> a new mapping; ``environ`` stays as it is."""
    unwanted = ("PREFECT", "MOTO_") if keep_aws else ("PREFECT", "MOTO_", "AWS_")
    kept = {name: value for name, value in environ.items() if not name.upper().startswith(unwanted)}
    return {**kept, **_prefect(home), **_direct(kept), **(_absolute(kept) if keep_aws else _no_aws(home))}


def _prefect(home: Path) -> dict[str, str]:
    """A server of the demo's own, started when first needed and ended with the process."""
    return {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_PROFILES_PATH": str(home / "prefect" / "profiles.toml"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
    }


def _no_aws(home: Path) -> dict[str, str]:
    nothing = str(home / "no-such-file")
    return {
        "AWS_CONFIG_FILE": nothing,
        "AWS_SHARED_CREDENTIALS_FILE": nothing,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _absolute(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's AWS files by absolute path, because the working directory changes."""
    return {
        name: os.path.abspath(os.path.expanduser(environ[name])) for name in _AWS_PATHS if environ.get(name)
    }


def _direct(environ: Mapping[str, str]) -> dict[str, str]:
    """Speak to servers on this machine directly, even where a proxy is set."""
    before = environ.get("no_proxy") or environ.get("NO_PROXY")
    value = f"{before},{LOOPBACK}" if before else LOOPBACK
    return {"NO_PROXY": value, "no_proxy": value}
