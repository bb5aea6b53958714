"""What the registry holds: the blobs that the versions of its models name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from mltrack_tasks import events, layout
from mltrack_tasks.errors import FormatError, IntegrityError, NotFoundError
from mltrack_tasks.models import ModelFile, ModelVersion
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.refs import DataRef
from mltrack_tasks.registry.reading import model_names, read_version, version_ids
from mltrack_tasks.stores.base import Store


def held_by_models(store: Store) -> Iterator[DataRef]:
    """Name every blob of a version, its files and its training data, each once for each version.

    ``name`` is ``model <name> <version>``. Versions out of use hold theirs too: they can be read. Damaged
    records are passed over with a warning in the log.
    """
    for version in _versions(store):
        refs = {file.digest: _ref(file) for file in version.files}
        refs |= {ref.hash: ref for ref in version.training_data.values()}
        for _, ref in sorted(refs.items()):
            yield DataRef(
                hash=ref.hash,
                format=ref.format,
                size_bytes=ref.size_bytes,
                storage_path=ref.storage_path,
                name=f"model {version.model} {version.version}",
            )


def _versions(store: Store) -> Iterator[ModelVersion]:
    places = ((model, version) for model in model_names(store) for version in version_ids(store, model))
    read = map_ordered(partial(_read, store), places, store.max_workers)
    return (version for version in read if version is not None)


def _read(store: Store, place: tuple[str, str]) -> ModelVersion | None:
    try:
        return read_version(store, *place)
    except NotFoundError:
        return None  # removed since it was listed
    except (IntegrityError, FormatError) as error:
        events.logger.warning("left out: %s", error)
        return None


def _ref(file: ModelFile) -> DataRef:
    key = layout.blob_key(file.digest, file.format)
    return DataRef(file.digest, file.format, file.size_bytes, key, file.shown_path)
