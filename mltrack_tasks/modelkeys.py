"""The tree under ``models/``: version ids, alias names, and what each key there means.

Below ``models/development/`` lies what was registered, below ``models/registry/`` what was promoted. Names of
ours in a model's folder begin with ``_``, version ids with ``v``, so neither can be taken for the other.
"""

from __future__ import annotations

import re
from datetime import date

from mltrack_tasks import layout
from mltrack_tasks.digest import check_digest, is_digest
from mltrack_tasks.errors import IntegrityError, InvalidInputError

VERSIONS = "models/development/"
REGISTRY = "models/registry/"
ID_DIGITS = (6, 8, 12, 64)
"""Digits of the tree digest in a version id: the fewest that no other tree of the model has taken."""
LATEST = "latest"
"""What names the version that was registered last; no alias may."""
GUARDED_ALIASES = ("staging", "production")
"""The aliases that may have a policy of gates."""
MAX_NUMBER = 99_999_999

_VERSION = re.compile(r"v(?P<day>[0-9]{8})_(?P<digits>[0-9a-f]{6,64})")
_NUMBERED = re.compile(r"(?P<number>[0-9]{8})\.json")
_LIKE_VERSION = re.compile(r"v[0-9]+(_[0-9a-f]+)?", re.IGNORECASE)


def version_id(day: date, tree_digest: str, digits: int = ID_DIGITS[0]) -> str:
    """Name a version: ``v20240115_a1b2c3``."""
    if digits not in ID_DIGITS:
        raise InvalidInputError(f"A version id has {ID_DIGITS} digits of its tree digest, not {digits}.")
    return f"v{day.isoformat().replace('-', '')}_{check_digest(tree_digest)[:digits]}"


def is_version(text: object) -> bool:
    """Tell whether ``text`` has the form of a version id."""
    match = _VERSION.fullmatch(text) if isinstance(text, str) else None
    if not match or len(match["digits"]) not in ID_DIGITS:
        return False
    day = match["day"]
    try:
        layout.parse_day(f"{day[:4]}-{day[4:6]}-{day[6:]}")
    except IntegrityError:
        return False
    return True


def check_version(text: object) -> str:
    """Return ``text`` if it is a version id, else raise InvalidInputError."""
    if isinstance(text, str) and is_version(text):
        return text
    raise InvalidInputError(f"{text!r:.80} is not a version id; they look like v20240115_a1b2c3.")


def day_of(version: str) -> str:
    """The day in a version id, as text that sorts: ``20240115``."""
    return check_version(version)[1:9]


def check_alias(alias: object) -> str:
    """Return ``alias`` if a version can be given that name, else raise InvalidInputError.

    Not ``latest``, and nothing that looks like a version, ours (``v20240115_a1b2c3``) or MLflow's (``v3``).
    """
    if not isinstance(alias, str):
        raise InvalidInputError(f"An alias is text, not {alias!r:.80}.")
    layout.encode_segment(alias, what="The alias")
    if alias.lower() == LATEST or _LIKE_VERSION.fullmatch(alias):
        raise InvalidInputError(
            f"{alias!r} cannot be an alias: it would be taken for a version. Choose another."
        )
    return alias


def versions_folder(model: str) -> str:
    """Folder of all that is registered of one model, ending in ``/``."""
    return f"{VERSIONS}{layout.encode_segment(model, what='The model')}/"


def version_key(model: str, version: str) -> str:
    """Key of the record of a version."""
    return f"{versions_folder(model)}{check_version(version)}.json"


def parse_version_key(key: str) -> tuple[str, str] | None:
    """Read a key -> (model, version), or None if it is not that of a version's record."""
    return _parse_version(key, VERSIONS)


def parse_promoted_key(key: str) -> tuple[str, str] | None:
    """Read a key -> (model, version), or None if it is not that of a promoted version's record."""
    return _parse_version(key, REGISTRY)


def development_folder(model: str, version: str) -> str:
    """Folder of the real files of a registered version, ending in ``/``."""
    return f"{versions_folder(model)}{check_version(version)}/"


def is_file_of_version(key: str) -> bool:
    """Tell whether a key lies in the folder of real files of a version, registered or promoted."""
    if not key.startswith((VERSIONS, REGISTRY)):
        return False
    _, _, _, version, *path = *key.split("/", 4), "", ""
    return bool(path[0]) and is_version(version)


def materialized_key(model: str, version: str) -> str:
    """Key of the empty object that says that the folder of a registered version is complete."""
    return f"{versions_folder(model)}_materialized/{check_version(version)}"


def tree_key(model: str, tree_digest: str) -> str:
    """Key of the record that gives a tree of files its version id."""
    return f"{versions_folder(model)}_by_digest/{check_digest(tree_digest)}"


def id_key(model: str, version: str) -> str:
    """Key of the record that gives a version id to a tree of files."""
    return f"{versions_folder(model)}_ids/{check_version(version)}"


def all_registrations_folder(model: str) -> str:
    """Folder of the records of all further registrations of a model, ending in ``/``."""
    return f"{versions_folder(model)}_registrations/"


def registrations_folder(model: str, version: str) -> str:
    """Folder of the records of further registrations of the same bytes, ending in ``/``."""
    return f"{all_registrations_folder(model)}{check_version(version)}/"


def registration_key(model: str, version: str, content_digest: str) -> str:
    """Key of one further registration: named by the digest of its content."""
    return f"{registrations_folder(model, version)}{check_digest(content_digest)}.json"


def parse_registration_key(key: str, model: str) -> str | None:
    """Read a key -> the version, or None if it is not that of a further registration of ``model``."""
    folder = all_registrations_folder(model)
    version, _, last = key.removeprefix(folder).partition("/")
    digest = last.removesuffix(".json")
    if not key.startswith(folder) or digest == last or not is_digest(digest):
        return None
    return version if is_version(version) else None


def deprecations_folder(model: str) -> str:
    """Folder of the records that take versions out of use, ending in ``/``."""
    return f"{versions_folder(model)}_deprecated/"


def deprecation_key(model: str, version: str) -> str:
    """Key of the record that takes a version out of use."""
    return f"{deprecations_folder(model)}{check_version(version)}.json"


def removals_folder(model: str, version: str) -> str:
    """Folder of the numbered records of the removals of a version, ending in ``/``."""
    return f"{versions_folder(model)}_removed/{check_version(version)}/"


def removal_key(model: str, version: str, number: int) -> str:
    """Key of the record by which a removal of a version begins."""
    return numbered_key(removals_folder(model, version), number)


def removal_done_key(model: str, version: str, number: int) -> str:
    """Key of the empty object that says that a removal of a version is complete, or was given up."""
    return removal_key(model, version, number).removesuffix(".json") + ".done"


def registry_folder(model: str) -> str:
    """Folder of all that is promoted of one model, ending in ``/``."""
    return f"{REGISTRY}{layout.encode_segment(model, what='The model')}/"


def promoted_folder(model: str, version: str) -> str:
    """Folder of the real files of a promoted version, ending in ``/``."""
    return f"{registry_folder(model)}{check_version(version)}/"


def promoted_key(model: str, version: str) -> str:
    """Key of the record that says that the folder of a promoted version is complete."""
    return f"{registry_folder(model)}{check_version(version)}.json"


def aliases_folder(model: str) -> str:
    """Folder of all aliases of a model, ending in ``/``."""
    return f"{registry_folder(model)}_aliases/"


def alias_folder(model: str, alias: str) -> str:
    """Folder of the promotions of an alias, ending in ``/``."""
    return f"{aliases_folder(model)}{layout.encode_segment(check_alias(alias), what='The alias')}/"


def parse_alias_folder(folder: str) -> tuple[str, str] | None:
    """Read a folder of promotions -> (model, alias), or None if it is none."""
    parts = folder.removeprefix(REGISTRY).split("/")
    if not folder.startswith(REGISTRY) or len(parts) != 4 or parts[1] != "_aliases" or parts[3]:
        return None
    try:
        return layout.decode_segment(parts[0]), check_alias(layout.decode_segment(parts[2]))
    except (IntegrityError, InvalidInputError):
        return None


def policy_folder(model: str, alias: str) -> str:
    """Folder of the policies of an alias, ending in ``/``; InvalidInputError for one that can have none."""
    layout.check_choice(alias, GUARDED_ALIASES, "A policy is for certain aliases;")
    return f"{registry_folder(model)}_policies/{layout.encode_segment(alias)}/"


def numbered_key(folder: str, number: int) -> str:
    """Key of a numbered record: ``00000007.json`` in ``folder``."""
    if not 1 <= number <= MAX_NUMBER:
        raise InvalidInputError(f"{number} is not the number of a record (1 to {MAX_NUMBER:,}).")
    return f"{folder}{number:08d}.json"


def parse_numbered_key(key: str, folder: str) -> int | None:
    """Read the number in a key of ``folder``, or None if it has none."""
    match = _NUMBERED.fullmatch(key.removeprefix(folder)) if key.startswith(folder) else None
    return int(match["number"]) or None if match else None


def _parse_version(key: str, root: str) -> tuple[str, str] | None:
    model, _, last = key.removeprefix(root).partition("/")
    version = last.removesuffix(".json")
    if not key.startswith(root) or version == last or not is_version(version):
        return None
    try:
        return layout.decode_segment(model), version
    except IntegrityError:
        return None
