"""Gates: what a version must pass before an alias is moved to it.

A gate is a small value that can be written down, in a flow's parameters and in a policy, or a function of the
user's own (a Prefect task too). None of them runs anything out of a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from mltrack_tasks import canonical, modelkeys
from mltrack_tasks.blobs import fault_of
from mltrack_tasks.modelkeys import check_alias
from mltrack_tasks.models import ModelFile, ModelVersion
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.registry.blobfile import open_blob
from mltrack_tasks.registry.reading import described, read_promoted
from mltrack_tasks.stores.base import Store

_SHOWN = 5
"""Findings that a report names."""


@dataclass(frozen=True)
class Verdict:
    """What a gate says: whether it lets the version pass, and why."""

    passed: bool
    detail: str


@dataclass(frozen=True)
class Case:
    """What gates look at: a version as later registrations describe it, and what aliases stand for now."""

    store: Store
    version: ModelVersion
    alias: str
    event_at: Callable[[str], Promotion | None]

    @cached_property
    def current(self) -> ModelVersion | None:
        """The version that the alias stands for now."""
        return self.standing(self.alias)

    def standing(self, alias: str) -> ModelVersion | None:
        """The version that an alias stands for now, or None."""
        event = self.event_at(alias)
        found = None if event is None else read_promoted(self.store, event)
        return None if found is None else described(self.store, found)

    def is_misspelt(self, alias: str) -> bool:
        """Tell whether an alias is none that anything was ever promoted to, or will be by its name alone."""
        expected = (*modelkeys.GUARDED_ALIASES, self.alias)
        return alias not in expected and self.event_at(alias) is None


def _kind_is_chosen(schema: dict[str, Any]) -> None:
    """Say in forms that a gate needs its ``kind``; Python code, which names the class, may leave it out."""
    kind = schema["properties"]["kind"]
    kind |= {"enum": [kind["default"]], "description": "Which gate this is."}
    schema["required"] = ["kind", *schema.get("required", [])]


class BaseGate(BaseModel):
    """What all gates share: a frozen value, without fields that nobody knows."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, json_schema_extra=_kind_is_chosen
    )

    def judge(self, case: Case) -> Verdict:
        """Decide whether the version of ``case`` may pass."""
        raise NotImplementedError


class MetricGate(BaseGate):
    """A metric of the version lies within bounds, both included."""

    kind: Literal["metric"] = "metric"
    metric: str = Field(description="Name of the metric in the version's record.")
    at_least: float | None = Field(default=None, description="Lowest value that passes.")
    at_most: float | None = Field(default=None, description="Highest value that passes.")

    @model_validator(mode="after")
    def _bounded(self) -> MetricGate:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most or both")
        return self

    def judge(self, case: Case) -> Verdict:
        value = _number(case.version, self.metric)
        if value is None:
            return _without(case.version, self.metric)
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return Verdict(low <= value <= high, f"{self.metric} is {value:g}; allowed is {low:g} to {high:g}")


class NotWorseGate(BaseGate):
    """A metric is not worse than that of the version an alias stands for, by more than a tolerance.

    While the alias stands for nothing, any value passes; an alias that never was any is refused.
    """

    kind: Literal["not_worse"] = "not_worse"
    metric: str = Field(description="Name of the metric in both records.")
    tolerance: float = Field(default=0.0, ge=0, description="By how much it may be worse.")
    higher_is_better: bool = Field(default=True, description="False for losses and errors.")
    alias: str = Field(default="production", description="Alias of the version to compare with.")

    @field_validator("alias")
    @classmethod
    def _is_alias(cls, alias: str) -> str:
        return check_alias(alias)

    def judge(self, case: Case) -> Verdict:
        other = case.current if self.alias == case.alias else case.standing(self.alias)
        if other is None:
            return self._without_other(case)
        new, old = _number(case.version, self.metric), _number(other, self.metric)
        if new is None:
            return _without(case.version, self.metric)
        if old is None:
            return _without(other, self.metric)
        worse = old - new if self.higher_is_better else new - old
        detail = f"{self.metric} is {new:g}, and {old:g} in {other.version} ({self.alias})"
        return Verdict(worse <= self.tolerance, f"{detail}; tolerance {self.tolerance:g}")

    def _without_other(self, case: Case) -> Verdict:
        if case.is_misspelt(self.alias):
            return Verdict(False, f"there is no alias {self.alias}; promote a version to it first")
        return Verdict(True, f"{self.alias} stands for no version yet")


class TagsGate(BaseGate):
    """The version has certain tags."""

    kind: Literal["tags"] = "tags"
    tags: dict[str, Any] = Field(min_length=1, description="Tags with their values; null takes any value.")

    @field_validator("tags")
    @classmethod
    def _as_written(cls, tags: dict[str, Any]) -> dict[str, Any]:
        """Refuse what would be written as something else: NaN as null, which takes any value."""
        try:
            canonical.dumps([tags, canonical.escape(tags, what="tags")])
        except ValueError as error:
            raise ValueError(f"each tag must be a JSON value without NaN or infinity ({error})") from error
        return tags

    def judge(self, case: Case) -> Verdict:
        # As records are compared: 1, 1.0 and true are three values, though Python finds them equal.
        has = {key: canonical.dumps_value(value) for key, value in case.version.tags.items()}
        missing = [
            key
            for key, value in self.tags.items()
            if key not in has or (value is not None and canonical.dumps_value(value) != has[key])
        ]
        return Verdict(not missing, f"lacks the tags {', '.join(missing)}" if missing else "has all tags")


class SignatureGate(BaseGate):
    """The version says what goes into it and what comes out: an MLflow signature."""

    kind: Literal["signature"] = "signature"

    def judge(self, case: Case) -> Verdict:
        found = bool(case.version.mlflow.get("signature"))
        return Verdict(found, "has a signature" if found else "has no signature in an MLmodel file")


class FilesGate(BaseGate):
    """Every file is stored whole: by the checksum that the server keeps, or read and hashed."""

    kind: Literal["files"] = "files"

    def judge(self, case: Case) -> Verdict:
        files = case.version.files
        faults = map_ordered(partial(_fault, case.store), files, case.store.max_workers)
        found = [f"{file.shown_path} {fault}" for file, fault in zip(files, faults, strict=True) if fault]
        return Verdict(not found, _some(found) or f"{len(files)} files verified")


class PickleGate(BaseGate):
    """No file holds pickled Python, which runs code when it is loaded. Nothing is executed to find out."""

    kind: Literal["pickle"] = "pickle"
    allow: Literal["none", "known", "any"] = Field(
        default="none",
        description="`none`: no pickle at all; `known`: only such as a scanner finds harmless "
        "(extra `scan`); `any`: pickles are named in the report and let pass.",
    )

    def judge(self, case: Case) -> Verdict:
        from mltrack_tasks.pickles import dangerous_globals, find_pickles

        by_path = {file.path: file for file in case.version.files}
        sizes = {path: file.size_bytes for path, file in by_path.items()}

        def opened(path: str) -> Any:
            return open_blob(case.store, by_path[path])

        found = find_pickles(sizes, opened)
        if not found:
            return Verdict(True, "no pickle found")
        named = _some([f"{by_path[one.path].shown_path}: {one.reason}" for one in found])
        if self.allow == "any":
            return Verdict(True, f"allowed: {named}")
        if self.allow == "none":
            return Verdict(False, named)
        bad = dangerous_globals(found, sizes, opened)
        return Verdict(not bad, _some([str(one) for one in bad]) or f"scanned: {named}")


Gate = Annotated[
    MetricGate | NotWorseGate | TagsGate | SignatureGate | FilesGate | PickleGate, Field(discriminator="kind")
]


def _number(version: ModelVersion, metric: str) -> float | None:
    """Value of a metric, or None if there is no number of that name to judge by: NaN is none.

    Nor is a whole number beyond the floats.
    """
    value = version.metrics.get(metric)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return None if math.isnan(value) else value
    except OverflowError:
        return None


def _without(version: ModelVersion, metric: str) -> Verdict:
    return Verdict(False, f"{version.version} has no metric {metric} that is a number")


def _fault(store: Store, file: ModelFile) -> str:
    return fault_of(store, file.digest, file.format, file.size_bytes)


def _some(findings: Sequence[str]) -> str:
    more = f" and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
    return "; ".join(findings[:_SHOWN]) + more
