from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from service.clicklog.export import Exporter
from service.clicklog.files import ClickFiles
from service.clicklog.queue import ClickQueue
from tests.click_stream import Writer


@pytest.fixture
def writer(redis_url: str) -> Iterator[Writer]:
    with closing(Writer(redis_url)) as writer:
        yield writer


@pytest.fixture
def queue(redis_url: str) -> Iterator[ClickQueue]:
    with closing(ClickQueue(redis_url, directory="d1", place="here:/clicks")) as queue:
        queue.open()
        yield queue


@pytest.fixture
def files(tmp_path: Path) -> Iterator[ClickFiles]:
    with ClickFiles(tmp_path / "clicks") as files:
        yield files


@pytest.fixture
def exporter(redis_url: str, files: ClickFiles) -> Iterator[Callable[..., Exporter]]:
    """A new exporter, as after a restart."""
    with ExitStack() as stack:

        def make(entries: int = 1000) -> Exporter:
            queue = stack.enter_context(closing(ClickQueue(redis_url, directory=files.identity(), place="here")))
            queue.open()
            return Exporter(queue, files, entries=entries, seconds=0)

        yield make
