# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`vllm`: the command of the rehearsal engine."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time

from . import VERSION, bench, checks, faults, flags, log, processes, ranks, server, settings
from .metrics import Metrics

COMMANDS = ("chat", "complete", "serve", "launch", "bench", "collect-env", "run-batch")
NOT_SIMULATED = ("grpc", "uds")


def parse(words):
    """The arguments of a command line; exits 2 with a usage as argparse does."""
    parser = argparse.ArgumentParser(prog="vllm", description="vLLM CLI", allow_abbrev=False)
    parser.add_argument("-v", "--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=False, dest="subparser")
    for name in COMMANDS:
        command = commands.add_parser(name, allow_abbrev=False, usage="vllm serve [model_tag] [options]" if name == "serve" else None,
                                      add_help=name == "serve")
        if name == "serve":
            flags.add_serve_flags(command)
    if words[:1] and words[0] in COMMANDS and words[0] != "serve":
        raise SystemExit("vllm %s: not part of the rehearsal engine, which knows `vllm serve` and `vllm bench`" % words[0])
    args = parser.parse_args(flags.normalise(words, lambda text: log.line(text, "WARNING", "argparse_utils.py:191")))
    if args.subparser is None:
        parser.print_help()
        raise SystemExit(0)
    return args


def validate(args):
    """Quick checks before anything is loaded."""
    args.model = args.model_tag or args.model
    if args.enable_auto_tool_choice and not args.tool_call_parser:
        raise TypeError("Error: --enable-auto-tool-choice requires --tool-call-parser")
    if args.enable_log_outputs and not args.enable_log_requests:
        raise TypeError("Error: --enable-log-outputs requires --enable-log-requests")
    for name in NOT_SIMULATED:
        if getattr(args, name):
            raise SystemExit("vllm serve: --%s is not part of the rehearsal engine" % name)


def _interrupt(_number, _frame):
    raise KeyboardInterrupt("terminated")


def _wait(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(0.05, max(0.0, until - time.monotonic())))


def _load(args, name, weights, chips, memory):
    """The phases of a start, with their lines; returns the GiB left for the cache."""
    delay = faults.seconds("engine_start_delay_s", name, settings.START_S)
    limit = float(os.environ.get("VLLM_ENGINE_READY_TIMEOUT_S", "600"))
    never = faults.lever("engine_never_ready", name) is not None
    log.line("Starting to load model %s..." % args.model, source="model_runner_v1.py:2575")
    if never or delay > limit:
        _wait(limit)
        raise TimeoutError("Timed out waiting for engine core processes to start. This is often caused by slow weight loading for large models. "
                           "Waited %ds (configured by VLLM_ENGINE_READY_TIMEOUT_S). To increase the timeout, set the environment variable: "
                           "VLLM_ENGINE_READY_TIMEOUT_S=<seconds>" % limit)
    _wait(delay * 0.5)
    log.line("Loading model weights took %.4f GB" % (weights / 2.0 ** 30 / chips), source="model_runner_v1.py:2592")
    left = checks.kv_memory(args, weights, chips, memory)
    if args.enforce_eager:
        _wait(delay * 0.5)
    else:
        log.line("Capturing CUDA graphs (decode, FULL): starting", source="aclgraph_utils.py:108")
        _wait(delay * 0.5)
        log.line("Graph capturing finished in %.0f secs, took 0.21 GiB" % (delay * 0.5), source="model_runner_v1.py:2760")
    return left


def _log_arguments(args):
    log.line("vLLM API server version %s" % VERSION)
    plain = flags.defaults()
    log.line("non-default args: %s" % {key: value for key, value in sorted(vars(args).items())
                                       if key != "subparser" and value != plain.get(key)})


def serve(args):
    """Run a server until it is told to stop or its engine dies. Returns the exit code."""
    _log_arguments(args)
    checks.driver()
    checks.environment(args)
    checks.parsers(args)
    bound = None if args.headless else server.bind(args.host or "", args.port)
    signal.signal(signal.SIGTERM, _interrupt)

    config = checks.model_config(args.model)
    checks.architecture(config)
    length = checks.max_model_len(args, config)
    checks.heads(args, config)
    names = args.served_model_name or [args.model]
    engines, chips = checks.world_size(args)
    first = args.data_parallel_start_rank or 0
    cores = processes.start(engines, chips, args.enable_expert_parallel, args.shutdown_timeout > 0, first, args.data_parallel_size > 1)
    log.process = "EngineCore_DP%d" % first
    log.line("Initializing a V1 LLM engine (v%s) with config: model='%s', max_seq_len=%d, tensor_parallel_size=%d"
             % (VERSION, args.model, length, args.tensor_parallel_size), source="core.py:103")
    try:
        kind, memory = checks.device_type()
        if kind == "_310P":
            checks.limits_of_310p(args, config)
        crash = faults.lever("engine_crash_loop", names[0])
        if crash is not None:
            raise RuntimeError(crash or "NPU error, error code is 507015. [Error]: The aicore execution is abnormal.")
        others = ranks.Member(args) if args.headless else ranks.Head(args) if ranks.remote(args) else None
        left = _load(args, names[0], checks.weights_bytes(args.model), chips, memory)
        if args.headless:
            others.ready()
        elif others:
            others.wait(float(os.environ.get("VLLM_ENGINE_READY_TIMEOUT_S", "600")))
        if processes.dead(cores):
            raise RuntimeError("engine core process ended during the start")
    except Exception as error:
        log.line("EngineCore failed to start.", "ERROR", "core.py:1101")
        log.line("%s: %s" % (type(error).__name__, error), "ERROR", "core.py:1101")
        if isinstance(error, TimeoutError):
            raise
        raise RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP%d': 1}" % first) from error
    finally:
        log.process = "APIServer"

    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: told.set())
    if args.headless:
        return _compute(names[0], cores, others, told)
    capacity = max(1, int(left * 2 ** 30 / 81920))
    log.line("GPU KV cache size: %s tokens" % format(capacity, ","), source="kv_cache_utils.py:1314")
    state = server.State(args, names, length, Metrics(names[0], engines, args.enable_prefix_caching is not False, args.max_num_seqs or 256),
                         capacity, checks.answers_nonsense(config))
    http = server.Server(bound, state)
    http.run()
    log.line("Starting vLLM server on http://%s:%d" % (args.host or "0.0.0.0", args.port))
    sys.stderr.write("(APIServer pid=%d) INFO:     Application startup complete.\n" % os.getpid())
    sys.stderr.flush()
    return _stand(args, state, http, cores, told, others)


def _compute(name, cores, head, told):
    """A headless server: it lives as long as its engine cores and its head do."""
    ready = time.monotonic()
    while not told.wait(0.1):
        life = faults.seconds("engine_dies_after_s", name)
        if life is not None and time.monotonic() - ready >= life:
            os.kill(cores[0], signal.SIGKILL)
        if processes.dead(cores):
            raise RuntimeError("Engine core process died unexpectedly")
        if head.lost.is_set():
            processes.stop(cores)
            raise RuntimeError("Lost the connection to the front-end process, shutting down")
    processes.stop(cores)
    return 0


def _stand(args, state, http, cores, told, others):
    ready, died = time.monotonic(), None
    while not told.wait(0.1):
        life = faults.seconds("engine_dies_after_s", state.lever_name)
        if life is not None and died is None and time.monotonic() - ready >= life:
            os.kill(cores[0], signal.SIGKILL)
        if died is None and (processes.dead(cores) or (others and others.lost.is_set())):
            died, state.phase = time.monotonic(), "dead"
            log.line("Engine core proc EngineCore_DP0 died unexpectedly, shutting down client.", "ERROR", "core_client.py:600")
        if died is not None and time.monotonic() - died >= settings.WATCHDOG_S:
            break
    if died is None:
        _drain(args.shutdown_timeout, state, cores)
    log.line("Shutting down FastAPI HTTP server.", source="launcher.py:122")
    http.shutdown()
    processes.stop(cores)
    sys.stderr.write("(APIServer pid=%d) INFO:     Application shutdown complete.\n" % os.getpid())
    return 0


def _drain(timeout, state, cores):
    log.line("Shutdown initiated (timeout=%d)" % timeout, source="core.py:1201")
    running = state.metrics.unfinished()
    if timeout > 0 and running:
        log.line("Draining %d in-flight requests (timeout=%ds)" % (running, timeout), source="core.py:1213")
        state.phase = "draining"
        until = time.monotonic() + timeout
        while state.metrics.unfinished() and time.monotonic() < until:
            if processes.dead(cores):
                state.phase = "dead"
                break
            time.sleep(0.02)
    elif running:
        log.line("Aborting %d requests" % running, source="core.py:1206")
    if state.phase != "dead":
        state.phase = "aborting"
    # The last answers leave before the process does.
    until = time.monotonic() + 2
    while state.metrics.unfinished() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.05)


def main():
    """Entry point; returns the exit code. Errors leave as Python's own, as vLLM's do: traceback on stderr, exit code 1."""
    if sys.argv[1:2] == ["bench"]:
        return bench.main(sys.argv[2:])
    args = parse(sys.argv[1:])
    validate(args)
    return serve(args)
