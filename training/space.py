"""Search spaces: the TOML files that say which settings of a recipe ``srgnn tune`` may change, and to what.

It is checked as strictly as a recipe, by the same rules: every value that it names must be one that a recipe takes.
"""

import math
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from srgnn.errors import ConfigError

from .config import SHIPPED, Recipe

Space = dict[str, BaseDistribution]
"""section.setting -> where its values come from."""

DEFAULT = SHIPPED / "spaces" / "default.toml"
SECTIONS = ("rules", "model", "training")
REFUSED = {
    "training.seed": "the best of several seeds is luck that the test split does not share",
    "training.refit": "a refit changes nothing that validation could judge",
}
DIGITS = 6
"""Significant ones of what is drawn from a continuous range: a recipe stays readable."""


def load_space(path: Path = DEFAULT) -> Space:
    """Read a space. Raises ConfigError with the file, the setting, what was found and what was expected."""
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    for section, settings in tables.items():
        if section not in SECTIONS or not isinstance(settings, dict):
            raise ConfigError(
                f"'{section}' in {path}: expected only sections {', '.join(f'[{name}]' for name in SECTIONS)} with "
                "settings under them; what shapes the corpus cannot be searched"
            )
    space = {
        f"{section}.{setting}": _distribution(section, setting, given, path)
        for section, settings in tables.items()
        for setting, given in settings.items()
    }
    if not space:
        raise ConfigError(f"{path} names no setting: expected one at least, such as those of {DEFAULT}")
    return space


def values_of(recipe: Recipe, space: Space) -> dict[str, Any]:
    """The recipe's own values of what is searched. Raises ConfigError where one is not in the space."""
    own = {}
    for key, distribution in space.items():
        section, _, setting = key.partition(".")
        own[key] = getattr(getattr(recipe, section), setting)
        try:
            create_trial(state=TrialState.WAITING, params={key: own[key]}, distributions={key: distribution})
        except ValueError as error:
            raise ConfigError(
                f"{key} = {own[key]!r} of recipe {recipe.name} is not in the space, where the search begins: expected "
                f"{_words(distribution)}. Widen the space, or change the recipe with --set {key}=..."
            ) from error
    return own


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values of ``section.setting``. Raises ConfigError where they do not go together."""
    settings = recipe.as_dict()
    for key, value in values.items():
        section, _, setting = key.partition(".")
        settings[section][setting] = value
    return Recipe.from_dict(settings, "a trial")


def rounded(value: Any, distribution: BaseDistribution) -> Any:
    """What was drawn, without digits that mean nothing: 0.3 for 0.30000000000000004."""
    if not isinstance(distribution, FloatDistribution):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), distribution.low), distribution.high)


def _distribution(section: str, setting: str, given: Any, path: Path) -> BaseDistribution:
    key = f"{section}.{setting}"
    if key in REFUSED:
        raise ConfigError(f"{key} in {path} cannot be searched: {REFUSED[key]}")
    if isinstance(given, list):
        values = [_checked(section, setting, value, path) for value in given]
        if len(set(values)) < max(2, len(values)):
            raise ConfigError(f"{key} = {given!r} in {path}: expected two values or more, each once")
        return CategoricalDistribution(values)
    if isinstance(given, dict):
        return _range(section, setting, given, path)
    _checked(section, setting, given, path)
    raise ConfigError(
        f"{key} = {given!r} in {path}: expected a list of values or {{low = ..., high = ...}}; "
        "a single value belongs into the recipe"
    )


def _range(section: str, setting: str, given: dict[str, Any], path: Path) -> BaseDistribution:
    found = f"{section}.{setting} = {given!r} in {path}"
    step, log = given.get("step"), given.get("log", False)
    if not {"low", "high"} <= set(given) <= {"low", "high", "step", "log"} or type(log) is not bool:
        raise ConfigError(f"{found}: expected {{low = ..., high = ...}}, and step = ... or log = true where you like")
    low, high = (_checked(section, setting, given[end], path) for end in ("low", "high"))
    if type(low) not in (int, float):
        raise ConfigError(f"{found}: a range is for numbers, expected a list of values")
    if step is not None and (type(step) not in (int, type(low)) or not 0 < step < math.inf):
        raise ConfigError(f"{found}: step is {step!r}, expected a number above 0 of the same kind")
    if not low < high:
        raise ConfigError(f"{found}: expected low below high")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a step that does not divide the range would change its end
            if type(low) is int:
                return IntDistribution(low, high, log=log, step=1 if step is None else step)
            return FloatDistribution(low, high, log=log, step=step)
    except ArithmeticError as error:
        raise ConfigError(f"{found}: expected a step that divides the range") from error
    except (ValueError, UserWarning) as error:
        raise ConfigError(f"{found}: {error}") from error


def _checked(section: str, setting: str, value: Any, path: Path) -> Any:
    """The value as a recipe would hold it, or the recipe's ConfigError."""
    return getattr(getattr(Recipe.from_dict({section: {setting: value}}, str(path)), section), setting)


def _words(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return f"one of {', '.join(map(repr, distribution.choices))}"
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    steps = "" if distribution.step in (None, 1) else f" in steps of {distribution.step}"
    return f"{distribution.low} to {distribution.high}{steps}"
