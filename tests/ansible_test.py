#!/usr/bin/env python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, The vllm_ascend.fleet authors
"""Run ansible-test of one ansible-core on a built and installed copy: `tests/ansible_test.py 2.16 sanity --test pep8`.

ansible-test refuses a plain checkout, and through the links of collections/ it passes without testing anything.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "ansible-test"

# ansible-test fetches pip's bootstrap from a server that mirrors and air gaps do not have; this does the same with the registry alone.
GET_PIP = """\
import runpy, subprocess, sys
subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL)
wanted = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
subprocess.check_call([sys.executable, "-m", "pip", "install", "--upgrade"] + wanted)
"""


class Core(NamedTuple):
    version: str
    controllers: list[str]
    targets: list[str]
    pip: str


class Missing(Exception):
    """Something this machine lacks; the text says what."""


def cores() -> list[Core]:
    """The rows of cores.txt, oldest first."""
    rows = [line.split() for line in (ROOT / "tests" / "cores.txt").read_text().splitlines() if line.strip() and line[0] != "#"]
    return [Core(version, controllers.split(","), targets.split(","), pip) for version, controllers, targets, pip in rows]


def interpreters() -> dict[str, Path]:
    """Real CPython interpreters by "3.N", looked for on PATH and below pyenv; shims that do not run do not count."""
    folders = [Path(part) for part in os.environ.get("PATH", "").split(":") if part] + [Path("/usr/bin"), Path("/usr/local/bin")]
    folders += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin"), reverse=True)
    probe = "import ensurepip, os, sys, venv; print('%d.%d' % sys.version_info[:2], os.path.realpath(sys.executable))"
    found: dict[str, Path] = {}
    for minor in range(7, 15):
        for folder in folders:
            candidate = folder / f"python3.{minor}"
            if not os.access(candidate, os.X_OK):
                continue
            answer = subprocess.run([candidate, "-c", probe], capture_output=True, text=True, check=False)
            if answer.returncode == 0 and answer.stdout.split()[0] == f"3.{minor}":
                found[f"3.{minor}"] = Path(answer.stdout.split()[1])
                break
    return found


def controller_python(core: Core, found: dict[str, Path]) -> str:
    """The "3.N" that runs this core here."""
    for version in core.controllers:
        if version in found:
            return version
    raise Missing(f"ansible-core {core.version} needs Python {' or '.join(core.controllers)}; found {', '.join(found) or 'none'}")


def core_venv(core: Core, python: Path) -> Path:
    """The virtual environment with the locked core, made when its lock is newer."""
    lock, venv = ROOT / "tests" / "cores" / f"{core.version}.txt", CACHE / "cores" / core.version
    stamp = venv / ".done"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run([python, "-m", "venv", "--clear", venv], check=True)
        subprocess.run([venv / "bin" / "python", "-m", "pip", "-qq", "--disable-pip-version-check", "install", "--require-hashes", "-r", lock], check=True)
        stamp.touch()
    return venv


def home(core: Core) -> Path:
    """A home of ansible-test's own: the bootstrap's stand-in, and the pip settings that it would not pass on."""
    folder = CACHE / "home"
    cache = folder / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / f"get_pip_{core.pip.replace('.', '_')}.py").write_text(GET_PIP)
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    settings = dict(re.findall(r"^(?:global|install|:env:)\.([\w-]+)=(.*)$", listed, re.MULTILINE))
    config = folder / ".config" / "pip" / "pip.conf"
    config.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{key} = " + str(ast.literal_eval(value)).replace("\n", "\n    ") for key, value in settings.items()]
    text = "\n".join(["[global]"] + lines) + "\n"
    if not config.exists() or config.read_text() != text:  # Another run may be reading it.
        config.touch(mode=0o600)
        config.write_text(text)
    return folder


def build(destination: Path) -> Path:
    """Build the collection and install it below `destination`; the folder of the installed collection."""
    shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir(parents=True)
    galaxy = [str(Path(sys.executable).parent / "ansible-galaxy"), "collection"]
    environment = dict(os.environ, ANSIBLE_HOME=str(ROOT / ".cache" / "ansible"), ANSIBLE_COLLECTIONS_PATH=str(destination))
    options = {"check": True, "stdout": subprocess.DEVNULL, "env": environment}
    subprocess.run(galaxy + ["build", "--output-path", str(destination)], cwd=ROOT, **options)
    tarball = next(destination.glob("*.tar.gz"))
    subprocess.run(galaxy + ["install", "--no-deps", "--force", str(tarball), "-p", str(destination)], cwd=destination, **options)
    return destination / "ansible_collections" / "vllm_ascend" / "fleet"


def make_copy(kind: str) -> Path:
    """A fresh built copy that is a git checkout of its own, for one kind of run at a time: in an ignored folder of another one ansible-test sees no files."""
    copy = build(CACHE / "collections" / kind)
    subprocess.run(["git", "init", "-q", "."], cwd=copy, check=True)
    subprocess.run(["git", "add", "-A"], cwd=copy, check=True)
    return copy


def command(core: Core, found: dict[str, Path]) -> tuple[list[str], dict[str, str]]:
    """The ansible-test of a core and the environment it needs."""
    venv = core_venv(core, found[controller_python(core, found)])
    links = CACHE / "interpreters"
    links.mkdir(parents=True, exist_ok=True)
    for version, path in found.items():
        link = links / f"python{version}"
        if not link.is_symlink() or Path(os.readlink(link)) != path:
            link.unlink(missing_ok=True)
            link.symlink_to(path)
    environment = dict(os.environ, HOME=str(home(core)), PATH=f"{links}:{venv / 'bin'}:/usr/local/bin:/usr/bin:/bin", LC_ALL="C.UTF-8")
    environment.pop("ANSIBLE_CONFIG", None)
    return [str(venv / "bin" / "ansible-test")], environment


def main() -> int:
    known = {core.version: core for core in cores()}
    if len(sys.argv) < 3 or sys.argv[1] not in known:
        print(f"usage: tests/ansible_test.py {'|'.join(known)} <arguments of ansible-test>", file=sys.stderr)
        return 2
    try:
        argv, environment = command(known[sys.argv[1]], interpreters())
    except Missing as error:
        print(error, file=sys.stderr)
        return 2
    return subprocess.run(argv + sys.argv[2:], cwd=make_copy(sys.argv[2]), env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
