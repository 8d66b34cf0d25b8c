"""API keys: who may do what, in a text file that holds no key.

One key a line, ``NAME SCOPE[,SCOPE...] SHA256``; a line that begins with ``#`` is a comment. A key is 32 random bytes.
There is nothing to guess, so a plain SHA-256 keeps it as well as a slow hash would: those are for what people choose.
"""

import asyncio
import logging
import os
import re
import secrets
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from srgnn.errors import ConfigError, InputError

from .bucket import Bucket

logger = logging.getLogger(__name__)

Scope = Literal["read", "click", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""``read`` recommends and looks, ``click`` writes and deletes sessions, ``admin`` may do everything."""

LOOK_SECONDS = 1.0
"""How often the file is looked at: a revoked key works no longer than this."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Entry(NamedTuple):
    """One line of the file."""

    name: str
    scopes: tuple[str, ...]
    digest: str


class Grant(NamedTuple):
    """What one key may do."""

    scopes: frozenset[str]
    bucket: Bucket


class Keys:
    """The keys of a file, which is read again when it changes; ``rate`` is what each may ask for in a second."""

    def __init__(self, path: Path, rate: float = 0.0) -> None:
        """Raises ConfigError where the file cannot be used."""
        self._path = path
        self._rate = rate
        self._grants: dict[str, Grant] = {}
        self._content = read(path)
        self._grants = self._granted(self._content)
        self._fault = ""

    def find(self, key: bytes) -> Grant | None:
        """What ``key`` may do, or None where nobody knows it.

        Digests are looked up, not compared one by one: how long that takes depends on the digest of what was sent,
        whose bytes nobody can choose, and so says nothing about a key that exists.
        """
        return self._grants.get(sha256(key).hexdigest())

    async def follow(self) -> None:
        """Look at the file for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.refresh()

    def refresh(self) -> None:
        """Take over what changed. A file that cannot be used changes nothing, and that is logged once."""
        try:
            content = read(self._path)
            if content != self._content:
                self._grants, self._content = self._granted(content), content
                logger.info("keys were read again", extra={"fields": {"keys": len(self._grants)}})
            self._fault = ""
        except ConfigError as error:
            if str(error) != self._fault:
                logger.error("the keys stay as they were", extra={"fields": {"cause": str(error)}})
            self._fault = str(error)

    def _granted(self, content: str) -> dict[str, Grant]:
        """By digest; a key that was known keeps its bucket."""
        granted = {}
        for _, scopes, digest in parse(content, self._path):
            known = self._grants.get(digest)
            allowed = frozenset(SCOPES if "admin" in scopes else scopes)
            granted[digest] = Grant(allowed, known.bucket if known else Bucket(self._rate))
        return granted


def read(path: Path) -> str:
    """The content of a file of keys. Raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"cannot read the keys in {path}: {cause}; make it with: srgnn keys --file FILE --name NAME --scope SCOPE"
        ) from None


def parse(content: str, path: Path) -> list[Entry]:
    """The keys in the content of a file. Raises ConfigError, which shows nothing of a line: it may hold a key."""
    entries: list[Entry] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if problem := _problem(line.split(), entries):
            raise ConfigError(
                f"{path}, line {number}: {problem}; expected NAME SCOPE[,SCOPE...] SHA256, as `srgnn keys` writes it"
            )
        name, scopes, digest = line.split()
        entries.append(Entry(name, tuple(scopes.split(",")), digest))
    return entries


def _problem(words: list[str], before: Collection[Entry]) -> str:
    """What is wrong with a line; empty where nothing is."""
    if len(words) != 3:
        return f"{len(words)} words instead of 3"
    name, scopes, digest = words
    if not _NAME.fullmatch(name):
        return "the name is not of 1 to 64 letters, digits and ._-"
    if not set(scopes.split(",")) <= set(SCOPES):
        return f"a scope is none of {', '.join(SCOPES)}"
    if not _DIGEST.fullmatch(digest):
        return "the third word is no SHA-256 in 64 lower case hexadecimal digits"
    if any(name == entry.name or digest == entry.digest for entry in before):
        return "the name or the key is there twice"
    return ""


def make(path: Path, name: str, scopes: Collection[str]) -> str:
    """Add a key to the file, made readable for its owner alone if it is not there, and return it: it is kept nowhere.

    Raises InputError or ConfigError.
    """
    content = read(path) if path.exists() else ""
    key = "srgnn_" + secrets.token_urlsafe(32)  # the prefix is for scanners that look for leaked keys
    words = [name, ",".join(scopes), sha256(key.encode()).hexdigest()]
    if problem := _problem(words, parse(content, path)):
        raise InputError(f"no key {name!r} can be made in {path}: {problem}")
    line = ("" if content.endswith("\n") or not content else "\n") + " ".join(words) + "\n"
    try:
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return key


def revoke(path: Path, name: str) -> None:
    """Take a key out of the file. Raises InputError or ConfigError.

    In its place, so that owner and mode stay and a container that has the very file mounted sees it. Whoever reads
    half of that finds a damaged file, and looks again.
    """
    content = read(path)
    names = [entry.name for entry in parse(content, path)]
    if name not in names:
        raise InputError(f"no key {name!r} in {path}: it holds {', '.join(names) or 'none'}")
    kept = [line for line in content.splitlines(keepends=True) if line.split()[:1] != [name]]
    try:
        with path.open("r+", encoding="utf-8") as file:
            file.write("".join(kept))
            file.truncate()
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write {path}: {error.strerror}; it must be in a folder that exists and be yours")
