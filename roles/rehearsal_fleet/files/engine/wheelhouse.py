# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetches the pinned Python packages of a patch set as wheels for the image's Python into one folder.

Runs on the controller. Prints one JSON object: {"changed": bool, "wheelhouse": path, "files": [names of the pins' wheels]}.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).resolve().parent.parent / "patches" / "python-pins.txt"
GLIBC = ("manylinux2014", "manylinux_2_17", "manylinux_2_28")


def read_pins(path):
    """Lines of the form name==version."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def wheel_of(pin, folder, architecture):
    """Name of the wheel of a pin for an architecture in a folder, or None."""
    name, version = pin.split("==")
    start = "%s-%s-" % (re.sub(r"[-_.]+", "_", name).lower(), version)
    for path in sorted(folder.glob("*.whl")):
        if path.name.lower().startswith(start) and path.name.endswith(("-any.whl", "_%s.whl" % architecture)):
            return path.name
    return None


def fill(folder, pins, architecture, python, check=False):
    """Download what is missing (unless check); returns whether anything was, or raises RuntimeError with one sentence."""
    missing = [pin for pin in pins if wheel_of(pin, folder, architecture) is None]
    if not missing or check:
        return bool(missing)
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
             "--dest", str(folder), "--python-version", python, "--implementation", "cp"]
    for abi in ("cp" + python.replace(".", ""), "abi3", "none"):
        words += ["--abi", abi]
    for tag in GLIBC:
        words += ["--platform", "%s_%s" % (tag, architecture)]
    done = subprocess.run(words + missing, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True)
    missing = [pin for pin in pins if wheel_of(pin, folder, architecture) is None]
    if done.returncode or missing:
        raise RuntimeError("%s: no wheel of %s for Python %s on %s; the Python package index must be reachable and have it: %s"
                           % (folder, ", ".join(missing), python, architecture, " | ".join(done.stdout.strip().split("\n")[-3:])))
    return True


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--folder", default="~/.cache/vllm_ascend_fleet/wheelhouse")
    parser.add_argument("--pins", default=str(PINS))
    parser.add_argument("--architecture", default=platform.machine())
    parser.add_argument("--python", default="3.11")
    parser.add_argument("--check", action="store_true", help="say whether something would be fetched")
    arguments = parser.parse_args()
    folder, pins = Path(arguments.folder).expanduser(), read_pins(Path(arguments.pins))
    try:
        changed = fill(folder, pins, arguments.architecture, arguments.python, arguments.check)
    except RuntimeError as error:
        sys.exit("wheelhouse: %s" % error)
    print(json.dumps({"changed": changed, "wheelhouse": str(folder), "files": [wheel_of(pin, folder, arguments.architecture) for pin in pins]}))


if __name__ == "__main__":
    main()
