"""Ceph's object gateway: one monitor, one OSD and radosgw on loopback, from zero, without systemd.

Needs Debian's radosgw, ceph-mon, ceph-osd and ceph-common (scripts/ci_servers.sh installs them).
What 16.2 does not do (it ignores SHA-256 headers, for one) is listed in docs/s3_servers.md.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .model import S3Server
from .process import Child, ServerStartError, answers_s3, clean_environment, free_ports, running

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
STORE_BYTES = 20 << 30
"""Size of the OSD's sparse file [bytes]; only what is written takes room on the disk."""

_CONF = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_port}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr1 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = {directory}/run
admin_socket = {directory}/run/$name.asok
crash_dir = {directory}/run
log_file = {directory}/log/$name.log
log_to_stderr = false
err_to_stderr = true
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
# a test must not fail because the disk that it shares is nearly full
mon_data_avail_warn = 3
mon_data_avail_crit = 1

[mon]
mon_data = {directory}/mon
mon_cluster_log_file = {directory}/log/cluster.log

[osd]
osd_data = {directory}/osd
osd_objectstore = bluestore
osd_class_load_list = *
osd_class_default_list = *
osd_memory_target = 1200000000
bluestore_block_size = {store_bytes}

[client.rgw]
# with authentication off, radosgw's default ("secure") never connects
ms_mon_client_mode = crc
rgw_data = {directory}/rgw
# without tcp_nodelay, answers on a kept connection wait 40 ms for an acknowledgement
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_thread_pool_size = 64
rgw_enable_usage_log = false
# seconds that pass for one day of a lifecycle rule
rgw_lc_debug_interval = 10
"""


@contextmanager
def serve(directory: Path) -> Iterator[S3Server]:
    """Make a new cluster in ``directory`` and run it on free ports.

    The alt user may use S3, and has no rights to the owner's buckets; the owner may give it policies.
    Raises ServerStartError also when ``directory`` holds a cluster already.
    """
    _require_programs()
    if (directory / "ceph.conf").exists():
        raise ServerStartError(f"{directory} holds a cluster of before; remove it or name another")
    mon_port, port = free_ports(2)
    cluster = _Cluster(directory, mon_port, port)
    server = S3Server(
        "ceph",
        f"http://127.0.0.1:{port}",
        access_key="owner",
        secret_key="owner-secret",
        alt_access_key="alt",
        alt_secret_key="alt-secret",
    )
    with ExitStack() as stack:
        mon = stack.enter_context(cluster.daemon("mon", "ceph-mon", "-i", "a"))
        mon.wait_until(cluster.has_quorum, 30)
        cluster.make_osd()
        osd = stack.enter_context(cluster.daemon("osd", "ceph-osd", "-i", "0"))
        osd.wait_until(cluster.osd_is_up, 60)
        cluster.add_user(server.access_key, server.secret_key, "--caps=user-policy=*")
        cluster.add_user("alt", "alt-secret")
        rgw = stack.enter_context(cluster.daemon("rgw", "radosgw", "-n", "client.rgw"))
        rgw.wait_until(answers_s3(server), 90)
        yield server


def _require_programs() -> None:
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise ServerStartError(
            f"missing {', '.join(missing)}: apt-get install --no-install-recommends "
            "radosgw ceph-mon ceph-osd ceph-common (scripts/ci_servers.sh ceph does it)"
        )


class _Cluster:
    """The configuration file and the commands of one cluster."""

    def __init__(self, directory: Path, mon_port: int, port: int) -> None:
        self.directory, self.conf = directory, directory / "ceph.conf"
        self.log = directory / "log"
        for name in ("mon", "osd", "rgw", "run", "log"):
            (directory / name).mkdir(parents=True, exist_ok=False)
        fsid = str(uuid.uuid4())
        self.conf.write_text(
            _CONF.format(
                fsid=fsid,
                directory=directory,
                mon_port=mon_port,
                port=port,
                store_bytes=STORE_BYTES,
            )
        )
        monmap = directory / "monmap"
        address = f"[v2:127.0.0.1:{mon_port}]"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, str(monmap))
        self._run("ceph-mon", "-c", str(self.conf), "--mkfs", "-i", "a", "--monmap", str(monmap))

    @contextmanager
    def daemon(self, name: str, *command: str) -> Iterator[Child]:
        arguments = [*command, "-c", str(self.conf), "-f"]
        env = clean_environment()
        with running(f"ceph {name}", arguments, self.log / f"{name}.out", env) as child:
            yield child

    def has_quorum(self) -> bool:
        """Ask the monitor; the client itself waits for it, up to its connect time-out."""
        return self._ceph("status").returncode == 0

    def make_osd(self) -> None:
        osd = str(uuid.uuid4())
        given = self._ceph("osd", "new", osd)
        if given.stdout.strip() != "0":
            raise ServerStartError(f"ceph osd new: {given.stdout}{given.stderr}")
        self._run("ceph-osd", "-c", str(self.conf), "-i", "0", "--mkfs", "--osd-uuid", osd)

    def osd_is_up(self) -> bool:
        stat = self._ceph("osd", "stat", "-f", "json")
        return stat.returncode == 0 and json.loads(stat.stdout)["num_up_osds"] == 1

    def add_user(self, access_key: str, secret_key: str, *options: str) -> None:
        user = ["user", "create", f"--uid={access_key}", f"--display-name={access_key}"]
        keys = [f"--access-key={access_key}", f"--secret-key={secret_key}"]
        self._run("radosgw-admin", "-c", str(self.conf), "-n", "client.rgw", *user, *keys, *options)

    def _ceph(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["ceph", "-c", str(self.conf), "--connect-timeout", "10", *arguments]
        return _finished(command, seconds=30)

    def _run(self, *command: str) -> None:
        done = _finished(command, seconds=90)
        if done.returncode != 0:
            raise ServerStartError(
                f"{' '.join(command[:4])} ... ended with code {done.returncode}:\n{done.stderr}"
            )


def _finished(command: list[str] | tuple[str, ...], *, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run to the end, at most ``seconds``; what it prints is kept."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerStartError(f"{' '.join(command)} took over {seconds:g} s") from error
