"""The collections that are adopted: which of a store's, whether they may be, and what their rows hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from vectorstore.adoption.importing import ORDER_KEYS, PREFIXED, Checksum, Importer
from vectorstore.adoption.matching import Origin
from vectorstore.adoption.proving import prove
from vectorstore.adoption.spool import DOCUMENT_KEYS, Naming, Spool
from vectorstore.cache import VectorCache
from vectorstore.chroma.store import refuse_others
from vectorstore.errors import ConfigurationError, PipelineMismatch
from vectorstore.pipeline import Pipeline
from vectorstore.progress import Progress
from vectorstore.settings import Settings

if TYPE_CHECKING:
    from vectorstore.adoption.foreign import ForeignRows
    from vectorstore.chroma.rows import StoredCollection

# Kinds of collections: somebody else's; ours, made for these settings; ours, of the same model but cut otherwise.
FOREIGN, OWN, VECTORS_ONLY = "foreign", "own", "vectors only"
_LEAVE_OUT = "leave it out: name the other collections with --collection"


class Choice(NamedTuple):
    """What a person chose.

    Attributes:
        collections: only these, by name; empty for all.
        document_key, order_key: metadata that name a row's document and its place in it; empty: to be found.
        accept_prefixed: take vectors that LlamaIndex made of metadata and text for those of the text.
    """

    collections: Collection[str] = ()
    document_key: str = ""
    order_key: str = ""
    accept_prefixed: bool = False


class Intake:
    """Looks at the store's collections and takes in those that were chosen.

    Args:
        cache: where vectors go; only read if ``dry_run``, then it may be missing.

    Attributes:
        collections: what the report says of each.
        origins: collections whose rows name documents.
        rows, unused, texts_cached: see ``importing.Importer``.
        notes: what else a person should know.
    """

    def __init__(
        self,
        settings: Settings,
        reader: ForeignRows,
        cache: VectorCache | None,
        spool: Spool,
        choice: Choice,
        dry_run: bool,
    ) -> None:
        self._settings, self._pipeline, self._reader = settings, Pipeline.of(settings), reader
        self._cache, self._spool, self._choice, self._dry_run = cache, spool, choice, dry_run
        self._taken: list[tuple[StoredCollection, str]] = []
        self.collections: dict[str, dict[str, Any]] = {}
        self.origins: list[Origin] = []
        self.rows = self.texts_cached = 0
        self.unused: Counter[str] = Counter()
        self.notes: list[str] = []

    def look(self, targets: Collection[str]) -> None:
        """Choose the collections and see that they may be taken in; nothing was changed when this raises.

        Args:
            targets: names of the collections that the source's documents belong to.

        Raises:
            Refused, PipelineMismatch: somebody else has one of these names; vectors are not of the settings' model.
            ConfigurationError: an unknown collection or key, or nothing to adopt.
            Damaged: a collection can't be trusted.
        """
        found = self._reader.collections()
        for each in found:
            if each.name in targets:
                refuse_others(each.name, each.pipeline, self._pipeline.id)
        self._taken = self._choose(found)
        self._reader.check(each.name for each, _ in self._taken)
        keys: set[str] = set()
        for each, kind in self._taken:
            if kind == FOREIGN:
                keys |= self._prove(each)
        if any(kind == FOREIGN for _, kind in self._taken):
            self._check_keys(keys)

    def take(
        self,
        checksum: Checksum,
        is_document: Callable[[str], bool],
        progress: Progress,
        tick: Callable[[Progress], None],
    ) -> None:
        """Take in what was chosen.

        Args:
            checksum: see ``importing.Importer``.
            is_document: whether a document of this key is in the source.
            progress: counts rows as documents done; ``tick`` is called with it.
        """
        choice = self._choice
        importer = Importer(
            self._reader, self._cache, self._spool, accept_prefixed=choice.accept_prefixed, checksum=checksum,
            document_keys=dict.fromkeys((choice.document_key, "doc_key")) if choice.document_key else DOCUMENT_KEYS,
            order_keys=dict.fromkeys((choice.order_key, "chunk")) if choice.order_key else ORDER_KEYS,
            exact=self._settings.space != "cosine", dry_run=self._dry_run,
        )  # fmt: skip
        progress.documents_total = sum(each.count for each, _ in self._taken)

        def on_page(rows: int) -> None:
            progress.add(documents_done=rows)
            tick(progress)

        for each, kind in self._taken:
            importer.take(each, own=kind == OWN, on_page=on_page)
            self.collections[each.name] = {"kind": kind, "rows": each.count}
            if kind != VECTORS_ONLY:
                self._name(each, kind, importer.order_keys[each.name], is_document)
        self.rows, self.unused, self.texts_cached = importer.rows, importer.unused, importer.texts_cached
        if self.unused[PREFIXED]:
            self.notes.append(
                "LlamaIndex put metadata (the file's path, unless told otherwise) before the text that it embedded:"
                " --accept-prefixed takes these vectors for those of the text"
            )

    def _choose(self, found: list[StoredCollection]) -> list[tuple[StoredCollection, str]]:
        names = self._choice.collections
        if unknown := set(names) - {each.name for each in found}:
            there = ", ".join(each.name for each in found) or "none"
            raise ConfigurationError(f"the store has no collection {min(unknown)!r}", f"there are: {there}")
        chosen: list[tuple[StoredCollection, str]] = []
        mismatch = ""
        for each in found:
            if not each.count or (names and each.name not in names):
                continue
            kind, why = self._kind(each)
            if kind:
                chosen.append((each, kind))
                continue
            mismatch = f"the collection {each.name!r} holds vectors of {why}; the settings ask for {self._wanted}"
            if names:
                break
            self.notes.append(f"{each.name} was left out: it holds vectors of {why}")
        if mismatch and (names or not chosen):
            raise PipelineMismatch(
                mismatch, f"name the embedder, model and dimensions that made them in vectorkeep.toml; or {_LEAVE_OUT}"
            )
        if not chosen:
            raise ConfigurationError("there is nothing to adopt: the store holds no rows", "see `chroma_path`")
        return chosen

    @property
    def _wanted(self) -> str:
        return f"{self._pipeline.embedding}, of {self._settings.dimension} dimensions"

    def _kind(self, each: StoredCollection) -> tuple[str, str]:
        """The kind of a collection; empty for one that can't be taken in, and what it holds instead."""
        if each.pipeline is not None and not each.pipeline.startswith(f"{self._pipeline.embedding}/"):
            return "", each.pipeline
        if each.dimension != self._settings.dimension:
            return "", f"{each.dimension} dimensions"
        if each.pipeline is None:
            return FOREIGN, ""
        return OWN if each.pipeline == self._pipeline.id else VECTORS_ONLY, ""

    def _prove(self, each: StoredCollection) -> set[str]:
        proof = prove(self._settings, self._reader, each, self._cache)
        if not proof.compared:
            self.notes.append(
                f"that the vectors of {each.name} are of {self._settings.model_name} is your word: telling would cost"
                f" money; only their dimension, {self._settings.dimension}, was compared"
            )
        return proof.keys

    def _check_keys(self, known: set[str]) -> None:
        for key in (self._choice.document_key, self._choice.order_key):
            if key and key not in known:
                there = ", ".join(sorted(known)) or "none"
                raise ConfigurationError(f"no row has metadata called {key!r}", f"there are: {there}")

    def _name(self, each: StoredCollection, kind: str, order_key: str, is_document: Callable[[str], bool]) -> None:
        """Find out how the rows of a collection name their documents."""
        naming: Naming | None
        if kind == OWN:
            naming = self._spool.count(each.name, Naming("doc_key", ""), is_document)
        else:
            keys = (self._choice.document_key,) if self._choice.document_key else DOCUMENT_KEYS
            naming = self._spool.find_naming(each.name, keys, is_document)
        if naming is None:
            self.notes.append(
                f"no metadata of {each.name} name documents of the source: its vectors are in the cache, for texts that"
                " are equal"
            )
            return
        self.origins.append(Origin(each.name, naming, order_key, kind == OWN))
        self.collections[each.name] |= {
            "document_key": naming.key, "prefix": naming.prefix, "order_key": order_key, "named": naming.named,
            "unnamed": naming.unnamed,
        }  # fmt: skip
