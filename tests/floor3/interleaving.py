"""Several actors on one store, one call at a time, in an order that the test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

from mltrack_tasks.errors import TransientError
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.observed import SteppedStore

T = TypeVar("T")


class KilledError(TransientError):
    """What an actor sees at the step at which it dies, and at all later ones."""


class Turns:
    """Lets actors take one step each time they are picked; an actor is at work, waiting, or done."""

    def __init__(self, names: Sequence[str]) -> None:
        self._stopped: SimpleQueue[str | None] = SimpleQueue()
        self._granted: dict[str, SimpleQueue[None]] = {name: SimpleQueue() for name in names}
        self._waiting: set[str] = set()
        self._working = len(names)
        self.dead: set[str] = set()

    def pick(self, choose: Callable[[list[str]], str]) -> bool:
        """Wait until nobody is at work, then let ``choose`` one of those who wait: False if all are done."""
        for _ in range(self._working):
            if (name := self._stopped.get(timeout=60)) is not None:
                self._waiting.add(name)
        self._working = 0
        if not self._waiting:
            return False
        chosen = choose(sorted(self._waiting))
        self._waiting.discard(chosen)
        self._working = 1
        self._granted[chosen].put(None)
        return True

    def take(self, name: str) -> None:
        self._stopped.put(name)
        self._granted[name].get(timeout=60)

    def leave(self, name: str) -> None:
        self._stopped.put(None)


class TurnStore(SteppedStore):
    """One actor's view of the store: each call waits for its turn."""

    def __init__(self, inner: Store, name: str, turns: Turns) -> None:
        super().__init__(inner)
        self.max_workers = 1  # one call at a time, so that the order is the test's alone
        self._name, self._turns = name, turns

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        self._turns.take(self._name)
        if self._name in self._turns.dead:
            raise KilledError(f"{self._name} died before {verb} of {key}.")
        answer = call()
        if isinstance(answer, Iterator):  # a listing is one moment, not a moment a key
            return iter(list(answer))  # type: ignore[return-value]
        return answer


def play(
    store: Store,
    actors: Mapping[str, Callable[[Store], Any]],
    plan: Sequence[str],
    *,
    killed: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Run actors against the store, one step for each name in ``plan`` -> what each returned or raised.

    A name that is done is passed over; when the plan ends, the first that waits goes on. ``killed`` says at
    which of its steps an actor dies.
    """
    turns, results, steps = Turns(list(actors)), {}, dict.fromkeys(actors, 0)
    left = iter(plan)

    def run(name: str, act: Callable[[Store], Any]) -> None:
        try:
            results[name] = act(TurnStore(store, name, turns))
        except Exception as error:
            results[name] = error
        finally:
            turns.leave(name)

    def choose(waiting: list[str]) -> str:
        name = next((name for name in left if name in waiting), waiting[0])
        steps[name] += 1
        if killed and steps[name] >= killed.get(name, 10**9):
            turns.dead.add(name)
        return name

    threads = [threading.Thread(target=run, args=item) for item in actors.items()]
    for thread in threads:
        thread.start()
    while turns.pick(choose):
        pass
    for thread in threads:
        thread.join(30)
    return results
