"""Which artifact is served, which was before it, and which one a swap shall bring.

Needs no torch: the parent of several workers decides here for all of them.
"""

import logging
from pathlib import Path
from typing import Literal, NamedTuple, Self

from srgnn.directory import artifact_named, holds_artifact, resolve
from srgnn.errors import SRGNNError

from .settings import PREFIX

logger = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """What a swap shall bring: an artifact by its name, the one before, or else what the setting names now."""

    artifact: str | None = None
    rollback: bool = False


class Outcome(NamedTuple):
    """What became of a swap. Names of artifacts; where ``refused`` says why there was none, both are the old one."""

    old: str
    new: str
    refused: str | None = None
    conflict: bool = False
    """Refused for what goes on here, not for what the artifact is."""

    @classmethod
    def of_error(cls, old: str, error: SRGNNError) -> Self:
        """``old`` stays, for what is wrong."""
        return cls(old, old, str(error), conflict=isinstance(error, SwapConflict))

    @property
    def result(self) -> Literal["swapped", "refused", "unchanged"]:
        """In one word."""
        if self.refused:
            return "refused"
        return "unchanged" if self.new == self.old else "swapped"

    def log(self) -> None:
        """Tell the operator."""
        if self.refused:
            fields = {"model": self.old, "cause": self.refused}
            logger.error("the model was not swapped, the old one goes on", extra={"fields": fields})
        elif self.new == self.old:
            logger.info("the model wanted is served already", extra={"fields": {"model": self.new}})
        else:
            logger.info("model swapped", extra={"fields": {"old": self.old, "new": self.new}})


class SwapRefused(SRGNNError):
    """A model cannot take the place of the one that answers."""


class SwapConflict(SwapRefused):
    """Not now, or not here: the artifact is not at fault."""


BUSY = "another swap is under way: try again when it has ended"
STOPPING = "the service is about to stop"


class Versions:
    """The artifact of the setting, the one that is served, and the one before."""

    def __init__(self, configured: Path) -> None:
        """Raises ArtifactError where ``configured``, an artifact or the folder that holds LATEST, names none."""
        self._configured = configured
        self._seen = self._latest()  # read first: a change while the model loads is still one afterwards
        self.current = resolve(configured)
        self.previous: Path | None = None

    def choose(self, wanted: Wanted) -> Path:
        """The artifact that is wanted; only its loading says whether it is good. Raises ArtifactError, SwapRefused."""
        try:
            return self._choose(wanted)
        except OSError as error:
            raise SwapRefused(f"{self._configured} cannot be read: {error}") from error

    def _choose(self, wanted: Wanted) -> Path:
        if wanted.rollback:
            if self.previous is None:
                raise SwapConflict("there is no model before this one: none was swapped since the start")
            return self.previous
        if wanted.artifact is None:
            return resolve(self._configured)
        if holds_artifact(self._configured):
            raise SwapConflict(
                f"{PREFIX}ARTIFACT names one artifact, {self._configured.name!r}: start the service with the folder "
                "that holds LATEST to swap by name"
            )
        return artifact_named(self._configured, wanted.artifact)

    def moved_to(self, path: Path) -> None:
        """``path`` is what is served from now on."""
        self.current, self.previous = path, self.current

    def latest_changed(self) -> bool:
        """Whether LATEST says something else than when this was last asked: a rollback is left alone until then."""
        now = self._latest()
        changed = now is not None and now != self._seen
        if changed:
            self._seen = now
        return changed

    def _latest(self) -> str | None:
        try:
            return (self._configured / "LATEST").read_text(encoding="utf-8", errors="replace")
        except OSError:  # an artifact has none
            return None
