# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the source trees of the image say about themselves: a patch is in force when its text is there, not when a label says so."""

from __future__ import annotations

import ast
import os

from . import settings


def _dictionaries(path):
    """Every `NAME = {literal}` of a Python file, read without importing it."""
    with open(os.path.join(settings.TREE, path), encoding="utf-8") as handle:
        tree = ast.parse(handle.read())
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    return found


def tool_parsers():
    """Names of the registered tool parsers, sorted."""
    return sorted(_dictionaries("vllm/vllm/tool_parsers/__init__.py")["_TOOL_PARSERS_TO_REGISTER"])


def reasoning_parsers():
    """Names of the registered reasoning parsers, sorted."""
    return sorted(_dictionaries("vllm/vllm/reasoning/__init__.py")["_REASONING_PARSERS_TO_REGISTER"])


def architectures():
    """Names of all registered model architectures."""
    tables = _dictionaries("vllm/vllm/model_executor/models/registry.py")
    return set().union(*(names for name, names in tables.items() if name.endswith("_MODELS")))


def known_environment():
    """Names of the VLLM_ variables that vLLM knows."""
    with open(os.path.join(settings.TREE, "vllm/vllm/envs.py"), encoding="utf-8") as handle:
        tree = ast.parse(handle.read())
    tables = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    return {str(key.value) for table in tables for key in table.keys if isinstance(key, ast.Constant) and str(key.value).startswith("VLLM_")}


def moe_honours_gelu():
    """Whether vllm-ascend's MoE layer knows an activation other than SwiGLU; unpatched it takes SwiGLU for every model."""
    with open(os.path.join(settings.TREE, "vllm-ascend/vllm_ascend/ops/fused_moe/moe_mlp.py"), "rb") as handle:
        return b"gelu" in handle.read()
