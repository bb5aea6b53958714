"""A cache policy of Prefect that knows data by its digest, wherever it lies and whoever stored it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect.cache_policies import INPUTS, TASK_SOURCE, CachePolicy
from prefect.context import TaskRunContext

from mltrack_tasks import canonical, codecs
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.refs import DataRef


@dataclass
class ByDigest(CachePolicy):
    """A key of a task's code and of what its data is: the same anywhere, for anyone.

    Refs count as their digest and format, model versions as the digest of their files: not what they are
    called, where they lie, or whether they were new. Frames, arrays, JSON values and bytes count as the
    digest that they would be stored under, so that the order of columns and their types count, too. Blocks
    of stores do not count: they say where, and with whose credentials. Everything else is hashed as
    ``prefect.cache_policies.INPUTS`` does. Lists, tuples, mappings and dataclasses are looked into.

    ``BY_DIGEST - "name"`` leaves a parameter out, such as the text that names a store. Where keys and
    results are kept is Prefect's affair: with ``result_storage`` a block of this library, one bucket
    serves all machines. A value that cannot be hashed is Prefect's ValueError.
    """

    exclude: tuple[str, ...] = ()

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Name what a task run is going to give."""
        asked = {name: value for name, value in inputs.items() if name not in self.exclude}
        rest: dict[str, Any] = {}
        told = {name: _told(value, name, rest) for name, value in asked.items()}
        others = INPUTS.compute_key(task_ctx, rest, flow_parameters) if rest else None
        code = TASK_SOURCE.compute_key(task_ctx, inputs, flow_parameters)
        return sha256_hex(canonical.dumps({"code": code, "inputs": told, "others": others}))

    def __sub__(self, other: str) -> ByDigest:
        """Leave a parameter out."""
        if not isinstance(other, str):
            raise InvalidInputError(f"{other!r} is no name of a parameter.")
        return dataclasses.replace(self, exclude=(*self.exclude, other))


class _Hashing(io.BytesIO):
    """Takes bytes and keeps nothing but their digest."""

    def __init__(self) -> None:
        super().__init__()
        self._digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return memoryview(data).nbytes

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


_SCALARS = (str, int, float, bool, type(None))


def _told(value: Any, where: str, rest: dict[str, Any]) -> Any:
    """What stands for a value in the key; ``rest`` takes, by its place, what Prefect is to hash."""
    kind = type(value)
    if kind in _SCALARS:
        return [kind.__name__, repr(value)]
    if isinstance(value, DataRef):
        return ["ref", value.hash, value.format]
    if isinstance(value, ModelVersion):
        return ["model", value.tree_digest]
    if isinstance(value, MLTrackStore):
        return ["store"]
    if isinstance(value, Mapping):
        pairs = [
            [_told(key, f"{where} key", rest), _told(item, f"{where}.{key}", rest)]
            for key, item in value.items()
        ]
        return [_name(kind), sorted(pairs, key=canonical.dumps)]
    if isinstance(value, list | tuple):
        return [_name(kind), [_told(item, f"{where}.{number}", rest) for number, item in enumerate(value)]]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return [_name(kind), {name: _told(item, f"{where}.{name}", rest) for name, item in fields.items()}]
    sink = _Hashing()
    try:
        return [codecs.encode(value, sink).format, sink.hexdigest()]
    except InvalidInputError:  # no data that this library stores: Prefect knows more types
        rest[where] = value
        return ["other", where]


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


BY_DIGEST = ByDigest()
"""For ``@task(cache_policy=BY_DIGEST)``; see ``ByDigest``."""
