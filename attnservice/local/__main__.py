"""`python -m attnservice.local run` starts the whole service on this machine; `prepare` is what a deployment runs
before its servers start; `manage` is manage.py on the data of `run`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from attnservice.local import environment
from attnservice.local.broker import NoServer
from attnservice.local.service import Service


def main() -> None:
    options = _parser().parse_args()
    if options.action == "prepare":
        return _prepare()
    data = options.data.resolve()
    if options.action == "manage":
        environment.enter(data)
        os.execv(sys.executable, [sys.executable, str(environment.ROOT / "manage.py"), *options.arguments])
    try:
        Service(data, options.port, demo=options.demo != "0").run()
    except environment.AlreadyRunning as other:
        sys.exit(
            f"attnservice is already running on {data}: {other}\nAnother one needs its own: make run PORT=… DATA=…"
        )
    except NoServer as error:
        sys.exit(str(error))


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
    for action in (run, manage):
        action.add_argument("--data", type=Path, default=Path(".data"), help="everything that lasts lies here")
    run.add_argument("--port", type=int, default=8000)
    run.add_argument("--demo", choices=["0", "1"], default="1", help="submit a first experiment to an empty database")
    manage.add_argument("arguments", nargs="*")
    return parser


if __name__ == "__main__":
    main()
