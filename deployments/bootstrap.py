"""Bring a Prefect server from nothing to ready: `python -m deployments.bootstrap`.

The block of the store (tried first), a work pool, limits, automations, and all flows as deployments whose
form preselects the store. Run again, it adds what is missing, leaves what people changed, and says so.
Where the package is installed and there is no checkout: `python -m mltrack_deployments.bootstrap`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client

from mltrack_tasks import MLTrackStore
from mltrack_tasks.access import check_access
from mltrack_tasks.errors import AccessError, InvalidInputError, MLTrackError

from . import configuration, deploying, server
from .configuration import Configuration
from .rows import Row, as_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command -> its exit code; what went wrong is printed."""
    options = _parse(arguments)
    try:
        chosen = _chosen(options)
        block = chosen.block()
        plan = deploying.read(chosen.pool.type, chosen.pool.name, options.code)
        if not options.no_check:
            require_access(block)
        if options.dry_run:
            print(as_text(planned(chosen, block, plan)))
            return 0
        print(as_text(asyncio.run(bootstrap(chosen, block, plan, update=options.update))))
    except MLTrackError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    pool = plan["deployments"][0]["work_pool"]["name"]
    print(f"\nNow, where the folders are:  prefect worker start --pool {pool}")
    return 0


async def bootstrap(
    chosen: Configuration, block: MLTrackStore, plan: dict[str, Any], *, update: bool
) -> list[Row]:
    """Do all of it -> what was done. Raises MLTrackError; what was done by then is found by the next call."""
    async with get_client() as client:
        await _require_server(client)
        pool = plan["deployments"][0]["work_pool"]["name"]
        rows = await server.save_store(client, chosen.block_name(block), block, update=update)
        rows.append(await server.make_pool(client, pool, chosen.pool.type, chosen.pool.concurrency_limit))
        rows += [await server.make_limit(client, name, limit) for name, limit in chosen.limits.items()]
        rows += await server.make_automations(client, chosen)
        switches = deploying.Switches()
        await switches.remember(client, plan)
        await asyncio.to_thread(deploying.deploy, plan)
        return [*rows, *await switches.restore(client, plan)]


def planned(chosen: Configuration, block: MLTrackStore, plan: dict[str, Any]) -> list[Row]:
    """What a bootstrap would make, without asking a server."""
    pool = plan["deployments"][0]["work_pool"]["name"]
    named = [
        ("block", f"mltrack-store/{chosen.block_name(block)}", block.location),
        ("variable", server.STORE_VARIABLE, ""),
        ("work pool", pool, chosen.pool.type),
        *(("limit", name, str(limit)) for name, limit in chosen.limits.items()),
        ("automation", server.ZOMBIES, ""),
        *([("automation", server.FAILED, "")] if chosen.automations.notify_url else []),
        *(("deployment", each["name"], each["entrypoint"]) for each in plan["deployments"]),
    ]
    return [Row(kind, name, "would create", detail) for kind, name, detail in named]


def require_access(block: MLTrackStore) -> None:
    """Try the store from here. Raises AccessError with each failure and its fix."""
    failed = [check for check in check_access(block.open()).checks if check.ok is False]
    if failed:
        said = "\n".join(f"  {check.name}: {check.detail}\n    {check.fix}" for check in failed)
        raise AccessError(
            f"{block.location} cannot be used from here, so nothing was changed:\n{said}\n"
            "If only the workers can reach it, --no-check leaves this out."
        )


async def _require_server(client: PrefectClient) -> None:
    failed = await client.api_healthcheck()
    if failed is not None:
        raise AccessError(
            f"No Prefect server answers at {client.api_url} ({failed}). Start one (`prefect server start`), "
            "or set PREFECT_API_URL."
        )


def _chosen(options: argparse.Namespace) -> Configuration:
    found = configuration.load(options.config)
    changes: dict[str, Any] = {}
    if options.store is not None:
        if isinstance(found.store, dict):
            raise InvalidInputError("The store is in --config already; give it once.")
        changes["store"] = options.store
    if options.name is not None:
        changes["name"] = options.name
    if options.pool_type is not None or options.pool is not None:
        pool = {"type": options.pool_type or found.pool.type, "name": options.pool or found.pool.name}
        changes["pool"] = found.pool.model_copy(update=pool)
    return Configuration(**{**dict(found), **changes}) if changes else found


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.bootstrap",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help="TOML file; deployments/bootstrap.example.toml shows all")
    parser.add_argument("--name", help="of the store's block (default: mltrack)")
    parser.add_argument("--store", help="address, directory or block; default: MLTRACK_STORE and the like")
    parser.add_argument("--pool-type", choices=("process", "docker", "kubernetes", "ecs"))
    parser.add_argument("--pool", help="name of the work pool; default: as in prefect.yaml")
    parser.add_argument(
        "--code", default="installed", help="installed (default), checkout, or a repository's URL[@branch]"
    )
    parser.add_argument("--update", action="store_true", help="change a block that is there and differs")
    parser.add_argument("--no-check", action="store_true", help="do not try the store from here")
    parser.add_argument("--dry-run", action="store_true", help="try the store, show what would be made, stop")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
