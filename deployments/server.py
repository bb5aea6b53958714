"""What a Prefect server needs beside the deployments: block, variable, work pool, limits, automations.

Each is created if it is not there. What is there and differs is somebody's decision: it is kept, and said.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.blocks.fields import SecretDict
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events import AutomationCore, EventTrigger, Posture, ResourceSpecification
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.exceptions import ObjectNotFound
from prefect.variables import Variable
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from mltrack_tasks import MLTrackStore
from mltrack_tasks.errors import ConflictError, InvalidInputError

from .configuration import Configuration
from .rows import Result, Row

STORE_VARIABLE = "mltrack_store"
"""What prefect.yaml takes the parameter ``store`` from."""
ZOMBIES = "mltrack: mark runs that died as crashed"
FAILED = "mltrack: tell of a failed migration"
_ENDED = ("Completed", "Failed", "Cancelled", "Crashed")


async def save_store(client: PrefectClient, name: str, wanted: MLTrackStore, *, update: bool) -> list[Row]:
    """Save the block and point the variable to it. Raises ConflictError if the name holds another store."""
    await asyncio.to_thread(MLTrackStore.register_type_and_schema)
    block, there = wanted, True
    try:
        block = await MLTrackStore.aload(name)
    except ValueError:
        there = False
    differs = there and _content(block) != _content(wanted)
    if differs and not update:
        raise ConflictError(
            f"The block mltrack-store/{name} is {block.location!r} with other settings than the ones given "
            f"for {wanted.location!r}. Give another name, or --update to change the block.",
            existing=block.location,
            offered=wanted.location,
        )
    if differs or not there:
        await asyncio.to_thread(wanted.save, name, overwrite=update)
        block = await MLTrackStore.aload(name)
    result: Result = "changed" if differs else "present" if there else "created"
    reference = {"$ref": {"block_document_id": str(block._block_document_id)}}
    known = await Variable.aget(STORE_VARIABLE)
    if known != reference:
        await Variable.aset(STORE_VARIABLE, reference, overwrite=True)
    return [
        Row("block", f"mltrack-store/{name}", result, block.location),
        Row(
            "variable",
            STORE_VARIABLE,
            "created" if known is None else "present" if known == reference else "changed",
        ),
    ]


def _content(block: MLTrackStore) -> Any:
    """A block's settings, secrets included, to compare; without what Prefect notes of a saved block."""
    return _settings(block.model_dump(mode="json", context={"include_secrets": True}))


def _settings(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    noted = ("_block_", "_is_", "block_type_slug")
    return {key: _settings(item) for key, item in value.items() if not key.startswith(noted)}


async def make_pool(client: PrefectClient, name: str, kind: str, limit: int | None) -> Row:
    """Create the work pool. Raises InvalidInputError if one of the name runs something else."""
    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        template = await get_default_base_job_template_for_infrastructure_type(kind)
        if template is None:
            raise InvalidInputError(f"This server knows no work pools of type {kind!r}.") from None
        asked = WorkPoolCreate(name=name, type=kind, base_job_template=template, concurrency_limit=limit)
        await client.create_work_pool(asked)
        return Row("work pool", name, "created", kind)
    if pool.type != kind:
        raise InvalidInputError(
            f"The work pool {name!r} is of type {pool.type!r}, not {kind!r}; choose another name."
        )
    if limit is not None and pool.concurrency_limit != limit:
        return Row("work pool", name, "kept", f"{kind}; its limit is {pool.concurrency_limit}, not {limit}")
    return Row("work pool", name, "present", kind)


async def make_limit(client: PrefectClient, name: str, limit: int) -> Row:
    """Create a global concurrency limit."""
    try:
        known = await client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        await client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=name, limit=limit, active=True)
        )
        return Row("limit", name, "created", str(limit))
    if known.limit != limit:
        return Row("limit", name, "kept", f"it is {known.limit}, not {limit}")
    return Row("limit", name, "present", str(limit))


async def make_automations(client: PrefectClient, chosen: Configuration) -> list[Row]:
    """Create the automations: for runs that died, and for migrations that failed if somebody is to know."""
    rows = [await _make_automation(client, zombies(chosen.automations.zombie_after))]
    url = chosen.automations.notify_url
    if url is None:
        return [*rows, Row("automation", FAILED, "left out", "automations.notify_url is not set")]
    block = CustomWebhookNotificationBlock(
        name="mltrack",
        url="{{url}}",
        json_data={"text": "{{subject}}: {{body}}"},
        headers=None,
        cookies=None,
        secrets=SecretDict({"url": url.get_secret_value()}),
    )
    await asyncio.to_thread(block.save, "mltrack-notify", overwrite=True)
    saved: Any = await CustomWebhookNotificationBlock.aload("mltrack-notify")
    return [*rows, await _make_automation(client, failed_migration(saved._block_document_id))]


async def _make_automation(client: PrefectClient, wanted: AutomationCore) -> Row:
    if await client.read_automations_by_name(wanted.name):
        return Row("automation", wanted.name, "present")
    await client.create_automation(wanted)
    return Row("automation", wanted.name, "created")


def zombies(seconds: int) -> AutomationCore:
    """A run that sent a heartbeat and then neither another nor its end is dead.

    After https://docs.prefect.io/v3/advanced/detect-zombie-flows. SIGKILL and lost machines run no hook: such
    a run stays Running for ever, and holds its deployment's place.
    """
    beat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name=ZOMBIES,
        description=f"No heartbeat for {seconds} s. The next run of the flow goes on where it was.",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification({}),
            for_each={"prefect.resource.id"},
            after={beat},
            expect={beat, *(f"prefect.flow-run.{state}" for state in _ENDED)},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                message=f"No sign of life for {seconds} s: its process is gone.",
                force=False,
            )
        ],
    )


def failed_migration(block: UUID) -> AutomationCore:
    """Tell of a migration that failed or died, through a notification block."""
    return AutomationCore(
        name=FAILED,
        description="Run it again when the cause is gone: it goes on where it was.",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": "flow", "prefect.resource.name": "mltrack-migrate-to-s3"}
            ),
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject="{{ flow_run.name }}: {{ flow_run.state.name }}",
                body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
            )
        ],
    )
