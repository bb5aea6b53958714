"""Tasks that prove a store and mend it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mltrack_tasks.artifacts import Progress, markdown, plain, table
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.chart import human_bytes
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.resolve import open_store
from mltrack_tasks.runlinks import footer
from mltrack_tasks.stores import Store
from mltrack_tasks.tasking import mltrack_task, recorded, run_logger
from mltrack_tasks.trust import heal, verify
from mltrack_tasks.trust.findings import VerifyReport
from mltrack_tasks.trust.healing import HealReport


@mltrack_task
def verify_store(
    *,
    level: str = "structure",
    part: str | None = None,
    since: str | None = None,
    resume: bool = True,
    keep: bool = True,
    store: MLTrackStore | str | None = None,
) -> VerifyReport:
    """Look whether all that records need is there, and is what it says -> what was found.

    ``level``: ``structure`` lists, and reads records; ``attested`` also compares the checksum that the store
    keeps of each blob; ``read`` downloads and hashes them, or one part: ``"3/4"``, or ``"week/4"`` for the
    one whose turn it is. ``since="last"`` does not ask again what was attested and not written since. The
    same call goes on with an audit that was stopped. ``keep=False`` writes nothing to the store.

    What is wrong is not raised: see ``ok``, or call ``require_ok()``. In a flow it is also shown (artifacts
    ``mltrack-verification`` and ``mltrack-findings``).
    """
    with recorded(), Progress("mltrack-verification-progress") as observe:
        found = verify.verify_store(
            open_store(store),
            level=level,
            part=part,
            since=since,
            resume=resume,
            keep=keep,
            observe=observe,
        )
    markdown("mltrack-verification", _verified(found) + footer(), f"Verification of {plain(found.location)}")
    if found.findings:
        table("mltrack-findings", found.rows(), f"Findings in {plain(found.location)}, what is wrong first")
    for finding in [each for each in found.findings if each.wrong][:20]:
        run_logger().error("%s: %s %s", finding.kind, finding.key, finding.detail)
    return found


@mltrack_task
def heal_store(
    *,
    audit: str | None = None,
    replicas: Sequence[MLTrackStore | str] = (),
    local_path: str | Path | None = None,
    dry_run: bool = False,
    store: MLTrackStore | str | None = None,
) -> HealReport:
    """Write again what an audit found damaged or missing -> what became of each object.

    ``audit`` is the id in the report of ``verify_store``; None: the newest, and what the newest of other
    levels and parts told of wrong bytes. Bytes come from the read cache, from ``replicas`` (other stores),
    earlier versions of the object, and files below ``local_path`` on the worker's machine, and are proven
    first. ``dry_run`` only says what could be healed.

    What is lost is not raised: see ``lost`` and ``breaks``, or call ``require_ok()``. In a flow it is also
    shown (artifact ``mltrack-healing``).
    """
    with recorded(), Progress("mltrack-healing-progress") as observe:
        done = heal.heal_store(
            open_store(store),
            audit=audit,
            replicas=_opened(replicas),
            local_path=local_path,
            dry_run=dry_run,
            observe=observe,
        )
    table("mltrack-healing", done.rows(), plain(str(done)))
    for lost in done.lost[:20]:
        run_logger().error("lost: %s, needed by %s", lost.key, ", ".join(lost.needed_by) or "nothing known")
    return done


def _opened(replicas: Sequence[MLTrackStore | str]) -> list[Store]:
    if not isinstance(replicas, (list, tuple)):  # a text, and a block, are sequences of their parts
        raise InvalidInputError(
            f"replicas is {type(replicas).__name__}; give a list of stores, such as replicas=[...]."
        )
    return [open_store(replica) for replica in replicas]


def _verified(found: VerifyReport) -> str:
    amounts = {
        "blobs that are there": found.blobs,
        "looked at one by one": found.checked,
        "attested before, and not written since": found.unchanged,
        "without a checksum to compare": found.unattested,
    }
    verdict = "**Something is wrong.**" if found.wrong else "Nothing is wrong."
    lines = [f"{verdict} {plain(str(found))}", "", "| what | number | size |", "|---|--:|--:|"]
    lines += [f"| {name} | {it.objects:,} | {human_bytes(it.size_bytes)} |" for name, it in amounts.items()]
    lines += ["", f"Records of the audit: `{found.audit or 'none kept'}`"]
    lines += [f"\nLeft out: {plain(said)}" for said in found.left_out]
    return "\n".join(lines)
