"""`python -m attnservice.local run` starts the whole service on this machine; `prepare` is what a deployment runs
before its servers start; `manage` is manage.py on the data of `run`; `verdicts` trains all presets and writes
docs/verdicts.md."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from attnservice.local import environment
from attnservice.local.broker import NoServer
from attnservice.local.service import Service
from attnservice.local.verdicts import Verdicts


def main() -> None:
    options = _parser().parse_args()
    if options.action == "prepare":
        return _prepare()
    data = options.data.resolve()
    if options.action == "manage":
        environment.enter(data)
        os.execv(sys.executable, [sys.executable, str(environment.ROOT / "manage.py"), *options.arguments])
    try:
        _service(options, data).run()
    except environment.AlreadyRunning as other:
        sys.exit(
            f"attnservice is already running on {data}: {other}\nAnother one needs its own: make run PORT=… DATA=…"
        )
    except NoServer as error:
        sys.exit(str(error))


def _service(options: argparse.Namespace, data: Path) -> Service:
    if options.action == "verdicts":
        return Verdicts(data, options.port, quick=options.quick == "1")
    return Service(data, options.port, demo=options.demo != "0")


def _prepare() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "attnservice.settings")
    import django

    django.setup()
    from attnservice.local import prepare

    prepare.migrate()
    print("\n".join(["The database is ready.", *prepare.people()]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m attnservice.local", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("prepare", help="tables, the first admin and a project, then end; settings from the environment")
    run = actions.add_parser("run", help="web, Redis, a worker and the reconciler, until Ctrl-C")
    manage = actions.add_parser("manage", help="manage.py on the same data folder")
    verdicts = actions.add_parser("verdicts", help="train every preset, then write docs/verdicts.md")
    for action, folder in ((run, ".data"), (manage, ".data"), (verdicts, ".data-verdicts")):
        action.add_argument("--data", type=Path, default=Path(folder), help="everything that lasts lies here")
    for action, port in ((run, 8000), (verdicts, 8001)):
        action.add_argument("--port", type=int, default=port)
    verdicts.add_argument("--quick", choices=["0", "1"], default="0", help="three seeds, lookups only")
    run.add_argument("--demo", choices=["0", "1"], default="1", help="submit a first experiment to an empty database")
    manage.add_argument("arguments", nargs="*")
    return parser


if __name__ == "__main__":
    main()
