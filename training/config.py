"""Recipes: one strict TOML file per data set, read into frozen dataclasses.

A recipe names every choice that shapes a corpus and a model, so a manifest with `Recipe.as_dict()` says
how it was made. Nothing is accepted that is not a setting, and no value is converted silently.
"""

import difflib
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args, get_origin, get_type_hints

from srgnn.config import SRGNNConfig
from srgnn.errors import ConfigError
from srgnn.sequence import SessionRules


@dataclass(frozen=True)
class DataConfig:
    """How a click log becomes a corpus; `training.prepare` documents the steps and the two protocols."""

    source: Literal["delimited", "diginetica", "retailrocket", "sessions", "synthetic", "yoochoose"] = "delimited"
    protocol: Literal["srgnn", "strict"] = "strict"
    split: Literal["time", "files"] = "time"  # files: the inputs are train[, validation], test, in that order
    test_share: float = 0.1  # the last share of the sessions
    test_days: float = 0.0  # above 0 it takes the place of test_share
    validation_share: float = 0.1  # the last share of the sessions that are not test
    validation_days: float = 0.0  # above 0 it takes the place of validation_share
    windows: int = 1  # above 1: so many corpora, each of its own part of the log's time
    window_days: float = 0.0  # how long each of several windows is; 0 divides the whole time among them
    minimum_item_support: int = 5
    minimum_session_length: int = 2
    session_gap_minutes: float = 0.0  # a longer pause begins a new session; 0 keeps the log's sessions
    memory_mb: int = 2048  # what the engine may hold before it spills to disk


@dataclass(frozen=True)
class ColumnsConfig:
    """Where a log keeps session, item and time; read by the `delimited` and `retailrocket` sources."""

    session: str = "session_id"
    item: str = "item_id"
    time: str = "timestamp"
    time_unit: Literal["iso", "s", "ms"] = "iso"  # iso without an offset is UTC; s and ms count from 1970
    delimiter: str = ","


@dataclass(frozen=True)
class SyntheticConfig:
    """The click simulator; `training.sources.synthetic` documents the process."""

    sessions: int = 30_000
    items: int = 2_000
    groups: int = 40
    successors: int = 8
    mean_length: float = 5.0
    zipf_exponent: float = 0.8
    days: float = 30.0
    seed: int = 1


@dataclass(frozen=True)
class TrainingConfig:
    """One training run."""

    epochs: int = 10
    batch_size: int = 512
    minimum_steps: int = (
        0  # an epoch has at least so many steps: on a log too small for that, a batch is smaller, 16 at least
    )
    optimizer: Literal["adam", "adamw"] = "adamw"  # adam: weight decay is an L2 term, as published
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    schedule: Literal["constant", "step", "cosine"] = "cosine"
    step_epochs: int = 3  # step schedule: every so many epochs ...
    step_factor: float = 0.1  # ... the learning rate is multiplied by this
    warmup_share: float = 0.05  # share of all steps that ramp the learning rate up
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where processor or GPU have it
    negatives: int = 0  # items drawn as negatives for a step; 0, or no fewer than there are items: all of them
    seed: int = 1
    patience: int = 3  # epochs without a better validation score before training stops
    habits: bool = False  # add how visitors come back to what they clicked to scores, weighted by what validation says
    neighbours: bool = False  # add votes of similar past sessions to scores, weighted alike; with either, items' trends
    learn_trend: bool = False  # items' trends by a network that learns from the log what is clicked next, not a formula
    teachers: int = 0  # models trained before this one, of whose predictions it learns; each costs its training
    teacher_share: float = 0.8  # of what it aims at; the rest is the next click's
    refit: bool = False  # train again on train + validation for the chosen number of epochs


@dataclass(frozen=True)
class Recipe:
    """Everything a run is made of. The field names are the sections of the TOML file."""

    name: str
    data: DataConfig = field(default_factory=DataConfig)
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    rules: SessionRules = field(default_factory=SessionRules)
    model: SRGNNConfig = field(default_factory=SRGNNConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain, JSON-able values; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], place: str = "the recipe") -> Self:
        """A recipe from `as_dict()` or a parsed TOML file. Missing settings keep their defaults.

        Raises ConfigError for an unknown section or setting, a wrong type or a value out of range.
        """
        name = settings.get("name", "unnamed")
        given = {section: values for section, values in settings.items() if section != "name"}
        for section in given:
            _require_known(section, SECTIONS, f"section [{section}] in {place}")
        return cls(name=name, **{s: _section(s, values, place) for s, values in given.items()})


class Check(NamedTuple):
    """A rule for a setting's value, with the words that follow 'expected'."""

    expected: str
    holds: Callable[[Any], bool]


AT_LEAST_ONE = Check("1 or more", lambda value: value >= 1)
AT_LEAST_TWO = Check("2 or more: one click has no next click", lambda value: value >= 2)
NOT_NEGATIVE = Check("0 or more", lambda value: value >= 0)
POSITIVE = Check("a number above 0", lambda value: value > 0)
SHARE = Check("a share from 0 up to, not including, 1", lambda value: 0 <= value < 1)
FACTOR = Check("a factor above 0, up to 1", lambda value: 0 < value <= 1)
NAME = Check("a name that is not empty", lambda value: bool(value.strip()))
ONE_CHARACTER = Check("one character, such as ',' or a tab", lambda value: len(value) == 1)

SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "columns": ColumnsConfig,
    "synthetic": SyntheticConfig,
    "rules": SessionRules,
    "model": SRGNNConfig,
    "training": TrainingConfig,
}

# [rules] and [model] check themselves, because artifacts are read through the same classes.
CHECKS: dict[str, Check] = {
    "data.test_share": SHARE,
    "data.test_days": NOT_NEGATIVE,
    "data.validation_share": SHARE,
    "data.validation_days": NOT_NEGATIVE,
    "data.windows": AT_LEAST_ONE,
    "data.window_days": NOT_NEGATIVE,
    "data.minimum_item_support": AT_LEAST_ONE,
    "data.minimum_session_length": AT_LEAST_TWO,
    "data.session_gap_minutes": NOT_NEGATIVE,
    "data.memory_mb": Check("128 or more megabytes", lambda value: value >= 128),
    "columns.session": NAME,
    "columns.item": NAME,
    "columns.time": NAME,
    "columns.delimiter": ONE_CHARACTER,
    "synthetic.sessions": AT_LEAST_ONE,
    "synthetic.items": AT_LEAST_TWO,
    "synthetic.groups": AT_LEAST_ONE,
    "synthetic.successors": AT_LEAST_ONE,
    "synthetic.mean_length": Check("2 or more clicks a session", lambda value: value >= 2),
    "synthetic.zipf_exponent": NOT_NEGATIVE,
    "synthetic.days": POSITIVE,
    "synthetic.seed": NOT_NEGATIVE,
    "training.epochs": AT_LEAST_ONE,
    "training.batch_size": AT_LEAST_ONE,
    "training.minimum_steps": NOT_NEGATIVE,
    "training.learning_rate": POSITIVE,
    "training.weight_decay": NOT_NEGATIVE,
    "training.step_epochs": AT_LEAST_ONE,
    "training.step_factor": FACTOR,
    "training.warmup_share": SHARE,
    "training.negatives": NOT_NEGATIVE,
    "training.seed": NOT_NEGATIVE,
    "training.patience": AT_LEAST_ONE,
    "training.teachers": NOT_NEGATIVE,
    "training.teacher_share": SHARE,
}

SHIPPED = Path(__file__).parent / "configs"
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes"}


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by the name of a shipped one (`recipe_names()`) or by the path of a TOML file.

    overrides: `section.key=value` texts, the value as TOML or, where that fails, as plain text.
    Raises ConfigError with the value, the place and the remedy.
    """
    name, place, text = _find_recipe(name_or_path)
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{place} is not valid TOML: {error}") from error
    if "name" in settings:
        raise ConfigError(f"unknown setting 'name' in {place}: a recipe is named after its file")
    Recipe.from_dict(settings, place)  # so that a mistake in the file is reported at the file, not at an override
    for override in overrides:
        _apply(override, settings)
    return Recipe.from_dict({"name": name, **settings}, f"{place} with --set {' '.join(overrides)}")


def recipe_names() -> list[str]:
    """Names of the recipes that are shipped with the package."""
    return sorted(file.stem for file in SHIPPED.glob("*.toml"))


def _find_recipe(name_or_path: str) -> tuple[str, str, str]:
    """(name, place for messages, text)."""
    if name_or_path in recipe_names():
        return name_or_path, f"{name_or_path}.toml", (SHIPPED / f"{name_or_path}.toml").read_text("utf-8")
    path = Path(name_or_path)
    if path.is_file():
        try:
            return path.stem, str(path), path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text: {error}") from error
    raise ConfigError(
        f"no recipe '{name_or_path}'{_did_you_mean(name_or_path, recipe_names())}: "
        f"expected one of {', '.join(recipe_names())} or the path of a .toml file"
    )


def _apply(override: str, settings: dict[str, Any]) -> None:
    key, equals, text = override.partition("=")
    section, dot, setting = key.strip().partition(".")
    if not (equals and dot and section and setting):
        raise ConfigError(f"--set {override}: expected section.key=value, such as training.epochs=3")
    _require_known(section, SECTIONS, f"section [{section}] in --set {override}")
    _section(section, {setting: _parse_value(text)}, f"--set {override}")
    settings.setdefault(section, {})[setting] = _parse_value(text)


def _parse_value(text: str) -> Any:
    """TOML; or what is TOML between quotes, because a shell took them: `\\t` is a tab; or the plain text."""
    for literal in (text, f'"{text}"'):
        try:
            parsed = tomllib.loads(f"value = {literal}")
        except tomllib.TOMLDecodeError:
            continue
        if len(parsed) == 1:
            return parsed["value"]
    return text


def _section(section: str, values: Any, place: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"'{section}' in {place} is {values!r}; expected a section [{section}] with settings under it"
        )
    kind = SECTIONS[section]
    types = get_type_hints(kind)
    names = [entry.name for entry in fields(kind)]
    for name in values:
        _require_known(name, names, f"setting '{name}' in [{section}] of {place}")
    checked = {name: _checked(f"{section}.{name}", value, types[name], place) for name, value in values.items()}
    try:
        return kind(**checked)
    except ConfigError as error:
        raise ConfigError(f"{error} (in {place})") from error


def _checked(key: str, value: Any, kind: Any, place: str) -> Any:
    """The value as its declared type, or ConfigError."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            choices = ", ".join(repr(choice) for choice in get_args(kind))
            raise _wrong(key, value, place, f"one of {choices}{_did_you_mean(str(value), get_args(kind))}")
        return value
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise _wrong(key, value, place, _TYPE_NAMES[kind])
    if kind is float and not math.isfinite(value):
        raise _wrong(key, value, place, "a finite number")
    check = CHECKS.get(key)
    if check and not check.holds(value):
        raise _wrong(key, value, place, check.expected)
    return value


def _wrong(key: str, value: Any, place: str, expected: str) -> ConfigError:
    return ConfigError(f"{key} = {value!r} in {place}: expected {expected}")


def _require_known(name: str, known: Iterable[str], what: str) -> None:
    names = list(known)
    if name not in names:
        hint = _did_you_mean(name, names) or f"; expected one of {', '.join(names)}"
        raise ConfigError(f"unknown {what}{hint}")


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
