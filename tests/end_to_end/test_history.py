# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The history's own tests against a real PostgreSQL of the distribution, with a password and one database for the session."""

from __future__ import annotations

import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import time

import pytest
from fleet_operator import BIN, ROOT

PASSWORD = "planted-database-password"


def binaries():
    """Folder of the newest PostgreSQL of Debian's, installed when it is missing; no cluster of the distribution's is made or touched."""
    def found():
        return sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))

    if not found():
        settings = pathlib.Path("/etc/postgresql-common/createcluster.conf")
        settings.parent.mkdir(parents=True, exist_ok=True)
        if not settings.exists():
            settings.write_text("create_main_cluster = false\n")
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        subprocess.run(["apt-get", "update", "-q"], check=True, env=environment, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", "postgresql"],
                       check=True, env=environment, stdout=subprocess.DEVNULL)
    return found()[-1].parent


@pytest.fixture(scope="module")
def database():
    """A PostgreSQL of our own on a port of its own; gone afterwards."""
    folder = pathlib.Path("/var/tmp") / f"vllm-ascend-fleet-postgres-{os.getpid()}"
    folder.mkdir(mode=0o700)
    user = pwd.getpwnam("postgres") if binaries() else None
    os.chown(folder, user.pw_uid, user.pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The server refuses to run as root.
    as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    (folder / "password").write_text(PASSWORD)
    os.chown(folder / "password", user.pw_uid, user.pw_gid)
    subprocess.run([*as_user, binaries() / "initdb", "--no-sync", "--username=fleet", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}",
                    "-D", folder / "data"], check=True, stdout=subprocess.DEVNULL)
    server = subprocess.Popen([*as_user, binaries() / "postgres", "-D", folder / "data", "-k", folder, "-h", "127.0.0.1", "-p", str(port), "-F"],
                              stdout=subprocess.DEVNULL, stderr=open(folder / "log", "w"))
    until = time.monotonic() + 60
    while subprocess.run([binaries() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode != 0:
        assert time.monotonic() < until and server.poll() is None, (folder / "log").read_text()
        time.sleep(0.1)
    yield f"postgresql://fleet@127.0.0.1:{port}/postgres"
    server.terminate()
    server.wait(timeout=60)
    shutil.rmtree(folder)


def test_everything_holds_in_postgresql_as_well(database):
    done = subprocess.run([BIN / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/plugins/plugin_utils/test_history.py"], cwd=ROOT,
                          check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
                          env=dict(os.environ, HISTORY_ADDRESS=database, HISTORY_PASSWORD=PASSWORD))
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) >= 15 and "skipped" not in done.stdout


def test_a_wrong_password_is_a_warning_without_the_password(database):
    code = ("from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import history\n"
            f"print(history.use({database!r}, 'not-the-password', print, len, 'went on'))")
    done = subprocess.run([BIN / "python", "-c", code], cwd=ROOT, env=dict(os.environ, PYTHONPATH=str(ROOT / "collections")), check=True,
                          stdout=subprocess.PIPE, text=True, timeout=60)
    assert "password authentication failed" in done.stdout and done.stdout.endswith("went on\n")
    assert "not-the-password" not in done.stdout and "Traceback" not in done.stdout
