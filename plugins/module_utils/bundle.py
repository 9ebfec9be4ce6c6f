# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle: one folder with all that a fleet without a network needs. What is in it, whether it is whole, and what it means for a plan. Pure.

Images lie as an OCI image layout: each blob once, named by its own hash, so that a copy that was broken off goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid

SCHEMA = 1
# A host serves its copy of the blobs to its own engine here: only a pull gives an image the digest that releases name. Engines speak plain HTTP there.
ADDRESS = ("127.0.0.1", 5380)
REGISTRY = "%s:%d" % ADDRESS
INDEX, MANIFEST, ROOT, SBOM, LOCK = "bundle.json", "manifest.sha256", "root.sha256", "sbom.cdx.json", "images.lock.yml"
BLOBS, PATCHES, WHEELS, PYTHON, COLLECTION, WEIGHTS = "images/blobs/sha256", "patches", "wheels", "python", "collection", "weights"
MAKE = "ansible-playbook playbooks/bundle.yml"
_HEX = re.compile(r"^[0-9a-f]{64}$")
_LINE = re.compile(r"^([0-9a-f]{64})  (\S.*)$")


class BundleError(Exception):
    """The bundle cannot be made or used; one line for the user, with the remedy."""


# --- its files ------------------------------------------------------------------------------------------------------


def manifest_text(hashes):
    """The manifest of {path: sha256}, sorted, in the form that ``sha256sum --check`` reads."""
    return "".join("%s  %s\n" % (hashes[path], path) for path in sorted(hashes))


def root_hash(text):
    """The one hash over all."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def parse_manifest(text):
    """{path: sha256}. :raises BundleError: when it is none of ours."""
    result = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if not match or match.group(2).startswith("/") or ".." in match.group(2).split("/"):
            raise BundleError("%s has a line that is none of ours: %s; copy the bundle again" % (MANIFEST, line[:80]))
        result[match.group(2)] = match.group(1)
    return result


def problems(folder, wanted, found):
    """What is wrong with a bundle, as sentences. ``wanted`` and ``found``: {path: sha256}, of its manifest and of its files."""
    result = []
    for path in sorted(set(wanted) | set(found)):
        if path not in found:
            result.append("the bundle %s lacks %s; copy that file again from where the bundle was made" % (folder, path))
        elif path not in wanted:
            result.append("the bundle %s holds %s, which was not there when it was made; remove it" % (folder, path))
        elif wanted[path] != found[path]:
            result.append("the bundle %s: %s was altered (sha256 %s, not %s); copy that file again from where the bundle was made" % (
                folder, path, found[path][:12], wanted[path][:12]))
    return result


def root_problem(folder, found, claimed, wanted):
    """Why the root hash is not to be trusted, or None. ``claimed`` lies beside the manifest, ``wanted`` is what the user was told, or empty."""
    if wanted and wanted != found:
        return "the bundle %s has the root hash %s, not %s as bundle_root says; it is another bundle, or %s was altered" % (folder, found, wanted, MANIFEST)
    if claimed != found:
        return "the bundle %s: %s was altered, it hashes to %s and not to %s; copy the bundle again" % (folder, MANIFEST, found[:12], claimed[:12] or "nothing")
    return None


# --- Python packages ------------------------------------------------------------------------------------------------


def canonical(name):
    """A package's name, however it is spelled."""
    return re.sub(r"[-_.]+", "-", name).lower()


def package_of(file):
    """(name, version) of a wheel or of a source archive by its file name, or None."""
    match = re.match(r"^(.+?)-(\d[^-]*)(?:-.+)?\.whl$", file) or re.match(r"^(.+)-(\d[^-]*)\.(?:tar\.gz|zip)$", file)
    return (canonical(match.group(1)), match.group(2)) if match else None


def lacking(pins, files):
    """Those of the pins ``name==version`` that no file is the package of."""
    have = set(package_of(file) for file in files)
    return [pin for pin in pins if (canonical(pin.partition("==")[0].strip()), pin.partition("==")[2].strip()) not in have]


def refuse_lacking(pins, files, what, folder):
    """BundleError when a pin has no package: here it can still be had, there it cannot."""
    gone = lacking(pins, files)
    if gone:
        raise BundleError("the bundle would lack %s of %s: no such package in %s; put it there, or unset that folder to have it downloaded" % (
            ", ".join(gone), what, folder))


# --- images ---------------------------------------------------------------------------------------------------------


def key(target):
    """An image of the plan in the words of a bundle: without the registry, which may be another one there."""
    return target.partition("/")[2]


def reference(target, digest):
    """The name under which a host has an image that came from a bundle."""
    return "%s/%s@%s" % (REGISTRY, key(target).rpartition(":")[0] or key(target), digest)


def is_blob(name):
    """Whether it is the name of a blob, and no path."""
    return bool(_HEX.match(name))


def blobs_of(manifest):
    """{hex: bytes} of what the manifest of one image names."""
    return dict((each["digest"].partition(":")[2], each.get("size") or 0) for each in [manifest["config"]] + list(manifest.get("layers") or ()))


def refuse_lacking_images(folder, bundled, images):
    """BundleError when an image of the plan is not in the bundle. ``bundled``: {key: entry}, ``images``: those of the plan."""
    for target in sorted(images):
        entry = bundled.get(key(target))
        if entry is None:
            raise BundleError(
                "the bundle %s has no image %s; it has %s; make it anew with %s" % (folder, key(target), ", ".join(sorted(bundled)) or "none", MAKE)
            )
        if images[target]["target_digest"] != entry["digest"]:
            raise BundleError("the bundle %s has %s as %s, the lock file wants %s; make the bundle anew, or delete that target from the lock file" % (
                folder, key(target), entry["digest"], images[target]["target_digest"] or "another base"))


def merged(lock, bundled, origins):
    """The lock file as a run with a bundle takes it: what the fleet has settled on first, then what the bundle says."""
    return dict(lock, images=dict(origins["images"], **lock["images"]), patches=dict(origins["patches"], **lock["patches"]), bundle=bundled)


def learned(images, bundled):
    """What the lock file learns of a deployment from a bundle, in the shape of what a builder leaves."""
    return [dict(bundled[key(target)], target=target, origin=image["origin"]) for target, image in images.items() if key(target) in bundled]


# --- the list of its parts ------------------------------------------------------------------------------------------


def sbom(version, hashes, images, weights=None):
    """CycloneDX of what is in the bundle. It says the same of the same files.

    :param dict hashes: {path: sha256}. :param dict images: {key: {"digest"}}. :param dict weights: {model: {file: {"sha256", "bytes"}}}.
    """
    parts = [{"type": "container", "name": name.rpartition(":")[0], "version": name.rpartition(":")[2],
              "purl": "pkg:oci/%s@%s" % (name.rpartition(":")[0].rpartition("/")[2], entry["digest"].replace(":", "%3A")),
              "hashes": [{"alg": "SHA-256", "content": entry["digest"].partition(":")[2]}]} for name, entry in images.items()]
    for path, sha256 in hashes.items():
        folder, dummy, file = path.rpartition("/")
        part = {"type": "file", "name": path, "hashes": [{"alg": "SHA-256", "content": sha256}]}
        package = package_of(file) if folder in (WHEELS, PYTHON) else None
        if package:
            part.update(type="library", name=package[0], version=package[1], purl="pkg:pypi/%s@%s" % package)
        elif folder == COLLECTION:
            part.update(type="application", name="vllm_ascend.fleet", version=version)
        if path.startswith(WEIGHTS + "/") or folder == BLOBS:
            continue
        parts.append(part)
    for model, files in (weights or {}).items():
        parts.append({"type": "machine-learning-model", "name": model, "components": [
            {"type": "file", "name": file, "hashes": [{"alg": "SHA-256", "content": files[file]["sha256"]}]} for file in sorted(files)]})
    ordered = sorted(parts, key=lambda part: (part["type"], part["name"], part.get("version") or ""))
    for number, part in enumerate(ordered):
        part["bom-ref"] = "part-%d" % number
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(ordered, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": "urn:uuid:%s" % serial, "version": 1,
            "metadata": {"component": {"type": "application", "name": "vllm_ascend.fleet bundle", "version": version, "bom-ref": "bundle"}},
            "components": ordered}
