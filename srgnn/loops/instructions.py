"""Products of int8 vectors, in the words of LLVM: the instructions that multiply many numbers at once, which numba does
not find by itself."""

import platform
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from .layout import BYTES, GROUP, LANES, ROWS

ROWS_OF_MANY = 8
"""ROWS where there are many sessions; twice as many are no faster (docs/log.md)."""

FEWER = 8
"""Of LANES: where a processor multiplies half as many numbers in half the time."""

LOWEST = np.iinfo(np.int32).min

X86 = ("x86_64", "AMD64")
INSTRUCTIONS = '"target-features"="+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vnni"'
"""What functions that use the instruction are compiled for, whatever processor the rest is for."""

_INT8, _INT16, _INT32, _INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_PRODUCTS, _SUMS = (ir.VectorType(_INT32, lanes) for lanes in (LANES, LANES // 2))
_WORDS, _FOUR = ir.VectorType(_INT32, BYTES // 4), ir.VectorType(_INT32, ROWS)


def generate_products(typing: Any, items: Any, first: Any, codes: Any, session: Any) -> Any:
    """Of ROWS items [R, d], from ``first`` on, and one session's ``codes`` [b, LANES * chunks]: that many int32.

    Processors without VNNI have an instruction that multiplies int16 in pairs and adds each pair up in int32
    (``pmaddwd`` since MMX). LLVM finds it in this loop, written for it as vectors; numba's own loops over numbers
    become vectors of half the width with a scalar rest, and take twice as long.
    """
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
            code = load_wide(build, session_codes, code_at, _INT16)
            products = [build.mul(load_wide(build, row, item_at, _INT8), code) for row in rows]
            return [build.add(total, in_pairs(build, each)) for total, each in zip(sums, products, strict=True)]

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


products_of_rows: Any = intrinsic(generate_products)


def load_wide(build: ir.IRBuilder, pointer: Any, at: Any, of: ir.IntType) -> Any:
    """LANES numbers from ``at`` on, as int32: LLVM sees how small they are, and multiplies them as int16."""
    vector = build.bitcast(build.gep(pointer, [at]), ir.VectorType(of, LANES).as_pointer())
    return build.sext(build.load(vector, align=of.width // 8), _PRODUCTS)


def in_pairs(build: ir.IRBuilder, products: Any) -> Any:
    """Each even one and its odd neighbour added up."""
    even, odd = (
        build.shuffle_vector(products, ir.Constant(_PRODUCTS, ir.Undefined), ir.Constant(_SUMS, list(lanes)))
        for lanes in (range(0, LANES, 2), range(1, LANES, 2))
    )
    return build.add(even, odd)


def native(write: Callable[..., None]) -> Any:
    """An intrinsic that calls a function of its own, whose body ``write`` writes. Of items [R, d], codes [b, width,
    ...] and offsets [R] it is given the places where those of the ``first`` row and of a ``session`` begin, since to
    slice arrays would take as long as the products of a few rows; then how many ``rows`` there are, d, b and width."""
    pointers = [each.as_pointer() for each in (_INT8, _INT8, _INT32, _INT32)]
    name = f"srgnn_{write.__name__}"

    def function(module: ir.Module) -> ir.Function:
        if name in module.globals:
            return module.globals[name]
        made = ir.Function(module, ir.FunctionType(ir.VoidType(), [*pointers, *[_INT64] * 4]), name)
        made.linkage = "internal"
        made.attributes.add("noinline")
        set.add(made.attributes, INSTRUCTIONS)  # llvmlite knows no attributes that have a value
        build = ir.IRBuilder(made.append_basic_block())
        write(build, *made.args)
        build.ret_void()
        return made

    def typed(typing: Any, items: Any, codes: Any, offsets: Any, out: Any, first: Any, rows: Any, session: Any) -> Any:
        if not items.layout == codes.layout == offsets.layout == out.layout == "C":
            raise TypingError("rows must follow one another in memory")

        def generate(context: Any, build: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            of_items, of_codes, of_offsets, of_out = (
                context.make_array(kind)(context, build, value)
                for kind, value in zip(signature.args[:4], arguments[:4], strict=True)
            )
            first, rows, session = arguments[4:]
            _, d = cgutils.unpack_tuple(build, of_items.shape)
            b, width, *_ = cgutils.unpack_tuple(build, of_codes.shape)
            begin = (
                build.gep(of_items.data, [build.mul(first, d)]),
                build.gep(of_codes.data, [build.mul(session, width)]),
                build.gep(of_offsets.data, [first]),
                of_out.data,
            )
            if platform.machine() in X86:  # no other compiler knows the instruction, and nobody asks for it there
                build.call(function(build.module), [*begin, rows, d, b, width])
            return context.get_dummy_value()

        return types.none(items, codes, offsets, out, types.int64, types.int64, types.int64), generate

    return intrinsic(typed)


@native
def products_natively(
    build: ir.IRBuilder, items: Any, codes: Any, offsets: Any, out: Any, rows: Any, d: Any, _: Any, width: Any
) -> None:
    """Products of items [R, d] and one session's ``codes`` [BYTES * chunks], 0 to 255, less ``offsets`` [R]: to
    [1, R]."""
    with cgutils.for_range_slice(build, _INT64(0), rows, _INT64(ROWS), inc=True) as (row, _):
        scores = of_rows(build, items, offsets, row, d, codes, width)
        build.store(scores, build.bitcast(build.gep(out, [row]), _FOUR.as_pointer()), align=4)


@native
def best_for_few_natively(
    build: ir.IRBuilder, items: Any, codes: Any, offsets: Any, out: Any, rows: Any, d: Any, sessions: Any, width: Any
) -> None:
    """The best of them in each group of rows, for each of b sessions: to [b, R / GROUP]."""
    groups = build.udiv(rows, _INT64(GROUP))
    kind = ir.FunctionType(_INT32, [_FOUR])
    largest = cgutils.get_or_insert_function(build.module, kind, f"llvm.vector.reduce.smax.v{ROWS}i32")
    with cgutils.for_range(build, groups) as group, cgutils.for_range(build, sessions) as session:
        best = cgutils.alloca_once_value(build, ir.Constant(_FOUR, [LOWEST] * ROWS))
        of_session = build.gep(codes, [build.mul(session.index, width)])
        first = build.mul(group.index, _INT64(GROUP))
        end = build.add(first, _INT64(GROUP))
        with cgutils.for_range_slice(build, first, end, _INT64(ROWS), inc=True) as (row, _):
            scores = of_rows(build, items, offsets, row, d, of_session, width)
            build.store(larger(build, scores, build.load(best)), best)
        place = build.gep(out, [build.add(build.mul(session.index, groups), group.index)])
        build.store(build.call(largest, [build.load(best)]), place)


def best_for_many(build: ir.IRBuilder, lanes: int, items: Any, codes: Any, offsets: Any, out: Any, *sizes: Any) -> None:
    """The same for ``codes`` [chunks, lanes, 4]: to [R / GROUP, lanes]. ``sizes``: R, d, and chunks."""
    rows, d, chunks = sizes[:3]
    words = ir.VectorType(_INT32, lanes)
    last, width = build.sub(d, _INT64(4)), build.mul(chunks, _INT64(4))
    with cgutils.for_range_slice(build, _INT64(0), rows, _INT64(GROUP), inc=True) as (first, _):
        best = cgutils.alloca_once_value(build, ir.Constant(words, [LOWEST] * lanes))
        end = build.add(first, _INT64(GROUP))
        with cgutils.for_range_slice(build, first, end, _INT64(ROWS_OF_MANY), inc=True) as (row, _):
            some = [build.add(row, _INT64(i)) for i in range(ROWS_OF_MANY)]
            pointers = [build.gep(items, [build.mul(each, d)]) for each in some]
            less = [build.neg(build.load(build.gep(offsets, [each]))) for each in some]
            slots = [cgutils.alloca_once_value(build, in_all_lanes(build, each, words)) for each in less]
            with cgutils.for_range_slice(build, _INT64(0), width, _INT64(4), inc=True) as (start, _):
                of_sessions = load(build, codes, build.mul(start, _INT64(lanes)), words)
                at = earlier(build, start, last)
                for slot, item in zip(slots, pointers, strict=True):
                    numbers = in_all_lanes(build, load(build, item, at, _INT32), words)
                    build.store(four_products(build, build.load(slot), of_sessions, numbers), slot)
            for slot in slots:
                build.store(larger(build, build.load(slot), build.load(best)), best)
        place = build.gep(out, [build.mul(build.udiv(first, _INT64(GROUP)), _INT64(lanes))])
        build.store(build.load(best), build.bitcast(place, words.as_pointer()), align=4)


@native
def best_for_many_natively(build: ir.IRBuilder, *given: Any) -> None:
    """LANES at a time."""
    best_for_many(build, LANES, *given)


@native
def best_for_fewer_natively(build: ir.IRBuilder, *given: Any) -> None:
    """FEWER at a time."""
    best_for_many(build, FEWER, *given)


def of_rows(build: ir.IRBuilder, items: Any, offsets: Any, row: Any, d: Any, codes: Any, width: Any) -> Any:
    """Products of ROWS items with one session's ``codes`` [BYTES * chunks], less their ``offsets``: [ROWS]."""
    last = build.sub(d, _INT64(BYTES))
    rows = [build.gep(items, [build.mul(build.add(row, _INT64(i)), d)]) for i in range(ROWS)]
    slots = [cgutils.alloca_once_value(build, ir.Constant(_WORDS, [0] * LANES)) for _ in rows]
    with cgutils.for_range_slice(build, _INT64(0), width, _INT64(BYTES), inc=True) as (start, _):
        numbers, at = load(build, codes, start, _WORDS), earlier(build, start, last)
        for slot, item in zip(slots, rows, strict=True):
            build.store(four_products(build, build.load(slot), numbers, load(build, item, at, _WORDS)), slot)
    return build.sub(four_sums(build, [build.load(slot) for slot in slots]), load(build, offsets, row, _FOUR))


def load(build: ir.IRBuilder, pointer: Any, at: Any, kind: Any) -> Any:
    """A number or a vector of them, wherever it lies."""
    return build.load(build.bitcast(build.gep(pointer, [at]), kind.as_pointer()), align=1)


def four_products(build: ir.IRBuilder, sums: Any, raised: Any, numbers: Any) -> Any:
    """``sums`` [lanes], and to each the products of four numbers added."""
    kind = ir.FunctionType(sums.type, [sums.type] * 3)
    name = f"llvm.x86.avx512.vpdpbusd.{32 * sums.type.count}"
    instruction = cgutils.get_or_insert_function(build.module, kind, name)
    return build.call(instruction, [sums, raised, numbers])


def earlier(build: ir.IRBuilder, at: Any, last: Any) -> Any:
    """Where a chunk of an item begins."""
    return build.select(build.icmp_signed("<", at, last), at, last)


def larger(build: ir.IRBuilder, one: Any, other: Any) -> Any:
    """Of two vectors, number by number."""
    return build.select(build.icmp_signed(">", one, other), one, other)


def in_all_lanes(build: ir.IRBuilder, number: Any, words: Any) -> Any:
    """The same int32 in each of ``words``."""
    undefined = ir.Constant(words, ir.Undefined)
    first = build.insert_element(undefined, number, ir.Constant(_INT32, 0))
    return build.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT32, words.count), [0] * words.count))


def four_sums(build: ir.IRBuilder, vectors: list[Any]) -> Any:
    """Of four vectors, the sum of the 16 numbers of each: together, with half the shuffles of one after the other."""

    def of_each_four(one: Any, other: Any, low: list[int], high: list[int]) -> Any:
        halves = [
            build.shuffle_vector(
                one, other, ir.Constant(_WORDS, [at + four for four in range(0, 16, 4) for at in half])
            )
            for half in (low, high)
        ]
        return build.add(*halves)

    pairs = [of_each_four(one, other, [0, 16, 1, 17], [2, 18, 3, 19]) for one, other in (vectors[:2], vectors[2:])]
    fours = of_each_four(pairs[0], pairs[1], [0, 1, 16, 17], [2, 3, 18, 19])
    undefined = ir.Constant(_WORDS, ir.Undefined)
    parts = [
        build.shuffle_vector(fours, undefined, ir.Constant(_FOUR, list(range(first, first + 4))))
        for first in (0, 4, 8, 12)
    ]
    return build.add(build.add(parts[0], parts[1]), build.add(parts[2], parts[3]))
