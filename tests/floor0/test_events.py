"""Events as lines of a log."""

from __future__ import annotations

from mltrack_tasks.events import Event


def test_an_event_is_one_line_whatever_users_wrote() -> None:
    event = Event(
        "mltrack.x", "model.m", {"reason": "one\n2030-01-01 | INFO | two\x1b[31m", "other": "x" * 9_999}
    )
    assert str(event) == f"mltrack.x model.m reason=one 2030-01-01 | INFO | two [31m other={'x' * 200}…"
    assert str(Event("mltrack.x", "data.y", {"n": 1})) == "mltrack.x data.y n=1"
