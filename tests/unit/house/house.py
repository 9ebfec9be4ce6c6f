# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, The vllm_ascend.fleet authors

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]


class UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key written twice; plain YAML silently keeps the last."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _value in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"the key '{key}' is written twice{key_node.start_mark}")
            seen.add(key)
        return super().construct_mapping(node, deep)


# Ansible's own tags are opaque here.
UniqueKeys.add_multi_constructor("!", lambda loader, suffix, node: None)


def load_yaml(path):
    return yaml.load(Path(path).read_text(encoding="utf-8"), UniqueKeys)


def files():
    """Every file that is or could be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]




def roles():
    return sorted(path.parent.name for path in ROOT.glob("roles/*/tasks"))


def modules():
    return sorted(path.stem for path in ROOT.glob("plugins/modules/*.py"))
