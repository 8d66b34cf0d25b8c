"""What an operator may set: environment variables ``SRGNN_...``, which flags of ``srgnn serve`` override.

No setting changes what the model sees of a session: those rules belong to the artifact.
"""

import ipaddress
import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.asyncio.connection import parse_url

from srgnn.errors import ConfigError

from .sessions.store import REMEMBERED_CLICKS

PREFIX = "SRGNN_"


class Settings(BaseSettings):
    """Every setting with its default, bounds and meaning; made by :func:`load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    artifact: Path = Field(Path("artifacts"), description="The artifact to serve, or the folder that holds LATEST.")
    redis_url: SecretStr | None = Field(
        None,
        description="redis://, rediss:// or unix:// URL of the session store. Without one, sessions live in "
        "this process and end with it.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that answer on the one port, each within the limits below; several need redis_url.",
    )

    keys_file: Path | None = Field(
        None,
        description="File of API keys, made by `srgnn keys` and read again when it changes. Without one nobody needs a "
        "key, and the service listens on loopback only.",
    )
    key_rate: float = Field(
        0, ge=0, le=1_000_000, description="Requests a second that each key may send to each worker; 0 is no limit."
    )
    max_connections: int = Field(
        900, ge=1, le=1_000_000, description="Open connections of each worker; past that, new ones get a 503."
    )
    transfer_seconds: int = Field(
        10, ge=1, le=3600, description="Longest a client may take to send a request, or to take its answer."
    )

    max_clicks: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Clicks kept of a session, the last ones; at least the model's max_length.",
    )
    idle_seconds: int = Field(
        1800, ge=1, le=31_536_000, description="A session is gone this long after its last click."
    )
    clicks_per_second: int = Field(
        50,
        ge=0,
        le=REMEMBERED_CLICKS,
        description="Most clicks of one session within a second, 0 for any; past that they are refused and not stored.",
    )
    clicks_per_session: int = Field(
        10_000, ge=0, description="Most clicks of one session, 0 for any; past that they are refused until it expires."
    )
    click_stream_length: int = Field(
        1_000_000,
        ge=0,
        le=1_000_000_000,
        description="Clicks kept in Redis for srgnn export-clicks, about; past that the oldest go. 0 keeps none.",
    )
    max_memory_sessions: int = Field(
        100_000,
        ge=1,
        description="Sessions kept in this process, without redis_url; past that the one idle longest goes.",
    )
    store_timeout_ms: int = Field(
        40,
        ge=1,
        le=10_000,
        description="Longest a request waits for Redis, connecting included; then it is answered without.",
    )
    store_queue: int = Field(
        4096,
        ge=1,
        le=1_000_000,
        description="Calls that may wait for Redis, over one connection; past that, requests are answered without.",
    )

    k: int = Field(20, ge=1, description="Items recommended where a request does not say how many.")
    max_k: int = Field(100, ge=1, le=10_000, description="Most items a request may ask for.")
    max_histories: int = Field(256, ge=1, description="Most histories in one POST /recommendations.")
    max_history_length: int = Field(1000, ge=1, description="Most clicks in a history of POST /recommendations.")
    max_exclude: int = Field(1000, ge=0, description="Most item ids in a request's exclude.")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Largest request body; a larger one is refused unread.")

    max_under_way: int = Field(
        32,
        ge=1,
        le=100_000,
        description="Requests worked on at a time; past that, and the burst, they are refused at once with 503 and "
        "Retry-After.",
    )
    burst: int = Field(
        256,
        ge=0,
        le=100_000,
        description="Requests that are taken beyond it when many come at once; every other answer makes room for one "
        "again.",
    )
    queue_size: int = Field(
        1024,
        ge=1,
        description="Histories that may wait for the model; past that, requests get the fallback at once.",
    )
    max_batch: int = Field(128, ge=1, description="Histories of waiting requests that go through the model together.")
    deadline_ms: int = Field(
        200, ge=1, le=60_000, description="Longest a click waits for the model; then it gets the fallback."
    )
    bulk_deadline_ms: int = Field(5000, ge=1, le=600_000, description="The same for POST /recommendations.")
    torch_threads: int = Field(1, ge=1, le=1024, description="Threads of one forward pass.")

    watch_seconds: int = Field(
        5, ge=0, le=86_400, description="How often LATEST is looked at for a new model to swap to; 0 never."
    )
    hang_seconds: int = Field(
        30,
        ge=0,
        le=3600,
        description="A worker, of several, that stands still for so long is killed and replaced; 0 never.",
    )
    drain_seconds: int = Field(
        0,
        ge=0,
        le=3600,
        description="How long a stop still answers new requests while /readyz says 503, for balancers to notice.",
    )
    shutdown_seconds: int = Field(10, ge=1, le=3600, description="Longest a stop waits for requests under way.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log lines written; debug adds one for every request."
    )

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            parse_url(url.get_secret_value())
        return url

    @model_validator(mode="after")
    def _agree(self) -> "Settings":
        if self.k > self.max_k:
            raise ValueError(
                f"{PREFIX}K is {self.k}, above {PREFIX}MAX_K, which is {self.max_k}: lower one or raise the other"
            )
        if self.max_histories > self.queue_size:
            raise ValueError(
                f"{PREFIX}MAX_HISTORIES is {self.max_histories}, above {PREFIX}QUEUE_SIZE, which is "
                f"{self.queue_size}: such a request could never be taken; lower one or raise the other"
            )
        if self.keys_file is None and not is_loopback(self.host):
            raise ValueError(
                f"{PREFIX}HOST is {self.host!r}, which others may reach, but {PREFIX}KEYS_FILE is not set: anybody "
                "could read and write sessions. Make a key with: srgnn keys --file FILE --name NAME --scope click "
                f"--scope read, and set {PREFIX}KEYS_FILE=FILE; or listen on this machine only: --host 127.0.0.1"
            )
        if self.workers > 1 and self.redis_url is None:
            raise ValueError(
                f"{PREFIX}WORKERS is {self.workers}, but {PREFIX}REDIS_URL is not set: each worker would keep sessions "
                "of its own, and see only its share of their clicks; give --redis-url, or leave it at one worker"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment; ``overrides`` that are not None win over it. Raises ConfigError."""
    _refuse_unknown(os.environ)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        messages = (_message(details) for details in error.errors(include_url=False))
        raise ConfigError("; ".join(messages)) from None


def _refuse_unknown(names: Iterable[str]) -> None:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in names:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            close = get_close_matches(name.upper(), known, n=1)
            hint = f"did you mean {close[0]}?" if close else _KUBERNETES
            raise ConfigError(f"unknown setting {name} in the environment: {hint}")


_KUBERNETES = (
    "unset it, or see the table of settings in the README (Kubernetes adds such variables for a Service "
    "named srgnn: set enableServiceLinks: false)"
)


def _message(details: ErrorDetails) -> str:
    if not details["loc"]:
        return str(details["ctx"]["error"])
    field = str(details["loc"][0])
    value = "" if field == "redis_url" else f" is {details['input']!r}"
    meaning = Settings.model_fields[field].description
    return f"setting {PREFIX}{field.upper()}{value}: {details['msg']}. {meaning}"
