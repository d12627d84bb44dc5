"""Workflows that take more than their share."""

import logging
import sys

from bifrost_kernel import OrganizationContext, param, workflow


@workflow(name="flood", description="Print many megabytes")
@param("megabytes", type="int")
def flood(context: OrganizationContext, megabytes: int):
    line = "x" * 1023
    for number in range(megabytes * 1024):
        # A new output each time: neighbours of one stream would be merged into one.
        print(line, file=sys.stdout if number // 512 % 2 else sys.stderr)
    return "went on"


@workflow(name="one_long_output", description="Print a line without an end")
@param("megabytes", type="int")
def one_long_output(context: OrganizationContext, megabytes: int):
    for _ in range(megabytes * 1024):
        print("x" * 1024, end="")
    print("after it", file=sys.stderr)


@workflow(name="chatter", description="Log many lines")
@param("lines", type="int")
def chatter(context: OrganizationContext, lines: int):
    for number in range(lines):
        logging.info("line %d", number)
    context.save_checkpoint("after")
    return "went on"


@workflow(name="heavy_checkpoint", description="Save a checkpoint of this size")
@param("size", type="int")
def heavy_checkpoint(context: OrganizationContext, size: int):
    try:
        context.save_checkpoint("heavy", "x" * size)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return "saved"
