"""Run manifests and filters of all kinds, for hypothesis: few names and few values, so that they meet."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from mltrack_tasks import layout
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.records import Record, RunManifest
from mltrack_tasks.refs import DataRef
from mltrack_tasks.runfilter import RunFilter, run_filter
from tests.floor0.strategies import exact, plain_json, texts, values

NAMES = ("a", "A", "b", "accuracy", "Accuracy", "accuracy_1", "metrics", "a.b", "select", 'q"x', "é", "_")
HOSTILE_NAMES = ("", "\0", "a\0b", "\n", " ", "x" * 5_000, "$f", "(no params)", "__proto__")
SPECIAL: list[Any] = [
    *(None, True, False, 0, 1, 1.0, -0.0, 10, 10.0, 0.5, "", "1", "10", "x", "NaN", "null"),
    *(float("nan"), float("inf"), float("-inf"), 2**53 + 1, 2.0**53, 2**63 - 1, -(2**63), 2**63, 10**400),
    *([], [1], [1.0], [True], [float("nan")], {}, {"f1": 0.5}, {"f1": 1}, {"F1": {"x": None}}, {"f1": {}}),
]
_MOMENTS = [datetime(2024, 1, 15, tzinfo=UTC) + timedelta(hours=hours) for hours in (-24, -1, 0, 1, 23, 24)]

names = st.sampled_from(NAMES) | st.sampled_from(HOSTILE_NAMES) | texts
items = st.sampled_from(SPECIAL) | values
moments = st.sampled_from(_MOMENTS) | st.datetimes(timezones=st.just(UTC))
groups = st.dictionaries(names, items, max_size=4)


def ref_of(number: int, size: int = 10) -> DataRef:
    """A ref whose digest is that number."""
    digest = f"{number:064x}"
    return DataRef(digest, "parquet", size, layout.blob_key(digest, "parquet"))


_refs = st.dictionaries(
    st.sampled_from(["train_data", "Train_Data", "a.b", "é"]),
    st.builds(ref_of, st.integers(0, 5), st.sampled_from([0, 10, 2**53, 2**63 - 1])),
    max_size=2,
)
_codes = st.fixed_dictionaries(
    {}, optional={"commit": st.just("c" * 40) | plain_json, "dirty": st.booleans() | plain_json}
)
provenances = st.fixed_dictionaries(
    {},
    optional={
        "at": st.sampled_from(["2024-01-15T00:00:00Z", "2024-01-16T00:00:00.5Z"]) | plain_json,
        **dict.fromkeys(("actor", "host", "flow_run_id", "flow", "deployment_id"), texts | plain_json),
        "code": _codes | plain_json,
    },
)
manifests = st.builds(
    RunManifest,
    run_id=st.sampled_from(["r1", "r2", "r/3", "é"]),
    revision=st.sampled_from([1, 2, 3, 99_999_999]),
    run_type=st.sampled_from(layout.RUN_TYPES),
    status=st.sampled_from(["finished", "failed", "paused", "", "\0"]),
    storage_modes=st.lists(st.sampled_from(layout.STORAGE_MODES), max_size=2).map(tuple),
    project=st.none() | st.sampled_from(["p", "q"]),
    model=st.none() | st.sampled_from(["m", "n"]),
    data=_refs,
    inputs=_refs,
    outputs=_refs,
    values=groups,
    params=groups,
    metrics=groups,
    tags=groups,
    started_at=st.none() | moments,
    ended_at=st.none() | moments,
    extra=st.dictionaries(st.just("from the future"), plain_json, max_size=1),
    provenance=provenances,
)
"""What a store may hold: more than ``store_run`` admits, for others write too."""

_numbers = st.sampled_from([0, 1, 0.5, 10, 2**53, 2**53 + 1, 2**63, float("inf"), float("nan")]) | st.floats()
_comparisons = st.builds(
    lambda sign, number: f"{sign} {number!r}",
    st.sampled_from(["<", "<=", ">", ">=", "==", "=", "!="]),
    _numbers | st.integers(),
)
_bounds = (
    st.sampled_from([date(2024, 1, 14), date(2024, 1, 15), "2024-01-15", "2024-01-15T01:00:00Z"]) | moments
)
_wishes = st.fixed_dictionaries(
    {},
    optional={
        "project": st.sampled_from(["p", "q", "none"]),
        "run_type": st.sampled_from(layout.RUN_TYPES),
        "model": st.sampled_from(["m", "n"]),
        "status": st.sampled_from(["finished", "failed"]),
        "since": _bounds,
        "until": _bounds,
        "tags": st.dictionaries(names, items, max_size=1),
        "params": st.dictionaries(names, items, max_size=2),
        "metrics": st.dictionaries(names, _numbers | _comparisons, max_size=2),
    },
)


def _filter_or_none(wishes: Mapping[str, Any]) -> RunFilter | None:
    try:
        return run_filter(**wishes)
    except InvalidInputError:
        return None  # an empty range of time, or an order with NaN


filters = _wishes.map(_filter_or_none).filter(lambda made: made is not None)


def identity(manifest: RunManifest) -> Any:
    """All that a manifest is, comparable: NaN equals itself, 1 is not 1.0, and nothing is left out."""
    body = Record(manifest.to_content(), manifest.provenance).to_bytes()
    return body, manifest.revision, exact(dict(manifest.params)), manifest.started_at


def contents(table: Any) -> Any:
    """All that an Arrow table holds, comparable: NaN equals itself, and 1 is not 1.0."""
    return str(table.schema), repr(table.to_pylist())
