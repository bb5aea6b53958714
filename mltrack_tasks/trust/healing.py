"""What healing comes to, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mltrack_tasks.errors import IntegrityError


@dataclass(frozen=True)
class Healed:
    """One object that was written again, or with a dry run would be."""

    key: str
    source: str
    size_bytes: int


@dataclass(frozen=True)
class Lost:
    """One object whose bytes were found nowhere. ``tried`` says what stood in the way where it was looked."""

    key: str
    needed_by: tuple[str, ...]
    tried: tuple[str, ...] = ()


@dataclass(frozen=True)
class HealReport:
    """What became of the findings of an audit, or of several (``audit`` then has their ids, with commas).

    ``intact`` was found to be as it should be by now; ``breaks`` names every run, name, model and migration
    that needs something that is ``lost``. ``undescribed`` are blobs whose ``metadata.json`` is missing and
    could not be made: files that only look like what they are named, or of a codec that is not known here.
    """

    location: str
    audit: str
    healed: tuple[Healed, ...] = ()
    intact: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()
    breaks: tuple[str, ...] = ()
    dry_run: bool = False
    undescribed: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is lost."""
        return not self.lost

    def require_ok(self) -> None:
        """Raise IntegrityError if something is lost: for a run that is to fail then."""
        if not self.ok:
            names = ", ".join(self.breaks[:10])
            raise IntegrityError(
                f"{len(self.lost):,} objects of {self.location} were found nowhere. What they break: "
                f"{names or 'nothing that is known'}. Store that data again, or remove what needs it.",
                details={"lost": [each.key for each in self.lost[:100]], "breaks": list(self.breaks[:100])},
            )

    def __str__(self) -> str:
        verb = "could be healed" if self.dry_run else "healed"
        return (
            f"{self.location}: {len(self.healed):,} {verb}, {len(self.intact):,} intact by now, "
            f"{len(self.lost):,} lost, which {len(self.breaks):,} runs, names, models or migrations need"
        )

    def rows(self) -> list[dict[str, Any]]:
        """What became of each object, as table rows: what is lost first."""
        lost = [
            {
                "object": each.key,
                "became": "lost",
                "from": "; ".join(each.tried),
                "needed by": ", ".join(each.needed_by[:5]),
            }
            for each in self.lost
        ]
        healed = [
            {"object": each.key, "became": "healed", "from": each.source, "needed by": ""}
            for each in self.healed
        ]
        return lost + healed


_COLUMNS = ("object", "became", "from", "needed by")
