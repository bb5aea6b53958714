"""Archive tiers of INTELLIGENT_TIERING: one document here, one request a configuration in S3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def read_tiers(client: Any, target: dict[str, str]) -> dict[str, Any]:
    """Read all configurations -> ``{"Configurations": [...]}``, or an empty document."""
    found = list(_configurations(client, target))
    return {"Configurations": found} if found else {}


def write_tiers(client: Any, target: dict[str, str], document: dict[str, Any] | None) -> None:
    """Make the configurations those of the document; what is the same already is not written."""
    before = {each["Id"]: each for each in _configurations(client, target)}
    after = {each["Id"]: each for each in (document or {}).get("Configurations", ())}
    for name in before.keys() - after.keys():
        client.delete_bucket_intelligent_tiering_configuration(**target, Id=name)
    for name, each in after.items():
        if before.get(name) != each:
            client.put_bucket_intelligent_tiering_configuration(
                **target, Id=name, IntelligentTieringConfiguration=each
            )


def _configurations(client: Any, target: dict[str, str]) -> Iterator[dict[str, Any]]:
    token: dict[str, str] = {}
    while True:
        answer = client.list_bucket_intelligent_tiering_configurations(**target, **token)
        yield from answer.get("IntelligentTieringConfigurationList", ())
        if not answer.get("IsTruncated"):
            return
        token = {"ContinuationToken": answer["NextContinuationToken"]}
