"""How a store speaks to S3: addresses, certificates, and what every write says of class and encryption.

What no server here honours is shown by the request that would be sent.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from mltrack_tasks.digest import MiB
from mltrack_tasks.errors import InvalidInputError, MLTrackError
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import Keys, S3Settings
from tests.servers import S3Server
from tests.settings import settings_of

KEYS = Keys("key", "secret")
BLOB = f"data/ab/{'ab' * 32}/data.bin"


def hosts(settings: S3Settings) -> set[str]:
    """The hosts to which both clients of a store would send, with the beginning of the path."""
    store = S3Store(settings)
    by_obstore = obstore.sign(store._objects, "PUT", "mltrack/key", timedelta(minutes=1))
    asked = {"Bucket": settings.bucket, "Key": "mltrack/key"}
    by_boto = store.client.generate_presigned_url("put_object", Params=asked)
    return {f"{(url := urlsplit(each)).netloc}{url.path}" for each in (by_obstore, by_boto)}


def test_transfer_acceleration() -> None:
    settings = S3Settings("fast-bucket", keys=KEYS, region="eu-west-1", accelerate=True)
    assert hosts(settings) == {"fast-bucket.s3-accelerate.amazonaws.com/mltrack/key"}
    for wrong in ({"endpoint_url": "http://x"}, {"addressing": "path"}, {"bucket": "with.dots"}):
        with pytest.raises(InvalidInputError, match="of AWS alone"):
            replace(settings, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("addressing", "endpoint", "expected"),
    [
        ("virtual", "http://store.example:9000", "bucket-one.store.example:9000/mltrack/key"),
        ("path", "http://store.example:9000", "store.example:9000/bucket-one/mltrack/key"),
        (None, "http://store.example:9000", "store.example:9000/bucket-one/mltrack/key"),
        ("path", None, "s3.eu-west-1.amazonaws.com/bucket-one/mltrack/key"),
        ("virtual", None, "bucket-one.s3.eu-west-1.amazonaws.com/mltrack/key"),
    ],
)
def test_the_bucket_in_the_path_or_in_the_host(
    addressing: str | None, endpoint: str | None, expected: str
) -> None:
    settings = S3Settings(
        "bucket-one", keys=KEYS, region="eu-west-1", endpoint_url=endpoint, addressing=addressing
    )
    assert hosts(settings) == {expected}


def test_there_are_two_styles() -> None:
    with pytest.raises(InvalidInputError, match="addressing_style"):
        S3Settings("bucket-one", keys=KEYS, addressing="auto")


@pytest.fixture
def tls(tmp_path: Path, s3_server: S3Server) -> Iterator[tuple[str, Path]]:
    """The same moto behind TLS, with a certificate that no system knows -> its address, the certificate."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = tmp_path / "ca.pem", tmp_path / "key.pem"
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=context)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}", certificate
    server.shutdown()
    thread.join(30)
    server.server_close()


@pytest.mark.network
def test_a_certificate_of_a_ca_of_ones_own(s3_server: S3Server, tls: tuple[str, Path]) -> None:
    """Both clients trust it when told to, and neither does otherwise."""
    endpoint, certificate = tls
    settings = settings_of(s3_server, endpoint_url=endpoint)
    trusting = S3Store(replace(settings, verify=str(certificate)))
    assert trusting.create("key", b"body")
    assert trusting.get("key") == b"body"
    stat = trusting.head("key", checksum=True)  # by boto3
    assert stat is not None
    assert stat.size == 4
    strict = S3Store(settings)
    with pytest.raises(MLTrackError, match="cannot be reached"):
        strict.get("key")
    with pytest.raises(MLTrackError, match="ca_bundle"):
        strict.head("key", checksum=True)
    trusting.delete(["key"])


@pytest.mark.network
def test_every_write_says_how_it_is_to_be_encrypted(s3_server: S3Server) -> None:
    """A PUT, an upload in parts and both kinds of copies: encryption, key, class, as S3 then tells."""
    settings = settings_of(
        s3_server,
        encryption="aws:kms",
        kms_key_id="alias/mltrack",
        bucket_key=True,
        storage_class="STANDARD_IA",
    )
    store = S3Store(settings)
    said: dict[str, dict[str, Any]] = {}
    for verb in ("CreateMultipartUpload", "CopyObject"):
        store.client.meta.events.register(
            f"before-call.s3.{verb}", lambda params, model, **_: said.update({model.name: params["headers"]})
        )
    assert store.create(BLOB, b"small")
    answer = store.client.head_object(Bucket=settings.bucket, Key=f"{settings.prefix}/{BLOB}")
    assert (answer["ServerSideEncryption"], answer["SSEKMSKeyId"]) == ("aws:kms", "alias/mltrack")
    assert answer["StorageClass"] == "STANDARD_IA"
    other = BLOB.replace("data.bin", "data.json")
    store.copy(BLOB, other, 5)
    with store.upload(other, 70 * MiB):
        pass  # dropped
    for headers in said.values():
        assert headers["x-amz-server-side-encryption"] == "aws:kms"
        assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/mltrack"
        assert headers["x-amz-server-side-encryption-bucket-key-enabled"] == "true"
        assert headers["x-amz-storage-class"] == "STANDARD_IA"
    assert said.keys() == {"CreateMultipartUpload", "CopyObject"}
    store.delete([BLOB, other])
