"""A login through AWS SSO: the token in its cache is traded for keys, and the keys sign."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import Keys, S3Settings
from tests.floor2.answers import answering
from tests.servers.faultproxy import FaultProxy

START = "https://example.awsapps.com/start"


@pytest.fixture
def portal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The address that trades tokens for keys -> the tokens that it was shown."""
    keys = {"accessKeyId": "ASIASSO", "secretAccessKey": "s", "sessionToken": "t"}
    expires = int((time.time() + 6 * 3600) * 1000)
    answer = {"roleCredentials": {**keys, "expiration": expires}}
    with answering(answer, "x-amz-sso_bearer_token") as (address, shown):
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", address)
        yield shown


def test_an_sso_login_signs(
    proxied: S3Settings,
    proxy: FaultProxy,
    portal: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text(
        f"[profile team]\nregion = us-east-1\nsso_start_url = {START}\nsso_region = us-east-1\n"
        "sso_account_id = 111122223333\nsso_role_name = writer\n"
    )
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    monkeypatch.setattr("botocore.credentials.SSOProvider._SSO_TOKEN_CACHE_DIR", str(cache))
    expires = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
    token = {"startUrl": START, "region": "us-east-1", "accessToken": "the-token", "expiresAt": expires}
    name = hashlib.sha1(START.encode(), usedforsecurity=False).hexdigest()
    (cache / f"{name}.json").write_text(json.dumps(token))

    store = S3Store(replace(proxied, keys=Keys(profile="team")))
    assert store.create("k", b"x")
    assert store.head("k", checksum=True) is not None
    assert portal == ["the-token"]
    credentials = store.session.get_credentials()
    assert credentials is not None
    assert (credentials.method, credentials.access_key) == ("sso", "ASIASSO")
