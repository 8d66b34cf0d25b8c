"""How loops are compiled, and that somebody is told when it happens."""

import inspect
import logging
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from numba import njit
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile ``function`` at its first call with each combination of argument types, and keep what was compiled until
    a file changes that lies beside the function's own.

    It outlives a change of the options here.
    """
    return _compiled(function)


def fused(function: Function) -> Function:
    """The same, a product and the sum that it goes into in one instruction where the processor has one.

    It rounds once then instead of twice: the last bit depends on the processor, which BLAS' does as well.
    """
    return _compiled(function, fastmath={"contract"})


def _compiled(function: Function, **options: Any) -> Function:
    try:
        made: Function = njit(function, nogil=True, error_model="numpy", cache=True, **options)
        made._cache = _Cache(function)  # type: ignore[attr-defined]
    except RuntimeError:  # nowhere to keep it
        made = njit(function, nogil=True, error_model="numpy", **options)
    return made


class _Cache(FunctionCache):
    """numba's, but for two things: numba's looks at no file but the function's own, though loops of others are compiled
    into it; and it fails where an older version of this package kept loops over a class that is there no more."""

    def __init__(self, function: Function) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=_contents(Path(inspect.getfile(function)).parent),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was kept for this signature; None: nothing that can be used."""
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # whatever reading its own file makes numba raise
            self.flush()  # type: ignore[no-untyped-call]
            return None


@cache
def _contents(folder: Path) -> str:
    """A hash of all modules in it."""
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in sorted(folder.glob("*.py")))).hexdigest()


class _Notice(event.Listener):
    """Says once why a command is silent for so long. Nothing happens where loops are compiled already."""

    told = False

    def on_start(self, event: event.Event) -> None:
        """Of the compilation of one loop, which may be another package's."""
        if not self.told and event.data["dispatcher"].py_func.__module__.startswith(f"{__package__}."):
            self.told = True
            logger.warning("compiling loops for this processor, 10 to 60 s; python -m srgnn.precompile does it ahead")

    def on_end(self, event: event.Event) -> None:
        """Nothing to say."""


event.register("numba:compile", _Notice())
