"""Loops over single numbers, compiled: each would be a hundred calls of numpy on a few numbers.

They let go of the interpreter, and add up in the order in which they are written, whatever else is in a batch: numba
reorders no sum of floats. Those that are ``fused`` round less often where the processor can.

An argument of a new type (a list instead of an array, int32 instead of int64, an array that may be written to instead
of a mapped one) compiles a function again, for a second or more; callers bring the same types each time. What a click
waits for takes its arrays one by one, not as tuples: numba looks at what a tuple holds at every call, which costs as
much as the loop (docs/log.md).

Compiling all of them takes 10 to 60 s, so what was compiled is kept: in ``NUMBA_CACHE_DIR`` if that is set, else in
``__pycache__`` beside these files, else in the user's cache, until one of these files changes
(:mod:`srgnn.compiled`). That is why what others know comes as an argument. docs/security.md says what that means.

Shape letters: b sessions, G groups of GROUP rows in a block, M pairs of a session and a row.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Items = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]
Words = npt.NDArray[np.int16]
Offsets = npt.NDArray[np.int32]
Ready = npt.NDArray[np.int32]
Rough = npt.NDArray[Any]
"""int32 or float32: unscaled scores."""
