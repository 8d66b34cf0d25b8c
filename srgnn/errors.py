"""Every error this project raises on purpose.

SRGNNError
├── ConfigError        a setting is unknown, of the wrong type or out of range
├── DataError          a click log, a prepared corpus or a result cannot be used
├── ArtifactError      an artifact is damaged, incomplete or of another version
├── InputError         a value in a request is out of bounds (k, item id, history)
├── EngineError        the thread that finds a service's answers is gone; another way gives the same ones
└── StoreUnavailable   the session store did not answer in time
    └── StoreMisconfigured   it answered, but not to us: a wrong password, or no Redis at all

A message says what was found, where, what was expected and what to do next.
"""


class SRGNNError(Exception):
    """Base of all errors below; its message is written for the user."""


class ConfigError(SRGNNError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(SRGNNError):
    """A click log, a prepared corpus or a result cannot be used."""


class ArtifactError(SRGNNError):
    """An artifact is damaged, incomplete or of another version."""


class InputError(SRGNNError):
    """A value in a request is out of bounds."""


class EngineError(SRGNNError):
    """The thread that finds a service's answers is gone."""


class StoreUnavailable(SRGNNError):
    """The session store did not answer in time."""


class StoreMisconfigured(StoreUnavailable):
    """What is at the store's address refuses us or is no Redis, which only its operator can mend."""
