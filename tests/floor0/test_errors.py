"""Errors: which handler catches which, and that they survive the way between processes."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest

from mltrack_tasks import errors
from mltrack_tasks.errors import (
    AccessError,
    ArchivedError,
    ConflictError,
    FormatError,
    IntegrityError,
    InvalidInputError,
    MLTrackError,
    NotFoundError,
    PartialTransferError,
    SourceChangedError,
    TransientError,
)

PARENTS: dict[type[MLTrackError], set[type[BaseException]]] = {
    MLTrackError: {Exception},
    TransientError: {MLTrackError},
    AccessError: {MLTrackError},
    NotFoundError: {MLTrackError, LookupError},
    ConflictError: {MLTrackError},
    IntegrityError: {MLTrackError},
    SourceChangedError: {IntegrityError},
    ArchivedError: {MLTrackError},
    FormatError: {MLTrackError},
    InvalidInputError: {MLTrackError, ValueError},
    PartialTransferError: {MLTrackError},
}
"""The classes that a handler may rely on, with what else catches them."""

WAYS: dict[str, Callable[[Any], Any]] = {
    **{
        f"pickle {number}": lambda error, number=number: pickle.loads(pickle.dumps(error, number))
        for number in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "cloudpickle": lambda error: cloudpickle.loads(cloudpickle.dumps(error)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def test_these_are_all_classes() -> None:
    found = {each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)}
    assert found == set(PARENTS)


@pytest.mark.parametrize("kind", PARENTS, ids=lambda kind: kind.__name__)
def test_what_catches_what(kind: type[MLTrackError]) -> None:
    assert set(kind.__bases__) == PARENTS[kind]
    assert inspect.getdoc(kind)
    for other in (OSError, RuntimeError, KeyError):  # whose handlers would take ours for something else
        assert not issubclass(kind, other)


def _examples() -> list[MLTrackError]:
    details = {"key": "data/x", "size": 3}
    plain = [ConflictError, PartialTransferError]
    return [
        *(kind(f"What, which 'ü', what to do: {kind.__name__}.") for kind in PARENTS),
        *(kind("with details", details=details) for kind in PARENTS if kind not in plain),
        ConflictError("both", existing={"a": 1}, offered={"a": 2.0}, details=details),
        PartialTransferError("part", done=["a", "b"], failed=iter([("c", "why")]), details=details),
    ]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    "error", _examples(), ids=lambda error: f"{type(error).__name__} {len(error.details)}"
)
def test_an_error_survives_the_way(error: MLTrackError, way: Callable[[Any], Any]) -> None:
    back = way(error)
    assert type(back) is type(error)
    assert back.args == error.args
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert back is not error


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_was_added_to_an_error_survives_too(way: Callable[[Any], Any]) -> None:
    error = TransientError("x", details={"code": "503"})
    error.add_note("seen twice")
    error.attempt = 2  # type: ignore[attr-defined]
    back = way(error)
    assert back.__notes__ == ["seen twice"]
    assert back.attempt == 2
    assert back.details == {"code": "503"}


class _CustomError(ConflictError):
    """A user's own, with another signature."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(f"{name} {number}", existing=number)
        self.number = number


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_subclass_with_another_signature_survives(way: Callable[[Any], Any]) -> None:
    back = way(_CustomError("a", 7))
    assert type(back) is _CustomError
    assert (str(back), back.number, back.existing, back.offered) == ("a 7", 7, 7, None)


def test_an_error_that_is_raised_through_a_pickle_keeps_its_handlers() -> None:
    with pytest.raises(LookupError, match="no run 'x'"):
        raise pickle.loads(pickle.dumps(NotFoundError("There is no run 'x'.")))
    with pytest.raises(ValueError, match="bad name"):
        raise pickle.loads(pickle.dumps(InvalidInputError("bad name")))


def test_details_are_a_copy() -> None:
    given = {"key": "x"}
    error = AccessError("x", details=given)
    given["key"] = "y"
    assert error.details == {"key": "x"}
    assert MLTrackError("x").details is not MLTrackError("x").details


def test_what_the_classes_carry() -> None:
    conflict = ConflictError("x", existing=1, offered=2)
    assert (conflict.existing, conflict.offered) == (1, 2)
    assert (ConflictError("x").existing, ConflictError("x").offered) == (None, None)
    partial = PartialTransferError("x", done=["a"], failed=(each for each in "bc"))
    assert (partial.done, partial.failed) == (("a",), ("b", "c"))
    assert (PartialTransferError("x").done, PartialTransferError("x").failed) == ((), ())
