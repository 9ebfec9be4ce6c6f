# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens inside an image that is being patched. Copied there beside ``patch_series.py`` and run as a plain file.

``image_build.py cann`` prints the CANN version; ``image_build.py build`` patches, installs the pins and proves the imports.
Standard library only. The recipe is ``recipe.json`` in the same folder, see ``derived_image``.
"""

from __future__ import annotations

# A program of its own inside of the image: no module is there.
# pylint: disable=ansible-bad-function

import glob
import hashlib
import importlib
import json
import os
import py_compile
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CANN_FILES = ("/usr/local/Ascend/ascend-toolkit/latest/*-linux/ascend_toolkit_install.info",
              "/usr/local/Ascend/ascend-toolkit/latest/ascend_toolkit_install.info",
              "/usr/local/Ascend/cann/*-linux/ascend_toolkit_install.info")
PIP_TIMEOUT_S = 1800
IMPORT_TIMEOUT_S = 300
MARK = "vllm-ascend-fleet: "


class BuildError(Exception):
    """The image must not be made; the text is one line for the user."""


def cann_version(text):
    """The version in an ``ascend_toolkit_install.info``, or None."""
    match = re.search(r"^\s*version\s*=\s*(\S+)", text, re.MULTILINE)
    return match.group(1) if match else None


def read_cann(patterns=CANN_FILES):
    """CANN version of the image that this runs in, or None when it has no toolkit."""
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)):
            with open(path) as stream:
                version = cann_version(stream.read())
            if version:
                return version
    return None


def unmet_pins(pins, installed):
    """The ``name==version`` pins that ``installed(name)`` (a version or None) does not meet. BuildError for another kind of pin."""
    unmet = []
    for pin in pins:
        name, equals, version = pin.partition("==")
        if not equals or not version.strip() or "*" in version:
            raise BuildError("python pin %r is not exact, wanted name==version" % pin)
        if installed(name.split("[")[0].strip()) != version.split(";")[0].strip():
            unmet.append(pin)
    return unmet


def installed_version(name):
    """Version of an installed distribution, or None. Asks afresh, so that it sees what pip has just done."""
    from importlib import metadata

    importlib.invalidate_caches()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def pip_command(pins, wheelhouse, index_url, constraints_file):
    """The one pip call: closed set, nothing resolved; from the wheelhouse alone when there is one."""
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--root-user-action=ignore"]
    if wheelhouse:
        command += ["--no-index", "--find-links", wheelhouse]
    elif index_url:
        command += ["--index-url", index_url]
    return command + (["--constraint", constraints_file] if constraints_file else []) + list(pins)


def install(recipe):
    """Install the pins that are not met yet; BuildError with pip's own reason. Returns the pins that were installed."""
    pins = unmet_pins(recipe["pins"], installed_version)
    if not pins:
        return []
    constraints = None
    if recipe["constraints"]:
        constraints = os.path.join(HERE, "constraints.txt")
        with open(constraints, "w") as stream:
            stream.write("\n".join(recipe["constraints"]) + "\n")
    wheelhouse = os.path.join(HERE, "wheelhouse") if recipe["wheelhouse"] else None
    command = pip_command(pins, wheelhouse, recipe["index_url"], constraints)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PIP_TIMEOUT_S, check=False,
                          env=dict(os.environ, LC_ALL="C", PIP_NO_INPUT="1"))
    if done.returncode != 0:
        errors = [line for line in done.stdout.decode("utf-8", "replace").splitlines() if "ERROR" in line]
        where = "the wheelhouse" if wheelhouse else recipe["index_url"] or "the package index"
        raise BuildError("pip cannot install %s from %s: %s" % (", ".join(pins), where, "; ".join(errors[:2]) or "pip gave no reason"))
    left = unmet_pins(pins, installed_version)
    if left:
        raise BuildError("pip ended well, but these pins are not met: %s" % ", ".join(left))
    return pins


def compile_files(files):
    """Compile every patched Python file to nowhere; BuildError naming file and line."""
    with tempfile.TemporaryDirectory() as folder:
        for tree, names in files.items():
            for name in sorted(names):
                if name.endswith(".py") and names[name]:
                    try:
                        py_compile.compile(os.path.join(tree, name), cfile=os.path.join(folder, "x.pyc"), doraise=True)
                    except py_compile.PyCompileError as error:
                        reason = error.exc_value
                        raise BuildError("the patched file %s/%s does not compile: %s (line %s)"
                                         % (tree, name, getattr(reason, "msg", reason), getattr(reason, "lineno", "?")))


def prove_imports(modules):
    """Import each module in a fresh interpreter; BuildError with the last line of its complaint."""
    for name in modules:
        done = subprocess.run([sys.executable, "-c", "import importlib, sys; importlib.import_module(sys.argv[1])", name], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=IMPORT_TIMEOUT_S, check=False, cwd="/")
        if done.returncode != 0:
            lines = [line for line in done.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
            raise BuildError("after patching, import %s fails: %s" % (name, lines[-1] if lines else "exit code %d" % done.returncode))


def imports_of(pins):
    """Modules to import as a proof: transformers, when the set pins it."""
    return [name for name in ("transformers",) if any(pin.split("==")[0].strip() == name for pin in pins)]


def imported(name):
    """Where a new interpreter finds a package, without importing it; None when it does not."""
    code = "import importlib.util as u, sys; s = u.find_spec(sys.argv[1]); print((s and s.origin) or '')"
    done = subprocess.run([sys.executable, "-c", code, name], stdout=subprocess.PIPE, timeout=IMPORT_TIMEOUT_S, check=False, cwd="/")
    return done.stdout.decode("utf-8", "replace").strip() or None


def prove_place(name, found, trees):
    """BuildError when a package that lies in a patched tree is imported from elsewhere: the patches would be without effect."""
    for tree in trees:
        if os.path.exists(os.path.join(tree, name, "__init__.py")) and not (found or "").startswith(tree.rstrip("/") + "/"):
            raise BuildError("the patches change %s, but %s is imported from %s; set their tree to where it is imported from" % (
                tree, name, found or "nowhere"))


def build(recipe, series):
    """Patch, install, prove, and leave the record for attestation. Returns what is recorded, with the hash of the record."""
    patches = [dict(each, file=os.path.join(HERE, "patches", each["stored"])) for each in recipe["patches"]]
    try:
        done = series.run_series(patches, workdir=tempfile.gettempdir())
    except series.PatchError as error:
        raise BuildError(str(error))
    installed = install(recipe)
    compile_files(done["files"])
    prove_imports(imports_of(recipe["pins"]))
    found = imported("vllm")
    prove_place("vllm", found, done["files"])
    content = {"id": recipe["id"], "name": recipe["name"], "base_digest": recipe["base_digest"], "cann": read_cann(), "files": done["files"],
               "patches": [{"file": each["file"], "tree": each["tree"], "sha256": each["sha256"]} for each in recipe["patches"]],
               "pins": recipe["pins"], "installed": installed, "imported": found,
               "verdicts": [{key: each[key] for key in ("patch", "tree", "verdict")} for each in done["verdicts"]]}
    os.makedirs(os.path.dirname(recipe["record"]), exist_ok=True)
    text = json.dumps(content, indent=1, sort_keys=True).encode("utf-8")
    with open(recipe["record"], "wb") as stream:
        stream.write(text)
    return dict(content, record_sha256=hashlib.sha256(text).hexdigest())


def main(argv):
    """Print one marked line of JSON: the result, or ``{"error": ...}`` with exit code 1."""
    try:
        if argv[1:] == ["cann"]:
            answer = {"cann": read_cann()}
        else:
            sys.path.insert(0, HERE)
            with open(os.path.join(HERE, "recipe.json")) as stream:
                answer = build(json.load(stream), importlib.import_module("patch_series"))
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        print(MARK + json.dumps({"error": str(error)}))
        return 1
    print(MARK + json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
