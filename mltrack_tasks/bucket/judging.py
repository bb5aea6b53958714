"""Which lifecycle rules a store survives: each verdict with its reason and with what is safe instead.

Blobs are shared: one that is old may belong to a run of today. Records, views and pins are small, and read
all the time. So nothing of a store may go by its age, and nothing but blobs may go where it must be restored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
SHORT_UNDO = 7
"""[days] for which earlier versions should stay: what a collection deleted can be brought back so long."""
SMALL = 128 * 1024
"""[bytes] Smaller objects do not change their class by default, and are billed as this size in IA classes."""
MINIMUM_STAY = {"STANDARD_IA": 30, "ONEZONE_IA": 30, "GLACIER_IR": 90, "GLACIER": 90, "DEEP_ARCHIVE": 180}
"""[days] that are billed whatever happens (AWS price list of S3, 2025)."""
_EXPIRES = (
    "lets S3 delete by age what is in use: a blob is stored once, and an old one may belong to a run of "
    "today; records, names and versions of models are never superseded by age"
)
_INSTEAD_OF_EXPIRY = (
    "Remove runs by apply_retention (also by a tag: the setting `temporary`), then collect_garbage removes "
    "the blobs that nothing needs any more."
)
_ARCHIVES_RECORDS = (
    "moves manifests, names and models, which every call reads, where they must be restored first"
)
_ARCHIVES_BLOBS = (
    "moves blobs where they must be restored before anything can read them, also for runs of today that "
    "share them"
)
_INSTEAD_OF_ARCHIVE = (
    "Set lifecycle.transition_days and lifecycle.transition_class to INTELLIGENT_TIERING or GLACIER_IR: they "
    "move only blobs (data/), and every blob stays readable at once. To archive blobs all the same, set "
    "lifecycle.accept_archived."
)


@dataclass(frozen=True)
class Objection:
    """What is wrong with a rule: ``refused`` if the store would break, otherwise it only costs."""

    rule: str
    refused: bool
    reason: str
    instead: str = ""

    def __str__(self) -> str:
        return f"The lifecycle rule {self.rule!r} {self.reason}. {self.instead}".strip()


def judge(rule: Mapping[str, Any], root: str, *, accept_archived: bool = False) -> Iterator[Objection]:
    """Judge one rule of a lifecycle by what it does to the store whose keys begin with ``root``."""
    name = str(rule.get("ID") or rule.get("Id") or "(without id)")
    scope = _scope(rule)
    if rule.get("Status") != "Enabled" or not (scope.startswith(root) or root.startswith(scope)):
        return
    expiration = rule.get("Expiration") or {}
    if "Days" in expiration or "Date" in expiration:
        yield Objection(name, True, _EXPIRES, _INSTEAD_OF_EXPIRY)
    only_blobs = scope.startswith(f"{root}data/")
    for move in rule.get("Transitions") or ():
        yield from _judge_move(name, move, only_blobs, accept_archived)
    for move in rule.get("NoncurrentVersionTransitions") or ():
        if move.get("StorageClass") in ARCHIVES:
            yield Objection(name, False, "archives earlier versions: undo_collection must wait for a restore")
    stay = (rule.get("NoncurrentVersionExpiration") or {}).get("NoncurrentDays")
    if stay is not None and stay < SHORT_UNDO:
        yield Objection(name, False, f"keeps what was deleted for {stay} days only: then nothing can undo it")
    begun = (rule.get("AbortIncompleteMultipartUpload") or {}).get("DaysAfterInitiation")
    if begun is not None and begun < 2:
        yield Objection(name, False, "drops uploads that a slow line may still be sending")


def _judge_move(name: str, move: Mapping[str, Any], only_blobs: bool, accepted: bool) -> Iterator[Objection]:
    to = str(move.get("StorageClass"))
    if to in ARCHIVES and not only_blobs:
        yield Objection(name, True, _ARCHIVES_RECORDS, _INSTEAD_OF_ARCHIVE)
    elif to in ARCHIVES and not accepted:
        yield Objection(name, True, _ARCHIVES_BLOBS, _INSTEAD_OF_ARCHIVE)
    elif to in ARCHIVES:
        yield Objection(name, False, "archives blobs: reading one is an ArchivedError until restore_data")
    if to == "ONEZONE_IA":
        yield Objection(name, False, "keeps objects in one zone: what is lost there is lost")
    if to in MINIMUM_STAY:
        said = f"moves objects to {to}: {MINIMUM_STAY[to]} days are billed at least"
        yield Objection(name, False, f"{said}, and small ones as {SMALL // 1024} KiB" if "IA" in to else said)


def _scope(rule: Mapping[str, Any]) -> str:
    """What the keys begin with that a rule is about. Tags and sizes only narrow it."""
    chosen = rule.get("Filter") or {}
    both = chosen.get("And") or {}
    return str(chosen.get("Prefix") or both.get("Prefix") or rule.get("Prefix") or "")
