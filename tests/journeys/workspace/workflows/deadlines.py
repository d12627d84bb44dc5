"""Workflows that don't want to end."""

import asyncio
import os
import signal
import subprocess
import sys
import time

from bifrost_kernel import OrganizationContext, param, workflow


def _daemon(mark: str) -> None:
    """A grandchild in a session of its own that ignores what can be ignored."""
    if os.fork() == 0:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import signal\nwhile True: signal.pause()", mark])
        while True:
            signal.pause()


@workflow(name="stubborn", description="Hide, ignore everything, and never end", timeout_seconds=2)
@param("mark", type="string")
def stubborn(context: OrganizationContext, mark: str):
    _daemon(mark)
    subprocess.Popen([sys.executable, "-c", "import time\nwhile True: time.sleep(9)", mark], start_new_session=True)
    context.log("info", "hidden")
    while True:
        try:
            time.sleep(60)
        except BaseException:
            print("not yet")


@workflow(name="sleep_async", description="Await for too long", timeout_seconds=1)
async def sleep_async(context: OrganizationContext):
    await asyncio.sleep(60)


@workflow(name="sleep_sync", description="Block for too long", timeout_seconds=1)
def sleep_sync(context: OrganizationContext):
    time.sleep(60)


@workflow(name="wait", description="Wait until it is ended", timeout_seconds=60)
@param("tidy_file", type="string", default_value="")
async def wait(context: OrganizationContext, tidy_file: str = ""):
    context.log("info", "waiting")
    try:
        await asyncio.sleep(60)
    finally:
        if tidy_file:
            with open(tidy_file, "a") as file:
                file.write("tidied up\n")


@workflow(name="wait_for_file", description="Wait until a file is there, and return what it says", timeout_seconds=60)
@param("path", type="string")
async def wait_for_file(context: OrganizationContext, path: str):
    context.log("info", "waiting")
    while not os.path.exists(path):
        await asyncio.sleep(0.02)
    return context.execution_id
