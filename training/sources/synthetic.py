"""A click simulator whose next-click probabilities are known, and with them the best achievable Recall@k.

V items have Zipf popularity and belong to groups. Every item has a few successors in its group, the first
likelier than the next. A session opens with an item drawn by popularity; every further click is a draw from

    0.45  a successor of the last click
    0.15  a successor of the click before it (of the last click, where there is only one)
    0.20  a click of this session again, each position equally likely
    0.15  an item of the last click's group, by popularity
    0.05  any item, by popularity

which depends on the session's clicks and on nothing hidden; when a session ends does not depend on its items.
So no recommender does better, in expectation, than listing the k likeliest items of this mixture, and
`ClickProcess.best_recall` is the mean probability mass of those lists: exact, not an estimate, as long as
preparation drops no click.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from ibis.backends.duckdb import Backend
from ibis.expr.types import Table

from srgnn.errors import ConfigError

from ..config import Recipe, SyntheticConfig

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.floating[Any]]

SUCCESSOR, EARLIER, REPEAT, GROUP, ANY = 0.45, 0.15, 0.20, 0.15, 0.05
NEXT_SUCCESSOR = 0.7  # every successor is this much as likely as the one before it
MAX_CLICKS = 50
START_MS = 1_767_225_600_000  # 2026-01-01
DAY_MS = 86_400_000
MEDIAN_PAUSE_MS = 40_000
CELLS_PER_BLOCK = 4_000_000  # probabilities held at once, 32 MB


class Clicks(NamedTuple):
    """Simulated sessions. items int64 [C]; lengths int64 [S]; times int64 [C], ms since 1970."""

    items: IntArray
    lengths: IntArray
    times: IntArray


@dataclass(frozen=True)
class ClickProcess:
    """The known distribution. popularity, group, ids [V]; successors [V, m], their likelihood [m]."""

    popularity: FloatArray
    group: IntArray
    successors: IntArray
    likelihood: FloatArray
    ids: list[str]

    @classmethod
    def build(cls, config: SyntheticConfig) -> "ClickProcess":
        """The process that `config` describes; the seed decides everything random. Raises ConfigError."""
        if config.groups > config.items:
            raise ConfigError(
                f"synthetic.groups = {config.groups} with synthetic.items = {config.items}: "
                "expected no more groups than items"
            )
        random = np.random.default_rng([config.seed, 0])
        items = np.arange(config.items)
        popularity = (items + 1.0) ** -config.zipf_exponent
        popularity /= popularity.sum()
        group = items % config.groups
        draw = GroupDraw(popularity, group)
        owners = np.repeat(items, config.successors)
        successors = draw(group[owners], random.random((len(owners),))).reshape(config.items, config.successors)
        likelihood = NEXT_SUCCESSOR ** np.arange(config.successors)
        width = len(str(config.items))
        ids = [f"item-{code:0{width}d}" for code in random.permutation(config.items) + 1]
        return cls(popularity, group, successors, likelihood / likelihood.sum(), ids)

    def simulate(self, config: SyntheticConfig) -> Clicks:
        """All sessions at once, click by click, in order of their start."""
        random = np.random.default_rng([config.seed, 1])
        lengths = 1 + random.geometric(1 / (config.mean_length - 1), config.sessions)
        lengths = np.minimum(lengths, MAX_CLICKS)
        sessions = np.zeros((config.sessions, int(lengths.max())), np.int64)
        sessions[:, 0] = random.choice(len(self.ids), config.sessions, p=self.popularity)
        draw = GroupDraw(self.popularity, self.group)
        for click in range(1, sessions.shape[1]):
            active = np.flatnonzero(lengths > click)
            sessions[active, click] = self._next_clicks(sessions[active, :click], draw, random)
        starts = START_MS + np.sort(random.random(config.sessions)) * config.days * DAY_MS
        pauses = MEDIAN_PAUSE_MS * random.lognormal(0, 1, sessions.shape)
        pauses[:, 0] = 0
        times = (starts[:, None] + np.cumsum(pauses, axis=1)).astype(np.int64)
        real = np.arange(sessions.shape[1]) < lengths[:, None]
        return Clicks(sessions[real], lengths, times[real])

    def _next_clicks(self, histories: IntArray, draw: "GroupDraw", random: np.random.Generator) -> IntArray:
        """One draw from the mixture for each of the histories [B, n], all of the same length: int64 [B]."""
        count, n = histories.shape
        last, previous = histories[:, -1], histories[:, max(n - 2, 0)]
        rank = random.choice(len(self.likelihood), count, p=self.likelihood)
        choices = [
            self.successors[last, rank],
            self.successors[previous, rank],
            histories[np.arange(count), random.integers(n, size=count)],
            draw(self.group[last], random.random((count,))),
            random.choice(len(self.ids), count, p=self.popularity),
        ]
        component = random.choice(5, count, p=[SUCCESSOR, EARLIER, REPEAT, GROUP, ANY])
        return np.asarray(np.choose(component, choices))

    def next_probabilities(self, histories: Sequence[IntArray]) -> FloatArray:
        """P(next click | all clicks so far) of every item: float64 [B, V]. Histories are not empty."""
        last = np.array([history[-1] for history in histories])
        previous = np.array([history[max(len(history) - 2, 0)] for history in histories])
        same_group = self.group == self.group[last][:, None]
        probabilities: FloatArray = same_group * (GROUP * self.popularity)
        probabilities /= probabilities.sum(axis=1, keepdims=True) / GROUP
        probabilities += ANY * self.popularity
        row = np.arange(len(histories))[:, None]
        np.add.at(probabilities, (row, self.successors[last]), SUCCESSOR * self.likelihood)
        np.add.at(probabilities, (row, self.successors[previous]), EARLIER * self.likelihood)
        for index, history in enumerate(histories):
            np.add.at(probabilities[index], history, REPEAT / len(history))
        return probabilities

    def best_recall(self, sessions: Iterable[IntArray], k: int) -> float:
        """Expected Recall@k of the best possible recommender over every prefix of `sessions`."""
        prefixes = [session[:end] for session in sessions for end in range(1, len(session))]
        size = max(1, CELLS_PER_BLOCK // len(self.ids))
        masses = [self._best_mass(prefixes[start : start + size], k) for start in range(0, len(prefixes), size)]
        return float(np.concatenate(masses).mean())

    def _best_mass(self, histories: Sequence[IntArray], k: int) -> FloatArray:
        probabilities = self.next_probabilities(histories)
        best = np.partition(probabilities, -k, axis=1)[:, -k:] if k < len(self.ids) else probabilities
        mass: FloatArray = best.sum(axis=1)
        return mass


class GroupDraw:
    """Draws items by popularity within a group, many at once."""

    def __init__(self, popularity: FloatArray, group: IntArray) -> None:
        self._order = np.argsort(group, kind="stable")
        cumulative = np.cumsum(popularity[self._order])
        ends = np.cumsum(np.bincount(group))
        self._cumulative = cumulative
        self._upper = cumulative[ends - 1]
        self._lower = np.concatenate([np.zeros(1), self._upper[:-1]])
        self._first, self._last = np.concatenate([np.zeros(1, np.int64), ends[:-1]]), ends - 1

    def __call__(self, groups: IntArray, uniform: FloatArray) -> IntArray:
        """One item for each group number, from numbers uniform in [0, 1): int64 [B]."""
        lower, upper = self._lower[groups], self._upper[groups]
        place = np.searchsorted(self._cumulative, lower + uniform * (upper - lower), side="right")
        clipped = np.clip(place, self._first[groups], self._last[groups])
        return np.asarray(self._order[clipped])


def read(engine: Backend, inputs: Sequence[Path], recipe: Recipe) -> Table:
    """Simulated clicks in canonical form. Raises ConfigError where there are inputs: it reads none."""
    if inputs:
        raise ConfigError(
            f"recipe '{recipe.name}' simulates its clicks and reads no input, found {inputs[0]}: "
            "leave --input out, or use --config default for a log of your own"
        )
    process = ClickProcess.build(recipe.synthetic)
    engine.con.register("simulated", as_table(process, process.simulate(recipe.synthetic)))
    return engine.table("simulated")


def as_table(process: ClickProcess, clicks: Clicks) -> pa.Table:
    """Canonical columns of simulated clicks."""
    session = np.repeat(np.arange(len(clicks.lengths)), clicks.lengths)
    width = len(str(len(clicks.lengths)))
    names = np.array([f"session-{index:0{width}d}" for index in range(len(clicks.lengths))])
    return pa.table(
        {
            "session": pa.array(names[session]),
            "item": pa.array(np.array(process.ids)[clicks.items]),
            "time": clicks.times,
            "bad_time": pa.nulls(len(session), pa.string()),
            "part": np.zeros(len(session), np.int32),
            "position": np.arange(len(session)),
        }
    )
