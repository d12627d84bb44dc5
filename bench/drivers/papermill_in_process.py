"""`papermill.execute_notebook` in a process that has imported papermill: `IN OUT PARAMETERS ANSWER`."""

from __future__ import annotations

import json
import sys

import papermill
from answering import answer


def main(source: str, target: str, parameters: str, expected: str) -> None:
    def run() -> None:
        executed = papermill.execute_notebook(
            source, target, parameters=json.loads(parameters), kernel_name="python3", progress_bar=False
        )
        if expected not in json.dumps(executed["cells"][-1]["outputs"], ensure_ascii=False):
            raise RuntimeError("papermill did not greet")

    answer(run=run)


if __name__ == "__main__":
    main(*sys.argv[1:])
