"""What a decorated function's arguments and results are called, when some of them are to be kept."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mltrack_tasks import layout
from mltrack_tasks.errors import InvalidInputError

_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class CallNames:
    """Parameters of a function to keep as inputs or params, and names for what it returns."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    params: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, inputs: str | Sequence[str], outputs: str | Sequence[str], params: str | Sequence[str]
    ) -> CallNames:
        """Admit names; a single one may stand without brackets."""
        return cls(_names(inputs, "inputs"), _names(outputs, "outputs"), _names(params, "params"))

    def all(self) -> list[str]:
        """List every name."""
        return [*self.inputs, *self.outputs, *self.params]

    def check(self, function: Callable[..., Any]) -> None:
        """Refuse names that a function does not have, and names that cannot stand in a manifest."""
        for name in (*self.inputs, *self.outputs):
            layout.encode_segment(name, what="The name")
        if not self.inputs and not self.params:
            return
        parameters = inspect.signature(function).parameters.items()
        known = [name for name, parameter in parameters if parameter.kind not in _COLLECTING]
        if unknown := [name for name in (*self.inputs, *self.params) if name not in known]:
            raise InvalidInputError(
                f"{name_of(function)} has no parameter {', '.join(map(repr, unknown))}; inputs and params "
                f"may name {', '.join(known) or 'nothing'}, and not what * or ** collects."
            )

    def arguments(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Bind a call's arguments, with defaults -> (inputs, params). TypeError as from the call itself."""
        if not self.inputs and not self.params:
            return {}, {}
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        found = bound.arguments
        return {name: found[name] for name in self.inputs}, {name: found[name] for name in self.params}

    def results(self, returned: Any) -> dict[str, Any]:
        """Name what a call returned: one name the value itself, several its parts."""
        names = self.outputs
        if len(names) <= 1:
            return dict.fromkeys(names, returned)
        if isinstance(returned, Mapping) and set(returned) == set(names):
            return {name: returned[name] for name in names}
        if isinstance(returned, tuple) and len(returned) == len(names):
            return dict(zip(names, returned, strict=True))
        raise InvalidInputError(
            f"outputs names {', '.join(names)}, but the function returned {_described(returned)}. Return a "
            f"tuple of {len(names)} values in this order, or a mapping with these keys."
        )


def require_function(function: Any) -> None:
    """Refuse what is called and yet is not done when the call returns, or is no function at all."""
    if isinstance(function, (staticmethod, classmethod)):
        kind = type(function).__name__
        advice = f"is a {kind}; put @capture below @{kind}"
    elif inspect.isclass(function):
        advice = "is a class; put @capture above the method or function that does the work"
    elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        advice = "is a generator, whose work goes on after the call; write `with capture(...)` inside it"
    elif not inspect.isroutine(function) and not isinstance(function, functools.partial):
        advice = "is not a function; put @capture above a function, or write `with capture(...)`"
    else:
        return
    raise InvalidInputError(f"{name_of(function)} {advice}.")


def name_of(function: Any) -> str:
    """Name a function, or whatever was given instead, for a message."""
    named = getattr(function, "__qualname__", None) or getattr(function, "name", None)
    return named if isinstance(named, str) else f"{function!r:.80}"


def _names(names: str | Sequence[str], what: str) -> tuple[str, ...]:
    given: Any = (names,) if isinstance(names, str) else names
    if not isinstance(given, Sequence):
        kind = type(given).__name__
        raise InvalidInputError(f"{what} is a {kind}; give names here, and log values in a with-block.")
    if wrong := [name for name in given if not isinstance(name, str)]:
        raise InvalidInputError(f"{what} holds {wrong[0]!r:.80}, which is not a name.")
    if len(set(given)) != len(given):
        raise InvalidInputError(f"{what} has a name twice: {', '.join(given)}.")
    return tuple(given)


def _described(returned: Any) -> str:
    if isinstance(returned, Mapping):
        return f"a mapping with the keys {', '.join(map(repr, returned)) or '(none)'}"
    return f"a tuple of {len(returned)}" if isinstance(returned, tuple) else f"a {type(returned).__name__}"
