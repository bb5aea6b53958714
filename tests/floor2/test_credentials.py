"""Whose credentials sign a request: profile, role, web identity, container; renewed, and never shown."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mltrack_tasks.errors import AccessError
from mltrack_tasks.stores import s3_settings
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import Keys, S3Settings
from tests.floor2.answers import answering
from tests.servers import S3Server
from tests.servers.faultproxy import Fault, FaultProxy, Request

ROLE = "arn:aws:iam::123456789012:role/reader"


class Signatures:
    """The access keys by which the requests that pass the proxy are signed."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.keys: list[str] = []
        proxy.script(Fault("custom", times=None, action=self._note, where=self._is_s3))

    def _is_s3(self, request: Request) -> bool:
        return request.target != "/"

    def _note(self, request: Request) -> None:
        found = re.search(r"Credential=([^/]+)/", request.headers.get("authorization", ""))
        self.keys.append(found[1] if found else "none")

    def of(self, store: S3Store, name: str) -> set[str]:
        """Send one request through obstore and one through boto3 -> who signed them."""
        self.keys.clear()
        store.create(name, b"x")
        store.head(name, checksum=True)
        assert len(self.keys) == 2
        return set(self.keys)


@pytest.fixture
def signatures(proxy: FaultProxy) -> Signatures:
    return Signatures(proxy)


@pytest.fixture
def anonymous(proxied: S3Settings) -> S3Settings:
    """The default chain."""
    return replace(proxied, keys=Keys())


@pytest.fixture
def sts(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let STS be moto's."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3_server.endpoint)


def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def test_keys_of_the_block_sign(proxied: S3Settings, signatures: Signatures) -> None:
    settings = replace(proxied, keys=Keys("AKIAOFTHEBLOCK", "secret", "token"))
    assert signatures.of(S3Store(settings), "k") == {"AKIAOFTHEBLOCK"}


def test_the_environment_signs_when_the_block_has_no_keys(
    anonymous: S3Settings, proxied: S3Settings, signatures: Signatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFTHEENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert signatures.of(S3Store(anonymous), "k") == {"AKIAOFTHEENV"}
    assert signatures.of(S3Store(replace(proxied, keys=Keys("AKIABLOCK", "s"))), "l") == {"AKIABLOCK"}


def test_other_settings_of_the_environment_change_nothing(
    proxied: S3Settings, signatures: Signatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_REGION": "mars-north-1",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_BUCKET": "another",
        "AWS_CONDITIONAL_PUT": "disabled",
        "AWS_UNSIGNED_PAYLOAD": "true",
        "AWS_S3_EXPRESS": "true",
    }.items():
        monkeypatch.setenv(name, value)
    store = S3Store(replace(proxied, keys=Keys("AKIABLOCK", "s")))
    assert signatures.of(store, "k") == {"AKIABLOCK"}
    assert store.create("k", b"again") is False


def test_a_profile_signs(
    proxied: S3Settings, signatures: Signatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile(
        tmp_path,
        monkeypatch,
        "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = s\n"
        "[profile team]\naws_access_key_id = AKIATEAM\naws_secret_access_key = s\n",
    )
    assert signatures.of(S3Store(replace(proxied, keys=Keys(profile="team"))), "k") == {"AKIATEAM"}
    assert signatures.of(S3Store(replace(proxied, keys=Keys())), "l") == {"AKIADEFAULT"}
    monkeypatch.setenv("AWS_PROFILE", "team")
    assert signatures.of(S3Store(replace(proxied, keys=Keys())), "m") == {"AKIATEAM"}


def test_a_profile_that_is_missing_is_named(proxied: S3Settings) -> None:
    with pytest.raises(AccessError, match=r"no-such-profile.*~/\.aws/config"):
        S3Store(replace(proxied, keys=Keys(profile="no-such-profile")))


def test_no_credentials_at_all(anonymous: S3Settings) -> None:
    with pytest.raises(AccessError, match=r"No AWS credentials.*AWS_PROFILE"):
        S3Store(anonymous)


def test_half_of_the_credentials(anonymous: S3Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAHALF")
    with pytest.raises(AccessError, match="credentials"):
        S3Store(anonymous).create("k", b"")


@pytest.mark.usefixtures("sts")
def test_an_assumed_role_signs_and_is_renewed(
    proxied: S3Settings, signatures: Signatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions of 15 minutes are within botocore's time of renewal from the start."""
    monkeypatch.setattr(s3_settings, "CREDENTIALS_TTL", timedelta(0))  # obstore asks each time
    keys = Keys("AKIASOURCE", "secret", assume_role_arn=ROLE, assume_role_options=(("DurationSeconds", 900),))
    store = S3Store(replace(proxied, keys=keys))
    first = signatures.of(store, "k")
    second = signatures.of(store, "l")
    assert all(key.startswith("ASIA") for key in first | second)
    assert first != second


@pytest.mark.usefixtures("sts")
def test_a_profile_that_assumes_a_role(
    proxied: S3Settings, signatures: Signatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile(
        tmp_path,
        monkeypatch,
        f"[profile role]\nrole_arn = {ROLE}\nsource_profile = source\n"
        "[profile source]\naws_access_key_id = AKIASOURCE\naws_secret_access_key = s\n",
    )
    [key] = signatures.of(S3Store(replace(proxied, keys=Keys(profile="role"))), "k")
    assert key.startswith("ASIA")


@pytest.mark.usefixtures("sts")
def test_a_web_identity_signs(
    anonymous: S3Settings, signatures: Signatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("a.web.identity")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    [key] = signatures.of(S3Store(anonymous), "k")
    assert key.startswith("ASIA")


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The credentials' address of a container -> the Authorization headers that it was asked with."""
    expires = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
    keys = {"AccessKeyId": "ASIACONTAINER", "SecretAccessKey": "s", "Token": "t", "Expiration": expires}
    with answering(keys, "Authorization") as (address, asked):
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{address}/creds")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let me")
        yield asked


def test_a_container_role_signs(anonymous: S3Settings, signatures: Signatures, container: list[str]) -> None:
    assert signatures.of(S3Store(anonymous), "k") == {"ASIACONTAINER"}
    assert container == ["let me"]


def test_a_role_that_cannot_be_assumed_says_so(
    proxied: S3Settings, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.servers.faultproxy import Answer

    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.url)

    class StsAnswer(Answer):
        def body(self) -> bytes:
            said = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
            return b"<ErrorResponse>" + said + b"</ErrorResponse>"

    proxy.script(Fault("answer", method="POST", answer=StsAnswer(403, "AccessDenied"), times=None))
    store = S3Store(replace(proxied, keys=Keys("AKIASOURCE", "topsecret", assume_role_arn=ROLE)))
    for verb in (lambda: store.create("k", b""), lambda: store.head("k", checksum=True)):
        with pytest.raises(AccessError) as raised:
            verb()
        assert proxied.bucket in str(raised.value)
        assert "topsecret" not in str(raised.value)


def test_sts_that_never_answers_is_not_waited_for_long(
    proxied: S3Settings, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore alone would try five times, 60 s each."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
    monkeypatch.setattr(s3_settings, "READ_TIMEOUT", 0.3)
    proxy.script(Fault("hang", method="POST", times=None))
    store = S3Store(replace(proxied, keys=Keys("AKIASOURCE", "secret", assume_role_arn=ROLE)))
    with pytest.raises(AccessError, match="cannot be reached"):
        store.create("k", b"")
    assert proxy.count("POST") == 1


@pytest.mark.usefixtures("sts")
def test_nothing_secret_is_shown(proxied: S3Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="mltrack_tasks")
    keys = Keys("AKIASOURCE", "SECRETSECRET", "TOKENTOKEN", assume_role_arn=ROLE)
    settings = replace(proxied, keys=keys)
    store = S3Store(settings)
    store.create("k", b"")
    shown = " ".join([repr(keys), repr(settings), repr(store), store.location, caplog.text])
    assert "SECRETSECRET" not in shown
    assert "TOKENTOKEN" not in shown
