"""Secrets stay secret: in what a client prints and logs, and in all that Prefect keeps of it."""

from __future__ import annotations

import json
import logging
import pickle
import secrets
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect_aws import AwsCredentials

from mltrack_tasks import AccessError, MLTrackStore, TransientError, store_data
from mltrack_tasks.access import check_access
from tests.e2e.prefect_server import shared_server
from tests.servers import S3Server
from tests.servers.faultproxy import Answer, Fault, FaultProxy

pytestmark = pytest.mark.timeout(300)
SECRET, TOKEN = f"SECRET{secrets.token_hex(12)}", f"TOKEN{secrets.token_hex(12)}"
KEY = "AKIDEXAMPLE"
CLIENT = Path(__file__).with_name("secret_flow.py")

# As S3 answers: it repeats what the client signed, headers and all, to help whoever debugs the signature.
SIGNED = {"CanonicalRequest": f"PUT\n/bucket\n\nx-amz-security-token:{TOKEN}\n", "AWSAccessKeyId": KEY}
MISMATCH = Answer(403, "SignatureDoesNotMatch", "The signature we calculated differs", elements=SIGNED)
TROUBLE = Answer(500, "InternalError", "We encountered an internal error", elements=SIGNED)


@pytest.fixture
def echoing(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A server that refuses everything and repeats what was signed."""
    with FaultProxy(s3_server.endpoint) as proxy:
        yield proxy


def block_of(proxy: FaultProxy) -> MLTrackStore:
    keys = AwsCredentials(aws_access_key_id=KEY, aws_secret_access_key=SECRET, aws_session_token=TOKEN)
    return MLTrackStore(bucket="bucket", endpoint_url=proxy.url, region_name="us-east-1", credentials=keys)


def assert_clean(text: str | bytes) -> None:
    """Neither secret stands in the text; the message must not quote them either."""
    raw = text.encode() if isinstance(text, str) else text
    for secret in (SECRET, TOKEN):
        place = raw.find(secret.encode())
        assert place < 0, raw[max(0, place - 300) : place].decode(errors="replace")


@pytest.mark.parametrize(("answer", "kind"), [(MISMATCH, AccessError), (TROUBLE, TransientError)])
def test_errors_and_logs(
    echoing: FaultProxy, caplog: pytest.LogCaptureFixture, answer: Answer, kind: type[Exception]
) -> None:
    echoing.script(Fault("answer", times=None, answer=answer))
    for name in ("mltrack_tasks", "prefect"):
        caplog.set_level(logging.DEBUG, logger=name)
    block = block_of(echoing)

    with pytest.raises(kind, match=answer.code) as caught:
        store_data.fn({"a": 1}, store=block)
    logging.getLogger("mltrack_tasks").error("failed", exc_info=caught.value)
    report = check_access(block.open())

    assert not report.ok
    error = caught.value
    for text in (str(error), repr(error), str(vars(error)), pickle.dumps(error), json.dumps(report.rows())):
        assert_clean(text)
    assert_clean("".join(traceback.format_exception(error)))
    assert "failed" in caplog.text
    assert_clean(caplog.text)
    for text in (str(block), repr(block), f"{block}", repr({"store": block}), block.model_dump_json()):
        assert_clean(text)
    assert "s3://bucket/mltrack" in repr(block)


def test_all_that_prefect_prints_and_keeps(echoing: FaultProxy) -> None:
    """The client logs at DEBUG to its output and to the server; the server keeps artifacts and states too."""
    server = shared_server()
    before = len(server.ask("flow_runs/filter", {}))
    echoing.script(Fault("answer", times=None, answer=MISMATCH))
    verbose = {"PREFECT_LOGGING_LEVEL": "DEBUG", "PREFECT_LOGGING_EXTRA_LOGGERS": "mltrack_tasks"}

    said = server.run(str(CLIENT), echoing.url, KEY, SECRET, TOKEN, **verbose)

    for part in (
        "report [",
        "caught AccessError",
        "SignatureDoesNotMatch",
        "state Failed",
        "ValidationError",
    ):
        assert part in said
    assert_clean(said)

    artifacts = server.ask("artifacts/filter", {})
    assert "SignatureDoesNotMatch" in json.dumps(artifacts)
    assert_clean(json.dumps(artifacts))
    runs = server.ask("flow_runs/filter", {})
    assert len(runs) == before + 2
    assert_clean(json.dumps(runs))
    logs = json.dumps(server.ask("logs/filter", {"limit": 200, "sort": "TIMESTAMP_DESC"}))
    assert "SignatureDoesNotMatch" in logs
    assert_clean(logs)
    assert_clean(server.database())
