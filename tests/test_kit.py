"""What the repository promises about itself: import rules, mirrored tests, documents that match the code."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from service.settings import PREFIX, Settings
from srgnn.cli import COMMANDS, main
from training.config import load_recipe, recipe_names

ROOT = Path(__file__).parents[1]
PACKAGES = ("srgnn", "training", "service")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
MAY_IMPORT = {"srgnn": {"srgnn"}, "training": {"srgnn", "training"}, "service": {"srgnn", "service"}}
NOT_IN_SRGNN = {"pandas", "pydantic", "fastapi", "redis", "ibis", "duckdb", "uvicorn"}


def imported(path: Path) -> set[str]:
    """Top-level names of all absolute imports, at the top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_cross_borders_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    assert imported(path) & set(PACKAGES) <= MAY_IMPORT[package]
    if package == "srgnn":
        assert not imported(path) & NOT_IN_SRGNN


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_package_imports_itself_relatively(path):
    package = path.relative_to(ROOT).parts[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    absolute = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    assert not [module for module in absolute if module and module.partition(".")[0] == package]


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem not in ("__init__", "__main__")], ids=relative)
def test_every_module_has_its_test_file(path):
    folder = ROOT / "tests" / "unit" / path.relative_to(ROOT).parent
    assert list(folder.glob(f"test_{path.stem}.py")) or list(folder.glob(f"test_{path.stem}_*.py")), (
        f"{relative(path)} has no tests/unit/{relative(path.parent)}/test_{path.stem}.py"
    )


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_no_room_is_called_utils(path):
    assert path.stem not in ("utils", "helpers", "common", "misc")


CODE = sorted([*MODULES, *(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "deploy").rglob("*.py")])
RUNS_WHAT_IT_READS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
EVALUATES = {"eval", "exec", "compile", "__import__"}


def called(tree: ast.AST) -> list[tuple[str, dict[str, object]]]:
    """Every call's name, as ``torch.load``, and its keywords as far as they are written down."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        (ast.unparse(call.func), {str(word.arg): getattr(word.value, "value", None) for word in call.keywords})
        for call in calls
    ]


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_nothing_that_is_read_is_run(path):
    """Models, corpora and checkpoints come from elsewhere: unpickling one would run what its author wrote."""
    assert not imported(path) & RUNS_WHAT_IT_READS
    for name, keywords in called(ast.parse(path.read_text(encoding="utf-8"))):
        assert name not in EVALUATES
        assert name not in ("pandas.read_pickle", "pd.read_pickle", "yaml.load", "torch.hub.load")
        if name == "torch.load":
            assert keywords.get("weights_only") is True
        if name in ("np.load", "numpy.load", "np.save", "numpy.save"):
            assert keywords.get("allow_pickle") is False


IMPORT_TWICE = """
import importlib, sys
modules = sys.argv[1:]
for name in modules:  # the first time brings the libraries, which may read what they like
    importlib.import_module(name)
for name in modules:
    del sys.modules[name]
touched = []
def note(event, args):
    if event in ("open", "socket.connect"):
        touched.append((event, str(args[0])))
sys.addaudithook(note)
for name in modules:
    importlib.import_module(name)
strange = [entry for entry in touched if not entry[1].endswith((".py", ".pyc")) and "__pycache__" not in entry[1]]
assert not strange, strange
"""


def test_no_module_opens_a_file_or_a_socket_on_import():
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES]
    modules = [name for name in names if not name.endswith(("__init__", "__main__"))]
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_TWICE, *modules]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr


def commands_in(text: str) -> list[list[str]]:
    """The `srgnn ...` commands of a document's code blocks, split into words."""
    blocks = re.findall(r"```(?:sh|bash|console)?\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.sub(r"^\s*(\$ )?", "", line).split("#")[0].split() for line in lines]
    return [words for words in found if words and words[0] == "srgnn"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_documented_command_and_option_exists(path):
    for words in commands_in(path.read_text(encoding="utf-8")):
        assert words[1] in COMMANDS, " ".join(words)
        result = CliRunner().invoke(main, [words[1], "--help"])
        for option in (word.partition("=")[0] for word in words[2:] if word.startswith("-")):
            assert re.search(rf"(^|[\s,]){re.escape(option)}\b", result.output), f"{option} of {' '.join(words)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_recipe_and_setting_in_a_documented_command_loads(path):
    for words in commands_in(path.read_text(encoding="utf-8")):
        overrides = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        configs = [words[i + 1] for i, word in enumerate(words) if word == "--config"]
        for config in configs:
            load_recipe(config, overrides)


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_link_to_a_file_resolves(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), target


def test_every_test_that_the_threat_model_names_exists():
    named = set(re.findall(r"`([\w/]*test_\w+\.py)`", (ROOT / "docs/security.md").read_text(encoding="utf-8")))
    assert len(named) > 10
    for name in named:
        assert list((ROOT / "tests").rglob(name)), name


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_names_every_command_and_every_recipe():
    for name in COMMANDS:
        assert f"srgnn {name}" in readme()
    for name in recipe_names():
        assert f"`{name}`" in readme()


def test_readmes_settings_table_is_the_settings():
    rows = re.findall(r"^\| `(SRGNN_\w+)` \| (.*?) \| (.*?) \|$", readme(), re.MULTILINE)
    wanted = [
        (f"{PREFIX}{name.upper()}", "" if field.default is None else f"`{field.default}`", field.description)
        for name, field in Settings.model_fields.items()
    ]
    assert rows == wanted


def test_readmes_make_targets_exist_and_ci_runs_the_test_command():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"^make (\w+)", readme(), re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "make test" in readme()
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"


def extras() -> dict[str, list[str]]:
    """What is required, by extra; the core under its own name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"core": project["dependencies"], **project["optional-dependencies"]}


def installed_by(requirement: str) -> Iterator[str]:
    """Names of all packages that pip brings for it on this platform."""
    pending, seen = [Requirement(requirement)], set()
    while pending:
        wanted = pending.pop()
        for extra in ("", *wanted.extras):
            if (wanted.name, extra) not in seen:
                seen.add((wanted.name, extra))
                yield canonical(wanted.name)
                below = map(Requirement, metadata.distribution(wanted.name).requires or ())
                pending += [one for one in below if one.marker is None or one.marker.evaluate({"extra": extra})]


@pytest.mark.parametrize("extra", extras())
def test_every_package_that_an_extra_brings_is_pinned(extra):
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]
    assert all(re.fullmatch(r"==[^*,]+", str(pin.specifier)) for pin in pins)
    names = set(chain(*map(installed_by, extras()[extra])))
    # pip-audit asks for pip, which is there before any constraint is read.
    assert names - {canonical(pin.name) for pin in pins} <= {"pip"}


def test_make_install_brings_every_extra():
    [named] = re.findall(r"-e '\.\[([\w,]+)\]'", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert {"core", *named.split(",")} == set(extras())


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
