# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts that failing engines leave, and the cause each must lead to."""

from __future__ import annotations

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import causes


@pytest.mark.parametrize("text, row", [
    ("KeyError: \"invalid tool call parser: gemma4 (chose from { hermes,mistral })\"", "patch"),
    ("KeyError: 'invalid tool call parser: hermess (chose from { hermes })'", "parser"),
    ("RuntimeError: NPU out of memory. Tried to allocate 502.00 MiB\nRuntimeError: Engine core initialization failed. See root cause above.", "1"),
    ("Available KV cache memory: -0.87 GiB", "1"),
    ("To serve at least one request with the model's max seq len (262144)", "1"),
    ("AclmdlRICaptureBegin failed, error code is 207005", "2"),
    ("EI0006: Getting socket times out. Reason: Remote Rank did not send the data in time.", "3"),
    ("dcmi module initialize failed. ret is -8005", "4"),
    ("Free memory on device (8.0/64.0 GiB) on startup is less than desired GPU memory utilization", "4"),
    ("Current device type: A3 does not match the installed version's device type: A2, please check your installation package.", "5"),
    ("exec /opt/entrypoint: exec format error", "5"),
    ("EJ0003: Failed to bind the IP port. Reason: The IP address and port have been bound already.", "7"),
    ("OSError: libascend_hal.so: cannot open shared object file: No such file or directory", "8"),
    ("The checkpoint you are trying to load has model type `gemma4` but Transformers does not recognize this architecture.", "14"),
    ("TimeoutError: Timed out waiting for engine core processes to start.", "12"),
    ("OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 64: Operation not permitted", "19"),
    ("EZ1001: x1 dtype DT_BFLOAT16 not supported", "20"),
    ("vllm serve: error: unrecognized arguments: --devise", "arguments"),
    ("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.", "16"),
    ("invalid mount config for type \"bind\": bind source path does not exist: /usr/local/dcmi", "mount"),
    ("docker: Error response from daemon: No such image: registry.example.net/x", "image"),
    ("a container named vllm-ascend-x exists that is not ours; rename or remove it", "name"),
])
def test_text_leads_to_cause(text, row):
    found = causes.match(text)
    assert found["row"] == row and found["text"] and found["remedy"]


def test_ordinary_lines_lead_nowhere():
    assert causes.match("INFO 04-01 Loading weights took 3.20 seconds\nINFO:     Application startup complete.\nStarted vllm-ascend-x.service.") is None


def test_each_cause_is_one_line_with_a_remedy():
    for row, dummy, text, remedy in causes.CAUSES:
        assert text and remedy and "\n" not in text + remedy, row
