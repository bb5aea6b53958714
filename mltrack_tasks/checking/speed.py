"""How fast a small upload is, what slows it down, and this machine's clock against the server's."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from urllib.parse import urlsplit

from mltrack_tasks.checking.report import AccessCheck, not_probed
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.s3_settings import S3Settings

SAMPLE = 2 * 1024 * 1024
"""[bytes] of the upload that is measured."""
ASKED = 4
"""Requests whose median is the latency; one before them opens the connection."""
FAR = 0.1
"""[s] until an answer, from which on distance is what small files wait for. Within a region it is 0.01 to
0.03, across an ocean 0.1 to 0.25."""
SLOW = 4e6
"""[bytes/s] of one upload, below which a line, a proxy or a server is in the way: 32 Mbit/s."""
REFUSED_SKEW = 15 * 60
"""[s] by which a clock may differ: S3 refuses what was signed at another time (RequestTimeTooSkewed)."""
NOTICED_SKEW = 60
"""[s] from which on times in records mislead."""


@dataclass(frozen=True)
class Line:
    """What was measured, and what is known of the way to the server."""

    latency: float
    """[s] until an answer that needs no data."""
    seconds: float
    """[s] of an upload of SAMPLE bytes."""
    region: str | None = None
    endpoint: str | None = None
    """None: AWS."""
    accelerated: bool = False
    proxy: str | None = None
    """``host:port`` of the proxy that requests go through."""
    workers: int = 8

    @property
    def rate(self) -> float:
        """[bytes/s]"""
        return SAMPLE / max(self.seconds, 1e-9)

    @property
    def slow(self) -> bool:
        """Whether there is something to be cured."""
        return self.latency > FAR or self.rate < SLOW


def measure(store: Store, settings: S3Settings, key: str, region: str | None) -> Line:
    """Time requests, and an upload to ``key``, which stays there."""
    times = [_timed(lambda: store.head(f"{key}-missing")) for _ in range(ASKED + 1)]
    body = os.urandom(SAMPLE)  # what a proxy cannot compress
    return Line(
        latency=median(times[1:]),
        seconds=_timed(lambda: store.create(key, body)),
        region=region,
        endpoint=settings.endpoint_url,
        accelerated=settings.accelerate,
        proxy=_proxy_to(settings.endpoint_url or "https://s3.amazonaws.com"),
        workers=settings.max_workers,
    )


def speed_row(line: Line) -> AccessCheck:
    """Say how fast it is and, where it is slow, which cures fit. Slow is no failure."""
    said = f"{line.latency * 1e3:.0f} ms to an answer, one upload at {line.rate / 1e6:.1f} MB/s"
    if not line.slow:
        return AccessCheck("upload speed", True, said)
    return AccessCheck("upload speed", None, f"slow: {said}", " ".join(_cures(line)))


def _cures(line: Line) -> list[str]:
    found = []
    if line.proxy:
        found.append(f"Requests go through the proxy {line.proxy}: put the server's host into NO_PROXY.")
    if line.latency > FAR:
        found += _cures_of_distance(line)
    elif line.accelerated:
        found.append("The bucket is near: leave transfer_acceleration out, which takes a way round.")
    elif line.endpoint is None:
        found.append(
            "The bucket is near, so the line is narrow: use an S3 gateway endpoint where this runs in a VPC, "
            "or a machine with more bandwidth. More workers do not help."
        )
    else:
        found.append(
            "The server is near and slow: look at its disks and load, and at what stands before it "
            "(endpoint_url). More workers do not help."
        )
    return found


def _cures_of_distance(line: Line) -> list[str]:
    found = []
    if line.endpoint is not None:
        found.append("The server is far: choose an endpoint_url nearer to this machine.")
    else:
        found.append(
            f"The bucket is far (region {line.region or 'unknown'}): run workers in its region, or take a "
            "bucket in yours (replicate_store copies a store)."
        )
        if not line.accelerated:
            found.append(
                "Where that cannot be, enable Transfer Acceleration: "
                "provision_bucket(BucketSettings(acceleration=True)), then transfer_acceleration=True in "
                "the block."
            )
    if line.workers < 32:
        found.append(f"Small files wait for answers: set max_workers above {line.workers}, up to 64.")
    return found


def clock_row(ahead: float | None) -> AccessCheck:
    """Judge by how many seconds this machine's clock is ahead of the server's; None: it does not tell."""
    if ahead is None:
        return not_probed("clock", "the server tells no time")
    if abs(ahead) < NOTICED_SKEW:
        return AccessCheck("clock", True, f"agrees with the server's within {NOTICED_SKEW} s")
    said = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
    fix = "Set this machine's clock, and keep it by NTP: S3 refuses requests from 15 minutes on."
    return AccessCheck("clock", False if abs(ahead) >= REFUSED_SKEW else None, said, fix)


def _timed(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def _proxy_to(url: str) -> str | None:
    """The proxy that the environment names for an address, without the password that may be in it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies_environment()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if not found or urllib.request.proxy_bypass(host):
        return None
    proxy = urlsplit(found if "//" in found else f"//{found}")
    return f"{proxy.hostname}:{proxy.port}" if proxy.port else str(proxy.hostname)
