# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When an instance has nothing to do any more."""

from __future__ import annotations

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import drain, vllm_metrics

METRICS = """\
# HELP vllm:num_requests_running x
vllm:num_requests_running{engine="0",model_name="m"} %s
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.5
vllm:request_success_total{finished_reason="stop"} 7.0
vllm:request_success_total{finished_reason="abort"} 1.0
"""


def test_the_engines_of_an_instance_are_summed():
    assert vllm_metrics.load(200, METRICS % "3.0") == {"running": 4, "waiting": 2, "kv_usage": 0.5, "finished": 8}


@pytest.mark.parametrize("status, text, words", [
    (404, "", "HTTP 404 from /metrics"), (None, "no answer within 5 s", "no answer within 5 s"), (200, "", "does not tell vllm:num_requests_running"),
    (200, METRICS % "NaN", "tells nan"), (200, METRICS % "-1", "tells -1"), (200, "<html>", "does not tell"),
])
def test_what_metrics_do_not_say_is_not_zero(status, text, words):
    assert words in vllm_metrics.load(status, text)["error"]


def seen(*looks, window=1.0):
    """A wait that saw (time, running, waiting, finished) or (time, None) for silence."""
    wait = drain.Wait(window, 0.0)
    for now, running, *more in looks:
        wait.see({"error": "silent"} if running is None else {"running": running, "waiting": more[0], "finished": more[1]}, now)
    return wait


def test_who_is_paused_is_not_silent():
    """Somebody holds it, so it is waited for to the deadline, and nobody takes it for idle."""
    wait = seen((0, 2, 0, 5))
    for now in range(1, 100):
        wait.see({"error": "no answer within 5 s"}, now, paused="container c is paused, by X")
    verdict = wait.verdict()
    assert not wait.over and not verdict["drained"] and verdict["error"] == "container c is paused, by X"


def test_idle_for_a_window_is_drained():
    wait = seen((0, 2, 1, 5), (1, 0, 0, 8), (1.5, 0, 0, 8))
    assert not wait.over
    wait.see({"running": 0, "waiting": 0, "finished": 8}, 2.0)
    assert wait.over and wait.verdict() == {"drained": True, "running": 0, "waiting": 0, "arrived": 0, "still_arriving": False, "error": None}


def test_a_request_that_came_and_went_between_two_looks_begins_the_window_anew():
    wait = seen((0, 0, 0, 5), (0.9, 0, 0, 6), (1.5, 0, 0, 6))
    assert not wait.over and wait.verdict()["still_arriving"]
    wait.see({"running": 0, "waiting": 0, "finished": 6}, 2.6)
    assert wait.over and wait.verdict()["arrived"] == 1


def test_what_still_runs_at_the_deadline_is_counted():
    assert seen((0, 3, 1, 0)).verdict() == {"drained": False, "running": 3, "waiting": 1, "arrived": 0, "still_arriving": False, "error": None}


def test_silence_ends_the_wait_and_is_no_proof():
    wait = seen((0, 0, 0, 5), (10, None), (15.1, None))
    assert wait.over and not wait.verdict()["drained"] and wait.verdict()["error"] == "silent"
    assert seen((0, None)).verdict()["error"] == "silent"


def test_an_instance_that_does_not_run_has_nothing_to_do():
    wait = drain.Wait(1.0, 0.0)
    wait.see({"error": "refused"}, 0.1, stopped=True)
    assert wait.over and wait.verdict()["drained"]
