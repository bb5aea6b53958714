"""What a report says of the run that made it: where the UI shows it, and the line that runs it again."""

from __future__ import annotations

import json
import shlex

from prefect.context import FlowRunContext
from prefect.runtime import deployment
from prefect.utilities.urls import url_for

MAX_LINE = 4_000
"""Characters of a command that are shown: a shell takes more, a reader does not."""


def footer() -> str:
    """Markdown for the end of a report: a link to the flow run and the command that repeats it.

    Empty outside a flow run. A run without a deployment has no command.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return ""
    address = url_for(context.flow_run)
    lines = ["", "---", ""]
    if address:
        lines += [f"[This run in Prefect]({address})", ""]
    line = repeat_command()
    if line is not None:
        lines += ["Run it again:", "", "```sh", line, "```", ""]
    return "\n".join(lines)


def repeat_command() -> str | None:
    """The shell command that runs this flow run's deployment with the same parameters; None without one.

    Parameters are those that the API keeps: blocks stand in it as references.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow is None or not deployment.name:
        return None
    asked = json.dumps(context.flow_run.parameters, sort_keys=True, default=str)
    # As an escape of JSON: it would end the block of code that the command stands in.
    asked = asked.replace("`", "\\u0060")
    line = shlex.join(
        ["prefect", "deployment", "run", f"{context.flow.name}/{deployment.name}", "--params", asked]
    )
    return line if len(line) <= MAX_LINE else None
