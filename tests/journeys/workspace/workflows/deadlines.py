"""Workflows that don't want to end."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
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


BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
HIDER = """
import os, signal, sys
for _ in range(2):
    if os.fork():
        signal.pause()
    os.setsid()
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
while True:
    signal.pause()
"""
STOPPED = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"


def _stop_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    signal.sigwait({signal.SIGUSR1})


def _keep_busy() -> None:
    while True:
        pass


def _take_memory() -> None:
    taken = []
    while True:
        try:
            taken.append(bytearray(16 * 1024**2))
        except MemoryError:
            time.sleep(0.01)


def _start_threads() -> None:
    for _ in range(8):
        threading.Thread(target=_keep_busy).start()
    _keep_busy()


REFUSALS = {
    "stop": (STOPPED, _stop_itself),
    "block": (STOPPED, _block_signals),
    "loop": (HIDER, _keep_busy),
    "hide": (HIDER, signal.pause),
    "threads": (HIDER, _start_threads),
    "bomb": (BOMB, _keep_busy),
    "memory": (HIDER, _take_memory),
}


@workflow(name="refuse_to_end", description="Stay by all means", timeout_seconds=2)
@param("way", type="string")
@param("mark", type="string")
def refuse_to_end(context: OrganizationContext, way: str, mark: str):
    code, stay = REFUSALS[way]
    subprocess.Popen([sys.executable, "-c", code, mark])
    context.log("info", "here to stay")
    while True:
        try:
            stay()
        except BaseException:
            continue


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
