"""Starting a deployment of the user's for new data: once for each batch, however often it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any, cast
from uuid import NAMESPACE_URL, uuid5

import httpx  # what Prefect's client speaks through, and whose errors it raises
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from mltrack_tasks import events
from mltrack_tasks.arrivals.batches import Batch
from mltrack_tasks.errors import AccessError, InvalidInputError, MLTrackError, NotFoundError, TransientError
from mltrack_tasks.events import Event
from mltrack_tasks.tasking import report

REFUSED = (400, 409, 422)
"""Answers of Prefect's API to parameters that the deployment's flow does not take."""
DENIED = (401, 403)


class Starter:
    """Starts ``deployment`` with the texts of a batch's refs as ``parameter``; without one it only tells.

    Prefect knows a batch by its id, so starting it again gives the run that there is. With ``wait`` it waits
    for the end of each run, and notes those that failed in ``failed``. Raises NotFoundError where there is no
    such deployment, and InvalidInputError if its flow has no such parameter.
    """

    def __init__(
        self,
        deployment: str | None,
        parameter: str = "refs",
        parameters: Mapping[str, Any] | None = None,
        *,
        store_id: str = "",
        wait: bool = False,
    ) -> None:
        self.deployment, self._parameter, self._wait = deployment, parameter, wait
        self._parameters, self._store_id = dict(parameters or {}), store_id
        self.waited, self.failed = 0, list[str]()
        self.deployment_id: str | None = None
        if deployment is not None:
            self._require_taken(deployment)

    def __call__(self, batch: Batch) -> str | None:
        """Start the deployment for a batch, and emit ``mltrack.data.arrived`` -> the flow run's id."""
        run = None if self.deployment is None else self._start(self.deployment, batch)
        details = {"batch": batch.id, "count": len(batch.refs), "flow_run_id": run, "refs": list(batch.refs)}
        key = str(uuid5(NAMESPACE_URL, self._key(batch)))
        report(Event(events.DATA_ARRIVED, batch.subscription, details, id=key))
        return run

    def _start(self, deployment: str, batch: Batch) -> str:
        with prefect_errors(deployment):
            begun = run_deployment(
                deployment,
                parameters={**self._parameters, self._parameter: list(batch.refs)},
                idempotency_key=self._key(batch),
                timeout=None if self._wait else 0,
                poll_interval=1,
                as_subflow=False,  # it outlives the run that found its data
            )
        run = cast(FlowRun, begun)  # a coroutine in async code only
        self.waited += self._wait
        if self._wait and not (run.state and run.state.is_completed()):
            self.failed.append(str(run.id))
        return str(run.id)

    def _key(self, batch: Batch) -> str:
        return f"mltrack-{self._store_id}-{batch.subscription}-{batch.id}"

    def _require_taken(self, deployment: str) -> None:
        flow, _, name = deployment.partition("/")
        if not flow or not name or "/" in name:
            raise InvalidInputError(f"{deployment!r} is no deployment: write flow/deployment.")
        with prefect_errors(deployment), get_client(sync_client=True) as client:
            found = client.read_deployment_by_name(deployment)
        self.deployment_id = str(found.id)
        schema = found.parameter_openapi_schema or {}
        properties = schema.get("properties", {})
        if unknown := sorted({self._parameter, *self._parameters} - set(properties)):
            raise InvalidInputError(
                f"The flow of {deployment!r} has no parameter {', '.join(unknown)}; it has "
                f"{', '.join(properties) or 'none'}. Name the one that takes the list of refs with "
                "parameter=..., and others with parameters={...}."
            )


@contextmanager
def prefect_errors(deployment: str) -> Iterator[None]:
    """Translate what Prefect's API answers; its address is left out, as a password may be in it."""
    try:
        yield
    except ObjectNotFound as error:
        raise NotFoundError(
            f"Prefect has no deployment {deployment!r}; write flow/deployment (`prefect deployment ls`)."
        ) from error
    except JSONDecodeError as error:
        raise TransientError(
            "What answered in place of Prefect's API was no JSON. Check PREFECT_API_URL; nothing was lost."
        ) from error
    except ValidationError as error:  # its text shows what was answered
        raise AccessError(
            f"What Prefect's API answered is no {error.title} of this version of Prefect. Compare `prefect "
            "version` here and on the server, and check PREFECT_API_URL; nothing was lost."
        ) from None
    except ValueError as error:
        if isinstance(error, MLTrackError):
            raise
        raise InvalidInputError(
            f"Prefect's client cannot ask for a run of {deployment!r}: {error}. Check the parameters; they "
            "must be JSON."
        ) from error
    except httpx.HTTPStatusError as error:
        status, detail = error.response.status_code, " ".join(error.response.text.split())[:300]
        said = f"Prefect's API refused to run {deployment!r} ({status} {error.response.reason_phrase})"
        if status in REFUSED:
            raise InvalidInputError(f"{said}: {detail}. Check the parameters that its flow takes.") from None
        if status in DENIED:
            raise AccessError(f"{said}. Set PREFECT_API_KEY or PREFECT_API_AUTH_STRING.") from None
        raise TransientError(f"{said}. Try again; nothing was lost.") from None
    except httpx.HTTPError as error:
        raise TransientError(
            f"Prefect's API does not answer ({type(error).__name__}). Try again; nothing was lost."
        ) from None
