"""Batches of new data: each blob belongs to one batch of a subscription, and each batch is acted upon once.

The record of a batch lists what it may have; then each blob is claimed for it by a conditional create. What
a batch has is what of its list was claimed for it: settled for ever, and the same for whoever asks, so
anybody may finish what somebody else began. The act comes before the record that it was done, so it may be
begun twice after a kill: it is given the batch's id, by which the second is known as the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mltrack_tasks import canonical, provenance
from mltrack_tasks.arrivals.keys import batch_key, claim_key, done_key
from mltrack_tasks.digest import is_digest, sha256_hex
from mltrack_tasks.errors import ArchivedError, FormatError, IntegrityError, MLTrackError, NotFoundError
from mltrack_tasks.fields import Fields
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import create_record, ensure, read_record
from mltrack_tasks.refs import is_ref_text, parse_ref
from mltrack_tasks.stores.base import Store


@dataclass(frozen=True)
class Batch:
    """New data that is acted upon together: texts of refs. ``id`` is the same whenever it is tried again."""

    id: str
    subscription: str
    refs: tuple[str, ...]


Act = Callable[[Batch], str | None]
"""What is done with a batch -> what it began, such as the id of a flow run. Called again with an equal batch
after a kill, it must begin nothing new."""


UNREADABLE = (IntegrityError, FormatError, NotFoundError, ArchivedError)
"""What is wrong with one record alone, and stops the work on no other."""


@dataclass(frozen=True)
class Sorted:
    """Refs that no batch has yet, the batches that have others, and refs whose claim cannot be read: why."""

    new: list[str] = field(default_factory=list)
    claimed: dict[str, list[str]] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)


def batches_of(store: Store, subscription: str, refs: Iterable[str]) -> Sorted:
    """Sort refs by the batch that has them."""

    def look(ref: str) -> str | MLTrackError | None:
        try:
            return _claim_of(store, subscription, ref)
        except UNREADABLE as error:
            return error

    wanted, found = sorted(set(refs)), Sorted()
    for ref, batch in zip(wanted, map_ordered(look, wanted, store.max_workers), strict=True):
        if batch is None:
            found.new.append(ref)
        elif isinstance(batch, MLTrackError):
            found.bad[ref] = str(batch)
        else:
            found.claimed.setdefault(batch, []).append(ref)
    return found


def begin_batch(store: Store, subscription: str, refs: Sequence[str]) -> str:
    """Write down a batch that may have ``refs`` -> its id. The same refs again are the same batch."""
    content = {"subscription": subscription, "refs": sorted(refs)}
    batch = sha256_hex(canonical.dumps(content))
    create_record(store, batch_key(subscription, batch), content, what=f"The batch {batch[:12]}")
    return batch


@dataclass(frozen=True)
class Settled:
    """What a batch has, and which ``others`` have the rest of its list. Nothing of either if it is done."""

    refs: tuple[str, ...] = ()
    others: Mapping[str, list[str]] = field(default_factory=dict)
    done: bool = False


def settle_batch(store: Store, subscription: str, batch: str) -> Settled:
    """Claim what a batch may have -> what it has.

    A batch among the ``others`` may belong to somebody who died: whoever deletes the messages about them
    finishes those too. Raises one of UNREADABLE for a batch that is not there, or not what its name says.
    """
    if store.head(done_key(subscription, batch)) is not None:
        return Settled(done=True)
    refs = _listed(store, subscription, batch)
    owners = map_ordered(lambda ref: _claim(store, subscription, ref, batch), refs, store.max_workers)
    have: dict[str, list[str]] = {}
    for ref, owner in zip(refs, owners, strict=True):
        have.setdefault(owner, []).append(ref)
    return Settled(tuple(have.pop(batch, ())), have)


def finish_batch(store: Store, subscription: str, batch: str, refs: tuple[str, ...], act: Act) -> str | None:
    """Act upon what a batch has, and write down that it is done -> what was begun."""
    begun = act(Batch(batch, subscription, refs)) if refs else None
    done = Record({"batch": batch, "begun": begun}, provenance.current())
    ensure(store, done_key(subscription, batch), done.to_bytes())
    return begun


def _claim_of(store: Store, subscription: str, ref: str) -> str | None:
    key = _key_of(subscription, ref)
    try:
        found = read_record(store, key)
    except NotFoundError:
        return None
    batch = Fields(found.content, key).text("batch")
    if not is_digest(batch):
        raise IntegrityError(f"{key} in {store.location} names no batch: {batch!r:.80}.")
    return batch


def _claim(store: Store, subscription: str, ref: str, batch: str) -> str:
    """Claim a blob for a batch -> the batch that has it, which may be an earlier one."""
    claim = Record({"batch": batch}, provenance.current()).to_bytes()
    if ensure(store, _key_of(subscription, ref), claim):
        return batch
    return _claim_of(store, subscription, ref) or batch


def _key_of(subscription: str, ref: str) -> str:
    digest, format = parse_ref(ref)
    return claim_key(subscription, digest, str(format))


def _listed(store: Store, subscription: str, batch: str) -> list[str]:
    key = batch_key(subscription, batch)
    content = read_record(store, key).content
    refs = Fields(content, key).texts("refs") or ()
    if sha256_hex(canonical.dumps(content)) != batch or not all(map(is_ref_text, refs)):
        raise IntegrityError(f"{key} in {store.location} is not what its name says; restore it from a copy.")
    return list(refs)
