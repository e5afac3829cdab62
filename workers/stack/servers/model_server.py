"""Serve the local model on an OpenAI-compatible endpoint: `python -m workers.stack.servers.model_server --port 8080`.

It asks for the key in PERSONA_LLM_API_KEY, listens on 127.0.0.1 only, and ends on TERM or INT.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from workers.stack.servers.model import HOW_TO_INSTALL, MODEL_ID, find_weights

SLOTS = 2  # requests answered at the same time
TOKENS_PER_SLOT = 4096  # prompt and answer; the model was trained on up to 8192
PROMPT_CACHE_MIB = 64  # the library's own default is 8 GiB


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.stack.servers.model_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="for one computation (default: all cores)")
    arguments = parser.parse_args()
    key = os.environ.get("PERSONA_LLM_API_KEY", "")
    if not key:
        sys.exit("PERSONA_LLM_API_KEY: missing; the endpoint would be open to every program of this machine")
    weights = find_weights()
    if weights is None:
        sys.exit(f"the local model is not installed: {HOW_TO_INSTALL}")

    # Before the library makes its threads, which inherit the mask: only `sigwait` below may take these signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {MODEL_ID}
    params.hostnames = ["127.0.0.1"]
    params.port = arguments.port
    params.api_keys = [key]
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * TOKENS_PER_SLOT
    params.cpuparams.n_threads = arguments.threads
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.endpoint_slots = False  # it shows the prompts of other callers
    params.ui = False
    params.verbosity = 1
    server = xllamacpp.Server(params)
    print(f"{MODEL_ID} on {server.listening_address}", flush=True)  # noqa: T201 - the program's own log
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    # Not through the library's destructor: it waits for the answers that are being written.
    os._exit(0)


if __name__ == "__main__":
    main()
