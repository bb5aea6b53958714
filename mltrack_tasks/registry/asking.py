"""Asking gates: which there are, how they are written down, and what they say of a version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.models import ModelVersion, own_copy
from mltrack_tasks.registry.gates import BaseGate, Case, Gate, Verdict

Own = Callable[[ModelVersion, ModelVersion | None], Any]
"""A user's gate: takes the version and the one in force (or None) -> True, False, or why not, as text."""

_ADAPTER: TypeAdapter[Any] = TypeAdapter(Gate)


def check_gates(gates: Iterable[Any]) -> list[Any]:
    """Admit gates: as values, as mappings with their ``kind``, or as functions.

    Raises InvalidInputError for anything else.
    """
    if isinstance(gates, (str, Mapping, BaseModel)) or not isinstance(gates, Iterable):
        raise InvalidInputError(
            f"gates is {type(gates).__name__}, not a list of gates: write [...] around one. In .map(), "
            "wrap the list in unmapped(...)."
        )
    return [_checked(gate) for gate in gates]


def written(gates: Sequence[Any]) -> list[dict[str, Any]]:
    """Write gates as JSON; InvalidInputError for functions, which cannot be kept."""
    for gate in gates:
        if not isinstance(gate, BaseGate):
            raise InvalidInputError(
                f"{_name_of(gate)!r} is a function; a policy keeps gates that can be written down. "
                "Give it to promote_model each time."
            )
    return [gate.model_dump(mode="json") for gate in gates]


def run_gates(gates: Sequence[Any], case: Case) -> list[dict[str, Any]]:
    """Ask every gate -> a report of each, also when one refuses."""
    return [_report(gate, case) for gate in gates]


def _checked(gate: Any) -> Any:
    if isinstance(gate, BaseGate) or (callable(gate) and not isinstance(gate, type)):
        return gate
    if not isinstance(gate, Mapping):
        raise InvalidInputError(f"{gate!r:.80} is no gate: give one, its mapping, or a function.")
    try:
        return _ADAPTER.validate_python(dict(gate))
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InvalidInputError(f"The gate {dict(gate)!r:.80} cannot be used: {said}.") from error


def _report(gate: Any, case: Case) -> dict[str, Any]:
    if isinstance(gate, BaseGate):
        verdict, said = gate.judge(case), gate.model_dump(mode="json")
    else:
        verdict, said = _ask(gate, case), {"kind": "function", "name": _name_of(gate)}
    return {"gate": said, "passed": verdict.passed, "detail": verdict.detail}


def _ask(gate: Own, case: Case) -> Verdict:
    answer = gate(own_copy(case.version), None if case.current is None else own_copy(case.current))
    if isinstance(answer, str):
        return Verdict(False, answer)
    if isinstance(answer, bool):
        return Verdict(answer, "passed" if answer else "refused")
    raise InvalidInputError(
        f"The gate {_name_of(gate)!r} gave {answer!r:.80}; a gate gives True, False, or why not, as text."
    )


def _name_of(gate: Any) -> str:
    return str(getattr(gate, "name", None) or getattr(gate, "__name__", None) or type(gate).__name__)
