"""Reads the pickle in a torch file as data: there is nothing here that could run.

``pickletools`` only decodes opcodes. The few that a dict of tensors needs are acted on
below; names such as "collections OrderedDict" stay names and are never looked up, and
"calling" one builds one of the records of this file. Every other opcode or name ends
the reading. ``inert_arrays`` reads pickles of plain numbers and numpy arrays likewise.
"""

import dataclasses
import math
import mmap
import pickletools
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from jaxheads.errors import UserError
from jaxheads.weights.checkpoint import KINDS, map_file, quoted, whole_numbers

STORAGES = {
    "torch DoubleStorage": "F64",
    "torch FloatStorage": "F32",
    "torch HalfStorage": "F16",
    "torch BFloat16Storage": "BF16",
    "torch LongStorage": "I64",
    "torch IntStorage": "I32",
    "torch ShortStorage": "I16",
    "torch CharStorage": "I8",
    "torch ByteStorage": "U8",
    "torch BoolStorage": "BOOL",
}
"""Element types by the name that the pickle gives a storage's class."""

ORDERED_DICT = "collections OrderedDict"
TENSOR = "torch._utils _rebuild_tensor_v2"
PARAMETER = "torch._utils _rebuild_parameter"
ALLOWED = frozenset([*STORAGES, ORDERED_DICT, TENSOR, PARAMETER])

MOST_PICKLE_BYTES = 100_000_000
"""Names, shapes and places of tensors take far less."""

_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_STRINGS = {"BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
# DeprecationWarning: a damaged name with an odd escape, where warnings are errors.
_NONSENSE = (
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
    DeprecationWarning,
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Refused(Exception):
    """The pickle asks for more than tensors; the message goes on a path."""


class Damaged(Exception):
    """The pickle makes no sense; the message goes on a path."""


@dataclasses.dataclass(frozen=True)
class Name:
    """A name that the pickle asks for, such as "torch FloatStorage"; only its text."""

    text: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """A flat array in the file: its key, element type and number of elements."""

    key: str
    kind: str
    num_elements: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def fits(self) -> bool:
        """Whether it stays within its storage and can be an array at all."""
        size = KINDS[self.storage.kind].itemsize
        num_elements = 1
        for n in self.shape:
            num_elements *= max(n, 1)
        last = self.offset
        if 0 not in self.shape:
            steps = zip(self.shape, self.strides, strict=True)
            last += sum((n - 1) * stride for n, stride in steps) + 1
        return last <= self.storage.num_elements and num_elements * size < 2**62


def read_pickle(
    data: mmap.mmap, start: int, machine: "Machine | None" = None
) -> tuple[Any, dict[str, Storage], int]:
    """Read one pickle as data.

    Args:
        data: the mapped file.
        start: where the pickle begins, in bytes.
        machine: a new one that says which names are allowed; None: those of tensors.

    Returns:
        What it holds (plain values, dicts and ``Tensor``), the storages by key, and
        where it ends.

    Raises:
        Refused: it asks for anything but tensors and their containers.
        Damaged: it is cut off or makes no sense.
    """
    data.seek(start)
    machine = machine or Machine()
    try:
        for opcode, argument, position in pickletools.genops(cast(IO[bytes], data)):
            if position is not None and position - start > MOST_PICKLE_BYTES:
                raise Refused("its pickle is longer than any model needs")
            machine.step(opcode.name, argument)
        return machine.stack.pop(), machine.storages, data.tell()
    except _NONSENSE as error:
        raise Damaged(f"has a pickle that makes no sense ({error})") from None


class Machine:
    """The stack and the memo of a pickle, and what each opcode does to them."""

    allowed = ALLOWED
    purpose = "dict of tensors"

    def __init__(self):
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Act on one opcode."""
        push = self.stack.append
        if opcode in _VALUES or opcode in _STRINGS:
            push(argument)
        elif opcode in _CONSTANTS:
            push(_CONSTANTS[opcode])
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            push(self.memo[argument])
        elif opcode == "GLOBAL":
            push(self.name(argument))
        elif opcode == "STACK_GLOBAL":
            name, module = self.stack.pop(), self.stack.pop()
            push(self.name(f"{module} {name}" if isinstance(name, str) else "?"))
        elif opcode == "REDUCE":
            arguments, name = self.stack.pop(), self.stack.pop()
            push(self.record(name, arguments))
        elif opcode == "BINPERSID":
            push(self.storage(self.stack.pop()))
        elif opcode == "BUILD":
            state = self.stack.pop()
            self.build(self.stack[-1], state)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            self.collect(opcode)

    def collect(self, opcode: str) -> None:
        """Act on an opcode of tuples, lists and dicts."""
        if opcode == "MARK":
            self.marked.append(self.stack)
            self.stack = []
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            items = [self.stack.pop() for _ in range(count)]
            self.stack.append(tuple(items[::-1]))
        elif opcode == "TUPLE":
            items = self.since_mark()
            self.stack.append(tuple(items))
        elif opcode in ("EMPTY_LIST", "EMPTY_DICT"):
            self.stack.append([] if opcode == "EMPTY_LIST" else {})
        elif opcode in ("APPEND", "APPENDS"):
            items = self.since_mark() if opcode == "APPENDS" else [self.stack.pop()]
            expect(list, self.stack[-1]).extend(items)
        elif opcode in ("SETITEM", "SETITEMS"):
            if opcode == "SETITEMS":
                items = self.since_mark()
            else:
                items = [self.stack.pop() for _ in range(2)][::-1]
            pairs = zip(items[::2], items[1::2], strict=True)
            _fill(expect(dict, self.stack[-1]), pairs)
        else:
            raise Refused(f"its pickle uses {opcode}, which no {self.purpose} needs")

    def name(self, name: str) -> Name:
        """A name that the pickle asks for, if it may."""
        if name not in self.allowed:
            dotted = quoted(name.replace(" ", ".", 1))[1:-1]
            raise Refused(f"its pickle asks for {dotted}")
        return Name(name)

    def record(self, name: Any, arguments: Any) -> Any:
        """What a call of an allowed name stands for; nothing is called."""
        return _record(name, arguments)

    def build(self, record: Any, state: Any) -> None:
        """Take the state of a record."""
        # Attributes of an OrderedDict, such as a state dict's _metadata, are dropped.
        if not isinstance(record, dict):
            raise Refused("its pickle sets attributes of an object")

    def since_mark(self) -> list[Any]:
        """Take what was pushed since the last mark."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def storage(self, persistent_id: Any) -> Storage:
        """What ("storage", class, key, device, elements, ...) stands for."""
        tag, name, key, _device, num_elements, *view = expect(tuple, persistent_id)
        if (
            tag != "storage"
            or not (isinstance(name, Name) and name.text in STORAGES)
            or not isinstance(key, str)
            or not whole_numbers([num_elements])
            or any(part is not None for part in view)
        ):
            raise Refused("its pickle refers to something that is not a plain storage")
        storage = Storage(key, STORAGES[name.text], num_elements)
        if self.storages.setdefault(key, storage) != storage:
            raise Damaged(f"gives the storage {quoted(key)} two types or sizes")
        return storage


def _record(name: Any, arguments: Any) -> Any:
    text = expect(Name, name).text
    arguments = expect(tuple, arguments)
    if text == ORDERED_DICT:
        pairs = expect(list, arguments[0]) if arguments else []
        return _fill({}, pairs)
    if text == PARAMETER:
        return expect(Tensor, arguments[0])
    if text != TENSOR:
        raise Refused(f"its pickle calls {text.replace(' ', '.')}")
    storage, offset, shape, strides, _requires_grad, _hooks, *metadata = arguments
    expect(Storage, storage)
    shape, strides = expect(tuple, shape), expect(tuple, strides)
    if not whole_numbers([offset]) or not whole_numbers(shape):
        raise Damaged("has a tensor without a proper shape")
    if not whole_numbers(strides) or len(strides) != len(shape):
        raise Damaged("has a tensor without proper strides")
    if any(metadata):
        raise Refused("its pickle has a tensor whose values are kept negated or such")
    return Tensor(storage, offset, shape, strides)


def _fill(into: dict[Any, Any], pairs: Any) -> dict[Any, Any]:
    for key, value in pairs:
        # Python cannot hash a deeply nested tuple: the whole process would end.
        into[key if type(key) is int else expect(str, key)] = value
    return into


def expect(kind: type, value: Any) -> Any:
    """The value, which must be of a kind.

    Raises:
        Damaged: it is of another.
    """
    if not isinstance(value, kind):
        raise Damaged(
            f"has a pickle with a {type(value).__name__} in place of a {kind.__name__}"
        )
    return value


_DTYPE = "numpy dtype"
_NDARRAY = "numpy ndarray"
_ENCODE = "_codecs encode"
# numpy 2 moved numpy.core to numpy._core.
_CORES = ("numpy.core", "numpy._core")
_SCALAR = frozenset(f"{core}.multiarray scalar" for core in _CORES)
_EMPTY = frozenset(f"{core}.multiarray _reconstruct" for core in _CORES)
_BUFFER = frozenset(f"{core}.numeric _frombuffer" for core in _CORES)

_CODES = frozenset(
    ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"]
)
_BYTES = frozenset(["BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"])


@dataclasses.dataclass
class Dtype:
    """An element type: one of numpy's short names, and its byte order."""

    code: str
    order: str = "="

    def array(self, data: Any, shape: Any, order: str) -> np.ndarray:
        """A view of bytes as an array of this type."""
        if not isinstance(data, bytes | bytearray):
            raise Damaged(f"has an array made of a {type(data).__name__}")
        dtype = np.dtype(self.order + self.code)
        if not whole_numbers(shape) or math.prod(shape) * dtype.itemsize != len(data):
            raise Damaged(
                f"has an array of {len(data):,} bytes that do not fit its shape"
            )
        return np.frombuffer(data, dtype).reshape(shape, order="F" if order else "C")


@dataclasses.dataclass
class Array:
    """An array; ``values`` is None until its bytes have come."""

    values: np.ndarray | None = None


class ArrayMachine(Machine):
    """Allows numpy arrays and numbers, and no tensors."""

    allowed = frozenset(
        [_DTYPE, _NDARRAY, _ENCODE, ORDERED_DICT, *_SCALAR, *_EMPTY, *_BUFFER]
    )
    purpose = "pickle of numbers"

    def __init__(self):
        super().__init__()
        self.num_encoded = 0

    def step(self, opcode: str, argument: Any) -> None:
        """Act on one opcode."""
        if opcode in _BYTES:
            self.stack.append(argument)
        else:
            super().step(opcode, argument)

    def record(self, name: Any, arguments: Any) -> Any:
        """What a call of an allowed name stands for; nothing is called."""
        text = expect(Name, name).text
        if text == ORDERED_DICT:
            return super().record(name, arguments)
        arguments = expect(tuple, arguments)
        if text == _DTYPE:
            code, _align, _copy = arguments
            if expect(str, code) not in _CODES:
                raise Refused(f"its pickle has an array of {quoted(code)}")
            return Dtype(code)
        if text == _ENCODE:
            return self.encoded(*arguments)
        if text in _SCALAR:
            dtype, data = arguments
            return expect(Dtype, dtype).array(data, (), "").item()
        if text in _EMPTY:
            return Array()  # its shape comes with its bytes
        if text in _BUFFER:
            data, dtype, shape, order = arguments
            if order not in ("C", "F"):
                raise Damaged("has an array of an unknown order")
            order = "F" if order == "F" else ""
            return Array(expect(Dtype, dtype).array(data, shape, order))
        raise Refused(f"its pickle calls {text.replace(' ', '.')}")

    def encoded(self, text: Any, encoding: Any) -> bytes:
        """Bytes as protocol 2 writes them: a string of their latin1 letters."""
        if encoding != "latin1":
            raise Refused("its pickle has text in another encoding than latin1")
        # A string can be named many times: its copies count.
        self.num_encoded += len(expect(str, text))
        if self.num_encoded > MOST_PICKLE_BYTES:
            raise Refused("its arrays are larger than any scores need")
        return text.encode("latin1")

    def build(self, record: Any, state: Any) -> None:
        """Take the byte order of an element type, or the bytes of an array."""
        if isinstance(record, Dtype):
            _version, order, *fields = expect(tuple, state)
            if order not in ("<", ">", "=", "|") or any(fields[:3]):
                raise Refused("its pickle has an array of other things than numbers")
            record.order = order
        elif isinstance(record, Array):
            _version, shape, dtype, fortran, data = expect(tuple, state)
            order = "F" if fortran is True else ""
            record.values = expect(Dtype, dtype).array(data, shape, order)
        else:
            super().build(record, state)


def open_pickle(path: Path, what: str) -> Any:
    """Read a whole pickle: plain values, dicts, lists, tuples and ``Array``.

    Numpy's scalars become Python's numbers.

    Args:
        path: the file.
        what: it must hold, for messages: "scores of heads".

    Raises:
        UserError: the file is missing or damaged, or its pickle asks for anything but
            plain values and numpy arrays. Nothing of it is ever executed.
    """
    data = map_file(path, f"a pickle of {what}")
    try:
        value, _, end = read_pickle(data, 0, ArrayMachine())
        if end != len(data):
            raise Damaged(f"has {len(data) - end:,} bytes behind its pickle")
    except Refused as error:
        raise UserError(
            f"{path} must hold {what} as plain numbers or numpy arrays, but {error}: "
            "it was refused and nothing in it was run; have its owner save plain "
            "numbers"
        ) from None
    except Damaged as error:
        raise UserError(
            f"{path} must be a pickle of {what}, but {error}: fetch it again"
        ) from None
    return value
