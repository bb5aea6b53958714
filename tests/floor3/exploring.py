"""Every order in which actors can take their steps on one store, as far as the orders differ.

What an actor does next follows from what the store has answered it. So two orders that lead to the same store
and to the same answers have the same future, and only the first of them is gone on with. A crash is an actor
that takes no further step, so looking at each state on the way looks at every combination of crashes.

Two things make them few enough to go through all. What an actor was told is forgotten where it does not
matter any more: once it has an answer (``summed_up``), once it does what it was asking for, and once it is
done. And actors that do the same may change places.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import SteppedStore
from tests.floor3.clocked import ClockedStore
from tests.floor3.interleaving import KilledError, Turns

T = TypeVar("T")
Actor = Callable[[Store], Any]
SHARED = ("data/", "runs/by_data/", "gc/deleting/", "gc/unpinned/")
"""Where one actor may change what another sees, beside the records that they write; steps elsewhere are
nobody's business."""
_views: dict[int, _Watched] = {}
"""By thread."""


@dataclass
class Explored:
    """What came out: how many states there were, and what the actors returned or raised at each end."""

    states: int
    orders: int
    ends: list[tuple[dict[str, Any], set[str]]]
    """Results by actor, and the keys that were there then."""


class _Watched(SteppedStore):
    """One actor's view of the store: each shared call waits for its turn, and its answer is remembered."""

    def __init__(self, inner: Store, name: str, turns: Turns, shared: tuple[str, ...]) -> None:
        super().__init__(inner)
        self.max_workers = 1
        self._name, self._turns, self._thread, self._shared = name, turns, threading.get_ident(), shared
        self.history: list[Any] = []
        self._asking: int | None = None
        self.done = False
        self._begun = False
        _views[self._thread] = self

    def ask(self, call: Callable[[], T]) -> T:
        """Forget what was told on the way, once there is an answer."""
        start, before = len(self.history), self._asking
        self._asking = start if before is None else before
        answer = call()
        self._asking = before
        self.history[start:] = [("answer", repr(answer))]
        return answer

    def waited(self) -> None:
        """The actor asks the same again until it hears what it waits for: the last time alone matters."""
        if self._asking is not None:
            self.history[self._asking :] = [("waited",)]

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        # A record that was listed is there for good: a worker thread that reads it takes no turn. What a
        # collector saw before it opens its first batch is the older the worse, so it sees that at once.
        self._begun = self._begun or key.startswith("gc/deleting/") or not self._name.startswith("collector")
        own = threading.get_ident() == self._thread and self._begun
        shared = key.startswith(self._shared) and own and not (verb == "get_range" and "gc/" not in key)
        if shared:
            self._turns.take(self._name)
        if self._name in self._turns.dead:
            raise KilledError(f"{self._name} died before {verb} of {key}.")
        if shared and self._settled(verb, key):
            self.history.clear()
        try:
            answer: Any = call()
        except MLTrackError as error:
            self._remember(shared, verb, key, type(error).__name__)
            raise
        if isinstance(answer, Iterator):  # a listing is one moment, not a moment a key
            answer = list(answer)
            self._remember(shared, verb, key, frozenset((stat.key, stat.modified) for stat in answer))
            return iter(answer)  # type: ignore[return-value]
        said = (answer.key, answer.modified) if isinstance(answer, Stat) else answer
        self._remember(shared, verb, key, None if verb.startswith("get") else str(said))
        return answer  # type: ignore[no-any-return]

    def _settled(self, verb: str, key: str) -> bool:
        """Whether what led to this step decides nothing any more.

        A collector that deletes has made up its mind: of the one blob, everything goes. Before it looks at
        anything else it opens another batch, and then lists all records again, of which none was removed. A
        writer's record is the same whatever it saw.
        """
        if self._name.startswith("collector"):
            return verb == "delete"
        return verb == "create" and key.startswith(self._shared[len(SHARED) :])

    def _remember(self, shared: bool, *step: Any) -> None:
        if shared:
            self.history.append(step)


def waits() -> None:
    """To be called for each pause between two looks of an actor at what it waits for."""
    _views[threading.get_ident()].waited()


def summed_up(call: Callable[..., T]) -> Callable[..., T]:
    """Wrap a function whose answer is all that an actor keeps of what it asks in there."""

    def asked(*args: Any, **options: Any) -> T:
        view = _views.get(threading.get_ident())
        return call(*args, **options) if view is None else view.ask(lambda: call(*args, **options))

    return asked


def explore(
    start: Callable[[], ClockedStore],
    actors: Mapping[str, Actor],
    check: Callable[[Store], None],
    *,
    records: str,
    switches: int | None = None,
    alike: tuple[str, ...] = (),
) -> Explored:
    """Go through all orders of the actors' steps, and ``check`` the store at each state.

    ``records`` is the folder below which the actors write their records. ``switches`` leaves out orders in
    which actors that could have gone on are interrupted more often than that. ``alike`` are two actors that
    do the same: a state in which they have changed places is the same state (not with ``switches``).
    """
    seen: dict[Any, int] = {}
    found = Explored(0, 0, [])
    todo: list[tuple[str, ...]] = [()]
    checked = _once(check)
    while todo:
        prefix = todo.pop()
        found.orders += 1
        todo += _walk(start(), actors, prefix, seen, checked, found, (*SHARED, records), switches, alike)
    found.states = len({state for state, _ in seen})
    return found


def _walk(
    store: ClockedStore,
    actors: Mapping[str, Actor],
    prefix: tuple[str, ...],
    seen: dict[Any, int],
    check: Callable[[ClockedStore, frozenset[Any]], None],
    found: Explored,
    shared: tuple[str, ...],
    switches: int | None,
    alike: tuple[str, ...],
) -> list[tuple[str, ...]]:
    """Take the steps of ``prefix``, then go on until a state that was seen -> the orders not gone yet."""
    turns = Turns(list(actors))
    views: dict[str, _Watched] = {}
    results: dict[str, Any] = {}
    threads = [
        threading.Thread(target=_act, args=(store, name, act, turns, views, results, shared))
        for name, act in actors.items()
    ]
    for thread in threads:
        thread.start()
    taken: list[str] = []
    branches: list[tuple[str, ...]] = []
    interrupted = 0

    def choose(waiting: list[str]) -> str:
        nonlocal interrupted
        at = len(taken)
        last = taken[-1] if taken and taken[-1] in waiting else None
        name = prefix[at] if at < len(prefix) else last or waiting[0]
        if not turns.dead and at >= len(prefix):
            content = _content(store, shared)
            state = _state(content, views, alike)
            turn = None if switches is None else last
            known = seen.get((state, turn), 10**9) <= interrupted
            seen[state, turn] = min(interrupted, seen.get((state, turn), interrupted))
            if known:
                turns.dead.update(actors)
            else:
                check(store, content)
                if switches is None or interrupted + (last is not None) <= switches:
                    branches.extend((*taken, each) for each in waiting if each != name)
        interrupted += switches is not None and last is not None and name != last
        taken.append(name if name in waiting else waiting[0])
        return taken[-1]

    try:
        while turns.pick(choose):
            pass
    finally:
        turns.dead.update(actors)
        while turns.pick(lambda waiting: waiting[0]):
            pass
        for thread in threads:
            thread.join(30)
    if not any(isinstance(result, KilledError) for result in results.values()):
        check(store, _content(store, shared))
        found.ends.append((results, {stat.key for stat in store.list("")}))
    return branches


def _act(
    store: Store,
    name: str,
    act: Actor,
    turns: Turns,
    views: dict[str, _Watched],
    results: dict[str, Any],
    shared: tuple[str, ...],
) -> None:
    threading.current_thread().name = name
    try:
        views[name] = _Watched(store, name, turns, shared)
        results[name] = act(views[name])
    except Exception as error:
        results[name] = error
    finally:
        views[name].done = True
        turns.leave(name)


def _state(content: frozenset[Any], views: Mapping[str, _Watched], alike: tuple[str, ...]) -> int:
    """What the future depends on: 64 bits of it, so a million states are one with a chance of 1 in 10**7."""
    told = {name: None if view.done else tuple(view.history) for name, view in views.items()}
    state = content, frozenset(told.items())
    if not alike:
        return hash(state)
    names = {alike[0]: alike[1], alike[1]: alike[0]}
    return hash(frozenset((state, (_renamed(content, names), _renamed(state[1], names)))))


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Give the actors in what was seen or written each other's names."""
    if isinstance(value, str):
        for name in names:
            value = value.replace(name, f"\0{name}")
        for name, other in names.items():
            value = value.replace(f"\0{name}", other)
        return value
    if isinstance(value, frozenset):
        return frozenset(_renamed(item, names) for item in value)
    if not isinstance(value, tuple):
        return value
    return tuple(_renamed(item, names) for item in value)


def _once(check: Callable[[Store], None]) -> Callable[[ClockedStore, frozenset[Any]], None]:
    """Check each content once, however many states have it: what lies under a key follows from the key."""
    done: set[int] = set()

    def checked(store: ClockedStore, content: frozenset[Any]) -> None:
        if hash(content) not in done:
            done.add(hash(content))
            check(store)

    return checked


def _content(store: ClockedStore, shared: tuple[str, ...]) -> frozenset[Any]:
    keys = (stat.key for stat in store.inner.list(""))
    return frozenset((key, store.times.get(key)) for key in keys if key.startswith(shared))


def copied(store: ClockedStore) -> ClockedStore:
    """Another store with the same content, and the same times."""
    copy = MemoryStore()
    for stat in store.inner.list(""):
        copy.create(stat.key, store.inner.get(stat.key))
    other = ClockedStore(copy)
    other.now, other.times = store.now, dict(store.times)
    return other
