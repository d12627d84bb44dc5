"""A Prefect flow with one task, which does what `hello_world` does, in a warm process: `SOURCE PARAMETERS ANSWER`.

The server is the one that Prefect starts by itself for a process that names none; it lives as long as this process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from answering import answer
from prefect import flow, task
from prefect.logging import get_run_logger


def main(source: str, parameters: str, expected: str) -> None:
    namespace: dict[str, object] = {}
    exec(compile(Path(source).read_text(), "hello_world", "exec"), namespace)

    class Context(namespace["OrganizationContext"]):  # type: ignore[misc]
        """Logs and checkpoints go where Prefect keeps what a run says."""

        def log(self, level: str, message: str, data: object = None) -> None:
            get_run_logger().info("%s %s", message, json.dumps(data))

        def save_checkpoint(self, name: str, data: object = None) -> None:
            get_run_logger().info("%s %s", name, json.dumps(data))

    @task
    async def greet(name: str, language: str) -> dict[str, str]:
        return await namespace["hello_world"](Context(), name=name, language=language)  # type: ignore[operator]

    @flow
    async def hello(name: str, language: str) -> dict[str, str]:
        return await greet(name, language)

    loop = asyncio.new_event_loop()

    def run() -> None:
        result = loop.run_until_complete(hello(**json.loads(parameters)))
        if result["greeting"] != expected:
            raise RuntimeError(f"Prefect: {result}")

    answer(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
