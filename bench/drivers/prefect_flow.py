"""A Prefect flow with one task, which does what `hello_world` does, in a warm process.

`SOURCE PARAMETERS ANSWER`; a line says `plain` or `coroutine`. The server is the one that Prefect starts by itself for
a process that names none; it lives as long as this process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from answering import answer
from prefect import flow, task
from prefect.logging import get_run_logger

Greeter = Callable[[str, str], Coroutine[Any, Any, dict[str, str]]]


def main(source: str, parameters: str, expected: str) -> None:
    namespace: dict[str, object] = {}
    exec(compile(Path(source).read_text(), "hello_world", "exec"), namespace)

    class Context(namespace["OrganizationContext"]):  # type: ignore[misc]
        """Logs and checkpoints go where Prefect keeps what a run says."""

        def log(self, level: str, message: str, data: object = None) -> None:
            get_run_logger().info("%s %s", message, json.dumps(data))

        def save_checkpoint(self, name: str, data: object = None) -> None:
            get_run_logger().info("%s %s", name, json.dumps(data))

    async def hello_world(name: str, language: str) -> dict[str, str]:
        return await namespace["hello_world"](Context(), name=name, language=language)  # type: ignore[operator]

    plain, coroutine = plain_flow(hello_world), async_flow(hello_world)
    given, loop = json.loads(parameters), asyncio.new_event_loop()

    def check(result: dict[str, str]) -> None:
        if result["greeting"] != expected:
            raise RuntimeError(f"Prefect: {result}")

    answer(plain=lambda: check(plain(**given)), coroutine=lambda: check(loop.run_until_complete(coroutine(**given))))


def plain_flow(hello_world: Greeter) -> Callable[..., Any]:
    """A flow of plain functions, as Prefect's documentation begins."""

    @task
    def greet(name: str, language: str) -> dict[str, str]:
        return asyncio.run(hello_world(name, language))

    @flow
    def hello(name: str, language: str) -> dict[str, str]:
        return greet(name, language)

    return hello


def async_flow(hello_world: Greeter) -> Callable[..., Any]:
    """A flow of coroutines, which Prefect runs with fewer threads."""

    @task
    async def greet(name: str, language: str) -> dict[str, str]:
        return await hello_world(name, language)

    @flow
    async def hello(name: str, language: str) -> dict[str, str]:
        return await greet(name, language)

    return hello


if __name__ == "__main__":
    main(*sys.argv[1:])
