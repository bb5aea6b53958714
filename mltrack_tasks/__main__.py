"""``python -m mltrack_tasks check_access``: what one asks about a store before any flow runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from mltrack_tasks.errors import MLTrackError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command -> its exit code: 0 if all is well, 1 if something failed, 2 for a wrong call."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.run(given))
    except MLTrackError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mltrack_tasks")
    commands = parser.add_subparsers(required=True, metavar="command")
    check = commands.add_parser(
        "check_access",
        help="may these credentials use this store, and does its server keep what the library relies on?",
        description="Prints each question, its answer, and beside a failure what to do.",
    )
    check.add_argument(
        "store",
        nargs="?",
        help="a block's name, s3://bucket/prefix, or a directory; else what the surroundings name",
    )
    check.add_argument(
        "--role", default="writer", help="whose permissions: reader, writer (default), promoter or admin"
    )
    check.add_argument(
        "--write", action="store_true", help="also write small objects under .probe/, and remove them"
    )
    check.set_defaults(run=_check_access)
    policy = commands.add_parser(
        "iam_policy",
        help="what must credentials be allowed for a role?",
        description="Prints the IAM policy of a role in a store, as JSON. Nothing is asked of anybody.",
    )
    policy.add_argument("role", help="reader, writer, promoter or admin")
    policy.add_argument("store", nargs="?", help="as for check_access")
    policy.set_defaults(run=_iam_policy)
    return parser


def _iam_policy(given: argparse.Namespace) -> int:
    from mltrack_tasks.granting import iam_policy

    print(json.dumps(iam_policy(given.role, store=given.store), indent=2))
    return 0


def _check_access(given: argparse.Namespace) -> int:
    from mltrack_tasks.tasks import check_access

    report = check_access.fn(role=given.role, write=given.write, store=given.store)
    print(report.location)
    for row in report.rows():
        print(f"{row['result']:>6}  {row['check']}: {row['detail']}")
        if row["fix"]:
            print(f"        {row['fix']}")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
