"""meta.yaml -> dict, for files that anybody may have written.

Most of what MLflow writes is a list of ``key: value`` lines, and a store has thousands of them; these are
read by one expression. Whatever is not of that form goes to PyYAML's safe loader, but after a look at its
events: aliases and merge keys can make gigabytes of a kilobyte, and deep nesting can exhaust the stack.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from mltrack_tasks.errors import IntegrityError

MAX_BYTES = 32 << 20
"""[bytes] MLflow's own limit for the profile of a dataset is 16 MiB; no other field comes near."""
MAX_DEPTH = 16
MAX_EVENTS = 100_000

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORD = r"[A-Za-z0-9_./:@+-]*[A-Za-z0-9_./@+-]"
_LINE = re.compile(
    r"(?P<indent>  )?(?P<key>[A-Za-z_][A-Za-z0-9_.]*):(?: (?:(?P<null>null)|(?P<empty>\[\]|\{\})"
    r"|(?P<number>0|-?[1-9][0-9]{0,17})|'(?P<quoted>[ -&(-~]*)'|(?P<hex>(?!0b)(?=[0-9]*[a-f])[0-9a-f]{32})"
    rf"|(?P<plain>(?=[A-Za-z/]){_WORD}(?: {_WORD})*)))?"
)
_LONG = 100
_NUMBER = re.compile(r"[-+]?[0-9](?:[0-9_:.]*|[xb][0-9a-fA-F_]*)")
"""What YAML may take for a number. ``1:30:59`` is one, to base 60, and PyYAML's time for it grows with the
square of its length; Python refuses to print others that are long."""
_NOT_TEXT = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
"""Words that YAML 1.1 takes for something else, in any case."""


def load_mapping(data: bytes, what: str) -> dict[str, Any]:
    """Bytes of a YAML file -> its mapping; IntegrityError if it has none, or is not as MLflow writes it."""
    if len(data) > MAX_BYTES:
        raise IntegrityError(f"{what} has {len(data)} bytes; the limit is {MAX_BYTES}.")
    try:
        content = data.decode("utf-8")
        value = load_lines(content)
        if value is None:
            _check_events(content, what)
            value = yaml.load(content, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise IntegrityError(f"{what} is not YAML that can be read: {reason}") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{what} holds no mapping; if it was being written, read it again.")
    return value


def load_lines(content: str) -> dict[str, Any] | None:
    """Read ``key: value`` lines, some indented once, as YAML does -> dict; None if there are other forms."""
    if not content.endswith("\n"):
        return None
    top: dict[str, Any] = {}
    inner: dict[str, Any] | None = None
    match_line = _LINE.fullmatch
    for line in content[:-1].split("\n"):
        match = match_line(line)
        if match is None or match["key"].lower() in _NOT_TEXT:
            return None
        kind = match.lastgroup
        if match["indent"] is None:
            if inner == {}:
                return None
            inner = top[match["key"]] = {} if kind == "key" else None
            target = top
        elif inner is None or kind == "key":
            return None
        else:
            target = inner
        if kind != "key":
            value = match[kind or 0]
            if kind == "plain" and value.lower() in _NOT_TEXT:
                return None
            target[match["key"]] = _value(kind, value)
    return None if inner == {} else top


def _value(kind: str | None, value: str) -> Any:
    if kind == "number":
        return int(value)
    if kind == "null":
        return None
    if kind == "empty":
        return [] if value == "[]" else {}
    return value


def _check_events(content: str, what: str) -> None:
    depth = 0
    for count, event in enumerate(yaml.parse(content, Loader=_LOADER)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or count > MAX_EVENTS:
            raise IntegrityError(f"{what} is nested too deeply, or has too many parts, to be MLflow's.")
        if (
            isinstance(event, yaml.ScalarEvent)
            and len(event.value) > _LONG
            and _NUMBER.fullmatch(event.value)
        ):
            raise IntegrityError(f"{what} holds a number of {len(event.value):,} digits.")
        if isinstance(event, yaml.NodeEvent) and (event.anchor or getattr(event, "tag", None)):
            raise IntegrityError(f"{what} holds anchors, aliases or tags, which MLflow does not write.")
