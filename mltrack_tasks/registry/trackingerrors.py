"""What MLflow's client raises -> errors of this library, without the passwords of addresses."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from mltrack_tasks.errors import AccessError, InvalidInputError, MLTrackError, NotFoundError, TransientError
from mltrack_tasks.stores.files import os_errors
from mltrack_tasks.stores.s3_errors import botocore_errors

_SERVERS = ("http", "https")
_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"})
_DENIED = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
_REFUSED = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST"})
_LOGIN = (
    "Check the address, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN, and "
    "what this user may read."
)
_AGAIN = "Try again; if it stays, check the address."
_USER = re.compile(r"(?<=://)\S*@")
_ASKED = re.compile(r"\?.*", re.DOTALL)
_UNCLEAR = frozenset("/?#")
_UNKNOWN = "://..."


def shown(address: str) -> str:
    """An address as messages may show it: without user, password and query.

    SQLAlchemy takes passwords that hold ``/`` and ``?``, and then nothing tells where they end: of an address
    with one of these before an ``@``, only the scheme is shown.
    """
    scheme, separator, rest = address.partition("://")
    login, _, place = rest.rpartition("@")
    if not _UNCLEAR.isdisjoint(login):
        return f"{scheme}{_UNKNOWN}"
    return _ASKED.sub("", f"{scheme}{separator}{place}")


@contextmanager
def mlflow_errors(address: str, what: str) -> Iterator[None]:
    """Translate what MLflow and the libraries below it raise; no message shows the login in ``address``.

    Their own texts quote addresses in full, so none is chained, and what is quoted is cleaned.
    """
    from mlflow.exceptions import MlflowException

    try:
        with botocore_errors("read", what):
            yield
    except MLTrackError:
        raise
    except MlflowException as error:
        raise _of_code(str(error.error_code), _said(error, address), address, what) from None
    except ImportError as error:
        raise InvalidInputError(
            f"MLflow lacks a library to read {what}: {_said(error, address)}. Install it."
        ) from None
    except OSError as error:  # those of requests are
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is None and error.errno is not None:
            with os_errors(what):
                raise
        raise _of_status(status, _said(error, address), what) from None
    except _database_errors() as error:
        raise TransientError(
            f"MLflow's database did not answer for {what}: {_said(error, address)}. {_AGAIN}"
        ) from None


def _of_code(code: str, said: str, address: str, what: str) -> MLTrackError:
    if code in _MISSING:
        return NotFoundError(f"MLflow has no {what}: {said}.")
    if code in _DENIED:
        return AccessError(f"MLflow's server denies {what}: {said}. {_LOGIN}")
    if code in _REFUSED or urlsplit(address).scheme not in _SERVERS:
        return InvalidInputError(f"MLflow refuses {what}: {said}.")
    return TransientError(f"MLflow could not give {what}: {said}. {_AGAIN}")


def _of_status(status: int | None, said: str, what: str) -> MLTrackError:
    if status in (401, 403):
        return AccessError(f"MLflow's server denies {what}: {said}. {_LOGIN}")
    if status in (404, 410):
        return NotFoundError(f"MLflow's server has no {what}.")
    return TransientError(f"MLflow could not give {what}: {said}. {_AGAIN}")


def _said(error: Exception, address: str) -> str:
    """The start of a message, without what the address keeps secret."""
    if shown(address).endswith(_UNKNOWN):
        return type(error).__name__
    text = str(error)
    for secret in sorted(_secrets(address), key=len, reverse=True):
        text = text.replace(secret, "***")
    return " ".join(_USER.sub("", text).split())[:300].rstrip(".")


def _secrets(address: str) -> set[str]:
    """The password, or a user without one, as it stands and decoded; the query."""
    rest = address.partition("://")[2]
    login = rest.rpartition("@")[0]
    found = {login.partition(":")[2] or login, rest.partition("?")[2]} - {""}
    return found | {unquote(each) for each in found}


def _database_errors() -> tuple[type[Exception], ...]:
    """SQLAlchemy's errors if MLflow has loaded it: it is no dependency of its client."""
    module = sys.modules.get("sqlalchemy.exc")
    return () if module is None else (module.SQLAlchemyError,)
