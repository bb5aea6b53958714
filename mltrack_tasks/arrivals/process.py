"""Reading a queue of messages about new records, and acting upon what they name, each blob once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from mltrack_tasks import events, layout
from mltrack_tasks.arrivals.batches import (
    UNREADABLE,
    Act,
    batches_of,
    begin_batch,
    finish_batch,
    settle_batch,
)
from mltrack_tasks.arrivals.holding import Held
from mltrack_tasks.arrivals.notices import Said, news_in, read_message
from mltrack_tasks.arrivals.report import ArrivalReport, Tally
from mltrack_tasks.content import named_in
from mltrack_tasks.errors import IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.manifests import read_manifest
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.identity import s3_of
from mltrack_tasks.stores.queues import MAX_VISIBILITY, Message, Queue

GROUP = 100
"""Messages that are worked on together."""
MAX_BATCH = 5_000
"""Refs of one batch: as a parameter of a flow run they take 80 bytes each, and Prefect takes 512 KiB."""
MAX_WAIT = 20
"""[s] that SQS waits for messages at most."""
_OTHER_NAMES = ("-s3alias", "--ol-s3")
"""Aliases of access points end so; messages name the bucket behind one."""


def process_new_data(
    store: Store,
    queue: str,
    act: Act,
    *,
    subscription: str | None = None,
    own_deployment: str | None = None,
    batch_size: int = 500,
    max_messages: int = 10_000,
    visibility_s: int = 300,
    wait_s: int = 1,
    observe: Observe = log_event,
) -> ArrivalReport:
    """Read messages about new records of a store, and ``act`` upon the data that they name -> what was done.

    ``queue`` is the name, ARN or URL of an SQS queue to which the bucket's notifications go
    (``provision_bucket``), and which nobody else reads. Each blob that a new record names is in one batch of
    up to ``batch_size``, whatever other messages and records name it, and ``act`` is called for a batch once;
    after a kill in the middle perhaps again with the same batch, and the same ``id``. Who acted upon what is
    kept in the store, for each ``subscription`` anew; without a name it is ``events``.

    What runs of the deployment of the id ``own_deployment`` stored starts nothing, or work that stores its
    results here would start itself without end. Records tell which deployment wrote them; those of its
    subflows do not.

    Messages stay hidden for ``visibility_s`` [s], renewed while the work goes on, and are deleted when it is
    done; if it fails, they come again. Those that cannot be understood, and those about records that cannot
    be read, go to the queue's dead letters. Ends when no message comes for ``wait_s`` [s], or after
    ``max_messages``.

    Raises InvalidInputError for a store that is in no bucket and a queue without a place for dead letters,
    AccessError for a queue that is not there or not ours to read, TransientError, and what ``act`` raises.
    """
    bare = s3_of(store)
    if bare is None:
        raise InvalidInputError(f"{store.location} is not in a bucket: nobody sends messages about it.")
    bucket = bare.settings.bucket
    if bucket.endswith(_OTHER_NAMES) or bucket.startswith("arn:"):
        raise InvalidInputError(
            f"{store.location} is named by an access point, and messages name the bucket behind it, so that "
            "all would seem foreign. Open the store by its bucket's name."
        )
    subscription = "events" if subscription is None else subscription
    layout.encode_segment(subscription, what="The subscription")
    _require(batch_size, "batch_size", 1, MAX_BATCH)
    _require(max_messages, "max_messages", 1, 10**9)
    _require(visibility_s, "visibility_s", 1, MAX_VISIBILITY)
    _require(wait_s, "wait_s", 0, MAX_WAIT)
    root = f"{bare.settings.prefix}/" if bare.settings.prefix else ""
    reader = _Reader(store.uncached(), bucket, root, subscription, batch_size, act, Tally())
    reader.own_deployment = own_deployment
    opened = Queue(bare, queue)
    for group in _groups(opened, max_messages, visibility_s, wait_s):
        with Held(opened, group, visibility_s):
            buried = reader.read(group)
            # What is done goes first: a message that the other queue does not take must not bring it back.
            opened.delete([each for each in group if each not in buried])
            for message, reason in buried.items():
                opened.bury(message, reason)
                observe(Event(events.MESSAGE_BURIED, opened.name, {"id": message.id, "reason": reason}))
    return reader.tally.report(opened.name, subscription)


def _groups(queue: Queue, limit: int, visibility_s: int, wait_s: int) -> Iterator[list[Message]]:
    """Receive messages until none comes, in groups; one that is received twice counts twice."""
    left = limit
    while left > 0:
        group: list[Message] = []
        while len(group) < min(GROUP, left):
            # What is held already waits for no more: only an empty group does.
            wait = 0 if group else wait_s
            came = queue.receive(min(GROUP, left) - len(group), visibility_s=visibility_s, wait_s=wait)
            if not came:
                break
            group += came
        if not group:
            return
        left -= len(group)
        yield group


class _Reader:
    """Reads groups of messages for one subscription."""

    def __init__(
        self, store: Store, bucket: str, root: str, subscription: str, size: int, act: Act, tally: Tally
    ) -> None:
        self._store, self._bucket, self._root = store, bucket, root
        self._subscription, self._size, self._act, self.tally = subscription, size, act, tally
        self.own_deployment: str | None = None

    def read(self, group: Sequence[Message]) -> dict[Message, str]:
        """Act upon what a group of messages names -> those that name what cannot be read, and why."""
        buried: dict[Message, str] = {}
        names: dict[tuple[str, ...], list[Message]] = {}
        for message in group:
            self.tally.messages += 1
            try:
                said = read_message(message.body)
            except IntegrityError as error:
                buried[message] = str(error)
                continue
            for name in self._news(said):
                names.setdefault(name, []).append(message)
        refs: dict[str, list[Message]] = {}
        read = map_ordered(partial(_read_one, self._store), names, self._store.max_workers)
        for (name, messages), found in zip(names.items(), read, strict=True):
            if isinstance(found, str):
                buried |= dict.fromkeys(messages, f"{name[0]}: {found}")
            elif found is None:
                self.tally.gone += 1
            elif self.own_deployment and found.writer == self.own_deployment:
                self.tally.own += 1
            else:
                self.tally.records += 1
                for ref in found.refs:
                    refs.setdefault(ref, []).extend(messages)
        for ref, reason in self._act_upon(refs).items():
            buried |= dict.fromkeys(refs[ref], f"{ref}: {reason}")
        for reason in buried.values():
            self.tally.bury(reason)
        return buried

    def _news(self, said: Said) -> Iterator[tuple[str, ...]]:
        self.tally.tests += said.test
        self.tally.foreign += said.others
        for notice in said.notices:
            if names := news_in(notice, self._bucket, self._root):
                yield names
            else:
                self.tally.foreign += 1

    def _act_upon(self, refs: Collection[str]) -> dict[str, str]:
        """Finish the batches that have ``refs`` -> those whose batch cannot be known or read, and why."""
        store, subscription = self._store, self._subscription
        found = batches_of(store, subscription, refs)
        new, bad, acted = found.new, found.bad, set[str]()
        parts = [new[start : start + self._size] for start in range(0, len(new), self._size)]
        todo = [*found.claimed.items(), *((begin_batch(store, subscription, part), part) for part in parts)]
        seen: dict[str, str | None] = {}
        while todo:
            batch, wanted = todo.pop(0)
            if batch not in seen:
                try:
                    settled, seen[batch] = settle_batch(store, subscription, batch), None
                except UNREADABLE as error:
                    seen[batch] = f"its batch {batch[:12]}: {error}"
                else:
                    todo += sorted(settled.others.items())
                    if not settled.done:
                        begun = finish_batch(store, subscription, batch, settled.refs, self._act)
                        self.tally.act(len(settled.refs), begun)
                        acted.update(settled.refs)
            if reason := seen[batch]:
                bad |= {ref: reason for ref in wanted if ref in refs}
        self.tally.known += len(set(refs) - acted - bad.keys())
        return bad


class _Record(NamedTuple):
    """What a record names (texts of refs), and the id of the deployment whose run wrote it."""

    refs: set[str]
    writer: str | None


def _read_one(store: Store, names: tuple[str, ...]) -> _Record | str | None:
    """Read a record that is under one of two keys."""
    return next((found for found in map(partial(_read, store), names) if found is not None), None)


def _read(store: Store, key: str) -> _Record | str | None:
    """Read a record; None if it is gone, and why if it cannot be read."""
    manifest = layout.parse_manifest_key(key)
    try:
        if manifest:
            run = read_manifest(store, *manifest)
            return _Record({str(ref) for ref in run.all_refs}, run.provenance.get("deployment_id"))
        record = read_record(store, key)
        ref = named_in(store, key, record).ref
        return _Record({str(ref)}, record.provenance.get("deployment_id"))
    except NotFoundError:
        return None
    except UNREADABLE as error:
        return str(error)


def _require(value: object, what: str, lowest: int, highest: int) -> None:
    if type(value) is not int or not lowest <= value <= highest:
        raise InvalidInputError(f"{what} is {value!r}; give a whole number from {lowest} to {highest:,}.")
