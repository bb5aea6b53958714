"""The keys below ``arrivals/``: what was acted upon, by whom, and in which batch. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote

from mltrack_tasks import layout
from mltrack_tasks.digest import check_digest, is_digest, sha256_hex
from mltrack_tasks.errors import IntegrityError

ARRIVALS = "arrivals/"

_SHOWN = 150
"""[bytes], encoded, of a long deployment's name that its subscription shows."""
_CLAIM = re.compile(r"(?P<dd>[0-9a-f]{2})/(?P<digest>[0-9a-f]{64})\.(?P<format>[a-z.]+)\.json")
_BATCH = re.compile(r"(?P<digest>[0-9a-f]{64})\.(json|done)")


def subscription_of(deployment: str) -> str:
    """Name the subscription of a deployment: its own name; of a long one, the beginning and a digest."""
    if len(quote(deployment, safe="")) <= layout.MAX_SEGMENT:
        return deployment
    head = deployment[:_SHOWN]
    while len(quote(head, safe="")) > _SHOWN:
        head = head[:-1]
    return f"{head}-{sha256_hex(deployment.encode())[:32]}"


def claim_key(subscription: str, digest: str, format: str) -> str:
    """Key of the record that says in which batch a subscription acts upon a blob."""
    layout.check_choice(format, layout.FORMATS, "The format")
    return f"{_folder(subscription)}data/{check_digest(digest)[:2]}/{digest}.{format}.json"


def batch_key(subscription: str, batch: str) -> str:
    """Key of the record of what a batch may act upon; named by the digest of its content."""
    return f"{_folder(subscription)}batches/{check_digest(batch)}.json"


def done_key(subscription: str, batch: str) -> str:
    """Key of the record that a batch was acted upon."""
    return f"{_folder(subscription)}batches/{check_digest(batch)}.done"


def is_arrival_key(key: str) -> bool:
    """Tell whether a key is one of these."""
    folder, subscription, kind, rest = [*key.split("/", 3), "", "", ""][:4]
    try:
        layout.decode_segment(subscription)
    except IntegrityError:
        return False
    if f"{folder}/" != ARRIVALS:
        return False
    if kind == "batches":
        return _BATCH.fullmatch(rest) is not None
    match = _CLAIM.fullmatch(rest)
    if kind != "data" or match is None:
        return False
    return (
        match["digest"][:2] == match["dd"]
        and is_digest(match["digest"])
        and match["format"] in layout.FORMATS
    )


def _folder(subscription: str) -> str:
    return f"{ARRIVALS}{layout.encode_segment(subscription, what='The subscription')}/"
