"""What goes wrong between here and the bucket: each a typed error that names the place and the fix."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mltrack_tasks.digest import SINGLE_PUT_LIMIT
from mltrack_tasks.errors import (
    AccessError,
    ArchivedError,
    InvalidInputError,
    MLTrackError,
    NotFoundError,
    TransientError,
)
from mltrack_tasks.stores import open_s3, retry, s3_objects, s3_settings
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import LARGE_BODY, S3Store
from mltrack_tasks.stores.s3_settings import Keys, S3Settings
from tests.servers import S3Server, create_bucket, moto
from tests.servers.faultproxy import Answer, Fault, FaultProxy
from tests.settings import BUCKET, settings_of

Verb = Callable[[Store], object]
VERBS: dict[str, Verb] = {
    "create": lambda store: store.create("k", b"x"),
    "create large": lambda store: store.create("k", bytes(LARGE_BODY + 1)),
    "replace": lambda store: store.replace("k", b"x", '"e"'),
    "upload": lambda store: store.upload("k", 1),
    "get": lambda store: store.get("k"),
    "get_range": lambda store: store.get_range("k", 0, 1),
    "head": lambda store: store.head("k"),
    "head checksum": lambda store: store.head("k", checksum=True),
    "list": lambda store: list(store.list("")),
    "level": lambda store: store.level(""),
    "copy": lambda store: store.copy("k", "t", 1),
    "copy in parts": lambda store: store.copy("k", "t", SINGLE_PUT_LIMIT + 1),
    "delete": lambda store: store.delete(["k"]),
}
FIRST = ("create", "get", "head checksum", "list", "level", "copy", "upload")
"""Verbs that may be the first to reach an endpoint; a large body never goes first."""
ACTIONS = {
    **dict.fromkeys(("create", "create large", "replace", "upload"), "s3:PutObject"),
    **dict.fromkeys(("get", "get_range", "head", "head checksum"), "s3:GetObject"),
    **dict.fromkeys(("list", "level"), "s3:ListBucket"),
    **dict.fromkeys(("copy", "copy in parts"), "s3:GetObject and s3:PutObject"),
    "delete": "s3:DeleteObject",
}


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a moment for an answer, not as long as the library does."""
    for module in (s3_settings, s3_objects):
        monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.25)
        monkeypatch.setattr(module, "READ_TIMEOUT", 0.25)


@pytest.fixture(scope="module")
def iam(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """moto in a child process that checks signatures and policies."""
    with moto.serve_with_iam(tmp_path_factory.mktemp("iam")) as server:
        create_bucket(server, BUCKET)
        yield server


def failure(settings: S3Settings, verb: str) -> MLTrackError:
    """The error of one verb on a new store."""
    with pytest.raises(MLTrackError) as raised:
        VERBS[verb](S3Store(settings))
    return raised.value


def test_access_denied_names_bucket_and_action(iam: S3Server) -> None:
    store = S3Store(settings_of(iam, keys=Keys(iam.alt_access_key, iam.alt_secret_key)))
    for verb, call in VERBS.items():
        with pytest.raises(AccessError) as raised:
            call(store)
        assert f"Grant {ACTIONS[verb]}" in str(raised.value), verb
        assert BUCKET in str(raised.value), verb
        assert raised.value.details["action"] == ACTIONS[verb]


def test_a_wrong_secret_is_not_a_missing_permission(iam: S3Server) -> None:
    for keys in (Keys(iam.access_key, "wrong-secret"), Keys("AKIAUNKNOWN", "wrong-secret")):
        error = failure(settings_of(iam, keys=keys), "create")
        assert isinstance(error, AccessError)
        assert "access key and secret" in str(error)
        assert "wrong-secret" not in str(error)


def test_a_missing_bucket_is_no_missing_key(s3_server: S3Server) -> None:
    store = S3Store(settings_of(s3_server, bucket="no-such-bucket"))
    for verb, call in VERBS.items():
        with pytest.raises(AccessError, match=r"no-such-bucket.*Check the bucket's name") as raised:
            call(store)
        assert raised.value.details["code"] == "NoSuchBucket", verb


@pytest.mark.parametrize("verb", FIRST)
@pytest.mark.usefixtures("in_a_hurry")
def test_an_endpoint_that_never_answers_is_given_up_at_once(
    verb: str, proxied: S3Settings, proxy: FaultProxy
) -> None:
    proxy.script(Fault("hang", times=None))
    with pytest.raises(AccessError, match="cannot be reached") as raised:
        VERBS[verb](RetryingStore(S3Store(proxied)))
    assert BUCKET in str(raised.value)
    assert len(proxy.requests) <= 1


@pytest.mark.usefixtures("in_a_hurry")
def test_an_endpoint_that_fell_silent_is_tried_again(proxied: S3Settings, proxy: FaultProxy) -> None:
    store = RetryingStore(S3Store(proxied), sleep=lambda seconds: None)
    store.create("k", b"x")
    for verb, times in (("get", 1), ("head checksum", 1), ("list", 1), ("create", 1)):
        proxy.script(Fault("hang", times=times))
        VERBS[verb](store)
        assert proxy.unfired() == []
    proxy.script(Fault("hang", times=None))
    with pytest.raises(TransientError, match="Try again"):
        store.get("k")


def test_waiting_ends_within_30_seconds() -> None:
    """The last try of a request begins before the deadline, and lasts as long as it takes to wait in vain."""
    assert retry.DEADLINE + s3_settings.CONNECT_TIMEOUT + s3_settings.READ_TIMEOUT <= 30


@pytest.mark.parametrize("verb", FIRST)
def test_an_unreachable_port(verb: str, s3_server: S3Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = unused.getsockname()[1]
        error = failure(settings_of(s3_server, endpoint_url=f"http://127.0.0.1:{port}"), verb)
    assert isinstance(error, AccessError)
    assert "check endpoint_url" in str(error)


def test_a_host_that_does_not_exist(s3_server: S3Server) -> None:
    for verb in ("create", "head checksum"):
        error = failure(settings_of(s3_server, endpoint_url="http://no-such-host.invalid"), verb)
        assert isinstance(error, AccessError)
        assert "cannot be reached" in str(error)


def test_a_slow_line_is_no_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that takes longer to send than an answer may take to begin still arrives."""
    monkeypatch.setattr(s3_objects, "READ_TIMEOUT", 0.3)
    body = bytes(16 * 1024 * 1024)
    with _SlowReader(seconds=1.0, size=len(body)) as url:
        store = S3Store(S3Settings("b", "p", Keys("a", "b"), "us-east-1", url))
        assert store.create("k", body) is True


class _SlowReader:
    """A server for one request that reads its body slowly, and then says yes."""

    def __init__(self, seconds: float, size: int) -> None:
        self._pause, self._size = seconds / 20, size

    def __enter__(self) -> str:
        import threading

        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def __exit__(self, *about: object) -> None:
        self._server.close()
        self._thread.join()

    def _serve(self) -> None:
        import time

        connection, _ = self._server.accept()
        with connection, connection.makefile("rwb") as stream:
            while stream.readline().strip():
                pass
            for _ in range(20):
                stream.read(self._size // 20)
                time.sleep(self._pause)
            stream.read(self._size % 20)
            stream.write(b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 0\r\n\r\n')
            stream.flush()


SAID: list[tuple[int, str, type[MLTrackError], str]] = [
    (301, "PermanentRedirect", AccessError, "region_name"),
    (400, "AuthorizationHeaderMalformed", AccessError, "region_name"),
    (400, "ExpiredToken", AccessError, "Renew the credentials"),
    (403, "RequestTimeTooSkewed", AccessError, "clock"),
    (403, "InvalidAccessKeyId", AccessError, "access key"),
    (403, "InvalidObjectState", ArchivedError, "restore"),
    (400, "KMS.DisabledException", AccessError, "kms"),
    (400, "InvalidStorageClass", InvalidInputError, "storage class"),
    (400, "BadDigest", TransientError, "damaged on its way"),
    (501, "NotImplemented", AccessError, "lacks the operation"),
    (507, "XMinioStorageFull", AccessError, "full"),
    (503, "SlowDown", TransientError, "Try again"),
    (500, "InternalError", TransientError, "Try again"),
    (409, "OperationAborted", TransientError, "Try again"),
    (418, "NeverHeardOf", TransientError, "Try again"),
]


def test_the_table_of_codes(proxied: S3Settings, proxy: FaultProxy) -> None:
    store = S3Store(proxied)
    for status, code, kind, advice in SAID:
        proxy.clear()
        elsewhere = {"x-amz-bucket-region": "eu-west-1"} if status == 301 else {}
        proxy.script(Fault("answer", times=None, answer=Answer(status, code, headers=elsewhere)))
        for verb in ("get", "list", "level", "upload", "copy", "copy in parts", "delete"):
            with pytest.raises(kind, match=rf"(?s){BUCKET}.*{advice}") as raised:
                VERBS[verb](store)
            assert type(raised.value) is kind, (code, verb)
            assert raised.value.details["code"] == code, verb


def test_a_missing_key_is_not_found(s3_settings: S3Settings) -> None:
    store = S3Store(s3_settings)
    with pytest.raises(NotFoundError, match=s3_settings.prefix):
        store.get("k")
    assert store.head("k") is None


def test_secrets_are_in_no_error_and_no_log(proxied: S3Settings, caplog: pytest.LogCaptureFixture) -> None:
    from dataclasses import replace

    secrets = ("SECRETKEYSECRETKEY", "TOKENTOKENTOKEN")
    caplog.set_level(logging.DEBUG, logger="mltrack_tasks")
    settings = replace(proxied, bucket="no-such-bucket", keys=Keys("AKIAEXAMPLE", *secrets))
    store = open_s3(settings)
    texts = [repr(settings), repr(store), str(store)]
    for verb in ("create", "get", "head checksum", "upload"):
        with pytest.raises(AccessError) as raised:
            VERBS[verb](store)
        error: BaseException | None = raised.value
        while error is not None:
            texts += [str(error), repr(error), repr(getattr(error, "details", None))]
            error = error.__cause__ or error.__context__
    for text in [*texts, caplog.text]:
        assert not [secret for secret in secrets if secret in text], text


def test_an_expired_sso_login_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile whose cached SSO token has run out; nothing is sent, as the token's end is known."""
    start = "https://example.awsapps.com/start"
    config = tmp_path / "config"
    config.write_text(
        f"[profile stale]\nregion = us-east-1\nsso_start_url = {start}\nsso_region = us-east-1\n"
        "sso_account_id = 111122223333\nsso_role_name = reader\n"
    )
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    ended = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    token = {"startUrl": start, "region": "us-east-1", "accessToken": "STALETOKEN", "expiresAt": ended}
    (cache / f"{hashlib.sha1(start.encode()).hexdigest()}.json").write_text(json.dumps(token))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setattr("botocore.credentials.SSOProvider._SSO_TOKEN_CACHE_DIR", str(cache))
    for verb in ("create", "head checksum"):
        error = failure(S3Settings("some-bucket", keys=Keys(profile="stale")), verb)
        assert isinstance(error, AccessError)
        assert "aws sso login" in str(error)
        assert "some-bucket" in str(error)
        assert "STALETOKEN" not in str(error)
