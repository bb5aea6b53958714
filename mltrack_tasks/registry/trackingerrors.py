"""What MLflow's client raises -> errors of this library, without the passwords of addresses."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mltrack_tasks.errors import AccessError, InvalidInputError, MLTrackError, NotFoundError, TransientError

_LOGIN = re.compile(r"(?<=://)\S*@")
_QUERY = re.compile(r"(?<=\w)\?[^\s'\"]*")
_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"})
_REFUSED = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
_WRONG = frozenset({"BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "NOT_IMPLEMENTED"})


def shown(text: str) -> str:
    """Take logins and queries out of the addresses in a text; either may hold a password."""
    return _QUERY.sub("", _LOGIN.sub("", text))


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn errors of MLflow, of what it speaks HTTP with, and of its databases into ours.

    MLflow's own texts quote addresses in full, so none is chained or quoted unless it is known to be plain.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MLTrackError:
        raise
    except MlflowException as error:
        raise _by_code(str(error.error_code), what) from None
    except OSError as error:  # those of requests are
        raise _by_status(error, what) from None
    except _database_errors() as error:
        raise TransientError(
            f"MLflow's database did not answer when asked for {what} ({type(error).__name__}). Try again; "
            "check the address if that does not help."
        ) from None


def _by_code(code: str, what: str) -> MLTrackError:
    if code in _MISSING:
        return NotFoundError(f"There is no {what} ({code})")
    if code in _REFUSED:
        return _refused(code, what)
    if code in _WRONG:
        # an id that cannot be one of MLflow's is one that MLflow does not have
        return NotFoundError(f"There can be no {what} ({code})")
    return TransientError(f"MLflow could not give {what} ({code}). Try again.")


def _by_status(error: OSError, what: str) -> MLTrackError:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status in (401, 403):
        return _refused(str(status), what)
    if status in (404, 410) or isinstance(error, FileNotFoundError):
        return NotFoundError(f"There is no {what}")
    if isinstance(error, PermissionError):
        return AccessError(f"This user may not read {what}. Check the permissions of its files.")
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
        return InvalidInputError(f"MLflow's server does not accept the request for {what} (HTTP {status}).")
    return TransientError(f"MLflow could not give {what} ({type(error).__name__}). Try again.")


def _refused(code: str, what: str) -> AccessError:
    return AccessError(
        f"MLflow's server refuses {what} ({code}). Check MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN, and what this user may read."
    )


def _database_errors() -> tuple[type[Exception], ...]:
    """SQLAlchemy's errors if MLflow has loaded it: it is no dependency of its client."""
    module = sys.modules.get("sqlalchemy.exc")
    return () if module is None else (module.SQLAlchemyError,)
