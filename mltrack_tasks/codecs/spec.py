"""JSON parts of a frame's description: typed access to fields, and labels and names as JSON.

Readers raise plain ValueError with the reason; ``codecs.decode`` adds the blob and makes it
IntegrityError.
"""

from __future__ import annotations

from typing import Any

from mltrack_tasks import canonical
from mltrack_tasks.errors import InvalidInputError

Spec = dict[str, Any]


def get(spec: Any, key: str, *kinds: type) -> Any:
    """Take a field of exactly one of the types ``kinds``.

    Raises ValueError when it is not there.
    """
    if type(spec) is not dict or type(spec.get(key)) not in kinds:
        raise ValueError(f"the field {key!r} of the description is missing or has the wrong type")
    return spec[key]


def is_label(label: Any) -> bool:
    """Tell whether JSON keeps this label: None, bool, int, float, str, or a tuple of them."""
    if type(label) is tuple:
        return all(is_label(part) for part in label)
    return label is None or type(label) in (bool, int, float, str)


def pack_label(label: Any, where: str) -> Any:
    """Pack a label or an axis name -> JSON.

    Raises InvalidInputError for other types than ``is_label`` lists.
    """
    if type(label) is tuple:
        return {"tuple": [pack_label(part, where) for part in label]}
    if not is_label(label):
        raise InvalidInputError(
            f"{where} is {label!r} of type {type(label).__name__}, which cannot be kept exactly; "
            "use a string or a plain Python number."
        )
    return canonical.escape(label, what=where)


def unpack_label(packed: Any) -> Any:
    """Unpack what ``pack_label`` gave."""
    if type(packed) is dict and set(packed) == {"tuple"}:
        return tuple(unpack_label(part) for part in get(packed, "tuple", list))
    label = canonical.unescape(packed)
    if not is_label(label):
        raise ValueError(f"{packed!r} is not a label")
    return label
