"""Both sides of the contract are tests' own here; the service's is in tests/e2e/test_retraining.py."""

from service.clicklog import stream
from service.clicklog.queue import ClickQueue
from tests.click_stream import Writer


def test_every_key_carries_the_version_of_the_contract() -> None:
    assert stream.STREAM.endswith(":1")
    assert {key.startswith(stream.STREAM) for key in (stream.NUMBER, stream.EXPORT)} == {True}


def test_entries_of_the_contract_are_understood(writer: Writer, queue: ClickQueue) -> None:
    writer.click("s", "Müsli 🥣", "e1")
    writer.click("s", "b")
    writer.forget("s")
    found = queue.collect(10, 0, once=True, stopping=lambda: False)
    assert [entry[1:] for entry in found] == [
        ("click", 1, "s", "Müsli 🥣", "e1"),
        ("click", 2, "s", "b", ""),
        ("forget", 3, "s", "", ""),
    ]
