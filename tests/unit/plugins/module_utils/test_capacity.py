# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
import surveys

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import capacity

GB64, GB32, DUO = 65536, 32768, 43693


def need(model, ranks, chip=GB64, context=None, utilization=0.9):
    return capacity.need_gib(surveys.CONFIGS[model], int(surveys.SIZES_GB[model] * surveys.GB), ranks, context, utilization, chip)


@pytest.mark.parametrize("model,ranks,chip,context,fits", [
    ("gemma-4-E2B-it", 1, GB64, None, True), ("gemma-4-E4B-it", 1, GB64, None, True), ("gemma-4-E2B-it", 1, GB32, 32768, True),
    ("gemma-4-E4B-it", 1, GB32, 32768, True),
    ("gemma-4-26B-A4B-it", 1, GB64, None, False), ("gemma-4-26B-A4B-it", 1, GB64, 16384, True),
    ("gemma-4-26B-A4B-it", 2, GB64, None, True), ("gemma-4-26B-A4B-it", 4, GB64, None, True),
    ("gemma-4-26B-A4B-it", 1, GB32, 4096, False), ("gemma-4-26B-A4B-it", 2, GB32, 4096, False), ("gemma-4-26B-A4B-it", 4, GB32, None, True),
    ("gemma-4-31B-it", 1, GB64, 4096, False), ("gemma-4-31B-it", 2, GB64, None, True), ("gemma-4-31B-it", 4, GB64, None, True),
    ("gemma-4-31B-it", 1, GB32, 4096, False), ("gemma-4-31B-it", 2, GB32, 4096, False), ("gemma-4-31B-it", 4, GB32, 131072, True),
    ("Qwen3-32B", 1, GB64, 4096, False), ("Qwen3-32B", 2, GB64, None, True), ("Qwen3-32B", 4, GB64, None, True),
    ("Qwen3-32B", 2, GB32, 4096, False), ("Qwen3-32B", 4, GB32, None, True), ("Qwen3-32B", 4, DUO, 16384, True),
    ("Qwen3-32B", 1, DUO, 4096, False), ("gemma-3-270m-it", 1, GB64, None, True),
    ("DeepSeek-R1-W8A8", 8, GB64, 4096, False), ("DeepSeek-R1-W8A8", 16, GB64, 32768, True), ("DeepSeek-R1-W8A8", 4, DUO, 4096, False),
])
def test_the_published_verdicts(model, ranks, chip, context, fits):
    assert need(model, ranks, chip, context)["fits"] is fits


@pytest.mark.parametrize("model,ranks,kib", [("gemma-4-31B-it", 1, 80), ("gemma-4-26B-A4B-it", 1, 20), ("gemma-4-31B-it", 4, 20),
                                             ("gemma-4-26B-A4B-it", 4, 10), ("Qwen3-32B", 1, 256), ("DeepSeek-R1-W8A8", 16, 68.625)])
def test_cache_per_token(model, ranks, kib):
    assert capacity.kv_bytes(surveys.CONFIGS[model], ranks)[0] == kib * 1024


def test_the_31b_at_its_full_context():
    found = need("gemma-4-31B-it", 4)
    assert found["kv"] == 5.0
    assert found["context"] == 262144
    assert found["need"] == pytest.approx(25, abs=1)
    assert found["usable"] == pytest.approx(54.9, abs=0.1)
    assert need("gemma-4-31B-it", 2)["need"] == pytest.approx(44, abs=1.5)


def test_the_largest_context_fits_and_a_larger_one_does_not():
    found = need("gemma-4-26B-A4B-it", 1)
    largest = found["largest_context"]
    assert 0 < largest < 262144 and largest % 1024 == 0
    assert need("gemma-4-26B-A4B-it", 1, context=largest)["fits"]
    assert not need("gemma-4-26B-A4B-it", 1, context=largest + 1024)["fits"]


def test_no_context_helps_when_the_weights_do_not_fit():
    assert need("gemma-4-31B-it", 1)["largest_context"] == 0


def test_a_gemma_3_has_one_full_layer_in_six():
    per_token, window = capacity.kv_bytes(surveys.CONFIGS["gemma-3-270m-it"], 1)
    assert per_token == 3 * 2 * 256 * 2
    assert window == 15 * 2 * 256 * 2 * (512 + capacity.IN_FLIGHT_TOKENS)


def test_a_window_that_is_not_used_counts_as_full():
    config = dict(surveys.CONFIGS["Qwen3-32B"], sliding_window=4096, sliding_window_pattern=4)
    assert capacity.kv_bytes(config, 1)[0] == 256 * 1024
    assert capacity.kv_bytes(dict(config, use_sliding_window=True), 1)[0] == 64 * 1024


def test_linear_layers_have_no_cache():
    config = dict(surveys.CONFIGS["Qwen3-32B"], layer_types=["linear_attention"] * 48 + ["full_attention"] * 16)
    assert capacity.kv_bytes(config, 1)[0] == 64 * 1024


@pytest.mark.parametrize("config", [{}, {"num_hidden_layers": "many"}, {"num_hidden_layers": 2, "max_position_embeddings": 10}])
def test_a_config_without_the_numbers_is_refused_in_words(config):
    with pytest.raises(ValueError, match="config.json has no"):
        capacity.need_gib(config, 10 ** 9, 1, None, 0.9, GB64)


@pytest.mark.parametrize("model,chip,fewest", [("gemma-4-31B-it", GB64, 2), ("gemma-4-26B-A4B-it", GB64, 2), ("Qwen3-32B", GB32, 4),
                                               ("gemma-4-E2B-it", GB64, 1)])
def test_fewest_chips(model, chip, fewest):
    config, size = surveys.CONFIGS[model], int(surveys.SIZES_GB[model] * surveys.GB)
    assert capacity.smallest_tensor_parallel_size(config, size, None, 0.9, chip) == fewest


def test_no_number_of_chips_is_enough():
    assert capacity.smallest_tensor_parallel_size(surveys.CONFIGS["DeepSeek-R1-W8A8"], 680 * surveys.GB, 4096, 0.9, DUO) is None


@pytest.mark.parametrize("model,ranks,problem", [
    ("gemma-4-31B-it", 4, None), ("gemma-4-31B-it", 5, "32 attention heads"), ("Qwen3-32B", 16, None),
    ("DeepSeek-R1-W8A8", 16, None), ("gemma-4-E2B-it", 3, "8 attention heads")])
def test_heads(model, ranks, problem):
    found = capacity.heads_problem(surveys.CONFIGS[model], ranks)
    assert found is None if problem is None else problem in found
