"""Prove a store, on a schedule: the run fails when something that records need is not there, or damaged."""

from typing import Literal

from prefect import flow

from mltrack_tasks import VerifyReport, tasks
from mltrack_tasks.forms import OptionalText, StoreChoice, completed


@flow(name="mltrack-verify-store", flow_run_name="verify store, {level}")
def verify_store(
    level: Literal["structure", "attested", "read"] = "structure",
    part: OptionalText = None,
    since: OptionalText = None,
    resume: bool = True,
    keep: bool = True,
    store: StoreChoice = None,
) -> VerifyReport:
    """Look whether all is there and is what it says -> what was found; fails when something is wrong.

    Args:
        level: `structure` lists, and reads records; `attested` also asks for the checksum that the store
            keeps of each blob; `read` downloads and hashes each of them.
        part: With `attested` and `read`, the third of four parts of the blobs (`3/4`), or the one whose turn
            it is this week (`week/4`): a weekly schedule then covers everything in four weeks.
        since: With `attested`, `last`, or the id of an earlier audit: what nobody has written since is not
            asked again.
        resume: Go on with the same audit if it was stopped.
        keep: Keep what is found in the store; without it nothing is written, and nothing can go on.
        store: A saved block, or as text a block's name, `s3://bucket/prefix`, or a directory.
    """
    found = tasks.verify_store(level=level, part=part, since=since, resume=resume, keep=keep, store=store)
    found.require_ok()
    return completed(found, str(found))


if __name__ == "__main__":
    verify_store()
