"""The commands about backups: ``backup``, ``backups``, ``verify``, ``restore``, ``drill``, ``prune``, ``keygen``."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vectorstore.backups.encryption import PASSWORD
from vectorstore.cli_runs import by_hand
from vectorstore.errors import ConfigurationError
from vectorstore.settings import Settings, load_settings

Add = Callable[..., Any]
Show = Callable[[Any], str]


def add_commands(add: Add) -> None:
    """Add the commands; ``add(name, action, text)`` gives a parser."""
    backup = add("backup", _backup, "save store, ledger and settings in an archive, verified before it gets its name")
    backup.add_argument("--kind", default="", help="full (the files; default) or portable (Parquet, for any Chroma)")
    backup.add_argument("--cache", action="store_true", help="with the vector cache: larger, and nothing is paid again")
    backup.add_argument("--selective", action="store_true", help="without the rows that the setting `sensitive` names")
    _add_sensitive(backup)
    backup.add_argument("--offsite", action="store_true", help="and copy it to offsite_url, read back")

    backups = add("backups", _backups, "list the backups")
    backups.add_argument("--offsite", action="store_true", help="those at offsite_url")
    backups.add_argument("--pin", metavar="NAME", help="keep this one whatever retention says")
    backups.add_argument("--reason", default="pinned by hand", help="why it is pinned")
    backups.add_argument("--unpin", metavar="NAME", help="leave it to retention again")
    backups.add_argument("--push", metavar="NAME", help="copy this one to offsite_url, read back")

    verify = add("verify", _verify, "see whether a backup is what it was")
    verify.add_argument("name", nargs="?", default="latest", help="latest (default), all, or a backup's name")
    verify.add_argument("--level", default="deep", help="digest, deep (default: every byte) or drill (restores it)")
    verify.add_argument("--offsite", action="store_true", help="the copy at offsite_url, by its digest")

    restore = add("restore", _restore, "bring a backup back; what is there is backed up first")
    restore.add_argument("name", nargs="?", default="latest", help="latest (default), or a backup's name")
    restore.add_argument("--dry-run", action="store_true", help="verify it and say what would be replaced")
    restore.add_argument("--into", type=Path, metavar="DIR", help="into an empty folder; the workspace is not touched")
    restore.add_argument(
        "--collection", action="append", default=[], metavar="NAME", help="only this one (portable); repeatable"
    )
    restore.add_argument("--undo", action="store_true", help="bring back what the last restore replaced")
    restore.add_argument("--offsite", action="store_true", help="fetch it from offsite_url if it is not here")
    restore.add_argument("--no-safety-backup", action="store_true", help="don't back up what is there")
    restore.add_argument("--accept-findings", action="store_true", help="even if its store is not healthy")
    _add_sensitive(restore)

    drill = add("drill", _drill, "prove that a backup restores: into a scratch folder, every row looked at")
    drill.add_argument("name", nargs="?", default="", help="a backup's name; default: whose turn it is")
    drill.add_argument("--scratch", type=Path, metavar="DIR", help="a folder with room; default: that of the backups")

    prune = add("prune", _prune, "delete the backups that retention no longer wants")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be deleted, and why")

    add("keygen", _keygen, "make the key that backups are encrypted to; asks for a password")


def _add_sensitive(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--include-sensitive", action="store_true", help="confirm that the backup may hold rows that `sensitive` names"
    )


def _backup(arguments: argparse.Namespace) -> int:
    from vectorstore.backup import backup
    from vectorstore.output.backup_text import backup_text, step_bar

    settings = _settings(arguments)
    with step_bar(quiet=arguments.json) as on_step:
        report = by_hand(
            settings, "backup",
            lambda: backup(
                settings, kind=arguments.kind, cache=arguments.cache, selective=arguments.selective,
                include_sensitive=arguments.include_sensitive, offsite=arguments.offsite, on_step=on_step,
            ),
        )  # fmt: skip
    return _show(arguments, report, backup_text)


def _backups(arguments: argparse.Namespace) -> int:
    from vectorstore.backups import catalog, history
    from vectorstore.output.backup_text import backups_text

    settings = _settings(arguments)
    folder = settings.backups
    if arguments.pin:
        catalog.pin(folder, arguments.pin, arguments.reason)
    if arguments.unpin:
        catalog.unpin(folder, arguments.unpin)
    if arguments.push:
        _push(settings, arguments)
    looks: dict[str, tuple[str, bool, float]] = {}
    if arguments.offsite:
        from vectorstore.backups.offsite import list_remote, url_of

        where = url_of(settings)
        found = list_remote(where)
    else:
        where, found = str(folder), catalog.list_backups(folder)
        looks = {name: (each.level, each.ok, each.time) for name, each in history.looks(history.read(folder)).items()}
    if arguments.json:
        _print({"folder": where, "backups": [_about(each, looks) for each in found]})
    else:
        print(backups_text(found, looks, where))
    return 6 if any(each.problem for each in found) else 0


def _push(settings: Settings, arguments: argparse.Namespace) -> None:
    import time

    from vectorstore.backups import catalog, history
    from vectorstore.backups.offsite import push, url_of
    from vectorstore.backups.steps import Steps
    from vectorstore.output.backup_text import step_bar

    chosen = catalog.find(settings.backups, arguments.push)
    with step_bar(quiet=arguments.json) as on_step:
        push(chosen, url_of(settings), on_bytes=Steps("copying off-site", 2 * chosen.size, on_step).add)
    history.append(settings.backups, history.Event("offsite", chosen.name, time.time()))


def _about(backup: Any, looks: dict[str, tuple[str, bool, float]]) -> dict[str, Any]:
    level, ok, at = looks.get(backup.name, ("", None, None))
    return {
        "name": backup.name, "file": str(backup.archive), "kind": backup.sidecar.kind if backup.sidecar else None,
        "size": backup.size, "created": backup.created, "problem": backup.problem, "pinned": backup.pinned,
        "looked": level, "ok": ok, "looked_at": at,
    }  # fmt: skip


def _verify(arguments: argparse.Namespace) -> int:
    from vectorstore.output.backup_text import step_bar, verify_text
    from vectorstore.verify import verify

    settings = _settings(arguments)
    with step_bar(quiet=arguments.json) as on_step:
        report = by_hand(
            settings, "verify",
            lambda: verify(
                settings, arguments.name, level=arguments.level, offsite=arguments.offsite,
                password=os.environ.get(PASSWORD), on_step=on_step,
            ),
        )  # fmt: skip
    return _show(arguments, report, verify_text)


def _restore(arguments: argparse.Namespace) -> int:
    from vectorstore.output.backup_text import restore_text, step_bar
    from vectorstore.restore import restore

    settings = _settings(arguments)
    password = _password(settings)
    with step_bar(quiet=arguments.json) as on_step:
        report = by_hand(
            settings, "restore",
            lambda: restore(
                settings, arguments.name, into=arguments.into, collections=arguments.collection, undo=arguments.undo,
                dry_run=arguments.dry_run, offsite=arguments.offsite, safety=not arguments.no_safety_backup,
                accept_findings=arguments.accept_findings, include_sensitive=arguments.include_sensitive,
                password=password, on_step=on_step,
            ),
            dry_run=arguments.dry_run or bool(arguments.into),  # that is no run of this workspace
        )  # fmt: skip
    return _show(arguments, report, restore_text)


def _drill(arguments: argparse.Namespace) -> int:
    from vectorstore.drill import drill
    from vectorstore.output.backup_text import drill_text, step_bar

    settings = _settings(arguments)
    password = _password(settings)
    with step_bar(quiet=arguments.json) as on_step:
        report = by_hand(
            settings, "drill",
            lambda: drill(settings, arguments.name, scratch=arguments.scratch, password=password, on_step=on_step),
        )  # fmt: skip
    return _show(arguments, report, drill_text)


def _prune(arguments: argparse.Namespace) -> int:
    from vectorstore.output.backup_text import prune_text
    from vectorstore.prune import prune

    settings = _settings(arguments)
    report = by_hand(settings, "prune", lambda: prune(settings, dry_run=arguments.dry_run), dry_run=arguments.dry_run)
    return _show(arguments, report, prune_text)


def _keygen(arguments: argparse.Namespace) -> int:
    from vectorstore.backups.encryption import make_key

    settings = _settings(arguments)
    path = settings.path(settings.backup_key)
    public = make_key(path, os.environ.get(PASSWORD) or _new_password())
    if arguments.json:
        _print({"key": str(path), "recipient": public})
    else:
        print(
            f'wrote {path} and {path.with_suffix(".pub").name}\n  backup_recipients = ["{public}"]\n'
            "next: put this line into vectorkeep.toml, and a copy of the key in another place: without it and its"
            " password\nnobody ever opens these backups"
        )
    return 0


def _password(settings: Settings) -> str | None:
    """From the environment; else asked for, where there is a key and somebody to ask."""
    given = os.environ.get(PASSWORD)
    if given or not settings.path(settings.backup_key).exists() or not sys.stdin.isatty():
        return given
    return getpass.getpass("password of the backup key: ")


def _new_password() -> str:
    if not sys.stdin.isatty():
        raise ConfigurationError("there is nobody to ask for a password", f"set {PASSWORD}")
    first = getpass.getpass("password for the new key: ")
    if getpass.getpass("once more: ") != first:
        raise ConfigurationError("the two passwords differ", "run again")
    return first


def _settings(arguments: argparse.Namespace) -> Settings:
    return load_settings(arguments.workspace)


def _show(arguments: argparse.Namespace, report: Any, text: Show) -> int:
    if arguments.json:
        _print(report.to_dict())
    else:
        print(text(report))
    return int(report.exit_code)


def _print(value: dict[str, Any]) -> None:
    import json

    print(json.dumps(value, indent=2, default=str))
