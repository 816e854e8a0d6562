"""Call an object of the bindings as TensorRT's libraries do: through its C++ virtual functions.

A class derived in Python from one of TensorRT's has a C++ half whose virtual functions call the
Python methods.  The libraries that would call them are stubs here, so this does: it takes the
address of the C++ object out of the Python object and the function out of its table of virtual
functions.  The places in that table are those of the releases in ``releases.py`` alone; they
follow the order of the declarations in NVIDIA's headers (NvInfer.h, NvInferRuntime.h).
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Pointer = ctypes.c_void_p
WORD = ctypes.sizeof(Pointer)
VERSIONED = 4
"""From TensorRT 10 on: getAPILanguage, getInterfaceInfo and the two destructors come first."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a release has its virtual functions; -1 where it has none."""

    get_batch_size: int
    reallocate_output: int
    reallocate_output_async: int
    notify_shape: int
    dimension: type[ctypes.c_int32] | type[ctypes.c_int64]
    """Type of a shape's entries."""


PLACES = {
    "8": Places(0, 1, -1, 2, ctypes.c_int32),
    "10": Places(VERSIONED, VERSIONED, VERSIONED + 1, VERSIONED + 2, ctypes.c_int64),
    "11": Places(-1, VERSIONED, VERSIONED + 1, VERSIONED + 2, ctypes.c_int64),
    "rtx": Places(-1, -1, VERSIONED, VERSIONED + 1, ctypes.c_int64),
}


def call(target: object, place: int, result: Any, *arguments: tuple[Any, Any]) -> Any:
    """Call a virtual function.

    Args:
        target: an object of a class derived from one of TensorRT's.
        place: of the function in the table.
        result: type of the result, as ctypes names it.
        arguments: type and value of each.
    """
    assert place >= 0, "this release has no such function"
    # pybind11 keeps the address of the C++ object right behind Python's own fields.
    this = Pointer.from_address(id(target) + object.__basicsize__).value
    assert this, "the C++ half was not constructed"
    table = Pointer.from_address(this).value
    assert table
    address = Pointer.from_address(table + place * WORD).value
    assert address
    function = ctypes.CFUNCTYPE(result, Pointer, *(kind for kind, _ in arguments))(address)
    return function(this, *(value for _, value in arguments))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Asks a calibrator what a build with implicit quantization asks it."""

    calibrator: object
    first: int
    """Place of getBatchSize; the others follow it."""

    def batch_size(self) -> int:
        """getBatchSize."""
        return int(call(self.calibrator, self.first, ctypes.c_int32))

    def batch(self, names: Sequence[str]) -> list[int] | None:
        """getBatch: the addresses that it filled in, or None if it said that there is no more."""
        count = len(names)
        bindings = (Pointer * count)()
        texts = (ctypes.c_char_p * count)(*(name.encode() for name in names))
        more = call(
            self.calibrator,
            self.first + 1,
            ctypes.c_bool,
            (Pointer, ctypes.addressof(bindings)),
            (Pointer, ctypes.addressof(texts)),
            (ctypes.c_int32, count),
        )
        return [address or 0 for address in bindings] if more else None

    def read(self) -> bytes | None:
        """readCalibrationCache."""
        length = ctypes.c_size_t()
        address = (Pointer, ctypes.addressof(length))
        found = call(self.calibrator, self.first + 2, Pointer, address)
        return None if found is None else ctypes.string_at(found, length.value)

    def write(self, cache: bytes) -> None:
        """writeCalibrationCache."""
        data, length = (ctypes.c_char_p, cache), (ctypes.c_size_t, len(cache))
        call(self.calibrator, self.first + 3, None, data, length)

    def algorithm(self) -> int:
        """getAlgorithm: which CalibrationAlgoType it says it is."""
        return int(call(self.calibrator, self.first + 4, ctypes.c_int32))


@dataclass(frozen=True, slots=True)
class Allocation:
    """Asks an output allocator what an execution context asks it."""

    allocator: object
    places: Places

    def reallocate(self, name: str, memory: int, size: int, stream: int) -> int:
        """reallocateOutputAsync, or reallocateOutput where that is all there is."""
        arguments = [
            (ctypes.c_char_p, name.encode()),
            (Pointer, memory),
            (ctypes.c_uint64, size),
            (ctypes.c_uint64, 256),
        ]
        place = self.places.reallocate_output
        if self.places.reallocate_output_async >= 0:
            place = self.places.reallocate_output_async
            arguments.append((Pointer, stream))
        return int(call(self.allocator, place, Pointer, *arguments) or 0)

    def shape(self, name: str, shape: Sequence[int]) -> None:
        """notifyShape."""
        entry = self.places.dimension

        class Dims(ctypes.Structure):
            _fields_ = (("count", ctypes.c_int32), ("d", entry * 8))

        dims = Dims(len(shape), (entry * 8)(*shape))
        arguments = (ctypes.c_char_p, name.encode()), (Pointer, ctypes.addressof(dims))
        call(self.allocator, self.places.notify_shape, None, *arguments)
