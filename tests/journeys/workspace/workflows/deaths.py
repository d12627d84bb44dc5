"""Workflows whose process ends in the middle."""

import ctypes
import os
import signal
import sys

from bifrost_kernel import OrganizationContext, param, workflow


def _kill_group() -> None:
    os.killpg(0, signal.SIGKILL)


WAYS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit_0": lambda: os._exit(0),
    "exit_3": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "kill_group": _kill_group,
    "abort": os.abort,
}


@workflow(name="die", description="Keep something, then end the process")
@param("way", type="string")
@param("counter", type="string")
def die(context: OrganizationContext, way: str, counter: str):
    with open(counter, "a") as file:
        file.write(f"{context.execution_id}\n")
    context.log("info", "before the end")
    context.save_checkpoint("half", {"done": 1})
    context.set_variable("kept", [1, 2])
    print("printed before the end")
    WAYS[way]()
    return "survived"


@workflow(name="leave", description="End by SystemExit")
def leave(context: OrganizationContext):
    context.log("info", "before the end")
    sys.exit(0)


@workflow(name="acknowledge", description="Write down outside what was acknowledged inside")
@param("counter", type="string")
@param("lines", type="int")
@param("then", type="string", default_value="return")
def acknowledge(context: OrganizationContext, counter: str, lines: int, then: str = "return"):
    with open(counter, "a", buffering=1) as file:
        file.write(f"{context.execution_id} started\n")
        for number in range(lines):
            context.log("info", f"line {number}")
            file.write(f"{context.execution_id} {number}\n")
        context.log("info", "all lines are written")
        while then == "hang":
            signal.pause()
    return lines
