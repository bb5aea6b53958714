"""Thrift's compact protocol, as far as Parquet's headers need it: numbers, structs and lists, by field."""

from __future__ import annotations

from typing import Any

_BINARY, _MAP, _STRUCT = 8, 11, 12
_LISTS = (9, 10)
_FIXED = {1: 0, 2: 0, 3: 1, 7: 8, 13: 16}
"""[bytes] of what has a fixed size: true, false, byte, double, uuid."""
_NUMBERS = (4, 5, 6)
_DEEPEST = 20


class Thrift:
    """Reads values from ``at`` on. Texts are passed over, and so are lists unless ``lists`` are wanted.

    ``most`` structs are admitted, those in lists included. Raises ValueError on bytes of no such protocol.
    """

    def __init__(self, body: memoryview, at: int = 0, most: int = 1_000, *, lists: bool = False) -> None:
        self._body, self.at, self._left, self._lists = body, at, most, lists

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Read a struct -> its numbers, and the structs in it, by number of the field."""
        self._left -= 1
        if self._left < 0 or depth > _DEEPEST:
            raise ValueError("a header has more parts than any that is written")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._number()
            value = self._value(head & 15, depth)
            if value is not None:
                fields[number] = value
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _NUMBERS:
            return self._number()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind == _BINARY:
            self._skip(self._varint())
        elif kind in _LISTS:
            found = self._list(depth)
            return found if self._lists else None
        elif kind == _MAP:
            raise ValueError("a header has a map, which Parquet does not use")
        elif kind in _FIXED:
            self._skip(_FIXED[kind])
        else:
            raise ValueError(f"a header has a field of the unknown type {kind}")
        return None

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count, kind = head >> 4, head & 15
        found = []
        for _ in range(self._varint() if count == 15 else count):
            if kind in (1, 2):
                self._skip(1)  # in a list they are bytes of their own
            else:
                value = self._value(kind, depth)
                if self._lists:
                    found.append(value)
        return found

    def _number(self) -> int:
        raw = self._varint()
        return (raw >> 1) ^ -(raw & 1)

    def _varint(self) -> int:
        found = shift = 0
        while (byte := self._byte()) & 128:
            found |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a header has a number of more than 64 bits")
        return found | byte << shift

    def _byte(self) -> int:
        if self.at >= len(self._body):
            raise ValueError("a header is cut off")
        byte = self._body[self.at]
        self.at += 1
        return byte

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self._body):
            raise ValueError("a header is cut off")
