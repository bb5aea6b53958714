"""What a store costs: prices and bills as plain functions, and an estimate from the real listing."""

from __future__ import annotations

from mltrack_tasks.costs.estimate import estimate_costs
from mltrack_tasks.pricing.bills import request_cost, storage_cost
from mltrack_tasks.pricing.prices import Prices, load_prices

__all__ = ["Prices", "estimate_costs", "load_prices", "request_cost", "storage_cost"]
