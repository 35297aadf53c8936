"""The test server itself: its bill outlives clients, its limits are strict, its orders come by HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.bill import Bill, read_bill, sha_of, tokens_of
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.server_process import KEY, ServerProcess


def post(
    port: int, texts: Any, path: str = "/v1/embeddings", key: str = KEY, **more: Any
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    asked = {"model": "text-embedding-3-small", "input": texts, "dimensions": 8, **more}
    connection.request("POST", "/v1/embeddings", json.dumps(asked), {"authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    try:
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_the_bill_of_a_process_counts_what_a_killed_client_never_got(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, latency=0.3) as server:
        code = f"from tests.support.test_embeddings_server import post; post({server.port}, ['paid for nothing'])"
        client = subprocess.Popen([sys.executable, "-c", code])
        deadline = time.monotonic() + 20
        while not server.bill.requests:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(client.pid, signal.SIGKILL)
        client.wait()
        assert post(server.port, ["another", "two"])[0] == 200
        lost, got = server.bill.requests
        assert (lost.delivered, got.delivered) == (False, True)
        assert lost.sha == (sha_of("paid for nothing"),)
        assert (got.texts, got.tokens) == (2, 2)


def test_what_was_lost_before_the_bill_was_cleared_is_not_in_the_next(tmp_path: Path) -> None:
    bill = Bill(tmp_path / "bill")
    bill.add({"id": 1, "time": 0.0, "texts": 1, "tokens": 1, "billed": 1, "sha": ["a"]})
    bill.clear()
    bill.undelivered(1)
    assert bill.requests == read_bill(tmp_path / "bill").requests == []


def test_a_process_is_told_what_to_do_by_http(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        server.control(fail=[{"kind": "status", "status": 503, "nth": [2]}])
        assert [post(server.port, ["a"])[0] for _ in range(3)] == [200, 503, 200]
        assert server.state()["statuses"] == {"200": 2, "503": 1}
        assert server.state()["billed_tokens"] == server.bill.tokens == 2
        assert server.control(reset=True)["requests"] == 0
        assert server.bill.requests == []


def test_a_bill_says_what_was_paid_twice(embeddings_server: EmbeddingsServer) -> None:
    for texts in (["a", "b"], ["a"]):
        post(embeddings_server.port, texts)
    assert embeddings_server.bill.by_text == {sha_of("a"): 2, sha_of("b"): 1}
    assert embeddings_server.bill.paid_over_needed(["a", "b"]) == 1.5


@pytest.mark.parametrize("overbilling", [0.0, 0.05])
def test_overbilling_stays_within_its_bound(overbilling: float) -> None:
    with EmbeddingsServer(overbilling=overbilling, seed=3) as server:
        text = "some words to count " * 100
        billed = [post(server.port, text)[1]["usage"]["prompt_tokens"] for _ in range(20)]
    exact = tokens_of(text)
    assert all(exact <= tokens <= exact * (1 + overbilling) + 1 for tokens in billed)
    assert (len(set(billed)) > 5) == bool(overbilling)


@pytest.mark.parametrize(
    ("texts", "more", "status", "says"),
    [
        (["a"] * 2049, {}, 400, "at most 2048"),
        (["word " * 9000], {}, 400, "maximum context length is 8191"),
        (["word " * 8000] * 38, {}, 400, "max 300000 tokens per request"),
        ([""], {}, 400, "invalid"),
        ([], {}, 400, "invalid"),
        ("a", {"key": "wrong"}, 401, "Incorrect API key"),
        ("a", {"model": "gpt"}, 404, "does not exist"),
        ("a", {"model": "text-embedding-ada-002"}, 400, "does not support specifying dimensions"),
        ("a", {"dimensions": 4000}, 400, "dimensions"),
    ],
)
def test_refuses_as_openai_does(
    embeddings_server: EmbeddingsServer, texts: Any, more: dict[str, Any], status: int, says: str
) -> None:
    found, body = post(embeddings_server.port, texts, **more)
    assert found == status
    assert says in body["error"]["message"]
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert embeddings_server.bill.requests == []


def test_limits_are_strict_and_cost_nothing() -> None:
    with EmbeddingsServer(requests_per_minute=600, burst_s=0.5) as server:
        started = time.monotonic()
        statuses = [post(server.port, "a")[0] for _ in range(100)]
        allowed = 5 + 10 * (time.monotonic() - started) + 1
        assert 5 <= statuses.count(200) <= allowed
        assert statuses.count(429) == 100 - statuses.count(200)
        assert len(server.bill.requests) == statuses.count(200)
        server.configure({"limits": {"tokens_per_minute": 600, "burst_s": 1}})
        assert [post(server.port, "word " * 50)[0], post(server.port, "a")[0]] == [200, 429]


def test_the_first_rule_that_matches_wins_and_all_count(embeddings_server: EmbeddingsServer) -> None:
    embeddings_server.fail("status", status=500, nth=(1,))
    embeddings_server.fail("status", status=503, nth=(1, 2))
    embeddings_server.fail("refuse", marker="bad", times=1)
    texts = ["a", "a", "a", "bad", "bad"]
    assert [post(embeddings_server.port, text)[0] for text in texts] == [500, 503, 200, 400, 200]


def test_is_fast_enough() -> None:
    """Counted over one second of four connections that are kept alive."""
    body = json.dumps({"model": "text-embedding-3-small", "input": ["hello world"] * 4, "encoding_format": "base64"})
    with EmbeddingsServer() as server:
        deadline = time.monotonic() + 1

        def work() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            while time.monotonic() < deadline:
                connection.request("POST", "/v1/embeddings", body, {"authorization": f"Bearer {KEY}"})
                connection.getresponse().read()
            connection.close()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.statuses[200] >= 300
        with socket.create_connection(("127.0.0.1", server.port)) as half:  # a client that dies before it has asked
            half.sendall(b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: 100\r\n\r\n{")
        assert post(server.port, "still alive")[0] == 200
