"""The first step: a commented settings file."""

from __future__ import annotations

from pathlib import Path

from vectorstore.errors import ConfigurationError
from vectorstore.settings import SETTINGS_FILE

TEMPLATE = """\
# Vectorkeep. Every setting can also come from the environment as VECTORKEEP_<NAME>; secrets only come from there.

# The documents. Patterns are relative to the source folder.
source = {source}
include = ["**/*.md"]
exclude = []
# A collection's name, or a template: {{folder}} is the document's first-level folder.
collection = "docs"

# The embedder: "local" (256 dimensions, offline, free), "openai" (needs OPENAI_API_KEY) or "hash" (dry runs only).
embedder = "local"
# model = "text-embedding-3-small"
# dimensions = 1536
chunk_tokens = 400

# Money, in USD. A run stops before it passes a cap, and the next one goes on where it stopped. "none": no cap.
max_cost_usd = 5.0
# max_cost_usd_per_day = 5.0
# prices = {{ "my-model" = 0.02 }}  # a million tokens, for models that are not in the table

# What the provider allows.
requests_per_minute = 3000
tokens_per_minute = 1000000
concurrency = 16

# The store: embedded in a folder, or behind a Chroma server.
chroma_path = "chroma"
# chroma_url = "http://127.0.0.1:8000"

# Guards: a larger share of deletes is refused, protected = true refuses every delete, paused = true refuses to write.
max_delete_share = 0.1
protected = false
paused = false

# Vectors that no document has needed for so many days leave the cache.
cache_keep_days = 90

# Metrics for Prometheus: the port of `vectorkeep serve` on this machine, and a file that every run writes.
# metrics_port = 9464
# metrics_file = "metrics/vectorkeep.prom"

# Backups: the newest so many are kept, and all that are younger than so many days; copies go to a folder or an address.
backup_keep = 10
backup_days = 30
# offsite_url = "s3://bucket/folder"

# Alerts; 0 turns a rule off. Where they go is a secret: VECTORKEEP_ALERT_URLS in the environment.
alert_error_rate = 0.01
alert_storage_gb = 2.0
alert_cost_usd_per_day = 5.0
alert_memory_share = 0.8
alert_sigma = 3.0
alert_min_runs = 10
alert_backup_hours = 26
alert_drill_days = 35
alert_update_hours = 26
coverage_floor = 0.95
alert_cooldown_hours = 24
"""


def write_settings(workspace: Path, source: str | None = None) -> Path:
    """Write the settings file and the workspace's folders.

    Raises:
        ConfigurationError: there is one already.
    """
    path = workspace / SETTINGS_FILE
    quoted = '"' + str(source or "docs").replace("\\", "\\\\").replace('"', '\\"') + '"'
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(TEMPLATE.format(source=quoted))
        for folder in (".hashes", "backups"):
            (workspace / folder).mkdir(exist_ok=True)
    except FileExistsError:
        raise ConfigurationError(f"{path} is there already", "edit it, or remove it to start anew") from None
    except OSError as error:
        raise ConfigurationError(f"can't write {path}: {error}") from None
    return path
