"""Copies of blobs under other keys: made by the store, and proven, if it can be without reading them."""

from __future__ import annotations

from dataclasses import dataclass

from mltrack_tasks import layout
from mltrack_tasks.blobs import Presence, damaged, hash_object, plain_md5
from mltrack_tasks.digest import part_size_for
from mltrack_tasks.errors import IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.stores.base import Stat, Store

COPY_TRIES = 3
"""Copies made of one blob before it is given up that one comes out right."""


def copy_blob(store: Store, digest: str, format: str, size: int, target: str) -> int:
    """Copy a blob of ``size`` bytes over what is at ``target``, and prove it -> [bytes] read for the proof.

    0 where the store's own account is proof: its SHA-256 of the copy; the composite checksum that was noted
    when the blob was sent in parts; or an ETag equal to the blob's that looks like MD5. (That last one proves
    the copy, not the blob, which is known as well as before.) Else the copy is read and hashed.

    A copy that came out wrong is made again; if the blob itself is wrong, that is an IntegrityError naming
    it. After any error the target may hold anything, so whoever relies on it writes a record last. Raises
    NotFoundError, ArchivedError, and IntegrityError if no copy comes out right.
    """
    job = _Copying(store, layout.blob_key(digest, format), digest, size, target)
    store.check(target)
    read = 0
    for _ in range(COPY_TRIES):
        verdict, more = job.judge(job.copy())
        read += more
        if verdict is Presence.PRESENT:
            return read
        read += job.require_source()
    raise IntegrityError(
        f"{target} in {store.location} differs from {job.key}, which is intact, though it was copied "
        f"{COPY_TRIES} times. Check the server's storage.",
        details={"key": job.key, "target": target},
    )


def is_copy(store: Store, digest: str, format: str, size: int, target: str) -> bool:
    """Tell whether ``target`` still is the copy of a blob that was proven when it was made: by HEADs alone.

    The store's own account decides: its SHA-256, or the composite, where one was noted. Where it gives none,
    an equal ETag that looks like MD5 confirms, and another one denies. Where ETags are no MD5 either (KMS),
    size is all that can be told without reading. One that is archived, and cannot be read, is none.
    """
    return _Copying(store, layout.blob_key(digest, format), digest, size, target).holds()


def noted_composite(store: Store, digest: str, size: int) -> str | None:
    """The composite checksum that was noted when a blob was sent, if it is one over our parts."""
    try:
        noted = read_record(store, layout.blob_parts_key(digest)).content
    except (NotFoundError, IntegrityError):
        return None  # not sent in parts by us: another account must do
    same_parts = noted.get("part_size") == part_size_for(size)
    return str(noted.get("composite")) if same_parts else None


@dataclass(frozen=True)
class _Copying:
    """One blob and where it goes."""

    store: Store
    key: str
    digest: str
    size: int
    target: str

    def copy(self) -> Stat:
        try:
            return self.store.copy(self.key, self.target, self.size)
        except InvalidInputError as error:
            stat = self.store.head(self.key)  # parts of a shorter object cannot be copied
            if stat is not None and stat.size != self.size:
                raise damaged(self.store, self.key) from error
            raise

    def judge(self, copied: Stat) -> tuple[Presence, int]:
        """Say whether the copy is right: by what was said while copying, by a HEAD, by its bytes, in turn."""
        verdict = self._account(copied)
        if verdict is not Presence.UNKNOWN:
            return verdict, 0
        found = self.store.head(self.target, checksum=True)
        if found is None or found.size != self.size:
            return Presence.DAMAGED, 0
        verdict = self._account(found)
        if verdict is not Presence.UNKNOWN:
            return verdict, 0
        return (Presence.PRESENT, 0) if self._has_etag_of_source(found) else self._read(found)

    def holds(self) -> bool:
        found = self.store.head(self.target, checksum=True)
        if found is None or found.size != self.size or found.archived:
            return False
        verdict = self._account(found)
        if verdict is not Presence.UNKNOWN:
            return verdict is Presence.PRESENT
        if found.composite is not None and noted_composite(self.store, self.digest, self.size) is not None:
            return False  # over other parts than ours, or over other bytes
        return plain_md5(found.etag) is None or self._has_etag_of_source(found)

    def require_source(self) -> int:
        """Raise IntegrityError if the blob itself is damaged -> [bytes] read to know."""
        stat = self.store.head(self.key, checksum=True)
        if stat is None:
            raise NotFoundError(f"{self.key} is not in {self.store.location}.", details={"key": self.key})
        verdict = Presence.DAMAGED if stat.size != self.size else _compare(stat.sha256, self.digest)
        read = 0
        if verdict is Presence.UNKNOWN:
            verdict, read = self._read(stat)
        if verdict is Presence.DAMAGED:
            raise damaged(self.store, self.key)
        return read

    def _account(self, stat: Stat) -> Presence:
        if stat.composite is not None and stat.composite == noted_composite(
            self.store, self.digest, self.size
        ):
            return Presence.PRESENT
        return _compare(stat.sha256, self.digest)

    def _has_etag_of_source(self, copied: Stat) -> bool:
        plain = plain_md5(copied.etag)
        if plain is None:
            return False
        source = self.store.head(self.key)
        return source is not None and source.size == self.size and plain_md5(source.etag) == plain

    def _read(self, stat: Stat) -> tuple[Presence, int]:
        self.store.evict(stat.key)  # what the store holds is in question, not what a cache does
        verdict = _compare(hash_object(self.store, stat), self.digest)
        if verdict is Presence.DAMAGED:
            self.store.evict(stat.key)
        return verdict, stat.size


def _compare(sha256: str | None, digest: str) -> Presence:
    if sha256 is None:
        return Presence.UNKNOWN
    return Presence.PRESENT if sha256 == digest else Presence.DAMAGED
