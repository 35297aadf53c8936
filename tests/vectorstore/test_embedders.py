"""One conformance suite that every embedder passes, then what is particular to each."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.embeddings_api import expected_vectors
from tests.support.embeddings_server import EmbeddingsServer
from vectorstore.embedders import make_embedder
from vectorstore.embedders.base import AttemptFailed, Embedder
from vectorstore.embedders.hash import hash_vectors
from vectorstore.embedders.openai import retry_after
from vectorstore.errors import ConfigurationError, KeyRejected, QuotaExhausted
from vectorstore.settings import Settings

CASES = [("local", 256), ("local", 64), ("hash", 256), ("hash", 1536), ("hash", 255), ("openai", 1536), ("openai", 512)]
ODD_TEXTS = [
    "plain", "Grüße aus Köln", "日本語の文章", "😀 \U0001f469\u200d\U0001f469\u200d\U0001f467", "nul \x00 inside",
    "\x00", " ", "\n\t", "\ufffe\uffff", "a" * 5000, "<|endoftext|>",
    "[PAD]", "\u00e9", "e\u0301", '{"json": "\\u0000"}',
    "word " * 7000, "\u202eright to left",
]  # fmt: skip


def build(tmp_path: Path, name: str, dimension: int = 0, **more: Any) -> Embedder:
    return make_embedder(
        Settings(tmp_path, embedder=name, dimensions=dimension, openai_base_url=os.environ["OPENAI_BASE_URL"], **more)
    )


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def embedder(request: pytest.FixtureRequest, tmp_path: Path, embeddings_server: EmbeddingsServer) -> Iterator[Embedder]:
    name, dimension = request.param
    made = build(tmp_path, name, dimension)
    assert made.dimension == dimension
    yield made
    made.close()


class TestEveryEmbedder:
    def test_says_what_it_is(self, embedder: Embedder) -> None:
        assert embedder.provider in ("local", "hash", "openai")
        assert embedder.model
        assert embedder.max_texts >= 1
        assert embedder.max_tokens >= embedder.max_text_tokens >= 1
        assert embedder.billable == (embedder.provider == "openai")

    def test_shape_type_norm_and_bill(self, embedder: Embedder) -> None:
        vectors, billed = embedder.embed(ODD_TEXTS)
        assert vectors.shape == (len(ODD_TEXTS), embedder.dimension)
        assert vectors.dtype == np.float32
        assert np.isfinite(vectors).all()
        assert np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max() < 1e-5
        assert (billed > 0) if embedder.billable else (billed == 0)

    def test_same_text_same_vector_whatever_its_neighbours(self, embedder: Embedder) -> None:
        together = embedder.embed(ODD_TEXTS).vectors
        alone = np.vstack([embedder.embed([text]).vectors for text in ODD_TEXTS])
        assert np.array_equal(together, alone)

    def test_order(self, embedder: Embedder) -> None:
        texts = [f"text number {i} about {i * 7}" for i in range(40)]
        assert np.array_equal(embedder.embed(texts).vectors[::-1], embedder.embed(texts[::-1]).vectors)

    def test_duplicates_in_one_batch(self, embedder: Embedder) -> None:
        vectors = embedder.embed(["one", "two", "one"]).vectors
        assert np.array_equal(vectors[0], vectors[2])
        assert not np.array_equal(vectors[0], vectors[1])

    def test_a_large_batch(self, embedder: Embedder) -> None:
        texts = [f"text {i}" for i in range(min(embedder.max_texts, 4096))]
        assert embedder.embed(texts).vectors.shape == (len(texts), embedder.dimension)

    def test_a_text_that_is_no_unicode_is_refused(self, embedder: Embedder) -> None:
        with pytest.raises(AttemptFailed) as caught:
            embedder.embed(["fine", "\ud800 lone surrogate"])
        assert (caught.value.kind, caught.value.billed) == ("refused", "no")

    def test_closing_twice(self, embedder: Embedder) -> None:
        embedder.close()
        embedder.close()


class TestMakeEmbedder:
    def test_importing_the_package_imports_nothing_heavy(self) -> None:
        heavy = ["numpy", "openai", "wordllama", "tokenizers", "tiktoken", "tenacity", "httpx2"]
        code = f"import sys, vectorstore.embedders; print([m for m in {heavy} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    @pytest.mark.parametrize(
        ("name", "more", "says"),
        [
            ("local", {"dimensions": 100}, "64, 128 or 256"),
            ("local", {"dimensions": 1536}, "64, 128 or 256"),
            ("local", {"model": "other"}, "wordllama-l2-supercat"),
            ("hash", {"model": "md5"}, "blake2b"),
            ("openai", {"dimensions": 1537}, "1536 or less"),
            ("openai", {"model": "text-embedding-ada-002", "dimensions": 512}, "1536"),
            ("openai", {"openai_base_url": "localhost:8000/v1"}, "http"),
            ("openai", {"openai_base_url": "http://name:hunter2@localhost:8000/v1"}, "holds a login"),
        ],
    )
    def test_what_an_embedder_does_not_have(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, more: dict[str, Any], says: str
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        with pytest.raises(ConfigurationError, match=says) as refused:
            make_embedder(Settings(tmp_path, embedder=name, **more))
        assert "hunter2" not in str(refused.value)


class TestHash:
    def test_the_formula_never_changes(self) -> None:
        """Pinned: stores were written with it."""
        found = hash_vectors(["vectorkeep"], 8)[0]
        assert found.tolist() == pytest.approx(PINNED, abs=1e-7)

    def test_texts_are_far_apart(self) -> None:
        vectors = hash_vectors([f"t{i}" for i in range(500)], 256)
        assert np.abs(vectors @ vectors.T - np.eye(500)).max() < 0.4

    def test_shorter_vectors_begin_alike(self) -> None:
        long, short = hash_vectors(["x"], 101)[0], hash_vectors(["x"], 100)[0]
        assert np.allclose(long[:100] / np.linalg.norm(long[:100]), short, atol=1e-6)


PINNED = [0.62259465, -0.37775579, -0.15374576, 0.39642009, 0.01025168, -0.42914733, 0.2849859, 0.15297152]


class TestLocal:
    def test_works_with_sockets_blocked_and_says_nothing(self, tmp_path: Path) -> None:
        """In a fresh process, with a home that is empty: no download, no cache, no warning, no logging set up."""
        code = """
import logging, os, socket, sys
def refuse(*a, **k): raise AssertionError("network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from vectorstore.embedders.local import LocalEmbedder
e = LocalEmbedder("wordllama-l2-supercat", 256)
v = e.embed(["one text", "another"] * 200).vectors
assert not logging.getLogger().handlers and logging.getLogger().level == logging.WARNING
if os.fork() == 0:
    e.embed(["in a child"] * 50); os._exit(0)
assert os.wait()[1] == 0
print(float(v[0] @ v[2]))
"""
        environment = {**os.environ, "HOME": str(tmp_path)}
        environment.pop("TOKENIZERS_PARALLELISM", None)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert float(done.stdout) == pytest.approx(1)
        assert list(tmp_path.iterdir()) == []

    def test_means_something(self, tmp_path: Path, embeddings_server: EmbeddingsServer) -> None:
        cat, kitten, tax = build(tmp_path, "local").embed(["a cat", "a kitten", "income tax return"]).vectors
        assert cat @ kitten > cat @ tax + 0.2

    def test_agrees_with_wordllama(self, tmp_path: Path, embeddings_server: EmbeddingsServer) -> None:
        import wordllama

        theirs = wordllama.WordLlama.load(
            cache_dir=Path(wordllama.__file__).parent, trunc_dim=128, disable_download=True
        ).embed(ODD_TEXTS, norm=True)
        assert np.allclose(build(tmp_path, "local", 128).embed(ODD_TEXTS).vectors, theirs, atol=1e-5)

    def test_a_text_without_direction_is_refused(self, tmp_path: Path, embeddings_server: EmbeddingsServer) -> None:
        embedder: Any = build(tmp_path, "local")
        embedder._weights = embedder._weights.copy()
        embedder._weights[embedder._tokenizer.encode("nothing", add_special_tokens=False).ids] = 0
        with pytest.raises(AttemptFailed, match="no vector for 'nothing'") as caught:
            embedder.embed(["something", "nothing"])
        assert caught.value.kind == "refused"
        with pytest.raises(AttemptFailed):
            embedder.embed([""])

    def test_memory_stays_bounded(self, tmp_path: Path) -> None:
        """One long text among short ones: padding all to its length would take 4 GB."""
        code = """
import resource
from vectorstore.embedders.local import LocalEmbedder
e = LocalEmbedder("wordllama-l2-supercat", 256)
e.embed(["warm"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
e.embed(["word " * 60_000] + ["short"] * 63 + ["a longer text " * 100] * 2000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert float(done.stdout) < 250


class TestOpenAI:
    def test_the_vectors_are_the_servers(self, tmp_path: Path, embeddings_server: EmbeddingsServer) -> None:
        for dimension in (1536, 256):
            answer = build(tmp_path, "openai", dimension).embed(ODD_TEXTS)
            assert np.allclose(answer.vectors, expected_vectors(ODD_TEXTS, dimension=dimension), atol=1e-6)
        assert answer.billed_tokens == embeddings_server.bill.requests[-1].billed

    def test_what_is_billed_is_what_the_server_bills(self, tmp_path: Path, embeddings_server: EmbeddingsServer) -> None:
        embeddings_server.overbilling = 0.05
        try:
            embedder = build(tmp_path, "openai")
            billed = sum(embedder.embed([f"some text {i} " * 20]).billed_tokens or 0 for i in range(20))
        finally:
            embeddings_server.overbilling = 0.0
        assert billed == embeddings_server.bill.tokens > sum(r.tokens for r in embeddings_server.bill.requests)

    @pytest.mark.parametrize("native", [True, False])
    def test_dimensions_are_sent_only_where_needed(
        self, tmp_path: Path, embeddings_server: EmbeddingsServer, native: bool
    ) -> None:
        embedder: Any = build(tmp_path, "openai", 1536 if native else 512)
        assert embedder._arguments == ({} if native else {"dimensions": 512})
        unknown: Any = build(tmp_path, "openai", 768, model="my-own-model")
        assert unknown._arguments == {}

    def test_answers_out_of_order_are_put_in_order(self, tmp_path: Path, embeddings_server: EmbeddingsServer) -> None:
        embeddings_server.fail("shuffled")
        found = build(tmp_path, "openai").embed(["a", "b", "c"])
        assert np.allclose(found.vectors, expected_vectors(["a", "b", "c"]), atol=1e-6)

    def test_an_answer_without_usage_keeps_its_vectors(
        self, tmp_path: Path, embeddings_server: EmbeddingsServer
    ) -> None:
        embeddings_server.fail("no_usage")
        answer = build(tmp_path, "openai").embed(["a"])
        assert answer.billed_tokens is None
        assert np.allclose(answer.vectors, expected_vectors(["a"]), atol=1e-6)

    @pytest.mark.parametrize(
        ("kind", "says"),
        [
            ("too_few", "1 vectors for 2 texts"),
            ("too_many", "3 vectors for 2 texts"),
            ("duplicate_index", "index 0 twice"),
            ("dimension", "1535 dimensions, 1536 were expected"),
            ("nan", "not finite, for text 0"),
            ("zero", "zero vector, for text 0"),
            ("no_data", "another shape"),
        ],
    )
    def test_a_bad_answer_says_what_is_bad(
        self, tmp_path: Path, embeddings_server: EmbeddingsServer, kind: str, says: str
    ) -> None:
        embeddings_server.fail(kind)
        with pytest.raises(AttemptFailed, match=says):
            build(tmp_path, "openai").embed(["a", "b"])

    def test_lists_of_numbers_are_read_as_well(
        self, tmp_path: Path, embeddings_server: EmbeddingsServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Some compatible servers ignore the format asked for; and not all vectors have norm 1."""
        monkeypatch.setattr(
            "tests.support.embeddings_api._shown", lambda vector, as_base64: [3 * float(x) for x in vector]
        )
        found = build(tmp_path, "openai").embed(["a", "b"])
        assert np.allclose(found.vectors, expected_vectors(["a", "b"]), atol=1e-6)

    def test_no_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        for url in ("", "https://api.openai.com/v1", "https://eu.api.openai.com/v1"):
            with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
                make_embedder(Settings(tmp_path, embedder="openai", openai_base_url=url))
        make_embedder(Settings(tmp_path, embedder="openai", openai_base_url="http://localhost:11434/v1"))

    def test_the_setting_decides_the_address_not_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.invalid/v1")
        embedder: Any = make_embedder(Settings(tmp_path, embedder="openai"))
        assert str(embedder._client.base_url) == "https://api.openai.com/v1/"

    def test_nobody_listens(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        embedder = make_embedder(Settings(tmp_path, embedder="openai", openai_base_url=f"http://127.0.0.1:{port}/v1"))
        with pytest.raises(AttemptFailed) as caught:
            embedder.embed(["a"])
        assert (caught.value.kind, caught.value.billed) == ("transient", "no")


# what the server does -> exception, kind, billed, seconds to wait
FAILURES: list[tuple[str, dict[str, Any], type[Exception], str, Any, float | None]] = [
    ("status", {"status": 401}, KeyRejected, "", "", None),
    ("status", {"status": 403}, KeyRejected, "", "", None),
    ("quota", {}, QuotaExhausted, "", "", None),
    ("status", {"status": 404}, ConfigurationError, "", "", None),
    ("status", {"status": 429}, AttemptFailed, "transient", "no", None),
    ("status", {"status": 429, "retry_after": "7"}, AttemptFailed, "transient", "no", 7.0),
    ("status", {"status": 429, "retry_after": "7", "retry_after_ms": "250"}, AttemptFailed, "transient", "no", 0.25),
    ("status", {"status": 429, "retry_date_s": 30.0}, AttemptFailed, "transient", "no", 29.0),
    ("status", {"status": 429, "retry_after": "soon"}, AttemptFailed, "transient", "no", None),
    ("status", {"status": 500}, AttemptFailed, "transient", "unknown", None),
    ("status", {"status": 502}, AttemptFailed, "transient", "unknown", None),
    ("status", {"status": 503, "retry_after": "2"}, AttemptFailed, "transient", "unknown", 2.0),
    ("status", {"status": 408}, AttemptFailed, "transient", "unknown", None),
    ("status", {"status": 413}, AttemptFailed, "refused", "no", None),
    ("refuse", {}, AttemptFailed, "refused", "no", None),
    ("hang", {}, AttemptFailed, "transient", "unknown", None),
    ("html", {"status": 200}, AttemptFailed, "transient", "unknown", None),
    ("html", {"status": 502}, AttemptFailed, "transient", "unknown", None),
    ("cut_before", {}, AttemptFailed, "transient", "unknown", None),
    ("cut_mid", {}, AttemptFailed, "transient", "unknown", None),
    *(
        (kind, {}, AttemptFailed, "bad_answer", "usage", None)
        for kind in ("too_few", "too_many", "dimension", "nan", "inf", "zero", "duplicate_index", "no_data")
    ),
]


@pytest.mark.parametrize(
    ("kind", "how", "expected", "classified", "billed", "wait"), FAILURES, ids=lambda value: str(value)[:30]
)
def test_every_failure_is_classified_and_shows_no_key(
    tmp_path: Path, embeddings_server: EmbeddingsServer, caplog: pytest.LogCaptureFixture,
    kind: str, how: dict[str, Any], expected: type[Exception], classified: str, billed: Any, wait: float | None,
) -> None:  # fmt: skip
    key = embeddings_server.key
    caplog.set_level(logging.DEBUG)
    embeddings_server.fail(kind, message=f"your key {key}, Bearer {key}, is bad", **how)
    embedder = build(tmp_path, "openai", request_timeout_s=0.3)
    with pytest.raises(expected) as caught:
        embedder.embed(["one", "two"])
    error = caught.value
    if isinstance(error, AttemptFailed):
        tokens = embeddings_server.bill.tokens
        assert (error.kind, error.billed) == (classified, tokens if billed == "usage" else billed)
        assert error.retry_after_s == (pytest.approx(wait, abs=1.5) if how.get("retry_date_s") else wait)
    assert_no_secret(error, key)
    assert key not in caplog.text
    assert key not in repr(embedder) + str(vars(embedder))
    assert embeddings_server.requests == 1


def test_a_rejected_key_is_not_shown_though_the_provider_does(
    tmp_path: Path, embeddings_server: EmbeddingsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted0123456789")
    with pytest.raises(KeyRejected, match="Incorrect API key provided: <key>") as caught:
        build(tmp_path, "openai").embed(["a"])
    assert_no_secret(caught.value, "sk-planted0123456789")
    assert_no_secret(caught.value, "planted")


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_is_none_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigurationError) as caught:
        make_embedder(Settings(tmp_path, embedder="openai"))
    assert_no_secret(caught.value, key)


def assert_no_secret(error: BaseException, key: str) -> None:
    """Not in the exception, nor in one it refers to, nor in any traceback with local variables."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or current in seen:
            continue
        seen.append(current)
        waiting += [current.__cause__, current.__context__]
        shown = traceback.TracebackException.from_exception(current, capture_locals=False)
        texts = [str(current), repr(current), str(vars(current)), "".join(shown.format())]
        assert all(key not in text for text in texts)
        frames = [frame for frame, _ in traceback.walk_tb(current.__traceback__)]
        frames = [frame for frame in frames if not frame.f_code.co_filename.endswith("test_embedders.py")]
        assert frames
        assert all(key not in repr(value) for frame in frames for value in frame.f_locals.values())
    assert seen == [error]  # nothing of the SDK's hangs on to it


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None), ({"retry-after": "3"}, 3.0), ({"retry-after": "0"}, 0.0), ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None), ({"retry-after": "nan"}, None), ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2.0), ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)  # fmt: skip
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds
