"""What an acknowledged call of the context costs, measured where authors feel it."""

from time import perf_counter

from bifrost_kernel import OrganizationContext, param, workflow


@workflow(name="log_often", description="Log so many lines; tells the seconds that each took", timeout_seconds=120)
@param("lines", type="int", required=True)
async def log_often(context: OrganizationContext, lines: int):
    seconds = []
    for number in range(lines):
        started = perf_counter()
        context.log("info", "a line that is on the disk", {"number": number})
        seconds.append(perf_counter() - started)
    return seconds


@workflow(name="checkpoint_often", description="Save so many checkpoints of 1 kB", timeout_seconds=120)
@param("checkpoints", type="int", required=True)
async def checkpoint_often(context: OrganizationContext, checkpoints: int):
    started = perf_counter()
    for number in range(checkpoints):
        context.save_checkpoint(f"checkpoint {number}", {"text": "x" * 1000})
    return perf_counter() - started
