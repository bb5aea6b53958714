"""Schedules fire: the server that the locked versions make plans runs of a deployment."""

from __future__ import annotations

import pytest

from tests.e2e.prefect_server import shared_server

pytestmark = pytest.mark.timeout(300)


def test_the_server_plans_the_runs_of_a_schedule() -> None:
    """Prefect 3.8.8 cannot with SQLAlchemy 2.1: InvalidRequestError, told in the server's log alone."""
    server = shared_server()
    flow = server.ask("flows/", {"name": "planned"})["id"]
    schedule = {"schedule": {"cron": "0 3 * * *", "timezone": "UTC"}, "active": True}
    wanted = {"name": "nightly", "flow_id": flow, "schedules": [schedule]}
    deployment = server.ask("deployments/", wanted)["id"]
    server.ask(f"deployments/{deployment}/schedule", {"min_runs": 3})
    runs = server.ask("flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}})
    assert len(runs) >= 3
    assert {run["state_type"] for run in runs} == {"SCHEDULED"}
