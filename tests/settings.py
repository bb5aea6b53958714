"""Which bucket the tests use: the one that the environment names, or one in this process."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

import pytest

from mltrack_tasks.stores.s3_settings import Keys, S3Settings
from tests.servers import S3Server

BUCKET = "mltrack-test"
GIVEN: Mapping[str, str] = {
    name: value
    for name, value in os.environ.items()
    if name.startswith(("AWS_", "PREFECT_", "MLTRACK_", "MLFLOW_"))
}
"""The settings that the tests were started with; conftest takes them out of the environment."""


PROFILE = GIVEN.get("MLTRACK_TEST_PROFILE", "default")
"""How many examples are tried: `default`, `brief` where only versions of others changed, or `thorough`."""


def examples(usual: int) -> int:
    """How many a test tries under PROFILE whose number is ``usual`` by default."""
    return {"brief": max(usual // 10, 2), "thorough": usual * 20}.get(PROFILE, usual)


STRIDE = 1 if PROFILE == "thorough" else 3
"""A test that lets something die at every moment tries each of them, or each third."""


def some(moments: range) -> list[int]:
    """Each STRIDE-th of the moments at which something dies, and always the first and the last two."""
    last = max(len(moments) - 2, 0)
    return [each for at, each in enumerate(moments) if at % STRIDE == 0 or at >= last]


def settings_of(server: S3Server, **changes: object) -> S3Settings:
    """Settings of a fresh prefix in a test server's bucket BUCKET."""
    values: dict[str, object] = {
        "bucket": BUCKET,
        "prefix": fresh_prefix(),
        "keys": Keys(server.access_key, server.secret_key),
        "region": server.region,
        "endpoint_url": server.endpoint,
        **changes,
    }
    return S3Settings(**values)  # type: ignore[arg-type]


def real_settings(monkeypatch: pytest.MonkeyPatch) -> S3Settings:
    """Settings of a fresh prefix in the bucket named by MLTRACK_TEST_S3_BUCKET, by boto3's own chain.

    The credentials and regions that the tests were started with are put back into the environment; its other
    settings (Prefect's, the user's own store) stay away.
    """
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in GIVEN.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return S3Settings(
        GIVEN["MLTRACK_TEST_S3_BUCKET"],
        prefix=fresh_prefix(),
        endpoint_url=GIVEN.get("MLTRACK_TEST_S3_ENDPOINT") or None,
    )


def chosen_settings(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Settings:
    """The real bucket if one is named, else the one of ``server``."""
    if GIVEN.get("MLTRACK_TEST_S3_BUCKET"):
        return real_settings(monkeypatch)
    return settings_of(server)


def fresh_prefix() -> str:
    """A prefix that nobody has used."""
    return f"mltrack-tests/{secrets.token_hex(8)}"
