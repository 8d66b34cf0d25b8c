"""Products of int8 vectors without VNNI: exact in int32, and for a few sessions several times as fast as float32, which
is four times as much to read (docs/log.md).

Processors without an instruction for int8 have one that multiplies int16 in pairs and adds each pair up in int32
(``pmaddwd`` since MMX). LLVM finds it in the loop below, written for it as vectors; numba's own loops over numbers
become vectors of half the width with a scalar rest, and take twice as long.

numba keeps what it compiled as long as *this* file does not change, so nothing compiled elsewhere is called here.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from .compiled import compiled

LANES = 16
"""Numbers multiplied at once, and the narrowest vectors that :func:`multiply` takes."""
ROWS = 4
"""Items at once: one alone waits for each addition. What is multiplied comes in multiples of it."""

_INT8, _INT16, _INT32, _INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_PRODUCTS, _SUMS = (ir.VectorType(_INT32, lanes) for lanes in (LANES, LANES // 2))


def multiply(codes: npt.NDArray[np.int8], items: npt.NDArray[np.int8], out: npt.NDArray[np.int32]) -> None:
    """``out`` [b, R] = codes [b, d] @ items [R, d].T; d at least LANES, R a multiple of ROWS, items C-contiguous."""
    _multiply(_in_chunks(codes), items, out)


def _in_chunks(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.int16]:
    """[b, d] -> [b, LANES * chunks]: the last chunk is for the *last* LANES numbers of an item, with zeros for those
    that a chunk before it has multiplied already; so no chunk is a part of one."""
    b, d = codes.shape
    chunks = -(-d // LANES)
    rest = d - LANES * (chunks - 1)
    laid_out = np.zeros((b, LANES * chunks), np.int16)
    laid_out[:, : d - rest] = codes[:, : d - rest]
    laid_out[:, -rest:] = codes[:, -rest:]
    return laid_out


def _generate_products(typing: Any, items: Any, first: Any, codes: Any, session: Any) -> Any:
    """Of ROWS items [R, d], from ``first`` on, and one session's ``codes`` [b, LANES * chunks]: that many int32."""
    if not items.layout == codes.layout == "C":
        raise TypingError("rows must follow one another in memory")

    def generate(context: Any, build: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        items_array, codes_array = (
            context.make_array(type_)(context, build, value)
            for type_, value in ((items, arguments[0]), (codes, arguments[2]))
        )
        d, width = (build.extract_value(array.shape, 1) for array in (items_array, codes_array))
        rows = [
            build.gep(items_array.data, [build.mul(build.add(arguments[1], _INT64(row)), d)]) for row in range(ROWS)
        ]
        session_codes = build.gep(codes_array.data, [build.mul(arguments[3], width)])

        def add_chunk(sums: list[Any], item_at: Any, code_at: Any) -> list[Any]:
            code = _load(build, session_codes, code_at, _INT16)
            products = [build.mul(_load(build, row, item_at, _INT8), code) for row in rows]
            return [build.add(total, _in_pairs(build, each)) for total, each in zip(sums, products, strict=True)]

        slots = [cgutils.alloca_once_value(build, ir.Constant(_SUMS, None)) for _ in rows]
        last = build.sub(width, _INT64(LANES))
        with cgutils.for_range_slice(build, _INT64(0), last, _INT64(LANES), inc=True) as (at, _):
            for slot, total in zip(slots, add_chunk([build.load(slot) for slot in slots], at, at), strict=True):
                build.store(total, slot)
        sums = add_chunk([build.load(slot) for slot in slots], build.sub(d, _INT64(LANES)), last)
        add_up = cgutils.get_or_insert_function(
            build.module, ir.FunctionType(_INT32, [_SUMS]), f"llvm.vector.reduce.add.v{LANES // 2}i32"
        )
        return context.make_tuple(build, signature.return_type, [build.call(add_up, [each]) for each in sums])

    return types.UniTuple(types.int32, ROWS)(items, first, codes, session), generate


_products_of_rows: Any = intrinsic(_generate_products)


def _load(build: ir.IRBuilder, pointer: Any, at: Any, of: ir.IntType) -> Any:
    """LANES numbers from ``at`` on, as int32: LLVM sees how small they are, and multiplies them as int16."""
    vector = build.bitcast(build.gep(pointer, [at]), ir.VectorType(of, LANES).as_pointer())
    return build.sext(build.load(vector, align=of.width // 8), _PRODUCTS)


def _in_pairs(build: ir.IRBuilder, products: Any) -> Any:
    """Each even one and its odd neighbour added up."""
    even, odd = (
        build.shuffle_vector(products, ir.Constant(_PRODUCTS, ir.Undefined), ir.Constant(_SUMS, list(lanes)))
        for lanes in (range(0, LANES, 2), range(1, LANES, 2))
    )
    return build.add(even, odd)


@compiled
def _multiply(codes: npt.NDArray[np.int16], items: npt.NDArray[np.int8], out: npt.NDArray[np.int32]) -> None:
    """See :func:`multiply`; ``codes`` in chunks. A few rows at a time, for all sessions: they stay in the cache."""
    block = 8 * ROWS
    for start in range(0, len(items), block):
        for session in range(len(codes)):
            for row in range(start, min(start + block, len(items)), ROWS):
                made = _products_of_rows(items, row, codes, session)
                for i in range(ROWS):
                    out[session, row + i] = made[i]
