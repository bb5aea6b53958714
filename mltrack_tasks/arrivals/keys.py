"""The keys below ``arrivals/``: what was acted upon, by whom, and in which batch. Pure."""

from __future__ import annotations

import re

from mltrack_tasks import layout
from mltrack_tasks.digest import check_digest, is_digest
from mltrack_tasks.errors import IntegrityError

ARRIVALS = "arrivals/"

_CLAIM = re.compile(r"(?P<dd>[0-9a-f]{2})/(?P<digest>[0-9a-f]{64})\.(?P<format>[a-z.]+)\.json")
_BATCH = re.compile(r"(?P<digest>[0-9a-f]{64})\.(json|done)")


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
