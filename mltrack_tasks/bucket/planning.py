"""The plan: every document with what it says, what it should say and why; and what others' rules endanger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mltrack_tasks import canonical
from mltrack_tasks.bucket import linking, wishing
from mltrack_tasks.bucket.judging import judge
from mltrack_tasks.bucket.merging import (
    LIFECYCLE,
    NOTIFICATIONS,
    REPLICATION,
    SELECTORS,
    STATEMENTS,
    TIERS,
    Shape,
    foreign,
    own,
    parse_policy,
    spoken,
)
from mltrack_tasks.bucket.naming import root_of, sid_base
from mltrack_tasks.bucket.wishing import Decide, Place, Sight
from mltrack_tasks.digest import sha256_hex

State = Literal["same", "change", "kept", "unsupported", "denied"]

DECIDERS: dict[str, Decide] = {
    "versioning": wishing.versioning,
    "encryption": wishing.encryption,
    "public_access": wishing.public_access,
    "ownership": wishing.ownership,
    "lifecycle": wishing.lifecycle,
    "archive_tiers": wishing.archive_tiers,
    "acceleration": wishing.acceleration,
    "logging": wishing.logging,
    "replication": linking.replication,
    "queue": linking.queue,
    "notifications": linking.notifications,
    "cloudtrail": linking.cloudtrail,
    "policy": wishing.policy,
}
"""In the order in which they are applied: replication needs versions, and a policy may refuse what "
"follows."""

SETTING_OF = {
    **{name: name for name in DECIDERS},
    **{"public_access": "block_public_access", "queue": "notifications"},
}
RECOMMENDED = ("versioning", "encryption", "public_access", "ownership", "lifecycle", "policy")

SHAPES: dict[str, Shape] = {
    "lifecycle": LIFECYCLE,
    "archive_tiers": TIERS,
    "replication": REPLICATION,
    "notifications": NOTIFICATIONS,
    "cloudtrail": SELECTORS,
}


@dataclass(frozen=True)
class Row:
    """One document: ``before`` is what it says, ``after`` what it should say, in AWS's own form.

    ``state`` same: nothing to do; change; kept: it differs and is left alone, ``why`` tells the reason;
    unsupported, denied: it could not be read or written. ``drift``: ours is not as it was last applied.
    """

    document: str
    state: State
    why: str
    before: Any = None
    after: Any = None
    explicit: bool = False
    drift: bool = False
    notes: tuple[str, ...] = ()


def own_part(name: str, document: Any, place: Place) -> Any:
    """What of a document is ours: a document that has one value is, as a whole."""
    if name == "versioning":
        return document and {"Status": document.get("Status")}  # Ceph adds MFADelete, which is not ours
    if name == "policy":
        return own(parse_policy(document), STATEMENTS, sid_base(place.prefix))
    if name == "queue":
        said = document or {}
        ours = own(said.get("Policy"), STATEMENTS, sid_base(place.prefix))
        return {**ours, "dead_letters": bool(said.get("RedrivePolicy"))}
    if name == "cloudtrail":
        basic = [
            each
            for each in (document or {}).get("EventSelectors") or ()
            if linking.is_basic(each, place.arn, place.prefix)
        ]
        return {**own(document, SELECTORS, place.base), **({"EventSelectors": basic} if basic else {})}
    return own(document, SHAPES[name], place.base) if name in SHAPES else document


def same_part(one: Any, other: Any) -> bool:
    """Tell whether two parts say the same."""
    return bool(spoken(one) == spoken(other))


def plan(sight: Sight) -> list[Row]:
    """Compare what is wished with what is there -> a row for each document that is about either."""
    return [row for name, decide in DECIDERS.items() if (row := _row(sight, name, decide)) is not None]


def _row(sight: Sight, name: str, decide: Decide) -> Row | None:
    found = sight.found.get(name)
    drift = name in sight.applied and not same_part(own_part(name, found, sight.place), sight.applied[name])
    wish = decide(sight)
    if wish is None:
        said = "it was applied once, and is not wished any more"
        return Row(name, "kept", said, found, found, drift=True) if drift else None
    state: State = "change" if wish.after != found else "kept" if wish.kept else "same"
    return Row(name, state, wish.kept or wish.why, found, wish.after, wish.explicit, drift, wish.notes)


def digest_of(rows: list[Row]) -> str:
    """What names the changes of a plan: the same changes, the same digest."""
    changes = [[row.document, row.before, row.after] for row in rows if row.state == "change"]
    return sha256_hex(canonical.dumps(changes))


def hazards(found: Mapping[str, Any], place: Place) -> Iterator[str]:
    """Say what rules of others do to the store; they are theirs to change."""
    for rule in foreign(found.get("lifecycle"), LIFECYCLE, place.base).get("Rules", ()):
        for verdict in judge(rule, root_of(place.prefix)):
            if verdict.refused:
                yield f"{verdict} It is not ours, and was left as it is."
    data = f"{root_of(place.prefix)}data/"
    for rule in foreign(found.get("archive_tiers"), TIERS, place.base).get("Configurations", ()):
        chosen = rule.get("Filter") or {}
        scope = str(chosen.get("Prefix") or (chosen.get("And") or {}).get("Prefix") or "")
        if rule.get("Status") == "Enabled" and (data.startswith(scope) or scope.startswith(data)):
            yield (
                f"The Intelligent-Tiering configuration {rule.get('Id')!r} archives objects of the store. "
                "It is not ours, and was left as it is."
            )
