"""Where the files of a registered model lie in a tree, as far as its source tells: looked up, never followed.

A source is recognised by the run or logged model whose artifacts it names; their ids are the same wherever
the tree lies now. What is looked for are paths of a list, so that no source leads out of the tree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from mltrack_tasks.mlflowdata.addresses import ARTIFACTS, read_address
from mltrack_tasks.mlflowdata.facts import RegisteredModel, RegisteredVersion

DEEPEST = 20
"""Copies of copies of a version that are followed."""
_RUNS = re.compile(r"runs:/+([0-9A-Za-z_-]+)/(.+)", re.DOTALL)
_LOGGED = re.compile(r"models:/+(m-[0-9a-f]{32})")
_REGISTERED = re.compile(r"models:/+(.+)/([0-9]{1,18})", re.DOTALL)
_PROXIED = re.compile(r"mlflow-artifacts:(?://[^/]*)?(/.*)", re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


@dataclass(frozen=True)
class Artifacts:
    """What a tree has of runs and logged models."""

    root: Path
    folders: Mapping[str, str]
    """Id of a run or a logged model -> its folder of artifacts in the tree."""
    named: Mapping[tuple[str, str], str]
    """(run, name of a model that it logged) -> that model's id."""


@dataclass(frozen=True)
class Candidates:
    """Folders (or files) of the tree that a version may lie in, the likeliest first, and what if in none."""

    folders: tuple[str, ...]
    otherwise: str


def candidates(
    version: RegisteredVersion, registry: Mapping[str, RegisteredModel], artifacts: Artifacts
) -> Candidates:
    """Find where the files of a version may lie.

    A copy has the files that its original had when it was copied: MLflow wrote down where. What has the
    original's name and number now may be another model; only without that note it is looked for there.
    """
    for _ in range(DEEPEST):
        match = _REGISTERED.fullmatch(version.source or "")
        if match is None:
            return _plain(version, artifacts)
        if version.storage_location:
            return _plain(replace(version, source=version.storage_location), artifacts)
        model = registry.get(match[1])
        found = [each for each in model.versions if each.version == int(match[2])] if model else []
        if not found:
            return Candidates((), f"{version.source!r:.200} is not in this registry")
        version = found[0]
    return Candidates((), "it is a copy of copies that leads nowhere")


def _plain(version: RegisteredVersion, artifacts: Artifacts) -> Candidates:
    """Like MLflow, go by the source; ``model_id`` is a note beside it, and may name another model."""
    source = version.source or ""
    logged = _LOGGED.fullmatch(source)
    model_id = logged[1] if logged else None if source else version.model_id
    if model_id is not None:
        folder = artifacts.folders.get(model_id)
        return Candidates((folder,) if folder else (), f"the logged model {model_id} has no files here")
    if match := _RUNS.fullmatch(source):
        return _of_run(match[1], match[2].strip("/"), artifacts)
    if not source:
        return Candidates((), "MLflow does not say where its files are")
    return _at_address(source, artifacts)


def _of_run(run_id: str, path: str, artifacts: Artifacts) -> Candidates:
    """``runs:/<run>/<path>``: artifacts of the run, or a model that it logged by that name (MLflow 3)."""
    folders = []
    if base := artifacts.folders.get(run_id):
        folders += [f"{base}/{each}" for each in dict.fromkeys((path, unquote(path)))]
    model_id = artifacts.named.get((run_id, path), "")
    if logged := artifacts.folders.get(model_id):
        folders.append(logged)
    return Candidates(tuple(folders), f"the run {run_id} has no files of {path!r:.200} here")


def _at_address(source: str, artifacts: Artifacts) -> Candidates:
    proxied = _PROXIED.fullmatch(source)
    address = read_address(proxied[1] if proxied else source)
    if address is None:
        scheme = _SCHEME.match(source)
        where = f"they are in {scheme[1]}:" if scheme else "its address is none of this folder"
        return Candidates((), f"{where} ({source!r:.200})")
    segments, folders = address.segments, list[str]()
    root = tuple(str(artifacts.root).split("/"))
    if not proxied and segments[: len(root)] == root and len(segments) > len(root):
        folders.append("/".join(segments[len(root) :]))
    for at in range(2, len(segments)):
        if segments[at] == ARTIFACTS and (base := artifacts.folders.get(segments[at - 1])):
            folders.append("/".join((base, *segments[at + 1 :])))
            break
    where = "there is nothing at" if folders else "they lie outside of this folder, at"
    return Candidates(tuple(dict.fromkeys(folders)), f"{where} {source!r:.200}")
