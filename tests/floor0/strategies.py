"""JSON of all kinds, for hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
"""Anything that UTF-8 can hold."""
plain_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
)
scalars = plain_scalars | st.floats()


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = texts | st.sampled_from(["$f", "$", "$$f", "$f ", "format", ""])
    return st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)


plain_json = st.recursive(plain_scalars, _nested, max_leaves=12)
"""What strict JSON holds."""
values = st.recursive(scalars, _nested, max_leaves=12)
"""What a user may store."""


def exact(value: Any) -> Any:
    """Map a value onto one that is equal only to values equal in type, sign and NaN too."""
    if isinstance(value, dict):
        return ("dict", tuple((key, exact(value[key])) for key in sorted(value)))
    if isinstance(value, list):
        return ("list", tuple(map(exact, value)))
    return (type(value).__name__, repr(value))
