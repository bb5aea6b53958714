"""Errors cross process borders whole, and each has the bases that a handler may expect."""

from __future__ import annotations

import copy
import pickle

import cloudpickle
import pytest

from mltrack_tasks import errors
from mltrack_tasks.errors import (
    ConflictError,
    IntegrityError,
    InvalidInputError,
    MLTrackError,
    NotFoundError,
    PartialTransferError,
    SourceChangedError,
)

CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, MLTrackError)
]


def make(kind: type[MLTrackError]) -> MLTrackError:
    details = {"key": "k", "sizes": [1, 2]}
    if issubclass(kind, ConflictError):
        return kind("what", existing={"a": 1}, offered={"a": 2}, details=details)
    if issubclass(kind, PartialTransferError):
        return kind("what", done=["a"], failed=[("b", "why")], details=details)
    return kind("what", details=details)


def test_every_class_is_known() -> None:
    assert sorted(kind.__name__ for kind in CLASSES) == [
        *("AccessError", "ArchivedError", "ConflictError", "FormatError", "GateError"),
        *("IntegrityError", "InvalidInputError", "MLTrackError", "NotFoundError", "PartialTransferError"),
        *("SourceChangedError", "TransientError"),
    ]


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_errors_are_pickled_with_their_attributes(kind: type[MLTrackError], protocol: int) -> None:
    error = make(kind)
    error.add_note("a note")
    for again in (pickle.loads(pickle.dumps(error, protocol)), copy.deepcopy(error)):
        assert type(again) is kind
        assert str(again) == "what"
        assert again.args == ("what",)
        assert vars(again) == vars(error)


def test_bases() -> None:
    assert issubclass(NotFoundError, LookupError)
    assert issubclass(InvalidInputError, ValueError)
    assert issubclass(SourceChangedError, IntegrityError)
    assert str(NotFoundError("no such key")) == "no such key"


def test_attributes() -> None:
    conflict = make(ConflictError)
    assert isinstance(conflict, ConflictError)
    assert (conflict.existing, conflict.offered) == ({"a": 1}, {"a": 2})
    partial = make(PartialTransferError)
    assert isinstance(partial, PartialTransferError)
    assert (partial.done, partial.failed) == (("a",), (("b", "why"),))
    assert MLTrackError("x").details == {}


def test_details_are_a_copy() -> None:
    details = {"key": "x"}
    error = MLTrackError("x", details=details)
    details["key"] = "y"
    assert error.details == {"key": "x"}


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_survive_cloudpickle_and_copy_and_no_foreign_handler_takes_them(
    kind: type[MLTrackError],
) -> None:
    error = make(kind)
    for again in (cloudpickle.loads(cloudpickle.dumps(error)), copy.copy(error)):
        assert (type(again), again.args, vars(again)) == (kind, error.args, vars(error))
    assert not isinstance(error, (OSError, RuntimeError, KeyError))


def test_a_class_of_the_users_own_survives_too() -> None:
    assert str(pickle.loads(pickle.dumps(OwnError("a", 2)))) == "a/2"


class OwnError(MLTrackError):
    """A subclass with a constructor of its own."""

    def __init__(self, one: str, two: int) -> None:
        super().__init__(f"{one}/{two}")
