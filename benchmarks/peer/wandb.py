"""W&B offline: only writing, for its files can be read by its server alone."""

from __future__ import annotations

import os

from . import work


def main() -> None:
    report, folder, sizes = work.Report(), work.folder(), work.sizes()
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    settings = wandb.Settings(x_disable_stats=True, console="off")
    run = wandb.init(mode="offline", project="bench", dir=str(folder), settings=settings)
    report.write("offline", lambda step, row: run.log(row, step=step), run.finish, folder, sizes.steps)


if __name__ == "__main__":
    main()
    work.end()
