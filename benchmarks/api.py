"""How well an update uses a rate-limited embeddings API: a cold run against the tests' HTTP server.

The server counts; Vectorkeep is not asked. Reported: the share of the tokens-per-minute limit that was used while
requests were coming in, the share of refusals (429), and how far waiting for the API and writing to the store
overlapped: 1 is fully, 0 is one after the other.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks import ours
from benchmarks.measure import Sample
from benchmarks.report import Row, Section
from benchmarks.sections import Bench, Options
from tests.support.server_process import ServerProcess

FILES, DIMENSION = 12_000, 256  # some 2.5 minutes' worth of tokens
LATENCY_MS, REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE = 200, 3_000, 1_000_000
USED_SHARE, REFUSED_SHARE = 95.0, 1.0  # percent


def api(options: Options) -> Section:
    """The section's rows. The store's share of the time is that of the same run with the instant embedder."""
    files = min(FILES, options.files)
    bench = Bench(options, "api", files, DIMENSION)
    try:
        if not ours.available():
            return Section(_rows({}, None, None), {}, [], {"files": files})
        store_only = bench.cold("ours")
        shutil.rmtree(bench.path("ours"))
        limits = {"requests_per_minute": REQUESTS_PER_MINUTE, "tokens_per_minute": TOKENS_PER_MINUTE}
        os.makedirs(bench.path("server"))
        with ServerProcess(Path(bench.path("server")), latency=LATENCY_MS / 1000, **limits) as server:
            sample = _update(bench, server)
            counted = _counted(server)
    finally:
        bench.close()
    settings = {"files": files, "dimension": DIMENSION, "latency_ms": LATENCY_MS, "tpm": TOKENS_PER_MINUTE}
    return Section(_rows(counted, sample, store_only), {"ours": [sample], "store only": [store_only]}, [], settings)


def _update(bench: Bench, server: ServerProcess) -> Sample:
    env = bench.env | {
        "VECTORKEEP_EMBEDDER": "openai",
        "VECTORKEEP_OPENAI_BASE_URL": server.url,
        "VECTORKEEP_REQUESTS_PER_MINUTE": str(REQUESTS_PER_MINUTE),
        "VECTORKEEP_TOKENS_PER_MINUTE": str(TOKENS_PER_MINUTE),
        "OPENAI_API_KEY": server.key,
    }
    bench.options.progress("ours: cold, against the HTTP server")
    ours.init(bench.path("ours"), env)
    return ours.update(bench.path("ours"), env)


def _rows(counted: dict[str, float], sample: Sample | None, store_only: Sample | None) -> list[Row]:
    limits = f"{REQUESTS_PER_MINUTE:,} requests and {TOKENS_PER_MINUTE:,} tokens a minute"
    work = f"cold against an API: {LATENCY_MS} ms, {limits}"
    used = refused = overlap = None
    if sample and store_only:
        waited = counted["last_s"] - counted["first_s"]
        used = 100 * counted["tokens"] / (TOKENS_PER_MINUTE * waited / 60)
        refused = 100 * counted["refused"] / counted["requests"]
        overlap = (waited + store_only.wall_s - sample.wall_s) / min(waited, store_only.wall_s)
    return [
        Row(work, "% of the limit used", ours=used, promise=USED_SHARE, bound="least", peers=False),
        Row(work, "% of requests refused (429)", ours=refused, promise=REFUSED_SHARE, bound="most", peers=False),
        Row(work, "overlap of API and store, 0 to 1", ours=overlap, peers=False),
    ]


def _counted(server: ServerProcess) -> dict[str, float]:
    """``requests``, ``refused``, ``tokens`` (billed), and when the first and the last was billed, in seconds."""
    state, bill = server.state(), server.bill
    times = [request.time for request in bill.requests]
    refused = int(state["statuses"].get("429", 0))
    first, last = min(times, default=0.0), max(times, default=0.0)
    return {"requests": state["requests"], "refused": refused, "tokens": bill.tokens, "first_s": first, "last_s": last}
