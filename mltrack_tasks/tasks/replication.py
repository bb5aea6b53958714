"""Tasks about replicas of a store."""

from __future__ import annotations

from mltrack_tasks.artifacts import Progress, markdown, plain, table
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.errors import PartialTransferError
from mltrack_tasks.replication import progress, replicate
from mltrack_tasks.replication.report import ReplicationReport
from mltrack_tasks.resolve import open_store
from mltrack_tasks.tasking import mltrack_task, recorded, run_logger


@mltrack_task
def replicate_store(
    target: MLTrackStore | str, *, dry_run: bool = False, store: MLTrackStore | str | None = None
) -> ReplicationReport:
    """Copy what ``target`` lacks of the store -> what was missing, and copied.

    ``target`` is an empty place, which becomes a replica, or a replica of the store: a block, a block's name,
    ``s3://bucket/prefix`` or a directory. Only what is missing is copied, blobs proven on their way, records
    after what they need; the same call goes on after a kill. What only the replica has stays. ``dry_run``
    only lists. Nobody else can write to a replica until ``end_replication``.

    In a flow it is also shown (artifacts ``mltrack-replication``, and ``mltrack-replication-failures`` if
    something could not be copied, which raises PartialTransferError). ConflictError if ``target`` is a store
    of its own.
    """
    with recorded(), Progress("mltrack-replication-progress") as observe:
        try:
            done = replicate.replicate_store(
                open_store(store), open_store(target), dry_run=dry_run, observe=observe
            )
        except PartialTransferError as error:
            _show(error.details["report"])
            raise
    _show(done)
    return done


@mltrack_task
def end_replication(reason: str, *, store: MLTrackStore | str | None = None) -> None:
    """Make a replica a store of its own, for good, such as when its source is lost.

    From then on everybody may write to it, and ``replicate_store`` refuses it. Does nothing if that was done
    before; InvalidInputError if the store is no replica.
    """
    with recorded():
        progress.end_replication(open_store(store), reason)
    run_logger().warning("The replica %s is a store of its own now: %s", store, reason)


def _show(done: ReplicationReport) -> None:
    run_logger().info("%s", done)
    table("mltrack-replication", done.rows(), plain(str(done)))
    if done.failed:
        lines = [f"| {plain(key)} | {plain(why)} |" for key, why in [*done.failed.items()][:100]]
        said = f"{done.failures:,} objects could not be copied; {done.held_back:,} records wait for them."
        markdown(
            "mltrack-replication-failures",
            "\n".join([said, "", "| object | why |", "|---|---|", *lines]),
            f"What could not be copied to {plain(done.target)}",
        )
