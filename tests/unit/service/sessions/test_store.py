from service.sessions.memory import MemorySessionStore
from service.sessions.redis import RedisSessionStore
from service.sessions.store import Session, SessionStore


def test_empty_session_is_what_an_unknown_one_reads_as() -> None:
    assert Session() == Session(items=(), clicks=0)


def test_both_stores_have_every_method_of_the_protocol() -> None:
    names = [name for name in vars(SessionStore) if not name.startswith("_")]
    assert {"append", "remember", "read", "delete", "ping", "aclose"} == set(names)
    for store in (MemorySessionStore, RedisSessionStore):
        for name in names:
            assert callable(getattr(store, name))
