"""How much of a provider's limits is used, against a server that enforces them and takes 200 ms an answer.

Counts are measured, not CPU time: a slow machine passes as long as it can send 50 small requests a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bill import tokens_of
from tests.support.server_process import ServerProcess
from tests.vectorstore.test_requester import RecordingBudget
from vectorstore.embedders.limiter import RateLimiter
from vectorstore.embedders.openai import OpenAIEmbedder
from vectorstore.embedders.requester import Requester
from vectorstore.errors import Interrupted
from vectorstore.settings import Settings

REQUESTS, TOKENS = 3000, 1_000_000  # a minute
SETTLED_S, MEASURED_S = 2.5, 13.0


@pytest.fixture
def limited_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    limits = {"requests_per_minute": REQUESTS, "tokens_per_minute": TOKENS, "burst_s": 1.0}
    with ServerProcess(tmp_path, latency=0.2, **limits) as server:
        monkeypatch.setenv("OPENAI_API_KEY", server.key)
        yield server


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "texts", "bound_by"), [(398, 4, "tokens"), (30, 4, "requests")], ids=["token-bound", "request-bound"]
)
def test_the_limit_is_used_and_not_met(limited_server: ServerProcess, words: int, texts: int, bound_by: str) -> None:
    stop = threading.Event()
    defaults = Settings(Path())
    embedder = OpenAIEmbedder("text-embedding-3-small", 1536, base_url=limited_server.url)
    limiter = RateLimiter(REQUESTS, TOKENS, stop=stop)
    requester = Requester(embedder, limiter, RecordingBudget(), stop=stop)

    def work(number: int) -> None:
        batch = [f"{number} {i}" + " word" * words for i in range(texts)]
        tokens = [tokens_of(text) for text in batch]
        while True:
            try:
                requester.embed(batch, tokens)
            except Interrupted:
                return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(defaults.concurrency)]
    for thread in threads:
        thread.start()
    time.sleep(SETTLED_S)
    before, started = limited_server.state(), time.monotonic()
    time.sleep(MEASURED_S)
    after, minutes = limited_server.state(), (time.monotonic() - started) / 60
    stop.set()
    for thread in threads:
        thread.join()
    embedder.close()
    used = {
        "requests": (after["billed_requests"] - before["billed_requests"]) / REQUESTS / minutes,
        "tokens": (after["billed_tokens"] - before["billed_tokens"]) / TOKENS / minutes,
    }
    refused = after["statuses"].get("429", 0) / after["requests"]
    print(f"\n{bound_by}: used {used}, refused {refused:.2%}, most in flight {after['most_in_flight']}")
    assert max(used, key=lambda name: used[name]) == bound_by
    assert used[bound_by] >= 0.95
    assert refused <= 0.01
