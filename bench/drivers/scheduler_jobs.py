"""jupyter-scheduler as its server extension drives it: `Scheduler.create_job`, a process per job, a row per job.

`IN PARAMETERS ANSWER`; the folder of the notebook is the root folder. A job counts as over when its process has ended.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path

from answering import answer
from jupyter_scheduler.environments import StaticEnvironmentManager
from jupyter_scheduler.models import CreateJob, Status
from jupyter_scheduler.orm import create_tables
from jupyter_scheduler.scheduler import Scheduler


def main(source: str, parameters: str, expected: str) -> None:
    notebook = Path(source)
    database = f"sqlite:///{os.getcwd()}/scheduler.sqlite"
    create_tables(database)
    scheduler = Scheduler(
        root_dir=str(notebook.parent), environments_manager=StaticEnvironmentManager(), db_url=database
    )
    scheduler.staging_path = f"{os.getcwd()}/staging"

    def run() -> None:
        wanted = CreateJob(
            name="hello",
            input_uri=notebook.name,
            runtime_environment_name="python3",
            output_formats=["ipynb"],
            # Its parameters are Python, as people type them into its dialog.
            parameters={name: repr(value) for name, value in json.loads(parameters).items()},
        )
        job = scheduler.get_job(start(scheduler, wanted), job_files=False)
        output = scheduler.get_staging_paths(job)["ipynb"]
        if job.status != Status.COMPLETED or expected not in json.dumps(
            json.loads(Path(output).read_text()), ensure_ascii=False
        ):
            raise RuntimeError(f"jupyter-scheduler: {job.status} {job.status_message}")

    answer(run=run)


def start(scheduler: Scheduler, wanted: CreateJob) -> str:
    """The id of a job that is over."""
    identity = scheduler.create_job(wanted)
    for process in multiprocessing.active_children():
        process.join()
    return str(identity)


if __name__ == "__main__":
    main(*sys.argv[1:])
