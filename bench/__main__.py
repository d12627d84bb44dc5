"""`python -m bench [NAME …] [--quick]`: run benchmarks one after the other, then write `docs/performance.md`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from bench import machine, report, results

BENCHMARKS = ("hello", "parts", "sustained", "durability", "leftovers", "schedules", "history", "kernels", "portal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=(*BENCHMARKS, []), help="which; all of them when none is named")
    parser.add_argument("--quick", action="store_true", help="few samples: to see that they run, not for figures")
    options = parser.parse_args()
    results.FOLDER.mkdir(parents=True, exist_ok=True)
    report.MACHINE.write_text(machine.look().model_dump_json())
    flags = ["--quick"] if options.quick else []
    failed = [name for name in options.names or BENCHMARKS if not run(name, flags)]
    report.main()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(name: str, flags: Sequence[str]) -> bool:
    """Run one of them; what it prints is shown, and kept for the report in place of what an earlier run found."""
    print(f"\n{name}\n", flush=True)
    results.forget(name)
    command = [sys.executable, "-m", f"bench.{name}", *flags]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    (results.FOLDER / f"{name}.txt").write_text("".join(lines))
    return process.returncode == 0


if __name__ == "__main__":
    main()
