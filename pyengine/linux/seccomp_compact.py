"""Makes system call filters smaller without changing a verdict.

libseccomp tests every number of a profile by itself, for each architecture: some 1,500 instructions for podman's
default profile. The kernel checks and translates all of them each time a container starts, which is a quarter of what
the container's first process spends. Numbers with one verdict lie together, though, so a tree over the borders of those
ranges says the same in a quarter of the instructions.

`compact` takes what libseccomp made as the truth. It walks that program with architecture and number known: where the
verdict then depends on nothing else, it only keeps the verdict; where arguments count, it keeps the instructions that
look at them. A program that it cannot follow is returned as it is.

Instructions: classic BPF, ``struct sock_filter`` (linux/filter.h); the data are ``struct seccomp_data``: number at 0,
architecture at 4, instruction pointer at 8, arguments from 16 on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

LOAD: Final = 0x20
JUMP: Final = 0x05
IF_EQUAL: Final = 0x15
IF_GREATER: Final = 0x25
IF_GREATER_OR_EQUAL: Final = 0x35
IF_ANY: Final = 0x45
AND: Final = 0x54
RETURN: Final = 0x06

_NUMBER, _ARCHITECTURE = 0, 4
_INSTRUCTION = struct.Struct("=HBBI")
_CHUNK = 64  # ranges in one part of the tree, so that no jump in it is longer than the 255 of a conditional one
_END = 1 << 32


class Instruction(NamedTuple):
    """``code``, offsets of the next instruction when the test holds and when not, ``constant``."""

    code: int
    true: int
    false: int
    constant: int


class _CannotFollow(Exception):
    """The program does something that this module does not know."""


class _Known(NamedTuple):
    """Where a walk ended: with a verdict, or (``verdict`` None) at the load of an argument at ``place``."""

    verdict: int | None
    place: int


def decode(program: bytes) -> list[Instruction]:
    """The instructions of a program."""
    return [Instruction(*fields) for fields in _INSTRUCTION.iter_unpack(program)]


def compact(program: bytes) -> bytes:
    """The program, or a shorter one with the same verdicts."""
    source = decode(program)
    try:
        made = _Assembler(source).assemble()
    except _CannotFollow:
        return program
    return made if len(made) < len(program) else program


def _holds(code: int, value: int, constant: int) -> bool:
    if code == IF_EQUAL:
        return value == constant
    if code == IF_GREATER:
        return value > constant
    if code == IF_GREATER_OR_EQUAL:
        return value >= constant
    if code == IF_ANY:
        return bool(value & constant)
    raise _CannotFollow


def _walk(source: Sequence[Instruction], place: int, architecture: int, number: int) -> _Known:
    """Follow the program from ``place``, where nothing is loaded yet that was not known, as far as it is known."""
    loaded: int | None = None
    while True:
        code, true, false, constant = source[place]
        if code == RETURN:
            return _Known(constant, place)
        if code == LOAD:
            if constant not in (_NUMBER, _ARCHITECTURE):
                return _Known(None, place)
            loaded = number if constant == _NUMBER else architecture
            place += 1
        elif code == JUMP:
            place += 1 + constant
        elif loaded is None or code in (AND, IF_ANY):
            raise _CannotFollow  # with masks, borders are not where constants are
        else:
            place += 1 + (true if _holds(code, loaded, constant) else false)


def _constants(source: Sequence[Instruction]) -> tuple[set[int], set[int]]:
    """What numbers and what architectures the program compares with, over all paths."""
    numbers: set[int] = set()
    architectures: set[int] = set()
    pending: list[tuple[int, int]] = [(0, -1)]
    seen: set[tuple[int, int]] = set()
    while pending:
        place, held = pending.pop()
        if (place, held) in seen:
            continue
        seen.add((place, held))
        if not 0 <= place < len(source):
            raise _CannotFollow
        code, true, false, constant = source[place]
        if code == RETURN:
            continue
        if code == LOAD:
            pending.append((place + 1, constant))
        elif code == JUMP:
            pending.append((place + 1 + constant, held))
        elif code == AND:
            pending.append((place + 1, held))
        else:
            if held == _NUMBER:
                numbers.add(constant)
            elif held == _ARCHITECTURE:
                architectures.add(constant)
            pending += [(place + 1 + true, held), (place + 1 + false, held)]
    return numbers, architectures


class _Assembler:
    """Builds the shorter program: a list of instructions whose jumps go to labels, resolved at the end."""

    def __init__(self, source: Sequence[Instruction]) -> None:
        self._source = source
        self._made: list[tuple[int, int, int, int]] = []  # code, label if true, label if false, constant
        self._places: dict[int, int] = {}
        self._labels = 0

    def _label(self) -> int:
        self._labels += 1
        return self._labels

    def _put(self, label: int) -> None:
        self._places[label] = len(self._made)

    def _emit(self, code: int, constant: int, true: int = 0, false: int = 0) -> None:
        self._made.append((code, true, false, constant))

    def assemble(self) -> bytes:
        numbers, architectures = _constants(self._source)
        borders = sorted({0, *(n for k in numbers for n in (k, k + 1) if n < _END)})
        stranger = next(value for value in range(1, _END) if value not in architectures)
        others = {_walk(self._source, 0, stranger, number).verdict for number in borders}
        if len(others) != 1 or None in others:
            raise _CannotFollow
        self._emit(LOAD, _ARCHITECTURE)
        blocks = []
        for architecture in sorted(architectures):
            ranges = list(self._ranges(architecture, borders))
            block, following = self._label(), self._label()
            skip = self._label()
            self._emit(IF_EQUAL, architecture, skip, following)
            self._put(skip)
            self._emit(JUMP, 0, block)
            self._put(following)
            blocks.append((block, architecture, ranges))
        (verdict,) = others
        assert verdict is not None
        self._emit(RETURN, verdict)
        for block, architecture, ranges in blocks:
            self._put(block)
            self._emit(LOAD, _NUMBER)
            self._tree(architecture, [ranges[at : at + _CHUNK] for at in range(0, len(ranges), _CHUNK)])
        return self._resolve()

    def _ranges(self, architecture: int, borders: Sequence[int]) -> Iterator[tuple[int, _Known]]:
        """Where ranges of numbers begin, and what becomes of them."""
        before: tuple[int | None, int] | None = None
        for number in borders:
            known = _walk(self._source, 0, architecture, number)
            # Two numbers whose arguments are looked at by the same instructions may still be told apart later.
            kind = (known.verdict, 0) if known.verdict is not None else (None, number)
            if kind != before:
                yield number, known
            before = kind

    def _tree(self, architecture: int, chunks: list[list[tuple[int, _Known]]]) -> None:
        if len(chunks) == 1:
            self._chunk(architecture, chunks[0])
            return
        half = len(chunks) // 2
        upper, far, near = self._label(), self._label(), self._label()
        self._emit(IF_GREATER_OR_EQUAL, chunks[half][0][0], far, near)
        self._put(far)
        self._emit(JUMP, 0, upper)
        self._put(near)
        self._tree(architecture, chunks[:half])
        self._put(upper)
        self._tree(architecture, chunks[half:])

    def _chunk(self, architecture: int, ranges: list[tuple[int, _Known]]) -> None:
        """The tree of a few ranges, then the verdicts that it leads to."""
        verdicts: dict[int, int] = {}
        looks: list[tuple[int, int, _Known]] = []

        def leaf(number: int, known: _Known) -> int:
            if known.verdict is not None:
                return verdicts.setdefault(known.verdict, self._label())
            looks.append((self._label(), number, known))
            return looks[-1][0]

        def node(low: int, high: int) -> int:
            """A label for ranges[low:high]; what it needs is emitted behind what there is."""
            if high - low == 1:
                return leaf(*ranges[low])
            label = self._label()
            self._put(label)
            middle = (low + high) // 2
            at = len(self._made)
            self._emit(IF_GREATER_OR_EQUAL, ranges[middle][0])
            false = node(low, middle)
            true = node(middle, high)
            self._made[at] = (IF_GREATER_OR_EQUAL, true, false, ranges[middle][0])
            return label

        if len(ranges) == 1:
            self._emit(JUMP, 0, leaf(*ranges[0]))
        else:
            node(0, len(ranges))
        for verdict, label in verdicts.items():
            self._put(label)
            self._emit(RETURN, verdict)
        bodies = []
        for label, number, known in looks:
            body = self._label()
            self._put(label)
            self._emit(JUMP, 0, body)
            bodies.append((body, number, known))
        for body, number, known in bodies:
            self._put(body)
            self._arguments(architecture, number, known.place)

    def _arguments(self, architecture: int, number: int, start: int) -> None:
        """The part of the source from ``start`` on that looks at arguments, for one number. Jumps only go forward, so
        the instructions keep their order."""
        labels = {start: self._label()}
        pending = {start}
        while pending:
            place = min(pending)
            pending.remove(place)
            self._put(labels[place])
            code, true, false, constant = self._source[place]
            if code in (RETURN, JUMP):
                if code == RETURN:
                    self._emit(RETURN, constant)
                    continue
                target = self._target(labels, pending, place + 1 + constant, architecture, number)
                self._emit(JUMP, 0, target)
            elif code in (LOAD, AND):
                self._emit(code, constant)
                following = self._target(labels, pending, place + 1, architecture, number)
                self._emit(JUMP, 0, following)
            else:
                self._emit(
                    code,
                    constant,
                    self._target(labels, pending, place + 1 + true, architecture, number),
                    self._target(labels, pending, place + 1 + false, architecture, number),
                )

    def _target(self, labels: dict[int, int], pending: set[int], place: int, architecture: int, number: int) -> int:
        """The label of what ``place`` leads to once loads of what is known are over."""
        while self._source[place].code == JUMP:
            place += 1 + self._source[place].constant
        if self._source[place].code == LOAD and self._source[place].constant in (_NUMBER, _ARCHITECTURE):
            place = _walk(self._source, place, architecture, number).place
        if place not in labels:
            labels[place] = self._label()
            pending.add(place)
        return labels[place]

    def _resolve(self) -> bytes:
        self._drop_idle_jumps()
        made = bytearray()
        for at, (code, true, false, constant) in enumerate(self._made):
            if code == JUMP:
                made += _INSTRUCTION.pack(JUMP, 0, 0, self._places[true] - at - 1)
                continue
            offsets = [self._places[label] - at - 1 if label else 0 for label in (true, false)]
            if max(offsets) > 255 or min(offsets) < 0:
                raise _CannotFollow
            made += _INSTRUCTION.pack(code, *offsets, constant)
        return bytes(made)

    def _drop_idle_jumps(self) -> None:
        """Jumps to the next instruction, which are there because that was not known when they were made."""
        idle = {at for at, item in enumerate(self._made) if item[0] == JUMP and self._places[item[1]] == at + 1}
        if not idle:
            return
        kept = [at for at in range(len(self._made)) if at not in idle]
        moved = {old: new for new, old in enumerate(kept)}
        for at in sorted(idle, reverse=True):
            moved[at] = moved.get(at + 1, len(kept))
        self._places = {label: moved.get(place, len(kept)) for label, place in self._places.items()}
        self._made = [self._made[at] for at in kept]
        self._drop_idle_jumps()
