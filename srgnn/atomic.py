"""Files that are whole or not there at all, also after a crash."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_when_whole(output: Path) -> Iterator[Path]:
    """A path beside ``output`` that becomes ``output`` when the block ends well and is removed otherwise.

    Hidden meanwhile, as ``.NAME.PID.partial``; when the block is left, data and name are on the disk.
    """
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        yield partial
        _sync(partial)
        partial.replace(output)
        _sync(output.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
