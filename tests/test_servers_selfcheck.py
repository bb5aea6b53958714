"""The tests' own tools do what they say: moto serves S3, and every fault of the proxy bites."""

from __future__ import annotations

import hashlib
import http.client
import socket
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from obstore.store import S3Store

from tests.servers import S3Server, client, create_bucket, moto
from tests.servers.faultproxy import Answer, Fault, FaultProxy, Record, Request
from tests.servers.process import ServerStartError, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

    from tests.servers.faults import Ending, Kind

BUCKET = "selfcheck"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with moto.serve() as running_server:
        create_bucket(running_server, BUCKET)
        yield running_server


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.endpoint) as running_proxy:
        yield running_proxy


@pytest.fixture(scope="module")
def direct(server: S3Server) -> S3Client:
    return client(server)


@pytest.fixture
def s3(proxy: FaultProxy, server: S3Server) -> S3Client:
    """One try per call, through the proxy."""
    return through(proxy, server)


def through(proxy: FaultProxy, server: S3Server, timeout: float = 30.0) -> S3Client:
    return client(S3Server("proxied", proxy.url, server.access_key, "x"), timeout=timeout)


def put(s3: S3Client, key: str, body: bytes = b"0123456789") -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=body)


def keys(s3: S3Client, prefix: str) -> list[str]:
    found = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return [entry["Key"] for entry in found]


def settled(proxy: FaultProxy) -> list[Record]:
    """Return the records once there is one: a client that gave up may be ahead of the proxy."""
    deadline = time.monotonic() + 10
    while not proxy.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    return proxy.requests


def test_a_request_without_fault_passes_unchanged_and_is_counted(
    proxy: FaultProxy, s3: S3Client, direct: S3Client
) -> None:
    body = bytes(range(256)) * 4096  # 1 MiB: several blocks
    put(s3, "plain/ü b", body)
    assert s3.get_object(Bucket=BUCKET, Key="plain/ü b")["Body"].read() == body
    assert direct.get_object(Bucket=BUCKET, Key="plain/ü b")["Body"].read() == body
    sent = proxy.totals()["PUT", f"/{BUCKET}/plain/ü b"]
    got = proxy.totals()["GET", f"/{BUCKET}/plain/ü b"]
    assert (sent.requests, sent.sent, sent.received) == (1, len(body), 0)
    assert (got.requests, got.sent, got.received) == (1, 0, len(body))
    assert [record.status for record in proxy.requests] == [200, 200]


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("status503", 503, "SlowDown"),
        ("status500", 500, "InternalError"),
        ("conflict409", 409, "ConditionalRequestConflict"),
    ],
)
def test_refusals_are_s3_errors_and_not_forwarded(
    proxy: FaultProxy, s3: S3Client, direct: S3Client, kind: Kind, status: int, code: str
) -> None:
    proxy.script(Fault(kind, method="PUT"))
    with pytest.raises(ClientError) as raised:
        put(s3, f"refused/{kind}")
    assert raised.value.response["Error"]["Code"] == code
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert keys(direct, f"refused/{kind}") == []
    assert [(r.status, r.backend_status, r.sent) for r in proxy.requests] == [(status, None, 10)]
    put(s3, f"refused/{kind}")
    assert keys(direct, f"refused/{kind}") == [f"refused/{kind}"]


def test_an_answer_of_ones_own(proxy: FaultProxy, s3: S3Client) -> None:
    elsewhere = Answer(
        301,
        "PermanentRedirect",
        headers={"x-amz-bucket-region": "eu-west-1"},
        elements={"Endpoint": "s3.eu-west-1.amazonaws.com"},
    )
    proxy.script(Fault("answer", method="HEAD", answer=elsewhere, times=None))
    with pytest.raises(ClientError) as raised:
        s3.head_bucket(Bucket=BUCKET)
    headers = raised.value.response["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amz-bucket-region"] == "eu-west-1"


def test_reset_comes_before_the_server_saw_anything(
    proxy: FaultProxy, s3: S3Client, direct: S3Client
) -> None:
    proxy.script(Fault("reset", method="PUT"))
    with pytest.raises(ConnectionClosedError):
        put(s3, "reset")
    assert keys(direct, "reset") == []
    assert [(r.status, r.backend_status, r.sent) for r in proxy.requests] == [(None, None, 10)]


def test_reset_is_a_real_reset(proxy: FaultProxy) -> None:
    proxy.script(Fault("reset"))
    address = urlsplit(proxy.url)
    with socket.create_connection((address.hostname, address.port)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            plain.recv(1)


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        ("close", ConnectionClosedError),
        ("reset", ConnectionClosedError),
        ("hang", ReadTimeoutError),
    ],
)
def test_lose_answer_does_the_work(
    proxy: FaultProxy, server: S3Server, direct: S3Client, ending: Ending, error: type[Exception]
) -> None:
    proxy.script(Fault("lose_answer", method="PUT", ending=ending))
    with pytest.raises(error):
        put(through(proxy, server, timeout=0.5), f"lost/{ending}")
    assert [(r.status, r.backend_status) for r in settled(proxy)] == [(None, 200)]
    assert keys(direct, f"lost/{ending}") == [f"lost/{ending}"]


def test_truncate_cuts_a_body_in_half(proxy: FaultProxy, s3: S3Client) -> None:
    put(s3, "cut", bytes(1_000_000))
    proxy.script(Fault("truncate", method="GET"), Fault("truncate", method="HEAD"))
    answer = s3.get_object(Bucket=BUCKET, Key="cut")
    assert answer["ContentLength"] == 1_000_000
    with pytest.raises(ResponseStreamingError):
        answer["Body"].read()
    assert proxy.requests[-1].received == 500_000
    with pytest.raises(ConnectionClosedError):  # no body: the status line is cut
        s3.head_object(Bucket=BUCKET, Key="cut")
    assert s3.get_object(Bucket=BUCKET, Key="cut")["Body"].read() == bytes(1_000_000)


@pytest.mark.parametrize(("position", "expected"), [(None, 5), (0, 0), (9, 9)])
def test_flip_byte_changes_exactly_one(
    proxy: FaultProxy, s3: S3Client, position: int | None, expected: int
) -> None:
    proxy.script(Fault("flip_byte", method="PUT", position=position))
    put(s3, "flipped")
    damaged = bytearray(b"0123456789")
    damaged[expected] ^= 0xFF
    assert s3.get_object(Bucket=BUCKET, Key="flipped")["Body"].read() == bytes(damaged)


def test_hang_never_answers(proxy: FaultProxy, server: S3Server, direct: S3Client) -> None:
    proxy.script(Fault("hang", method="PUT"))
    with pytest.raises(ReadTimeoutError):
        put(through(proxy, server, timeout=0.3), "hung")
    assert [(r.status, r.fault) for r in settled(proxy)] == [(None, "hang")]
    assert keys(direct, "hung") == []


def test_delay_outlasts_a_client_that_is_in_a_hurry(
    proxy: FaultProxy, s3: S3Client, server: S3Server
) -> None:
    proxy.script(Fault("delay", method="PUT", seconds=0.4, times=2))
    with pytest.raises(ReadTimeoutError):
        put(through(proxy, server, timeout=0.2), "late")
    put(s3, "late")
    assert proxy.requests[-1].status == 200


def test_ignore_if_none_match_overwrites(proxy: FaultProxy, s3: S3Client, direct: S3Client) -> None:
    put(s3, "create-only", b"first")
    with pytest.raises(ClientError) as raised:
        s3.put_object(Bucket=BUCKET, Key="create-only", Body=b"second", IfNoneMatch="*")
    assert raised.value.response["Error"]["Code"] == "PreconditionFailed"
    proxy.script(Fault("ignore_if_none_match"))
    s3.put_object(Bucket=BUCKET, Key="create-only", Body=b"third", IfNoneMatch="*")
    assert direct.get_object(Bucket=BUCKET, Key="create-only")["Body"].read() == b"third"


def test_custom_acts_between_two_requests(proxy: FaultProxy, s3: S3Client, direct: S3Client) -> None:
    def delete(request: Request) -> None:
        direct.delete_object(Bucket=BUCKET, Key=request.path.removeprefix(f"/{BUCKET}/"))

    put(s3, "goes away")
    proxy.script(Fault("custom", method="HEAD", action=delete))
    with pytest.raises(ClientError) as raised:
        s3.head_object(Bucket=BUCKET, Key="goes away")
    assert raised.value.response["Error"]["Code"] == "404"


def test_a_failing_action_fails_the_test(server: S3Server) -> None:
    def fail(request: Request) -> None:
        raise FileNotFoundError(request.path)

    proxy = FaultProxy(server.endpoint).__enter__()
    proxy.script(Fault("custom", action=fail))
    with pytest.raises(ConnectionClosedError):
        put(through(proxy, server), "any")
    with pytest.raises(ExceptionGroup) as raised:
        proxy.__exit__(None, None, None)
    assert isinstance(raised.value.exceptions[0].__cause__, FileNotFoundError)


def test_match_where_after_and_times(proxy: FaultProxy, s3: S3Client) -> None:
    def conditional(request: Request) -> bool:
        return "if-none-match" in request.headers

    never = Fault("reset", match="no such key")
    proxy.script(
        never,
        Fault("status500", match=r"^/selfcheck/n/[a-z]\?", after=1, times=2),
        Fault("status503", method="PUT", where=conditional),
    )
    with pytest.raises(ClientError, match="SlowDown"):
        s3.put_object(Bucket=BUCKET, Key="N", Body=b"", IfNoneMatch="*")
    outcomes = []
    for key in ("n/a", "n/1", "n/b", "n/c", "n/d"):
        try:
            put(s3, key)
            outcomes.append(200)
        except ClientError as error:
            outcomes.append(error.response["ResponseMetadata"]["HTTPStatusCode"])
    assert outcomes == [200, 200, 500, 500, 200]
    assert proxy.unfired() == [never]
    assert proxy.count("PUT", "/n/") == 5


@pytest.mark.parametrize(
    "arguments", [{"kind": "explode"}, {"kind": "answer"}, {"kind": "custom"}, {"kind": "delay"}]
)
def test_a_fault_that_cannot_be_played_is_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"unknown fault|needs"):
        Fault(**arguments)  # type: ignore[arg-type]


def test_chunked_bodies_and_expect_continue(proxy: FaultProxy, direct: S3Client) -> None:
    address = urlsplit(proxy.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    blocks = [b"a" * 300_000, b"b" * 5]
    connection.request("PUT", f"/{BUCKET}/chunked", iter(blocks), {"Host": "elsewhere"}, encode_chunked=True)
    assert connection.getresponse().read() == b""
    headers = {"Expect": "100-continue", "Content-Length": "3"}
    connection.putrequest("PUT", f"/{BUCKET}/expected")  # the same connection
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(b"abc")
    assert connection.getresponse().status == 200
    connection.close()
    assert direct.get_object(Bucket=BUCKET, Key="chunked")["Body"].read() == b"".join(blocks)
    assert direct.get_object(Bucket=BUCKET, Key="expected")["Body"].read() == b"abc"
    assert [record.sent for record in proxy.requests] == [300_005, 3]


def test_many_clients_at_once_are_all_counted(proxy: FaultProxy, server: S3Server) -> None:
    store = S3Store(
        BUCKET,
        endpoint=proxy.url,
        access_key_id="a",
        secret_access_key="b",
        region=server.region,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    workers = [
        threading.Thread(target=store.put, args=(f"many/{number}", b"x" * number)) for number in range(16)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert proxy.count("PUT", "/many/") == 16
    assert sum(record.sent for record in proxy.requests) == sum(range(16))
    assert {entry["path"] for batch in store.list("many") for entry in batch} == {
        f"many/{number}" for number in range(16)
    }


def test_iam_variant_checks_signatures_and_policies(tmp_path: Path) -> None:
    with moto.serve_with_iam(tmp_path) as server:
        create_bucket(server, BUCKET)
        put(client(server), "k")
        alt = S3Server("alt", server.endpoint, server.alt_access_key or "", server.alt_secret_key or "")
        with pytest.raises(ClientError, match="AccessDenied"):
            put(client(alt), "k")
        forged = S3Server("forged", server.endpoint, server.access_key, "wrong")
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            put(client(forged), "k")
        with FaultProxy(server.endpoint) as proxy:  # signatures survive the proxy
            signed = S3Server("signed", proxy.url, server.access_key, server.secret_key)
            body = client(signed).get_object(Bucket=BUCKET, Key="k")["Body"].read()
    assert hashlib.sha256(body).hexdigest() == hashlib.sha256(b"0123456789").hexdigest()


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo cannot bind; exit 7"]
    with (
        running("broken", command, tmp_path / "log") as child,
        pytest.raises(ServerStartError, match=r"(?s)broken ended with code 7.*cannot bind"),
    ):
        child.wait_until(lambda: False, 5)


def test_children_end_when_their_block_is_left(tmp_path: Path) -> None:
    with pytest.raises(KeyError), running("sleeper", ["sleep", "60"], tmp_path / "log") as child:
        raise KeyError
    assert child.process.returncode == -15
