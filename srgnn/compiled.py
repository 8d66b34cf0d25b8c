"""How loops are compiled, and that somebody is told when it happens."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit
from numba.core import event
from numba.core.caching import FunctionCache

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile ``function`` at its first call with each combination of argument types.

    What is kept outlives a change of the options here: numba looks at the function's own file only.
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
        made._cache = _Cache(function)  # type: ignore[attr-defined, no-untyped-call]
    except RuntimeError:  # nowhere to keep it
        made = njit(function, nogil=True, error_model="numpy", **options)
    return made


class _Cache(FunctionCache):
    """numba's, which fails where an older version of this package kept loops over a class that is there no more."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was kept for this signature; None: nothing that can be used."""
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # whatever reading its own file makes numba raise
            self.flush()  # type: ignore[no-untyped-call]
            return None


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
