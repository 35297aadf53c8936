"""``vectorkeep``: parses, makes one library call, prints. Nothing heavy is imported before there is work.

Results go to standard output, progress and errors to standard error; ``--json`` prints one object instead of words.
"""

from __future__ import annotations

import argparse
import json
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectorstore import cli_alerts, cli_backups, cli_runs, cli_serve
from vectorstore.cli_runs import by_hand
from vectorstore.errors import VectorkeepError, unforeseen
from vectorstore.settings import SETTINGS_FILE, Settings, find_workspace, load_settings

if TYPE_CHECKING:
    from vectorstore.plan import Plan

EXIT_CODES = """exit codes: 0 done, 1 findings at FAIL or some documents failed, 2 usage or configuration, 3 capped,
4 locked by another run, 5 refused by a safety guard, 6 a store, ledger or backup that does not verify,
130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.action(arguments))
    except VectorkeepError as error:
        return _say(error, arguments.json)
    except KeyboardInterrupt:
        print("vectorkeep: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away: nothing to say, and nobody to say it to
        return 1
    except (OSError, sqlite3.Error) as error:
        return _say(unforeseen(error), arguments.json)


def _say(error: VectorkeepError, as_json: bool) -> int:
    if as_json:
        _print_json({"error": type(error).__name__, "message": error.message, "hint": error.hint})
    print(f"vectorkeep: {error}", file=sys.stderr)
    return error.exit_code


def _parser() -> argparse.ArgumentParser:
    # Before the command or after it; SUPPRESS keeps the one from undoing the other.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    _add_common(common)
    choice = argparse.ArgumentParser(add_help=False)
    choice.add_argument("--mode", default="changed", help="changed (default), missing, stale or all")
    choice.add_argument("--collection", action="append", default=[], metavar="NAME", help="only this one; repeatable")
    choice.add_argument("--doc", action="append", default=[], metavar="DOC_KEY", help="only this one; repeatable")
    choice.add_argument("--verify-content", action="store_true", help="read every document, whatever its times say")
    choice.add_argument(
        "--max-deletes", type=int, metavar="N", help="allow up to N deletes instead of the guard's share"
    )
    choice.add_argument("--max-cost-usd", type=float, metavar="USD", help="the cap of this run")

    parser = argparse.ArgumentParser(
        prog="vectorkeep", description="Keeps a Chroma vector store in step with its documents.", epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _add_common(parser)
    parser.set_defaults(workspace=None, json=False)
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(
        name: str, action: Callable[[argparse.Namespace], int], text: str, *parents: argparse.ArgumentParser
    ) -> Any:
        command = commands.add_parser(name, help=text, description=text, parents=[common, *parents], epilog=EXIT_CODES)
        command.set_defaults(action=action)
        return command

    init = add("init", _init, f"write a commented {SETTINGS_FILE}")
    init.add_argument("--source", metavar="DIR", help="the folder of documents")
    plan = add("plan", _plan, "show what an update would do and cost; changes nothing", choice)
    plan.add_argument(
        "--estimate", action="store_true", help="from sizes and times only: quick, tokens and cost roughly"
    )
    add("update", _update, "bring the store in step with the documents", choice)
    health = add("health", _health, "find what is wrong between documents, ledger and store; mend it with --fix")
    health.add_argument("--depth", choices=("quick", "standard", "deep"), default="standard", help="how far to look")
    health.add_argument("--fix", action="store_true", help="mend what can be mended, then look again")
    health.add_argument("--dry-run", action="store_true", help="with --fix: only say what would be done")
    health.add_argument("--no-backup", action="store_true", help="with --fix: don't back up what is there first")
    health.add_argument(
        "--max-deletes", type=int, metavar="N", help="allow up to N deletes instead of the guard's share"
    )
    health.add_argument("--max-cost-usd", type=float, metavar="USD", help="the cap of what --fix may spend")
    health.add_argument(
        "--verify-content", action="store_true", help="read every document and every cached vector, too"
    )
    health.add_argument("--probe", action="store_true", help="at depth deep: make Chroma open a copy of any size")
    health.add_argument("--seed", type=int, metavar="N", help="which part of the rows depth standard looks at")
    health.add_argument(
        "--output", action="append", default=[], metavar="FILE", type=Path, help="write a report, .json or .html"
    )
    health.add_argument("--verbose", action="store_true", help="every check and every place")
    adopt = add("adopt", _adopt, "take over a Chroma store that Vectorkeep did not make, without paying")
    adopt.add_argument("--collection", action="append", default=[], metavar="NAME", help="only this one; repeatable")
    adopt.add_argument("--document-key", default="", metavar="KEY", help="the metadata that names a row's document")
    adopt.add_argument("--order-key", default="", metavar="KEY", help="the metadata that tells a row's place in it")
    adopt.add_argument(
        "--accept-prefixed", action="store_true", help="take vectors of metadata and text (LlamaIndex) for the text's"
    )
    adopt.add_argument("--dry-run", action="store_true", help="only say what it would do; changes nothing")
    search = add("search", _search, "find chunks by meaning")
    search.add_argument("text", nargs="+", help="what to look for")
    search.add_argument("--limit", type=int, default=5, help="how many hits (5)")
    search.add_argument(
        "--collection", action="append", default=[], metavar="NAME", help="only in this one; repeatable"
    )
    add("status", _status, "what the store holds, the last run, and what was spent")
    for module in (cli_backups, cli_runs, cli_alerts, cli_serve):
        module.add_commands(add)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workspace", metavar="DIR", help=f"the folder with {SETTINGS_FILE}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _settings(arguments: argparse.Namespace) -> Settings:
    return load_settings(arguments.workspace, max_cost_usd=getattr(arguments, "max_cost_usd", None))


def _choice(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "mode": arguments.mode, "collections": arguments.collection, "doc_keys": arguments.doc,
        "verify_content": arguments.verify_content, "max_deletes": arguments.max_deletes,
    }  # fmt: skip


def _init(arguments: argparse.Namespace) -> int:
    from vectorstore.init import write_settings

    path = write_settings(find_workspace(arguments.workspace), arguments.source)
    if arguments.json:
        _print_json({"settings": str(path)})
    else:
        print(f"wrote {path}\nnext: look through it, then `vectorkeep plan`")
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from vectorstore.output.render import bar, preview_text
    from vectorstore.preview import preview

    settings = _settings(arguments)
    with bar(quiet=arguments.json) as advance:
        found = preview(settings, exact=not arguments.estimate, on_progress=advance, **_choice(arguments))
    if arguments.json:
        _print_json(found.to_dict())
    else:
        print(preview_text(found))
    return found.exit_code


def _update(arguments: argparse.Namespace) -> int:
    from vectorstore.output.render import bar, plan_text, update_text
    from vectorstore.update import update

    settings = _settings(arguments)
    stop = _stop_on_signals()
    with bar(quiet=arguments.json) as advance:

        def on_plan(plan: Plan) -> None:
            if not arguments.json and not plan.nothing_to_do:
                print(plan_text(plan))

        report = by_hand(
            settings, "update",
            lambda: update(settings, on_plan=on_plan, on_progress=advance, stop=stop, **_choice(arguments)),
        )  # fmt: skip
    if arguments.json:
        _print_json(report.to_dict())
    else:
        print(update_text(report))
    return report.exit_code


def _health(arguments: argparse.Namespace) -> int:
    from vectorstore.findings import Depth
    from vectorstore.health import health
    from vectorstore.output.health_files import check_output, keep_report
    from vectorstore.output.health_text import health_text
    from vectorstore.output.render import bar

    settings = _settings(arguments)
    for path in arguments.output:
        check_output(path)
    if arguments.fix:
        return _fix(arguments, settings)
    with bar(quiet=arguments.json) as advance:
        report = by_hand(
            settings, "health",
            lambda: health(
                settings, depth=Depth[arguments.depth.upper()], probe=arguments.probe or None, seed=arguments.seed,
                verify_content=arguments.verify_content, on_progress=advance,
            ),
        )  # fmt: skip
    notes = keep_report(settings, report, arguments.output)
    if arguments.json:
        _print_json(report.to_dict())
    else:
        print(health_text(report, verbose=arguments.verbose))
    for note in notes:
        print(f"vectorkeep: {note}", file=sys.stderr)
    return report.exit_code


def _fix(arguments: argparse.Namespace, settings: Settings) -> int:
    from vectorstore.findings import Depth
    from vectorstore.fix import fix
    from vectorstore.output.fix_text import fix_text
    from vectorstore.output.health_files import keep_report
    from vectorstore.output.render import bar

    stop = _stop_on_signals()
    with bar(quiet=arguments.json) as advance:
        report = by_hand(
            settings, "fix",
            lambda: fix(
                settings, depth=Depth[arguments.depth.upper()], dry_run=arguments.dry_run,
                backup=not arguments.no_backup, max_deletes=arguments.max_deletes,
                verify_content=arguments.verify_content, probe=arguments.probe or None, on_progress=advance, stop=stop,
            ),
            dry_run=arguments.dry_run,
        )  # fmt: skip
    notes = keep_report(settings, report.after or report.before, arguments.output)
    if arguments.json:
        _print_json(report.to_dict())
    else:
        print(fix_text(report))
    for note in notes:
        print(f"vectorkeep: {note}", file=sys.stderr)
    return report.exit_code


def _adopt(arguments: argparse.Namespace) -> int:
    from vectorstore.adopt import adopt
    from vectorstore.output.render import bar
    from vectorstore.output.render_adopt import adopt_text

    settings = _settings(arguments)
    stop = _stop_on_signals()
    with bar(quiet=arguments.json) as advance:
        report = by_hand(
            settings, "adopt",
            lambda: adopt(
                settings, collections=arguments.collection, document_key=arguments.document_key,
                order_key=arguments.order_key, accept_prefixed=arguments.accept_prefixed, dry_run=arguments.dry_run,
                on_progress=advance, stop=stop,
            ),
            dry_run=arguments.dry_run,
        )  # fmt: skip
    if arguments.json:
        _print_json(report.to_dict())
    else:
        print(adopt_text(report))
    return report.exit_code


def _search(arguments: argparse.Namespace) -> int:
    from vectorstore.output.render import hits_text
    from vectorstore.search import search

    hits = search(
        _settings(arguments), " ".join(arguments.text), limit=arguments.limit, collections=arguments.collection
    )
    if arguments.json:
        _print_json({"hits": [hit._asdict() for hit in hits]})
    else:
        print(hits_text(hits))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from vectorstore.output.render import status_text
    from vectorstore.status import status

    found = status(_settings(arguments))
    if arguments.json:
        _print_json(found)
    else:
        print(status_text(found))
    return 0


def _stop_on_signals() -> threading.Event:
    """SIGINT and SIGTERM stop at a batch's end; a second one stops at once."""
    stop = threading.Event()

    def ask(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()
        print("\nstopping at the end of the batch; once more to stop at once", file=sys.stderr)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return stop


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2, default=str))


if __name__ == "__main__":
    sys.exit(main())
