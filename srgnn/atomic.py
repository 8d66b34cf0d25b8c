"""Files and folders that are whole or not there at all, also after a crash or a power cut."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_when_whole(output: Path) -> Iterator[Path]:
    """A path for a file beside ``output`` that becomes ``output`` when the block ends well and is removed otherwise.

    Hidden meanwhile; when the block is left, data and name are on the disk.
    """
    partial = hidden_beside(output)
    try:
        yield partial
        put_in_place(partial, output)
    finally:
        partial.unlink(missing_ok=True)


def hidden_beside(output: Path, ending: str = "partial") -> Path:
    """A name for what is not ``output`` yet, or not any more. By lot: in two containers processes have the same ids."""
    return output.with_name(f".{output.name}.{secrets.token_hex(4)}.{ending}")


def put_in_place(partial: Path, output: Path) -> None:
    """Rename a file, or a folder of files, so that no crash leaves the new name without all that belongs to it.

    In the only order that promises it: the content, the name, the folder that holds the name.
    """
    sync(partial)
    partial.replace(output)
    _sync_one(output.parent)


def sync(path: Path) -> None:
    """Bring a file, or a folder and the files in it, to the disk."""
    if path.is_dir():
        for file in path.iterdir():
            _sync_one(file)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
