"""The deployments of ``prefect.yaml`` and the automations, put on a server for one workspace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tasks.prefect_api import PrefectApi
from vectorstore.errors import VectorkeepError

ROOT = Path(__file__).resolve().parents[1]


def deploy(api: PrefectApi, workspace: Path, env: Mapping[str, str], file: Path) -> None:
    """Deploy all, by way of a ``file`` that names the workspace.

    Raises:
        VectorkeepError: Prefect would not.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(deployments_for(workspace, _switched(api)), sort_keys=False))
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    done = subprocess.run(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    )  # fmt: skip
    if done.returncode:
        raise VectorkeepError(f"`prefect deploy` failed: {done.stdout[-2000:]}", "mend prefect.yaml")


def deployments_for(workspace: Path, active: Mapping[tuple[str, str], bool]) -> dict[str, Any]:
    """``prefect.yaml`` for one workspace.

    Args:
        active: (deployment, slug) -> whether its schedule is switched on: one that was paused in the UI stays paused.
    """
    content: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))
    for deployment in content["deployments"]:
        deployment["parameters"] = {**deployment["parameters"], "workspace": str(workspace)}
        deployment["schedules"] = [
            {**schedule, "active": active.get((deployment["name"], schedule["slug"]), True)}
            for schedule in deployment.get("schedules", [])
        ]
    return content


def begin_automations(env: Mapping[str, str]) -> subprocess.Popen[str]:
    """Install the automations, beside other work."""
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.automations", "--json"], cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip


def installed_automations(installing: subprocess.Popen[str]) -> list[str]:
    """What came of it, in lines for a person.

    Raises:
        VectorkeepError: they could not be installed.
    """
    out, error = installing.communicate()
    if installing.returncode:
        raise VectorkeepError(f"the automations were not installed: {error.strip()[-500:]}")
    done = json.loads(out)
    names = ", ".join(each["name"].partition(": ")[2] for each in done["automations"])
    return [f"automations: {names or 'none'}", *done["notes"]]


def _switched(api: PrefectApi) -> dict[tuple[str, str], bool]:
    return {
        (each["name"], schedule["slug"]): schedule["active"]
        for each in api.deployments()
        for schedule in each["schedules"]
    }
