# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, The vllm_ascend.fleet authors

"""What must never be in the product, and what must be in each of its files."""

from __future__ import annotations

import re

import pytest

from house import ROOT, files, load_yaml

# A name, and the pattern that finds it.
FORBIDDEN = {
    "host key checking turned off": r"(?i)StrictHostKeyChecking[=\s]+no|host_key_checking\s*[=:]\s*(false|no|0)",
    "a privileged container": r"(?<!do not answer with )--privileged|(?i:privileged:\s*(true|yes))",
    "an error ignored": r"(?i)ignore_errors:\s*(true|yes)|\|\|\s*true\b",
    "an exception swallowed": r"except (Exception|BaseException)?\s*:\s*\n?\s*pass\b",
    "lint turned off without naming the rule": r"#\s*noqa\s*$",
    "a package index of somebody's": r"index[-_]url[=\s]+https?://(?!\S*example)",
}
# Where the words stand for another reason, by file.
EXCUSED = {
    "plugins/plugin_utils/ssh_target.py": ["host key checking turned off"],  # says what the user's own Ansible setting does
}
HEADER = {
    "# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)",
    "# SPDX-License-Identifier: GPL-3.0-or-later",
    "# Copyright: (c) 2026, The vllm_ascend.fleet authors",
}
SPOKEN = {".py", ".yml", ".yaml", ".j2", ".sh", ".cfg", ".toml", ".md", ".txt", ".in", ".service", ""}


def product():
    """Text files outside tests/; the licence and generated changelogs are not ours to word."""
    for path in files():
        name = str(path.relative_to(ROOT))
        if not name.startswith(("tests/", "changelogs/", "LICENSE")) and path.suffix in SPOKEN:
            yield name, path.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_forbidden(what):
    pattern = re.compile(FORBIDDEN[what], re.MULTILINE)
    found = [f"{name}:{text.count(chr(10), 0, hit.start()) + 1}: {hit.group(0)}" for name, text in product() if what not in EXCUSED.get(name, ())
             for hit in pattern.finditer(text)]
    assert not found, f"{what}: {'; '.join(found)}"


@pytest.mark.parametrize("text, what", [
    ("ssh -o StrictHostKeyChecking=no", "host key checking turned off"),
    ("host_key_checking = False", "host key checking turned off"),
    ("docker run --privileged x", "a privileged container"),
    ("ignore_errors: true", "an error ignored"),
    ("make x || true", "an error ignored"),
    ("except Exception:\n    pass", "an exception swallowed"),
    ("x = 1  # noqa", "lint turned off without naming the rule"),
    ("pip install --index-url https://packages.corp/simple x", "a package index of somebody's"),
])
def test_a_planted_fault_is_found(text, what):
    assert re.search(FORBIDDEN[what], text, re.MULTILINE)


@pytest.mark.parametrize("path", [path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in ("plugins", "roles")], ids=lambda path: str(path.relative_to(ROOT)))
def test_python_files_carry_the_licence(path):
    text = path.read_text(encoding="utf-8")
    missing = HEADER - set(text.splitlines()[:6])
    assert not text or not missing


@pytest.mark.parametrize("path", [path for path in files() if "catalogue" in path.parts and path.suffix == ".yml"], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_catalogue_file_is_one_mapping(path):
    assert isinstance(load_yaml(path), dict)


def test_the_catalogue_is_not_empty():
    for kind in ("models", "platforms", "patch_sets"):
        assert list((ROOT / "catalogue" / kind).glob("*.yml")), f"catalogue/{kind} is empty"


def test_locks_pin_exactly_with_hashes_and_name_no_index():
    locks = [ROOT / "requirements.txt", ROOT / "requirements-test.txt"] + sorted((ROOT / "tests" / "cores").glob("*.txt"))
    assert len(locks) >= 4
    for path in locks:
        text = path.read_text(encoding="utf-8")
        assert "://" not in text
        for line in text.splitlines():
            assert not line or re.match(r"\s*#|    --hash=sha256:[0-9a-f]{64}|[\w.-]+==[\w.+-]+ .*\\$", line), f"{path.name}: {line}"
