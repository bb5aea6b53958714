"""Tasks for questions over everything that is stored."""

from __future__ import annotations

from collections.abc import Mapping

from mltrack_tasks import compaction, lineage, query, usage
from mltrack_tasks.artifacts import Progress, markdown, plain, render_usage
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.compaction import CompactionReport
from mltrack_tasks.lineage import Lineage
from mltrack_tasks.query import QueryResult
from mltrack_tasks.refs import DataRef
from mltrack_tasks.resolve import open_store
from mltrack_tasks.runlinks import footer
from mltrack_tasks.tasking import mltrack_task, recorded, report, run_logger
from mltrack_tasks.usage_stats import UsageStats


@mltrack_task
def query_data(
    ref: DataRef | str | Mapping[str, DataRef | str],
    sql: str,
    *,
    verify: bool = False,
    store: MLTrackStore | str | None = None,
) -> QueryResult:
    """Ask stored Parquet data by SQL, reading only the columns and row groups needed -> ``.frame``.

    One ref is the table ``s3object``; a mapping gives each ref its table's name. ``verify`` re-hashes the
    whole data first. Raises InvalidInputError with DuckDB's message for SQL that cannot be run, or that would
    reach anything but these tables.
    """
    return query.query_data(open_store(store), ref, sql, verify=verify, observe=report)


@mltrack_task
def query_runs(sql: str, *, store: MLTrackStore | str | None = None) -> QueryResult:
    """Ask all runs by SQL -> ``.frame``; the table is ``runs``.

    As in ``SELECT run_id, metrics.accuracy FROM runs WHERE params.max_depth > 5``. Runs that were stored
    after the last compaction are included.
    """
    with Progress("mltrack-query-progress") as observe:
        return query.query_runs(open_store(store), sql, observe=observe)


@mltrack_task
def trace_lineage(
    *,
    run_id: str | None = None,
    ref: DataRef | str | None = None,
    model: str | None = None,
    version: str | None = None,
    direction: str = "both",
    depth: int | None = None,
    max_nodes: int = lineage.MAX_NODES,
    store: MLTrackStore | str | None = None,
) -> Lineage:
    """Trace what a run, a blob or a model version was made from, and what was made from it -> its lineage.

    Give one of ``run_id``, ``ref``, or ``model`` with ``version``. Links are the inputs and outputs of runs.
    In a flow it is also shown as a mermaid drawing (artifact ``mltrack-lineage``). Raises NotFoundError.
    """
    with Progress("mltrack-lineage-progress") as observe:
        found = lineage.trace_lineage(
            open_store(store),
            run_id=run_id,
            ref=ref,
            model=model,
            version=version,
            direction=direction,
            depth=depth,
            max_nodes=max_nodes,
            observe=observe,
        )
    markdown("mltrack-lineage", lineage.to_markdown(found), "What it was made from, and what from it")
    return found


@mltrack_task
def data_usage_stats(*, largest: int = 10, store: MLTrackStore | str | None = None) -> UsageStats:
    """Count what is stored, what deduplication saves and what nothing refers to -> figures [bytes].

    By project, run type and month, and for the whole store with its ``largest`` blobs. In a flow they are
    also shown as a table and a chart (artifacts ``mltrack-usage`` and ``mltrack-usage-chart``).
    """
    with Progress("mltrack-usage-progress") as observe:
        stats = usage.data_usage_stats(open_store(store), largest=largest, observe=observe)
    render_usage(stats)
    return stats


@mltrack_task
def compact_catalog(*, rebuild: bool = False, store: MLTrackStore | str | None = None) -> CompactionReport:
    """Bring the catalogue of runs up to date -> what was done; safe at any time, also beside itself.

    ``rebuild`` reads every manifest anew. In a flow the report is also shown (artifact ``mltrack-catalog``).
    """
    opened = open_store(store)
    with recorded(), Progress("mltrack-catalog-progress") as observe:
        done = compaction.compact_catalog(opened, rebuild=rebuild, observe=observe)
    told = f"{plain(opened.location)}: {plain(str(done))}"
    markdown("mltrack-catalog", told + footer(), "The catalogue of runs")
    if done.log_kept is not None:
        run_logger().warning("What the snapshot covers could not be removed: %s", done.log_kept)
    return done
