"""What a reading of a queue found and did."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 1_000
"""Reasons, and things that were begun, which a report lists; all are counted."""


@dataclass(frozen=True)
class ArrivalReport:
    """What ``process_new_data`` found in the queue, and did.

    ``records`` are those that messages told of and that are there; ``new`` counts blobs that were acted upon,
    in ``batches``; ``known`` those that were acted upon before, or by somebody else. ``foreign`` counts
    objects outside the store and events that are no creations, ``own`` records that the deployment itself
    wrote, ``gone`` records that were removed meanwhile,
    ``tests`` S3's own trials. ``buried`` messages could not be understood, and lie in the queue for dead
    letters. ``begun`` are the ids of what was begun (flow runs).
    """

    queue: str
    subscription: str
    messages: int = 0
    records: int = 0
    new: int = 0
    known: int = 0
    batches: int = 0
    foreign: int = 0
    own: int = 0
    gone: int = 0
    tests: int = 0
    buried: int = 0
    begun: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, str]]:
        """The figures as table rows."""
        rows = {
            "messages": self.messages,
            "records that they told of": self.records,
            "new data, acted upon": self.new,
            "in batches": self.batches,
            "acted upon before": self.known,
            "of other places, or no creation": self.foreign,
            "written by the deployment itself": self.own,
            "removed meanwhile": self.gone,
            "trials by S3": self.tests,
            "not understood, to the dead letters": self.buried,
        }
        return [{"what": what, "number": f"{number:,}"} for what, number in rows.items()]

    def __str__(self) -> str:
        bad = f"; {self.buried:,} not understood" if self.buried else ""
        return (
            f"{self.queue}: {self.messages:,} messages, {self.new:,} new data in {self.batches:,} batches, "
            f"{self.known:,} known{bad}"
        )


@dataclass
class Tally:
    """What is counted while it runs."""

    messages: int = 0
    records: int = 0
    new: int = 0
    known: int = 0
    batches: int = 0
    foreign: int = 0
    own: int = 0
    gone: int = 0
    tests: int = 0
    buried: int = 0
    begun: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def bury(self, reason: str) -> None:
        """Count a message that was not understood."""
        self.buried += 1
        if len(self.reasons) < SHOWN:
            self.reasons.append(reason)

    def act(self, acted: int, begun: str | None) -> None:
        """Count a batch that was acted upon."""
        self.new += acted
        self.batches += 1 if acted else 0
        if begun and len(self.begun) < SHOWN:
            self.begun.append(begun)

    def report(self, queue: str, subscription: str) -> ArrivalReport:
        """The finished report."""
        figures = {**vars(self), "begun": tuple(self.begun), "reasons": tuple(self.reasons)}
        return ArrivalReport(queue, subscription, **figures)
