"""The task and the flow that estimate costs: what they hand out and show."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.estimate_costs import estimate_costs as costs_flow
from mltrack_tasks import CostEstimate, InvalidInputError, estimate_costs, store_data
from tests.floor4.test_trust_tasks import shown


def test_the_flow_shows_tables_and_a_chart(tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    store_data.fn(b"x" * 200_000, "big | name", store=place)
    policy = {"Rules": [{"ID": "a|b", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}]}
    found = costs_flow(lifecycle=policy, monthly_puts=1_000_000, store=place)
    assert isinstance(found, CostEstimate)
    assert found.owners[0].owner == "(named data)"
    assert "under $0.0001" in shown("mltrack-costs")["data"]
    assert "lifecycle rules" in shown("mltrack-costs-what-if")["data"]
    chart = shown("mltrack-costs-chart")["data"]
    assert "data:image/svg+xml;base64," in chart
    assert "Requests and reads of a month: $5.00." in chart


def test_the_task_outside_a_flow(tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    store_data.fn(1, store=place)
    assert estimate_costs.fn(region="eu-central-1", store=place).region == "eu-central-1"
    with pytest.raises(InvalidInputError, match="no prices of the region"):
        estimate_costs.fn(region="nowhere", store=place)
