# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a bundle on the controller, proves one, and carries its blobs to and from hosts. Runs on the controller."""

from __future__ import annotations

import concurrent.futures
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import yaml

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import bundle, bundle_host, image_job
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.bundle import BundleError
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import lean, lock_file

COLLECTION_ROOT = pathlib.Path(__file__).absolute().parents[2]
# What a controller of this collection needs; what those need follows from what is installed here.
CONTROLLER = ("ansible-core", "paramiko", "rich")


def hashes(folder):
    """{path: sha256} of every file of a bundle but the two that tell its hashes."""
    root = pathlib.Path(folder)
    own = (bundle.MANIFEST, bundle.ROOT)
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if (path.is_file() or path.is_symlink()) and str(path.relative_to(root)) not in own)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(files, pool.map(lambda path: bundle_host.sha256_of(str(root / path)), files), strict=True))


def verify(folder, wanted_root):
    """Prove a bundle whole. :returns: {"folder", "root", "images", "lock"}. :raises BundleError: naming the first thing that is wrong."""
    root = pathlib.Path(folder).expanduser().absolute()
    try:
        text, claimed = (root / bundle.MANIFEST).read_text(encoding="utf-8"), (root / bundle.ROOT).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{root} is no whole bundle: {error}; give the folder that {bundle.MAKE} made, and copy all of it") from error
    found = bundle.root_hash(text)
    problem = bundle.root_problem(str(root), found, claimed, wanted_root)
    wrong = [problem] if problem else bundle.problems(str(root), bundle.parse_manifest(text), hashes(root))
    if wrong:
        raise BundleError(wrong[0] + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""))
    index = json.loads((root / bundle.INDEX).read_text(encoding="utf-8"))
    if index.get("schema") != bundle.SCHEMA:
        raise BundleError(f"the bundle {root} is of another release of this collection; install the one in {root / bundle.COLLECTION}")
    images = {name: dict(entry, folder=str(root)) for name, entry in index["images"].items()}
    return {"folder": str(root), "root": found, "images": images, "lock": lock_file.load(root / bundle.LOCK)}


# --- to and from hosts ----------------------------------------------------------------------------------------------


def send(action, options, given, names, task_vars):
    """Copy blobs to the host, each proven there before it counts. :returns: the last answer, "failed" when one did not arrive whole."""
    host, total, done = task_vars["inventory_hostname"], sum(given["blobs"][name] for name in names), 0
    result, tmp = {}, action._make_tmp_path()
    try:
        for number, name in enumerate(names, 1):
            size = given["blobs"][name]
            action._display.display(f"{host}: copying {number} of {len(names)} from the bundle, {image_job.megabytes(done)} of {image_job.megabytes(total)}")
            path = action._connection._shell.join_path(tmp, name)
            action._transfer_file(os.path.join(given["folder"], bundle.BLOBS, name), path)
            result = lean.execute(action, "bundle_host:take", {"options": options, "path": path, "name": name}, task_vars)
            if result.get("failed"):
                return result
            done += size
    finally:
        action._remove_tmp_path(tmp)
    return result


def fetch(action, folder, blobs, remote, task_vars):
    """Bring blobs from a host into the bundle. :raises BundleError: when one does not arrive whole."""
    host, target = task_vars["inventory_hostname"], pathlib.Path(folder) / bundle.BLOBS
    target.mkdir(parents=True, exist_ok=True)
    lack = [name for name in sorted(blobs) if not (target / name).exists()]
    for number, name in enumerate(lack, 1):
        action._display.display(f"{host}: fetching {number} of {len(lack)}, {image_job.megabytes(blobs[name])}")
        part = target / f".{name}.{os.getpid()}"
        action._connection.fetch_file(os.path.join(remote, name), str(part))
        if bundle_host.sha256_of(str(part)) != name:
            part.unlink()
            raise BundleError(f"{host}: blob {name[:12]} was damaged on its way; run again")
        os.replace(part, target / name)


# --- the rest of a bundle -------------------------------------------------------------------------------------------


def controller_pins():
    """[name==version] of all that this controller's Ansible and this collection stand on."""
    seen, open_names = {}, list(CONTROLLER)
    while open_names:
        name = bundle.canonical(open_names.pop())
        if name in seen:
            continue
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        seen[name] = found.version
        # Ansible itself needs it; a sanity test imports without.
        from packaging.requirements import Requirement

        needed = [Requirement(text) for text in found.requires or ()]
        open_names += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [f"{name}=={version}" for name, version in sorted(seen.items())]


def packages(target, given, pins, what, index_url):
    """Have the packages of the pins in a folder: out of the one that is given, or downloaded. :raises BundleError: naming what is lacking."""
    if not pins:
        return
    target.mkdir(parents=True, exist_ok=True)
    if given:
        if not os.path.isdir(given):
            raise BundleError(f"the folder {given} for {what} is not there; make it, or unset it to have them downloaded")
        for path in sorted(pathlib.Path(given).iterdir()):
            if bundle.package_of(path.name):
                shutil.copyfile(path, target / path.name)
    else:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-input",
                "--disable-pip-version-check",
                "--no-deps",
                "--dest",
                str(target),
                *(["--index-url", index_url] if index_url else []),
                *pins,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            said = [line for line in done.stdout.splitlines() if line.strip()] or ["no reason"]
            raise BundleError(f"the packages of {what} cannot be downloaded: {said[-1]}; give a folder with them")
    bundle.refuse_lacking(pins, os.listdir(target), what, given or "the package index")


def collection(target):
    """Put this collection as a tarball into a folder. :returns: its version."""
    target.mkdir(parents=True, exist_ok=True)
    if (COLLECTION_ROOT / "galaxy.yml").exists():
        galaxy = os.path.join(os.path.dirname(sys.executable), "ansible-galaxy")
        done = subprocess.run([galaxy if os.path.exists(galaxy) else "ansible-galaxy", "collection", "build", "--force", "--output-path", str(target),
                               str(COLLECTION_ROOT)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise BundleError(f"the collection cannot be packed: {done.stdout.strip().splitlines()[-1]}")
        return yaml.safe_load((COLLECTION_ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    version = json.loads((COLLECTION_ROOT / "MANIFEST.json").read_text(encoding="utf-8"))["collection_info"]["version"]
    listed = json.loads((COLLECTION_ROOT / "FILES.json").read_text(encoding="utf-8"))["files"]
    with tarfile.open(target / f"vllm_ascend-fleet-{version}.tar.gz", "w:gz") as archive:
        for name in ["MANIFEST.json", "FILES.json"] + [each["name"] for each in listed if each["name"] != "."]:
            archive.add(COLLECTION_ROOT / name, arcname=name, recursive=False)
    return version


def weights(source, target, copy):
    """{model: {file: {"sha256", "bytes"}}} of a folder with one folder for each model; the files come along when ``copy``."""
    if not source:
        return {}
    if not os.path.isdir(source):
        raise BundleError(f"bundle_weights {source} is not a folder; give one that holds a folder for each model")
    result = {}
    for path in sorted(pathlib.Path(source).rglob("*")):
        parts = path.relative_to(source).parts
        if path.is_file() and len(parts) > 1:
            name = os.path.join(*parts[1:])
            result.setdefault(parts[0], {})[name] = {"sha256": bundle_host.sha256_of(str(path)), "bytes": path.stat().st_size}
            if copy:
                (target / parts[0] / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / parts[0] / name)
    return result


def finish(args, images, lock):
    """Put all but the images into the bundle and seal it. :returns: {"root", "files", "bytes"}. :raises BundleError: naming what is lacking.

    :param dict images: of the plan. :param dict lock: the fleet's lock file.
    """
    if not images:
        raise BundleError("no host of this run asks for an image, so there is nothing to bundle; see what the plan says of each host")
    root = pathlib.Path(args["path"])
    sets = {entry["patch_set"]["id"]: entry["patch_set"] for entry in images.values() if entry["patch_set"]}
    entries = {}
    for part in root.glob("images/part.*.json"):
        entries.update(json.loads(part.read_text(encoding="utf-8")))
    for target in images:
        if bundle.key(target) not in entries:
            raise BundleError(f"{target} was not collected; see the failure of {', '.join(images[target]['hosts'])}")
    entries = {bundle.key(target): entries[bundle.key(target)] for target in images}
    for name in (bundle.PATCHES, bundle.WHEELS, bundle.PYTHON, bundle.COLLECTION, bundle.WEIGHTS):
        shutil.rmtree(root / name, ignore_errors=True)
    for patch in [patch for each in sets.values() for patch in each["patches"]]:
        (root / bundle.PATCHES).mkdir(exist_ok=True)
        shutil.copyfile(os.path.join(args["patch_directory"], patch["file"]), root / bundle.PATCHES / patch["file"])
    pins = sorted({pin for each in sets.values() for pin in (each.get("python") or {}).get("pins") or ()})
    packages(root / bundle.WHEELS, args["wheelhouse"], pins, "the patch set's pins", args["pip_index_url"])
    packages(root / bundle.PYTHON, args["python"], controller_pins(), "the controller's Python", args["pip_index_url"])
    version = collection(root / bundle.COLLECTION)
    found = weights(args["weights"], root / bundle.WEIGHTS, args["copy_weights"])
    if found:
        (root / bundle.WEIGHTS).mkdir(exist_ok=True)
        write(root / bundle.WEIGHTS / "manifest.json", found)
    wanted = {name for entry in entries.values() for name in entry["blobs"]}
    for path in pathlib.Path(root, bundle.BLOBS).iterdir():
        if path.name not in wanted:
            path.unlink()
    lock_file.save(root / bundle.LOCK, {"images": {each["origin"]: each["digest"] for each in images.values() if each["digest"]},
                                        "targets": {}, "patches": {patch["file"]: patch["sha256"] for each in sets.values() for patch in each["patches"]}})
    for target, image in images.items():
        entries[bundle.key(target)].update({key: value for key, value in lock["targets"].get(target, {}).items() if key != "digest"})
    write(root / "images" / "oci-layout", {"imageLayoutVersion": "1.0.0"})
    write(root / "images" / "index.json", {"schemaVersion": 2, "manifests": [
        {"mediaType": entry["media_type"], "digest": entry["digest"], "size": entry["blobs"][entry["digest"].partition(":")[2]],
         "annotations": {"org.opencontainers.image.ref.name": name}} for name, entry in sorted(entries.items())]})
    for part in root.glob("images/part.*.json"):
        part.unlink()
    write(root / bundle.INDEX, {"schema": bundle.SCHEMA, "version": version, "images": entries})
    (root / bundle.SBOM).unlink(missing_ok=True)
    write(root / bundle.SBOM, bundle.sbom(version, hashes(root), entries, found))
    text = bundle.manifest_text(hashes(root))
    (root / bundle.MANIFEST).write_text(text, encoding="utf-8")
    (root / bundle.ROOT).write_text(bundle.root_hash(text) + "\n", encoding="utf-8")
    return {"root": bundle.root_hash(text), "files": len(text.splitlines()), "bytes": sum(path.stat().st_size for path in root.rglob("*") if path.is_file())}


def write(path, content):
    """Write JSON that is the same for the same content."""
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
