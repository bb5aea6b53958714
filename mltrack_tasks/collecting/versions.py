"""Removing a version of a model: its record, its real files and what was said of it; blobs are left alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from mltrack_tasks import events, modelkeys, provenance
from mltrack_tasks.collecting.batches import ABANDONED
from mltrack_tasks.collecting.clock import Patience, time_at
from mltrack_tasks.collecting.ownership import require_own
from mltrack_tasks.errors import ConflictError, NotFoundError, TransientError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.fields import Fields, checked_text
from mltrack_tasks.models import ModelFile
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import ensure, read_record
from mltrack_tasks.registry.aliases import alias_names, promotions_of
from mltrack_tasks.registry.reading import read_version
from mltrack_tasks.registry.removals import removals_of
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.lastlook import last_look

_ROUNDS = 5
"""How often what writers added meanwhile is looked for."""


@dataclass(frozen=True)
class RemovedVersion:
    """What a removal took away, or with a dry run would.

    ``objects`` and ``size_bytes`` [bytes] are of the records and real files; blobs go with the collector.
    ``aliases`` stand for the version now, which forbids its removal; ``promoted`` stood for it, or may go
    back to it. ``foreign`` objects lie in its folders and were not written by this library: they stay.
    """

    model: str
    version: str
    objects: int
    size_bytes: int
    aliases: tuple[str, ...] = ()
    promoted: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    dry_run: bool = True

    def __str__(self) -> str:
        done = "would go" if self.dry_run else "are gone"
        said = f"{self.version} of {self.model!r}: {self.objects:,} objects, {self.size_bytes:,} bytes {done}"
        if self.aliases:
            said += f"; it is in use as {', '.join(map(repr, self.aliases))}"
        return f"{said}; {', '.join(map(repr, self.promoted))} stood for it" if self.promoted else said


def remove_version(
    store: Store,
    model_name: str,
    version: str,
    *,
    reason: str | None = None,
    though_promoted: bool = False,
    dry_run: bool = True,
    observe: Observe = log_event,
) -> RemovedVersion:
    """Say what removing a version would take away; ``dry_run=False`` removes it -> what that was.

    Its record goes, its files in both folders, and what was said when it was registered again. Its blobs go
    with ``collect_garbage``, as far as nothing else needs them; its id stays that of its bytes, which can be
    registered again. Safe beside those who register and promote: either they see the removal and do their
    work again or take it back, or the removal sees them. One that was stopped is finished by the same call;
    until then, and for an hour at most, the same bytes cannot be registered.

    Raises ConflictError while an alias stands for the version, and if one did, or may be rolled back to it,
    unless ``though_promoted``: then nothing leads back to it any more. NotFoundError if there is no such
    version, IntegrityError or FormatError while the history of an alias cannot be read.
    """
    reason = checked_text(reason, "reason")
    require_own(store)
    work = _Removal(store.uncached(), model_name, modelkeys.check_version(version), though_promoted)
    found = work.look()
    if dry_run:
        return found
    try:
        work.require_unused(found)
    except ConflictError:
        work.close_abandoned()
        raise
    work.begin(reason)
    work.finish()
    done = replace(found, dry_run=False)
    details = {"model": model_name, "version": version, "objects": done.objects, "reason": reason}
    observe(Event(events.MODEL_VERSION_REMOVED, f"model.{model_name}", details))
    return done


class _Removal:
    """One removal: its flag, by which others see it, and what it deletes."""

    def __init__(self, store: Store, model: str, version: str, though_promoted: bool) -> None:
        self._store, self._model, self._version = store, model, version
        self._though_promoted = though_promoted
        self._files: tuple[ModelFile, ...] = ()
        self._number = 0

    def look(self) -> RemovedVersion:
        """What there is of the version, and who needs it. NotFoundError if there is nothing."""
        earlier = removals_of(self._store, self._model, self._version)
        try:
            self._files = read_version(self._store, self._model, self._version).files
        except NotFoundError:
            if all(earlier.values()):
                raise
            self._files = self._files_of_earlier(earlier)
        sizes, foreign = dict[str, int](), list[str]()
        for key, size, own in self._objects():
            sizes |= {key: size} if own else {}
            foreign += [] if own else [key]
        return self._with_uses(
            RemovedVersion(
                self._model, self._version, len(sizes), sum(sizes.values()), foreign=tuple(foreign)
            )
        )

    def require_unused(self, found: RemovedVersion) -> None:
        """Raise ConflictError if an alias stands for the version, or did and nobody said that it may go."""
        what = f"{self._version} of {self._model!r}"
        if found.aliases:
            raise ConflictError(
                f"{what} is in use as {', '.join(map(repr, found.aliases))}. Promote another version, or "
                "remove the alias, and remove it then.",
                details={"aliases": list(found.aliases)},
            )
        if found.promoted and not self._though_promoted:
            raise ConflictError(
                f"{what} was promoted: {', '.join(map(repr, found.promoted))} may be rolled back to it. If "
                "nobody shall any more, say though_promoted=True.",
                details={"aliases": list(found.promoted)},
            )

    def begin(self, reason: str | None) -> None:
        """Write the flag, then look at the aliases again: who promotes does it the other way round."""
        content = {
            "model": self._model,
            "version": self._version,
            "reason": reason,
            "files": [file.to_json() for file in self._files],
        }
        body = Record(content, provenance.current()).to_bytes()
        number = max(removals_of(self._store, self._model, self._version), default=0) + 1
        while not self._store.create(self._key(number), body):
            number += 1
        self._number, self._patience = number, Patience()
        try:
            self.require_unused(self._with_uses(RemovedVersion(self._model, self._version, 0, 0)))
        except BaseException:
            self._close(number)
            raise

    def finish(self) -> None:
        """Delete what there is, the record first, until nothing comes after; then take the flag down."""
        for _ in range(_ROUNDS):
            keys = [key for key, _, own in self._objects() if own]
            if not keys:
                break
            records = [key for key in keys if key in self._marks()]
            for batch in (records, [key for key in keys if key not in records]):
                self._patience.require()
                with last_look(self._patience.require):
                    self._store.delete(batch)
        else:
            raise TransientError(
                f"{self._version} of {self._model!r} is registered again and again while it is removed from "
                f"{self._store.location}. Run the same call again."
            )
        self._close(self._number)
        self.close_abandoned()

    def close_abandoned(self) -> None:
        """Take down the flags of those who were stopped over an hour ago: they delete nothing any more."""
        removals = removals_of(self._store, self._model, self._version)
        left_open = [number for number, over in removals.items() if not over]
        now = time_at(self._store) if left_open else None
        for number in left_open:
            stat = self._store.head(self._key(number))
            if now is not None and stat is not None and now - stat.modified > ABANDONED:
                self._close(number)

    def _marks(self) -> tuple[str, ...]:
        """What says that the version, or a folder of it, is there; it goes before what it tells of."""
        place = self._model, self._version
        return (
            modelkeys.version_key(*place),
            modelkeys.promoted_key(*place),
            modelkeys.materialized_key(*place),
        )

    def _objects(self) -> Iterator[tuple[str, int, bool]]:
        """All there is of the version: key, size [bytes], and whether it is ours."""
        place = self._model, self._version
        for key in (*self._marks(), modelkeys.deprecation_key(*place)):
            if (stat := self._store.head(key)) is not None:
                yield key, stat.size, True
        paths = {file.path for file in self._files}
        for folder in (modelkeys.development_folder(*place), modelkeys.promoted_folder(*place)):
            for stat in self._store.list(folder):
                yield stat.key, stat.size, stat.key.removeprefix(folder) in paths
        for stat in self._store.list(modelkeys.registrations_folder(*place)):
            own = modelkeys.parse_registration_key(stat.key, self._model) is not None
            yield stat.key, stat.size, own

    def _files_of_earlier(self, earlier: Iterable[int]) -> tuple[ModelFile, ...]:
        """The files of a version whose removal was stopped after its record had gone."""
        for number in sorted(earlier, reverse=True):
            key = self._key(number)
            raw = Fields(read_record(self._store, key).content, key).items("files")
            return tuple(ModelFile.from_json(each, what=key) for each in raw)
        return ()

    def _with_uses(self, found: RemovedVersion) -> RemovedVersion:
        names = alias_names(self._store, self._model)
        read = partial(promotions_of, self._store, self._model)
        histories = dict(zip(names, map_ordered(read, names, self._store.max_workers), strict=True))
        standing = [name for name, history in histories.items() if self._stands(history)]
        past = [
            name
            for name, history in histories.items()
            if name not in standing
            and any(self._version in (event.version, event.previous) for event in history)
        ]
        return replace(found, aliases=tuple(standing), promoted=tuple(past))

    def _stands(self, history: list[Promotion]) -> bool:
        return bool(history) and history[-1].version == self._version

    def _close(self, number: int) -> None:
        ensure(self._store, modelkeys.removal_done_key(self._model, self._version, number))

    def _key(self, number: int) -> str:
        return modelkeys.removal_key(self._model, self._version, number)
