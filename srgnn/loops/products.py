"""Scores: products of int8 vectors, exact in int32 (:mod:`srgnn.scan`), and of floats in a fixed order."""

import platform
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

from ..compiled import compiled
from . import Codes, FloatArray, IntArray, Items, Offsets, Words

GROUP = 32
"""Rows a group; fixed by the artifact's format."""

LANES = 16
"""Numbers multiplied at once without VNNI, and the narrowest vectors that are taken; sessions at once with it."""

BYTES = 64
"""Numbers multiplied at once with it, and the narrowest vectors for which it is used."""

ROWS = 4
"""Items at once: one alone waits for each addition. What is multiplied comes in multiples of it."""

ROWS_OF_MANY = 8
"""The same where there are many sessions; twice as many are no faster (docs/log.md)."""

MANY = 4
"""Sessions from which on it is faster to take several of them at once: FEWER of them, where there are no more."""

FEWER = 8
"""Of LANES: where a processor multiplies half as many numbers in half the time."""

LOWEST = np.iinfo(np.int32).min
NEVER = 1 << 30
"""Taken off the score of an item that may not be answered: more than any product of vectors of int8."""

LOW = -(2.0**29)
"""No answer has so low a score of whole numbers."""

X86 = ("x86_64", "AMD64")
INSTRUCTIONS = '"target-features"="+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vnni"'
"""What functions that use the instruction are compiled for, whatever processor the rest is for."""

_INT8, _INT16, _INT32, _INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_PRODUCTS, _SUMS = (ir.VectorType(_INT32, lanes) for lanes in (LANES, LANES // 2))
_WORDS, _FOUR = ir.VectorType(_INT32, BYTES // 4), ir.VectorType(_INT32, ROWS)


class Searched(NamedTuple):
    """The catalogue, as rough scores are made of it."""

    items: Any
    """[R, d] in int8, R a multiple of GROUP; or [V, d] in float32."""
    offsets: Offsets
    """[R]: what is taken off the products of each row, as :func:`offsets_of` says."""


class Asking(NamedTuple):
    """b session vectors, laid out for products with items."""

    raised: Codes
    """[b, BYTES * chunks], for VNNI, which takes one side for numbers from 0 to 255: 128 more than the codes; else
    [0, 0]."""
    words: Any
    """[b, LANES * chunks] in int16 without it, else [0, 0]; or [b, d] in float32."""


@compiled
def asking(codes: Codes, native: bool) -> tuple[Codes, Words]:
    """The fields of :class:`Asking`, of codes [b, d]."""
    if native:
        return in_chunks(codes, BYTES, -128, np.int8(0)), np.empty((0, 0), np.int16)
    return np.empty((0, 0), np.int8), in_chunks(codes, LANES, 0, np.int16(0))


@compiled
def in_chunks(codes: Codes, lanes: int, flipped: int, zero: Any) -> Any:
    """[b, d] -> [b, lanes * chunks] of the type of ``zero``, each with its ``flipped`` bits flipped: the last chunk is
    for the *last* numbers of an item, with zeros for those that a chunk before it has multiplied already; so no chunk
    is a part of one."""
    b, d = codes.shape
    chunks = (d + lanes - 1) // lanes
    laid_out = np.full((b, lanes * chunks), zero)
    for session in range(b):
        for j in range(d):
            laid_out[session, place_in_chunks(j, d, lanes)] = codes[session, j] ^ flipped
    return laid_out


@compiled
def place_in_chunks(j: int, d: int, lanes: int) -> int:
    """Where :func:`in_chunks` puts number ``j`` of ``d``."""
    chunks = (d + lanes - 1) // lanes
    return j if j < lanes * (chunks - 1) else lanes * chunks - d + j


@compiled
def offsets_of(items: Codes, unanswerable: IntArray, native: bool) -> Offsets:
    """What is to be taken off products with items [R, d]: what they are too large by where codes are raised, and NEVER
    for what may not be answered: [R]."""
    rows, d = items.shape
    offsets = np.zeros(rows, np.int32)
    if native:
        for row in range(rows):
            total = 0
            for j in range(d):
                total += items[row, j]
            offsets[row] = 128 * total
    for row in unanswerable:
        offsets[row] += NEVER
    return offsets


def score_rows(searched: Any, asking: Any, session: Any, first: Any, out: Any) -> None:
    """Rough scores of one session for rows from ``first`` on, as many as ``out`` [1, n] has room for; ``first`` and n
    multiples of ROWS. Of the type of ``out``; LOW or less, or -inf, where the item may not be answered."""
    raise TypeError("only compiled code can call this")


@overload(score_rows)
def _score_rows(searched: Any, asking: Any, session: Any, first: Any, out: Any) -> Any:
    def of_codes(searched: Any, asking: Any, session: Any, first: Any, out: Any) -> None:
        if len(asking.raised):
            products_natively(searched.items, asking.raised, searched.offsets, out, first, out.shape[1], session)
            return
        for row in range(0, out.shape[1], ROWS):
            made = products_of_rows(searched.items, first + row, asking.words, session)
            for i in range(ROWS):
                out[0, row + i] = made[i] - searched.offsets[first + row + i]

    def of_floats(searched: Any, asking: Any, session: Any, first: Any, out: Any) -> None:
        vector = asking.words[session]
        for i in range(out.shape[1]):
            answered = first + i < len(searched.items) and not searched.offsets[first + i]
            out[0, i] = dot(searched.items[first + i], vector) if answered else -np.inf

    return of_codes if searched.types[0].dtype == types.int8 else of_floats


@compiled
def best_of_groups(
    items: Codes, offsets: Offsets, raised: Codes, words: Words, first_group: int, groups: int
) -> npt.NDArray[np.int32]:
    """The best rough score in each of some groups of :class:`Searched`, for :class:`Asking`: [b, groups].

    Not all of its scores: there are so many that to write them down, and to read them again, would take longer than
    to make those anew that matter.
    """
    if len(raised) >= MANY:
        return best_of_groups_for_many(items, offsets, raised, first_group, groups)
    bests = np.empty((max(len(raised), len(words)), groups), np.int32)
    if len(raised):
        best_for_few_natively(items, raised, offsets, bests, first_group * GROUP, groups * GROUP, 0)
        return bests
    for g in range(groups):
        for session in range(len(words)):
            best = LOWEST
            for row in range((first_group + g) * GROUP, (first_group + g + 1) * GROUP, ROWS):
                made = products_of_rows(items, row, words, session)
                for i in range(ROWS):
                    best = max(best, made[i] - offsets[row + i])
            bests[session, g] = best
    return bests


@compiled
def best_of_groups_for_many(
    items: Codes, offsets: Offsets, raised: Codes, first_group: int, groups: int
) -> npt.NDArray[np.int32]:
    """The same by VNNI, LANES sessions at a time: each item's numbers meet those of all of them at once."""
    b, d = len(raised), items.shape[1]
    bests, of_some = np.empty((b, groups), np.int32), np.empty(groups * LANES, np.int32)
    packed = np.empty((d + 3) // 4 * LANES * 4, np.int8)
    for start in range(0, b, LANES):
        some, packed[:] = min(LANES, b - start), 0
        lanes = LANES if some > FEWER else FEWER
        for j in range(d):
            to, there = place_in_chunks(j, d, 4), place_in_chunks(j, d, BYTES)
            for session in range(some):  # four numbers of each session side by side
                packed[(to // 4 * lanes + session) * 4 + to % 4] = raised[start + session, there]
        codes, out = packed.reshape(-1, LANES, 4), of_some.reshape(-1, LANES)  # for any lanes, in as much room
        if lanes == LANES:
            best_for_many_natively(items, codes, offsets, out, first_group * GROUP, groups * GROUP, 0)
        else:
            best_for_fewer_natively(items, codes, offsets, out, first_group * GROUP, groups * GROUP, 0)
        for g in range(groups):
            for session in range(some):
                bests[start + session, g] = of_some[g * lanes + session]
    return bests


@compiled
def largest(scores: Any) -> Any:
    """Of one group."""
    found = scores[0]
    for r in range(1, len(scores)):  # nothing else in this loop, or it is not compiled to vectors
        found = max(found, scores[r])
    return found


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


@compiled
def dot(item: Items, vector: FloatArray) -> float:
    """In float64, always added up in this order, so that equal items tie wherever they are scored."""
    a = b = c = e = 0.0  # four sums at a time: one alone waits for each addition
    for j in range(0, len(vector) - 3, 4):
        a += item[j] * vector[j]
        b += item[j + 1] * vector[j + 1]
        c += item[j + 2] * vector[j + 2]
        e += item[j + 3] * vector[j + 3]
    for j in range(len(vector) - len(vector) % 4, len(vector)):
        a += item[j] * vector[j]
    return (a + b) + (c + e)
