"""The papermill engine: outputs as a notebook has them, failures that stop, and limits that hold."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from papermill.engines import papermill_engines

from bifrost_scheduler.runner.cells import DIED, KernelPort
from bifrost_scheduler.runner.engine import BifrostEngine, NotebookKept
from bifrost_scheduler.runner.kernels import Kernel, KernelSource
from bifrost_scheduler.runner.outputs import OutputLimits

papermill_engines.register("bifrost", BifrostEngine)
KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}


@pytest.fixture(scope="module")
def source() -> Iterator[KernelSource]:
    source = KernelSource.start(spares=1, preload=())
    yield source
    source.close()


@pytest.fixture
def kernel(source: KernelSource) -> Iterator[Kernel]:
    kernel = source.acquire()
    yield kernel
    kernel.close()


def notebook(*codes: Any) -> Any:
    """Of cells, or their code."""
    cells = [new_code_cell(code) if isinstance(code, str) else code for code in codes]
    return new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC})


def run(kernel: Kernel, *codes: Any, **options: Any) -> KernelPort:
    port = KernelPort(kernel.kernel_socket, kernel.console)
    try:
        papermill.execute_notebook(
            notebook(*codes),
            None,
            engine_name="bifrost",
            progress_bar=False,
            request_save_on_cell_execute=False,
            kernel=lambda: port,
            **options,
        )
    except NotebookKept:
        assert options["hand_back"] is False
    except papermill.PapermillExecutionError:
        assert port.failure is not None
    return port


def outputs(port: KernelPort) -> list[Any]:
    assert port.notebook is not None
    nbformat.validate(port.notebook)
    return [output for cell in port.notebook.cells for output in cell.get("outputs", ())]


def test_streams_are_merged(kernel: Kernel) -> None:
    """Neighbouring writes to one stream become one output, in order."""
    port = run(kernel, "import sys\nfor n in range(3): print(n)\nprint('e', file=sys.stderr)\nprint(3)")
    assert [(output.name, output.text) for output in outputs(port)] == [
        ("stdout", "0\n1\n2\n"),
        ("stderr", "e\n"),
        ("stdout", "3\n"),
    ]


def test_output_of_subprocesses(kernel: Kernel) -> None:
    """What a subprocess writes stands in the cell that started it."""
    assert "from below" in outputs(run(kernel, "import os; _ = os.system('echo from below')"))[0].text


def test_displays_are_updated(kernel: Kernel) -> None:
    """`update_display` changes the output that was shown before."""
    code = "display(HTML('<b>old</b>'), display_id='d')\nupdate_display(HTML('new'), display_id='d')"
    (output,) = outputs(run(kernel, f"from IPython.display import *\n{code}"))
    assert output.data["text/html"] == "new"


def test_clear_output(kernel: Kernel) -> None:
    """`clear_output` removes what the cell has shown so far."""
    (output,) = outputs(run(kernel, "from IPython.display import *\nprint('gone')\nclear_output()\nprint('kept')"))
    assert output.text == "kept\n"


def test_error_stops_the_notebook(kernel: Kernel) -> None:
    """The first cell that raises is the last that runs."""
    port = run(kernel, "1 / 0", "print('never')")
    assert port.failure == ("ZeroDivisionError", "division by zero")
    assert [output.output_type for output in outputs(port)] == ["error"]


def tagged(code: str, *tags: str) -> Any:
    return new_code_cell(code, metadata={"tags": list(tags)})


@pytest.mark.parametrize(
    "parameters", ["1 / 0", "import os, signal; os.kill(os.getpid(), signal.SIGINT)", "raise SystemExit", "f("]
)
def test_nothing_runs_after_parameters_that_fail(kernel: Kernel, tmp_path: Path, parameters: str) -> None:
    """The cells behind them are with the kernel already, and are not run."""
    mark = tmp_path / "mark"
    port = run(kernel, tagged(parameters, "parameters"), f"open({str(mark)!r}, 'w')", "print('never')")
    assert port.failure is not None
    assert "never" not in str(outputs(port))
    port.sock.shutdown(socket.SHUT_WR)
    assert kernel.wait(10) == 0
    assert not mark.exists()


def test_parameters_that_may_fail(kernel: Kernel) -> None:
    """The notebook goes on, and its cells are numbered."""
    port = run(
        kernel, tagged("1 / 0", "parameters", "raises-exception"), "print('on')", parameters={"x": 1}, hand_back=False
    )
    assert port.failure is None
    assert port.notebook is not None
    assert [cell.execution_count for cell in port.notebook.cells] == [1, 2, 3]
    assert outputs(port)[-1].text == "on\n"


@pytest.mark.parametrize("size", [1, 20_000, 40_000, 2_000_000])
def test_parameters_of_any_size(kernel: Kernel, size: int) -> None:
    """Also when they print as much as they hold, while what follows them waits."""
    port = run(
        kernel,
        tagged(f"print('p' * {size})", "parameters"),
        f"print(len({'v' * size!r}), len(x))",
        parameters={"x": "x" * size},
    )
    assert port.failure is None
    assert outputs(port)[-1].text == f"{size} {size}\n"


def test_dead_kernel_fails_its_cell(kernel: Kernel) -> None:
    """A kernel that dies leaves what it had printed, and an error that says so."""
    port = run(kernel, f"print('last words')\nimport os; os.kill(os.getpid(), {signal.SIGKILL})")
    said, error = outputs(port)
    assert port.died
    assert said.text == "last words\n"
    assert error.ename == DIED


def test_input_is_refused(kernel: Kernel) -> None:
    """`input()` raises at once instead of waiting for nobody."""
    assert run(kernel, "input()").failure is not None


def test_one_output_is_cut(kernel: Kernel) -> None:
    """An output over its limit is cut, with one note that says the limit."""
    said, note = outputs(run(kernel, "print('x' * 5000); print('y')", limits=OutputLimits(output_bytes=1024)))
    assert len(said.text) == 1024
    assert "0.000977 MB" in note.data["text/plain"]


def test_an_execution_is_cut(kernel: Kernel) -> None:
    """All outputs together are cut at their limit, whatever follows."""
    limits = OutputLimits(execution_bytes=10_000, output_bytes=4_000)
    port = run(kernel, *["import sys\nprint('x' * 3000)\nprint('y' * 3000, file=sys.stderr)"] * 5, limits=limits)
    assert sum(len(output.get("text", "")) for output in outputs(port)) <= 10_000
    assert "further output was cut" in outputs(port)[-1].data["text/plain"]


def test_a_huge_error_still_fails(kernel: Kernel) -> None:
    """An exception whose text is over every limit fails the cell."""
    port = run(kernel, "raise ValueError('x' * 3_000_000)", limits=OutputLimits(output_bytes=10_000))
    assert port.failure is not None
    assert sum(len(str(output)) for output in outputs(port)) < 50_000


@pytest.mark.parametrize(
    "forged",
    ["b'\\x00\\x00\\x00\\x03\\x03abc'", "b'\\x00\\x00\\x00\\x02\\x03\\x05\\x00'", "b'\\xff' * 9"],
)
def test_forged_frames_end_the_run(kernel: Kernel, forged: str) -> None:
    """A kernel that writes rubbish to its socket counts as dead; the engine survives."""
    code = f"import os\nfor fd in range(3, 20):\n    try: os.write(fd, {forged})\n    except OSError: pass\nos._exit(0)"
    assert run(kernel, code).died


def test_strangers_notebook(tmp_path: Path) -> None:
    """papermill runs a notebook that knows nothing of Bifrost, with parameters, in the caller's folder."""
    path, result = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    stranger = notebook("x = 1", "import os\nprint(x, os.getcwd())")
    stranger.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(stranger, path)
    papermill.execute_notebook(str(path), str(result), {"x": 7}, engine_name="bifrost", progress_bar=False)
    executed = nbformat.read(result, as_version=4)
    assert executed.cells[-1].outputs[0].text == f"7 {os.getcwd()}\n"


def test_strangers_error_raises_as_ever(tmp_path: Path) -> None:
    """A failing cell raises papermill's own error, and the output file shows where."""
    path, result = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    nbformat.write(notebook("1 / 0"), path)
    with pytest.raises(papermill.PapermillExecutionError):
        papermill.execute_notebook(str(path), str(result), engine_name="bifrost", progress_bar=False)
    assert "ZeroDivisionError" in result.read_text()
