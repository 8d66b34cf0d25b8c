"""Memory asked for ahead: what a loop will read from places that a processor cannot guess."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

LINE_BYTES = 64
"""What a processor fetches at once."""

_INT8, _INT32, _INT64 = (ir.IntType(bits) for bits in (8, 32, 64))
_HOW = [ir.Constant(_INT32, number) for number in (0, 3, 1)]
"""To be read, soon and again, as data: not as instructions."""


def generate_fetch(typing: Any, array: Any, first: Any, rows: Any) -> Any:
    """Have ``rows`` of an array [R] or [R, d], from ``first`` on, on their way from memory; wherever that is, nothing
    fails."""
    if array.layout != "C":
        raise TypingError("rows must follow one another in memory")

    def generate(context: Any, build: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        of = context.make_array(array)(context, build, arguments[0])
        row_bytes = build.extract_value(of.strides, 0)
        start = build.gep(build.bitcast(of.data, _INT8.as_pointer()), [build.mul(arguments[1], row_bytes)])
        kind = ir.FunctionType(ir.VoidType(), [_INT8.as_pointer(), *[_INT32] * 3])
        prefetch = cgutils.get_or_insert_function(build.module, kind, "llvm.prefetch.p0")
        end = build.mul(arguments[2], row_bytes)
        with cgutils.for_range_slice(build, _INT64(0), end, _INT64(LINE_BYTES), inc=True) as (at, _):
            build.call(prefetch, [build.gep(start, [at]), *_HOW])
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64), generate


fetch: Any = intrinsic(generate_fetch)
