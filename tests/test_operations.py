"""docs/operations.md explains every message, metric and alert, and nothing that is not there."""

import ast
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from service.telemetry import Metrics

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
MODULES = sorted(path for folder in ("service", "srgnn") for path in (ROOT / folder).rglob("*.py"))


def rows(heading: str) -> list[str]:
    """First cells of the first table below a heading, without their backquotes."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def logged(path: Path) -> list[ast.expr]:
    """The message of every call of a logger."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    return [
        call.args[1 if call.func.attr == "log" else 0]
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "logger"
        if call.func.attr in ("debug", "info", "warning", "error", "exception", "critical", "log")
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_every_message_is_a_constant_so_that_repeats_are_seen_as_such(path: Path):
    for message in logged(path):
        assert isinstance(message, ast.Constant), f"{path.name}:{message.lineno}: put what varies into fields"


def test_every_log_line_is_explained():
    messages = {message.value for path in MODULES for message in logged(path) if isinstance(message, ast.Constant)}
    assert "request" in messages
    assert set(rows("Log lines")) == messages


def test_every_metric_is_explained():
    metrics = Metrics("any", datetime.now(UTC)).registry.collect()
    names = {metric.name + ("_total" if metric.type == "counter" else "") for metric in metrics}
    assert set(rows("Metrics")) == names


def test_every_alert_is_explained():
    [group] = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text(encoding="utf-8"))["groups"]
    assert rows("Alerts") == [alert["alert"] for alert in group["rules"]]
