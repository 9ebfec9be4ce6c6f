# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/metrics in vLLM's names; every figure is counted."""

from __future__ import annotations

import threading
import time

SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
COUNTERS = ("vllm:num_preemptions", "vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:prompt_tokens", "vllm:generation_tokens")
HISTOGRAMS = ("vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds", "vllm:e2e_request_latency_seconds",
              "vllm:request_queue_time_seconds")
REASONS = ("stop", "length", "abort", "error", "repetition")
BLOCK = 128


class Metrics:
    """Counts of one server with one or more engines; requests go to the engines in turn."""

    def __init__(self, model, engines, prefix_caching, seats):
        self.model, self.engines, self.prefix_caching, self.seats = model, engines, prefix_caching, seats
        self.lock = threading.Condition()
        self.waiting = [0] * engines
        self.turn = 0
        self.running = [0] * engines
        self.used_tokens = [0] * engines
        self.counters = {name: [0] * engines for name in COUNTERS}
        self.success = [dict.fromkeys(REASONS, 0) for engine in range(engines)]
        self.histograms = {name: [[[0] * (len(SECONDS) + 1), 0.0] for engine in range(engines)] for name in HISTOGRAMS}
        self.blocks = [set() for engine in range(engines)]

    def begin(self, prompt, patient):
        """A request starts once its engine has a seat (--max-num-seqs), or when patient() ends.

        prompt: its tokens. Returns the number of its engine.
        """
        start = time.monotonic()
        with self.lock:
            engine = self.turn % self.engines
            self.turn += 1
            self.waiting[engine] += 1
            while self.running[engine] >= self.seats and patient():
                self.lock.wait(0.1)
            self.waiting[engine] -= 1
            self.running[engine] += 1
            self.used_tokens[engine] += len(prompt)
            self.counters["vllm:prompt_tokens"][engine] += len(prompt)
            if self.prefix_caching:
                self.counters["vllm:prefix_cache_queries"][engine] += len(prompt)
                chain = 0
                for start in range(0, len(prompt) - BLOCK + 1, BLOCK):
                    chain = hash((chain, tuple(prompt[start:start + BLOCK])))
                    self.counters["vllm:prefix_cache_hits"][engine] += BLOCK if chain in self.blocks[engine] else 0
                    self.blocks[engine].add(chain)
            self._observe("vllm:request_queue_time_seconds", engine, time.monotonic() - start)
            return engine

    def token(self, engine, name, elapsed):
        """A token left an engine, `elapsed` seconds after the request's start or its last token."""
        with self.lock:
            self.used_tokens[engine] += 1
            self.counters["vllm:generation_tokens"][engine] += 1
            self._observe(name, engine, elapsed)

    def end(self, engine, tokens, reason, elapsed):
        """A request ended; tokens: prompt and output together, reason: one of REASONS."""
        with self.lock:
            self.running[engine] -= 1
            self.used_tokens[engine] -= tokens
            self.success[engine][reason] += 1
            self._observe("vllm:e2e_request_latency_seconds", engine, elapsed)
            self.lock.notify_all()

    def unfinished(self):
        """Requests in work or waiting, over all engines."""
        with self.lock:
            return sum(self.running) + sum(self.waiting)

    def _observe(self, name, engine, value):
        buckets, total = self.histograms[name][engine]
        buckets[next((index for index, bound in enumerate(SECONDS) if value <= bound), len(SECONDS))] += 1
        self.histograms[name][engine][1] = total + value

    def text(self, capacity):
        """The page; capacity: tokens that fit into the cache of one engine."""
        lines = []
        with self.lock:
            gauges = (("vllm:num_requests_running", self.running), ("vllm:num_requests_waiting", self.waiting),
                      ("vllm:kv_cache_usage_perc", [min(1.0, used / float(capacity)) for used in self.used_tokens]))
            for name, values in gauges:
                lines.append("# TYPE %s gauge" % name)
                lines += ["%s{%s} %s" % (name, self._labels(engine), float(value)) for engine, value in enumerate(values)]
            for name, values in self.counters.items():
                lines.append("# TYPE %s_total counter" % name)
                lines += ["%s_total{%s} %s" % (name, self._labels(engine), float(value)) for engine, value in enumerate(values)]
            lines.append("# TYPE vllm:request_success_total counter")
            for engine, reasons in enumerate(self.success):
                lines += ['vllm:request_success_total{%s,finished_reason="%s"} %s' % (self._labels(engine), reason, float(count))
                          for reason, count in reasons.items()]
            for name, engines in self.histograms.items():
                lines.append("# TYPE %s histogram" % name)
                for engine, (buckets, total) in enumerate(engines):
                    so_far = 0
                    for bound, count in zip([str(one) for one in SECONDS] + ["+Inf"], buckets):
                        so_far += count
                        lines.append('%s_bucket{%s,le="%s"} %s' % (name, self._labels(engine), bound, float(so_far)))
                    lines.append("%s_count{%s} %s" % (name, self._labels(engine), float(so_far)))
                    lines.append("%s_sum{%s} %s" % (name, self._labels(engine), total))
        return "\n".join(lines) + "\n"

    def _labels(self, engine):
        return 'engine="%d",model_name="%s"' % (engine, self.model)
