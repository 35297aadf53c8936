"""The settings: one frozen object, from parameter > environment > ``vectorkeep.toml`` > default.

Plain dataclasses, not pydantic-settings: importing that costs 0.17 CPU seconds, more than a whole run over 20,000
unchanged files may take.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from vectorstore.errors import ConfigurationError

SETTINGS_FILE = "vectorkeep.toml"
# Names that other tools already use; the VECTORKEEP_ name wins when both are set.
ALIASES = {"openai_base_url": "OPENAI_BASE_URL", "max_cost_usd": "MAX_EMBEDDING_COST"}
CHOICES = {"embedder": ("local", "openai", "hash"), "space": ("ip", "cosine", "l2")}
MODELS = {"local": "wordllama-l2-supercat", "openai": "text-embedding-3-small", "hash": "blake2b"}
DIMENSIONS = {"local": 256, "openai": 1536, "hash": 256}


def _at_least(default: Any, low: float) -> Any:
    return field(default=default, metadata={"low": low})


@dataclass(frozen=True)
class Settings:
    """What one run works with. Relative paths stand for paths in the workspace. Secrets are not settings."""

    workspace: Path
    # documents
    source: Path = Path("docs")
    include: tuple[str, ...] = ("**/*.md",)
    exclude: tuple[str, ...] = ()
    collection: str = "docs"  # a name, or a template with {folder}, the document's first-level folder
    max_document_mb: float = _at_least(50.0, 0.001)
    trust_ctime: bool = True  # a changed inode time makes a file worth reading again
    # chunks
    chunk_tokens: int = _at_least(400, 16)
    encoding: str = "cl100k_base"
    # embedder
    embedder: str = "local"
    model: str = ""  # empty: the embedder's default
    dimensions: int = _at_least(0, 0)  # 0: the embedder's default
    openai_base_url: str = ""
    requests_per_minute: int = _at_least(3000, 1)
    tokens_per_minute: int = _at_least(1_000_000, 1)
    concurrency: int = _at_least(16, 1)  # requests in flight
    batch_texts: int = _at_least(64, 1)  # texts a request
    batch_tokens: int = _at_least(32_000, 1)  # tokens a request
    request_timeout_s: float = _at_least(60.0, 0.1)
    max_attempts: int = _at_least(6, 1)
    # money
    max_cost_usd: float | None = _at_least(5.0, 0)  # a run
    max_cost_usd_per_day: float | None = _at_least(None, 0)
    prices: dict[str, float] = field(default_factory=dict)  # model -> USD a million tokens
    spend_ledger: Path = Path(".hashes/spend.sqlite3")  # share one between workspaces to share the day's cap
    # store
    chroma_path: Path = Path("chroma")
    chroma_url: str = ""  # http://host:port of a Chroma server; empty: embedded
    space: str = "ip"  # of unit vectors: the same distances as cosine, but kept bit for bit
    store_batch: int = _at_least(500, 1)  # chunks a write; other threads stand still meanwhile, so not too many
    # guards
    max_delete_share: float = _at_least(0.1, 0)
    protected: bool = False  # refuse every delete
    paused: bool = False  # the kill switch: refuse to write at all
    # health
    canaries: dict[str, str] = field(default_factory=dict)  # text -> the doc_key that a search for it must find
    canary_k: int = _at_least(10, 1)  # among so many results
    probe_max_mb: int = _at_least(256, 0)  # a deep check makes Chroma open a copy of a store up to this size
    # cache
    cache_keep_days: int = _at_least(90, 0)  # for vectors that no document needs
    cache_max_mb: int = _at_least(0, 0)  # 0: unbounded
    # metrics
    metrics_port: int = _at_least(9464, 0)  # of `vectorkeep serve`, on this machine only; 0: off
    metrics_file: str = ""  # written after each run, for a collector of text files; empty: none
    # backups
    backups_path: Path = Path("backups")
    backup_keep: int = _at_least(10, 0)  # the newest so many
    backup_days: int = _at_least(30, 0)  # and all younger than that, counted from the newest
    backup_daily: int = _at_least(0, 0)  # and the newest of each of so many days, 0: rule off
    backup_weekly: int = _at_least(0, 0)
    backup_monthly: int = _at_least(0, 0)
    backup_recipients: tuple[str, ...] = ()  # public age keys that backups are encrypted to; none: not encrypted
    backup_key: Path = Path("key.age")  # the key that opens them, guarded by a password
    sensitive: tuple[str, ...] = ()  # what a selective backup leaves out: paths, or key=value of the metadata
    offsite_url: str = ""  # a folder or an address of fsspec's: s3://bucket/folder, sftp://user@host/folder
    # alerts; 0: rule off
    alert_error_rate: float = _at_least(0.01, 0)  # share of a run's documents
    alert_storage_gb: float = _at_least(2.0, 0)  # of the embedded store
    alert_cost_usd_per_day: float = _at_least(5.0, 0)
    alert_memory_share: float = _at_least(0.8, 0)  # of the machine's memory
    alert_sigma: float = _at_least(3.0, 0)  # deviations from the own history
    alert_min_runs: int = _at_least(10, 2)  # that a history needs for that
    alert_backup_hours: float = _at_least(26.0, 0)
    alert_drill_days: float = _at_least(35.0, 0)
    alert_update_hours: float = _at_least(26.0, 0)
    coverage_floor: float = _at_least(0.95, 0)  # share of the chunks that the ledger knows, found by a health check
    alert_cooldown_hours: float = _at_least(24.0, 0)  # until an alert that lasts is told again; 0: never again

    @property
    def hashes(self) -> Path:
        """The folder of ledger, cache, checkpoint and history."""
        return self.workspace / ".hashes"

    @property
    def backups(self) -> Path:
        """The folder of backups and their history, absolute."""
        return self.path(self.backups_path)

    def path(self, value: Path) -> Path:
        """A path setting, made absolute against the workspace."""
        return Path(os.path.normpath(self.workspace / value.expanduser()))

    @property
    def model_name(self) -> str:
        """The model in use: the setting, or the embedder's default."""
        return self.model or MODELS[self.embedder]

    @property
    def is_billable(self) -> bool:
        """Whether embedding costs money."""
        return self.embedder == "openai"

    @property
    def dimension(self) -> int:
        """The length of a vector: the setting, or the embedder's default."""
        return self.dimensions or DIMENSIONS[self.embedder]


def load_settings(workspace: str | os.PathLike[str] | None = None, **parameters: Any) -> Settings:
    """Settings for a workspace.

    Args:
        workspace: the folder; default ``$VECTORKEEP_WORKSPACE``, else the nearest folder upwards from the working
            directory that holds ``vectorkeep.toml``, else the working directory.
        parameters: values that win over every other source; ``None`` means not given.

    Raises:
        ConfigurationError: an unknown name, a value of the wrong type or out of bounds, a rule of ``sensitive`` that
            means nothing, an unreadable file.
    """
    root = find_workspace(workspace)
    known = {f.name: f for f in fields(Settings) if f.name != "workspace"}
    values: dict[str, Any] = {}
    for name, raw in _from_file(root / SETTINGS_FILE).items():
        if name not in known:
            raise ConfigurationError(f"{SETTINGS_FILE}: unknown setting {name!r}", _did_you_mean(name, known))
        values[name] = _convert(known[name], raw, SETTINGS_FILE)
    for name, spec in known.items():
        for variable in (ALIASES.get(name, ""), f"VECTORKEEP_{name.upper()}"):
            if os.environ.get(variable):
                values[name] = _convert(spec, _from_text(spec, os.environ[variable]), f"${variable}")
    for name, raw in parameters.items():
        if raw is not None:
            values[name] = _convert(known[name], raw, "parameter")
    if values.get("sensitive"):  # a rule that can't be read must not wait for the night of the first backup
        from vectorstore.backups.selection import SensitiveRule

        SensitiveRule(values["sensitive"])
    return Settings(workspace=root, **values)


def find_workspace(given: str | os.PathLike[str] | None = None) -> Path:
    """The workspace folder, absolute; see ``load_settings``."""
    named = given or os.environ.get("VECTORKEEP_WORKSPACE")
    if named:
        root = Path(named).expanduser().absolute()
        if not root.is_dir():
            raise ConfigurationError(f"workspace {root} is not a folder", "make it, or run `vectorkeep init` in it")
        return root
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / SETTINGS_FILE).is_file()), here)


def _from_file(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path}: {error}", "mend the file; `vectorkeep init` writes a commented one"
        ) from None


def _from_text(spec: Any, text: str) -> Any:
    kind = str(spec.type)
    if kind.startswith("tuple"):
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind == "bool":
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(text.lower(), text)
    if kind.startswith(("int", "float", "dict")):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _convert(spec: Any, raw: Any, origin: str) -> Any:
    kind, name = str(spec.type), spec.name
    if kind.endswith("None") and raw == "none":
        return None
    if kind == "Path" and isinstance(raw, (str, Path)) and str(raw):
        return Path(raw)
    if kind.startswith("tuple") and isinstance(raw, (list, tuple)) and all(isinstance(item, str) for item in raw):
        return tuple(raw)
    if kind == "dict[str, str]" and isinstance(raw, dict) and all(isinstance(value, str) for value in raw.values()):
        return {str(key): value for key, value in raw.items()}
    if kind == "dict[str, float]" and isinstance(raw, dict) and all(_is_number(value) for value in raw.values()):
        return {str(key): float(value) for key, value in raw.items()}
    if (kind == "bool" and isinstance(raw, bool)) or (kind == "str" and isinstance(raw, str)):
        return _chosen(name, raw, origin)
    if kind == "int" and _is_number(raw) and float(raw).is_integer():
        return _bounded(spec, int(raw), origin)
    if kind.startswith("float") and _is_number(raw):
        return _bounded(spec, float(raw), origin)
    raise ConfigurationError(f"{origin}: {name} = {raw!r} is not {_KIND_WORDS.get(kind, kind)}")


_KIND_WORDS = {
    "int": "a whole number", "float": "a number", "float | None": "a number or \"none\"", "bool": "true or false",
    "tuple[str, ...]": "a list of texts", "dict[str, float]": "a table of numbers",
    "dict[str, str]": "a table of texts", "Path": "a path", "str": "a text",
}  # fmt: skip


def _is_number(raw: Any) -> bool:
    return isinstance(raw, (int, float)) and not isinstance(raw, bool) and raw == raw and abs(raw) != float("inf")


def _chosen(name: str, raw: Any, origin: str) -> Any:
    if name in CHOICES and raw not in CHOICES[name]:
        raise ConfigurationError(f"{origin}: {name} = {raw!r}", f"choose one of {', '.join(CHOICES[name])}")
    return raw


def _bounded(spec: Any, value: float, origin: str) -> float:
    low = spec.metadata.get("low")
    if low is not None and value < low:
        raise ConfigurationError(f"{origin}: {spec.name} = {value} is below {low}")
    return value


def _did_you_mean(name: str, known: dict[str, Any]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else "see `vectorkeep init` for the settings"
