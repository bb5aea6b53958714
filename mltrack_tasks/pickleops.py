"""Is this a pickle? Told from its opcodes, which are stepped over and never carried out.

A pickle of protocol 0 or 1 has no magic number, and any text may begin with a letter that is an opcode. So
the opcodes are followed on a stack of their names, from ``pickletools``' table, until one cannot be: what
the unpickler would refuse there is no pickle, unless something had been called by then.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import BinaryIO

MAX_STEPS = 20_000
MAX_READ = 1 << 20
"""[bytes] of lines and opcodes that are read of one candidate; the payloads of opcodes are skipped."""
MAX_SCAN_STEPS = 1_000_000
"""picklescan keeps each opcode, at about 150 bytes."""
FEW = 5
"""A pickle that ends with fewer opcodes and has bytes after it may be text: ``N.B.`` begins with None."""

_MARK = pickletools.markobject
_OPCODES = {ord(op.code): op for op in pickletools.opcodes}
_GLOBALS = frozenset({"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"})
_CALLS = frozenset({"REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_LENGTH_BYTES = {-2: 1, -3: 4, -4: 4, -5: 8}
"""How pickletools writes that an argument begins with its own length."""
_LINES = {
    "decimalnl_short": re.compile(rb"\s*[-+]?[0-9a-fA-FxXoOL_]+\s*"),
    "decimalnl_long": re.compile(rb"\s*[-+]?[0-9a-fA-FxXoOL_]+\s*"),
    "floatnl": re.compile(rb"\s*(?:[-+0-9.eE_]+|[-+]?(?i:nan|inf|infinity))\s*"),
    "stringnl": re.compile(rb"['\"].*", re.DOTALL),
}
_NAME = re.compile(rb"[\w.\x80-\xff-]+")


class Opinion(Enum):
    """What the opcodes say."""

    NO = "no"
    YES = "yes"
    UNFINISHED = "unfinished"
    """Nothing speaks against it as far as was read."""


class _StuckError(Exception):
    """The unpickler would raise here."""


class _UnfinishedError(Exception):
    """There is more than may be read."""


@dataclass
class _Walk:
    stream: BinaryIO
    size: int
    cut: bool
    most: float
    at: int = 0
    left: int = MAX_READ
    steps: int = 0
    stack: list[str] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: bool = False
    imports: bool = False
    found: bool = False

    def take(self, length: int) -> bytes:
        self.left -= length
        if self.left < 0:
            raise _UnfinishedError
        data = self.stream.read(length)
        self.at += length
        if len(data) < length:
            raise _UnfinishedError if self.cut else _StuckError
        return data

    def line(self) -> bytes:
        data = self.stream.readline(self.left)
        self.left -= len(data)
        self.at += len(data)
        if not data.endswith(b"\n"):
            raise _UnfinishedError if self.cut or self.left <= 0 else _StuckError
        return data[:-1]

    def skip(self, length: int) -> None:
        self.at += length
        if self.at > self.size:
            raise _UnfinishedError if self.cut and self.at < self.most else _StuckError
        self.stream.seek(self.at)

    def argument(self, op: pickletools.OpcodeInfo) -> None:
        if op.arg is None:
            return
        if op.arg.name == "stringnl_noescape_pair":
            if not (_NAME.fullmatch(self.line()) and _NAME.fullmatch(self.line())):
                raise _StuckError
        elif op.arg.n == pickletools.UP_TO_NEWLINE:
            line, form = self.line(), _LINES.get(op.arg.name)
            if form is not None and not form.fullmatch(line):
                raise _StuckError
        elif op.arg.n < 0:
            self.skip(int.from_bytes(self.take(_LENGTH_BYTES[op.arg.n]), "little"))
        else:
            self.take(op.arg.n)

    def step(self) -> bool:
        """Follow one opcode -> whether the pickle goes on."""
        op = _OPCODES.get(self.take(1)[0])
        self.steps += 1
        if op is None or (op.name in _GETS and not self.memo):
            raise _StuckError
        self.argument(op)
        top = self.stack[-1] if self.stack else ""
        self.imports |= op.name in _GLOBALS
        self.memo |= op.name in _PUTS
        self.move(op)
        if op.name in _CALLS and self.imports and (op.name in ("INST", "OBJ") or top != "GLOBAL"):
            # Of two imports in a row, one is no tuple of arguments: lists of words can look like this.
            self.found = True
        return op.name != "STOP"

    def move(self, op: pickletools.OpcodeInfo) -> None:
        before, after = op.stack_before, op.stack_after
        if op.name == "POP" and self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()  # the unpickler lets POP remove a mark as well
            return
        if _MARK in before:
            if not self.marks:
                raise _StuckError
            del self.stack[self.marks.pop() :]
            before = before[: before.index(_MARK)]
        if op.name in _PUTS:
            before, after = [], []
        if len(before) > len(self.stack) - (self.marks[-1] if self.marks else 0):
            raise _StuckError
        del self.stack[len(self.stack) - len(before) :]
        if _MARK in after:
            self.marks.append(len(self.stack))
        else:
            self.stack.extend(op.name for _ in after)

    def pickle(self) -> None:
        """Follow one pickle to its end."""
        # The memo stays: one unpickler may load several pickles.
        self.stack, self.marks, self.imports = [], [], False
        first = self.steps
        while self.step():
            if self.found:
                return
            if self.steps >= MAX_STEPS:
                raise _UnfinishedError
        if self.imports or self.at == self.size or self.steps - first >= FEW:
            self.found = True


def walk(stream: BinaryIO, size: int, *, cut: bool = False, most: float = math.inf) -> Opinion:
    """Follow the opcodes from the start of a seekable stream of ``size`` bytes.

    ``cut``: there is more than the stream has, at ``most`` so many bytes in all, so that its end does not
    decide. Pickles that follow a first one are looked at as well.
    """
    stream.seek(0)
    state = _Walk(stream, size, cut, most)
    try:
        while state.at < size and not state.found:
            state.pickle()
    except _StuckError:
        pass
    except _UnfinishedError:
        return Opinion.YES if state.found else Opinion.UNFINISHED
    return Opinion.YES if state.found else Opinion.NO


def has_magic(head: bytes) -> bool:
    """Tell whether these first bytes are of protocol 2 or newer: PROTO, its number, and an opcode."""
    return len(head) >= 2 and head[0] == 0x80 and head[1] <= 5 and (len(head) == 2 or head[2] in _OPCODES)


def split(data: bytes) -> list[bytes]:
    """Bytes that are pickles and nothing else -> each of them.

    ValueError for other bytes between or after them, for more than MAX_SCAN_STEPS opcodes, for those that
    import by a number, and for frames that end after their pickle: there the unpickler goes on elsewhere.
    """
    pickles: list[bytes] = []
    stream, steps, start = io.BytesIO(data), 0, 0
    while start < len(data) or not pickles:
        stream.seek(start)
        frame = 0
        for op, value, at in pickletools.genops(stream):
            steps += 1
            if steps > MAX_SCAN_STEPS:
                raise ValueError("it has too many opcodes")
            if op.name.startswith("EXT"):
                raise ValueError("it imports by the number of an extension")
            if op.name == "FRAME" and isinstance(value, int) and at is not None:
                frame = max(frame, at + 9 + value)
        end = stream.tell()
        if frame > end:
            raise ValueError("a frame ends after its pickle")
        pickles.append(data[start:end])
        start = end
    return pickles
