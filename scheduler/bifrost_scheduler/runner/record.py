"""The record of one execution: the notebook that papermill runs, and what the parent writes beneath it afterwards.

Workers call `compose` before and `finish` after a run; the control plane calls `complete_without_kernel` when a worker
or the machine died. Nothing here decides an outcome: the status is told, and everything a person chose is escaped.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import platform
import re
import tempfile
from datetime import UTC
from typing import Any, Literal

import nbformat
import pydantic_core
from nbformat.corpus.words import generate_corpus_id
from nbformat.notebooknode import NotebookNode, from_dict
from nbformat.v4 import new_code_cell, new_output
from pydantic import AwareDatetime, Field

from bifrost_kernel import errors, models, notebooks
from bifrost_kernel.forkserver.sandbox import Level
from bifrost_scheduler.redaction import Redactor
from bifrost_scheduler.runner.destinations import Destination

KERNELSPEC = {"name": "bifrost", "display_name": "Bifrost (Python 3)", "language": "python"}
SCHEMA_VERSION = 1

_TABLE_HEAD = "| | |\n|---|---|\n"
_SHOWN_CHARS = 300
_EVENT_CHARS = 10_000
_EVENTS_CHARS = 4 * 1024 * 1024
_RESULT_CHARS = 256 * 1024
_ANNOTATIONS = {"int": "int", "float": "float", "bool": "bool", "json": "dict", "list": "list"}
_PACKAGES = (
    "aiohttp", "bifrost-workbench", "httpx", "ipykernel", "ipython", "nbformat", "papermill", "pydantic", "requests"
)  # fmt: skip
_READS = frozenset({models.EventType.CONFIG_READ, models.EventType.SECRET_READ, models.EventType.CONNECTION_READ})
_GOOD = frozenset({models.ExecutionStatus.SUCCESS, models.ExecutionStatus.COMPLETED_WITH_ERRORS})
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


class Job(models.Frozen):
    """What is known about an execution before it runs."""

    execution_id: str
    workflow: models.WorkflowMetadata
    call: Literal["run", "provide"] = "run"
    """What the kernel's `bifrost` is asked to do: run the workflow, or give a data provider's options."""
    organization: models.OrganizationInfo
    caller: models.Caller
    trigger: models.Trigger
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Validated values of declared parameters; never a secret."""
    code_hash: str
    source_text: str
    """The text of the workflow's file as it was at submit."""
    source_sha256: str
    git_commit: str | None = None
    git_dirty: bool | None = None
    lock_sha256: str | None = None
    submitted_at: AwareDatetime


class Closing(models.Frozen):
    """How it ended, as the parent knows it."""

    status: models.ExecutionStatus
    started_at: AwareDatetime | None = None
    completed_at: AwareDatetime
    result: Any = None
    error: str | None = None
    error_type: str | None = None
    events: tuple[models.Event, ...] = ()
    sandbox: Level | None = None
    """What enclosed its kernel; None when it had none."""
    memory_held_by: Literal["control group", "watch"] | None = None
    """What held the processes of the execution together to its memory; each of them is held by the system."""
    network: tuple[Destination, ...] = ()
    """Whom the kernel talked to through the egress proxy."""
    secrets: tuple[str, ...] = Field(default=(), repr=False)
    """Values that must not stand in the record."""

    @property
    def duration_ms(self) -> int | None:
        if self.started_at is None:
            return None
        return round((self.completed_at - self.started_at).total_seconds() * 1000)


def compose(job: Job) -> NotebookNode:
    """The notebook that papermill parameterises and runs: header, parameters, source, call.

    Raises:
        DeclarationError: a notebook workflow whose source is no notebook.
    """
    body = _notebook_cells(job) if job.workflow.kind == "notebook" else _function_cells(job)
    return _notebook([_header(job), *body], {"kernelspec": dict(KERNELSPEC), "bifrost": _provenance(job)})


def finish(notebook: NotebookNode, closing: Closing) -> bytes:
    """The bytes of the finished record: events, outcome and closing line added, secrets masked, valid."""
    _correct_papermill(notebook, closing)
    _tell_outcome(notebook, closing)
    notebook["cells"] += [_events_cell(closing), *_outcome_cells(closing), _closing_cell(closing)]
    notebook["metadata"]["kernelspec"] = from_dict(dict(KERNELSPEC))
    notebook["metadata"].setdefault("language_info", from_dict({"name": "python", "file_extension": ".py"}))
    notebook["metadata"].setdefault("bifrost", NotebookNode()).update(from_dict(_conclusion(closing)))
    return _without_secrets(notebook, Redactor(closing.secrets))


def complete_without_kernel(job: Job, closing: Closing) -> bytes:
    """The same record when nothing but the events is left of the run."""
    try:
        notebook = compose(job)
    except errors.DeclarationError:
        notebook = _notebook([_header(job)], {"bifrost": _provenance(job)})
    _inject_parameters(notebook, job.parameters)
    return finish(notebook, closing)


def _header(job: Job) -> NotebookNode:
    commit = f"{job.git_commit} ({'with uncommitted changes' if job.git_dirty else 'clean'})" if job.git_commit else "–"
    caller = job.caller.email or job.caller.subject
    rows = {
        "Execution": job.execution_id,
        "Organization": f"{job.organization.name} ({job.organization.id})",
        "Caller": f"{job.caller.name} ({caller})" if job.caller.name else caller,
        "Trigger": job.trigger.value,
        "Submitted": models.isoformat(job.submitted_at),
        "Code": job.code_hash,
        "Git commit": commit,
    }
    if job.workflow.network is models.Network.HOST:
        rows["Network"] = "this machine's own (host), as the operator allows this workflow"
    table = "\n".join(f"| {name} | {code_span(value, table=True)} |" for name, value in rows.items())
    title = f"# Workflow {code_span(job.workflow.name)}\n\n{code_span(job.workflow.description)}"
    return _markdown(f"{title}\n\n{_TABLE_HEAD}{table}", "header")


def _function_cells(job: Job) -> list[NotebookNode]:
    place = code_span(job.workflow.source.file)
    source = f"## Source\n\n{place} · sha256 {code_span(job.source_sha256)}\n\n{fence(job.source_text, 'python')}"
    return [_parameters_cell(job), _markdown(source, "source"), _code(_call_of(job), "call")]


def _parameters_cell(job: Job) -> NotebookNode:
    source = "\n".join(_parameter_line(param) for param in job.workflow.params)
    cell = _code(source or "# no parameters", "parameters")
    cell["metadata"]["tags"] = ["parameters"]
    return cell


def _parameter_line(param: models.ParamMetadata) -> str:
    """One line that papermill's inspection understands: it gives up at a second `=`, and takes every `#` for help."""
    default = repr(param.default_value if param.has_default else None).replace("=", "\\x3d").replace("#", "\\x23")
    help_text = _one_line(param.help_text or param.label).replace("=", "\uff1d").replace("#", "\uff03")
    return f"{param.name}: {_ANNOTATIONS.get(param.type.value, 'str')} = {default}  # {help_text}"


def _call_of(job: Job) -> str:
    arguments = [f"{param.name}={param.name}" for param in job.workflow.params]
    inline = f"await bifrost.{job.call}({', '.join(arguments)})"
    if len(inline) <= 100:
        return inline
    return f"await bifrost.{job.call}(\n" + "".join(f"    {argument},\n" for argument in arguments) + ")"


def _notebook_cells(job: Job) -> list[NotebookNode]:
    to_run = _indexes_to_run(job.source_text)
    original = _parse_notebook(job)
    kept = [(index, cell) for index, cell in enumerate(original["cells"]) if not _is_leftover(cell)]
    cells = [_stripped(cell, runs=index in to_run) for index, cell in kept]
    # IPython keeps the value of a last expression in `Out` under its cell's number; `In` counts from 0, with this cell.
    report = _code("bifrost.finish_notebook(Out.get(len(In) - 2))", "call")
    return [*cells, report]


def _parse_notebook(job: Job) -> NotebookNode:
    try:
        notebook: NotebookNode = nbformat.reads(job.source_text, as_version=4)
        nbformat.validate(notebook)
    except (nbformat.ValidationError, ValueError, AttributeError) as error:
        place = job.workflow.source.file
        raise errors.DeclarationError(f"{place} is no valid notebook: {error}", file=place) from error
    return notebook


def _indexes_to_run(notebook_text: str) -> set[int]:
    """The code cells of the notebook without the one that declares the workflow."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="replace", suffix=".ipynb") as file:
        file.write(notebook_text)
        file.flush()
        return {cell.index for cell in notebooks.cells_of(file.name)}


def _stripped(cell: NotebookNode, *, runs: bool) -> NotebookNode:
    """The cell without outputs and metadata; code that is not to run is shown as text."""
    if cell["cell_type"] == "markdown":
        return _markdown(cell["source"], "notebook")
    if not runs:
        return _markdown(fence(cell["source"], "python" if cell["cell_type"] == "code" else "text"), "notebook")
    made = _code(cell["source"], "notebook")
    made["metadata"]["tags"] = [tag for tag in cell["metadata"].get("tags", ()) if isinstance(tag, str)]
    return made


def _is_leftover(cell: NotebookNode) -> bool:
    """Cells that an earlier papermill run put there."""
    return bool({"injected-parameters", "papermill-error-cell-tag"} & set(cell["metadata"].get("tags", ())))


def _provenance(job: Job) -> dict[str, Any]:
    source = {"path": job.workflow.source.file, "sha256": job.source_sha256}
    return {
        "schema": SCHEMA_VERSION,
        "execution_id": job.execution_id,
        "workflow": job.workflow.name,
        "organization": job.organization.model_dump(mode="json"),
        "caller": job.caller.model_dump(mode="json"),
        "trigger": job.trigger.value,
        "network_mode": job.workflow.network.value,
        "parameters": job.parameters,
        "submitted_at": models.isoformat(job.submitted_at),
        "code_hash": job.code_hash,
        "sources": [source],
        "git": {"commit": job.git_commit, "dirty": job.git_dirty},
        "lock_sha256": job.lock_sha256,
        "python": platform.python_version(),
        "packages": _package_versions(),
    }


@functools.cache
def _package_versions() -> dict[str, str]:
    installed = {}
    for name in _PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _conclusion(closing: Closing) -> dict[str, Any]:
    return {
        "status": closing.status.value,
        "started_at": closing.started_at and models.isoformat(closing.started_at),
        "completed_at": models.isoformat(closing.completed_at),
        "duration_ms": closing.duration_ms,
        "sandbox": closing.sandbox,
        "memory_held_by": closing.memory_held_by,
        "network": [destination.model_dump() for destination in closing.network],
        "reads": [event.flat() for event in closing.events if event.type in _READS],
    }


def _correct_papermill(notebook: NotebookNode, closing: Closing) -> None:
    """papermill's own status is what the worker last knew; the parent's is the truth."""
    for cell in notebook["cells"]:
        about = cell["metadata"].get("papermill")
        if about and about.get("status") == "running":
            about.update(status="failed", exception=True)
    about = notebook["metadata"].get("papermill")
    if about is None:
        return
    # papermill stores the whole notebook as the path when it was given one in memory.
    about.update(input_path=None, output_path=None, exception=closing.status not in _GOOD or None)
    if not about.get("end_time"):
        about.update(end_time=models.isoformat(closing.completed_at))


def _events_cell(closing: Closing) -> NotebookNode:
    days = sorted({event.at.astimezone(UTC).date().isoformat() for event in closing.events})
    shown = "%H:%M:%S.%f" if len(days) == 1 else "%Y-%m-%d %H:%M:%S.%f"
    rows = [
        f"| {event.seq} | {event.at.astimezone(UTC).strftime(shown)[:-3]} | {event.type.value} "
        f"| {code_span(_what(event), table=True)} |"
        for event in closing.events
    ]
    heading = f"## Events\n\n{days[0]}, UTC" if len(days) == 1 else "## Events"
    text = "\n".join((heading, "", "| # | time | type | what |", "|---|---|---|---|", *rows))
    cell = _markdown(text if rows else "## Events\n\nNone.", "events")
    cell["metadata"]["bifrost"]["events"] = from_dict(_kept_events(closing.events))
    return cell


def _tell_outcome(notebook: NotebookNode, closing: Closing) -> None:
    """Whoever opens a record asks first how it ended: the header says so, above everything else in its table."""
    for cell in notebook["cells"]:
        if (cell["metadata"].get("bifrost") or {}).get("part") == "header":
            told = f"**{closing.status.value.replace('_', ' ')}**, {_duration(closing)}"
            cell["source"] = cell["source"].replace(_TABLE_HEAD, f"{_TABLE_HEAD}| Outcome | {told} |\n", 1)
            return


def _what(event: models.Event) -> str:
    body = dict(event.body)
    if event.type is models.EventType.LOG:
        line = f"{body.get('level')}: {body.get('message')}"
        data = body.get("data")
        return _shorten(line if data is None else f"{line} {_compact(data)}", _SHOWN_CHARS)
    if event.type in _READS:
        return _shorten(f"{body.get('key') or body.get('name')} from {body.get('scope')}", _SHOWN_CHARS)
    if "name" in body:
        return _shorten(f"{body.pop('name')}: {' '.join(map(_compact, body.values()))}", _SHOWN_CHARS)
    return _shorten(" ".join(_plain(value) for value in body.values() if value is not None), _SHOWN_CHARS)


def _kept_events(events: tuple[models.Event, ...]) -> list[dict[str, Any]]:
    """The events for machines; a body that is too long is left out, and says so."""
    kept, room = [], _EVENTS_CHARS
    for event in events:
        size = len(_compact(event.body))
        flat = event.flat()
        if size > min(_EVENT_CHARS, room):
            flat = {"seq": event.seq, "at": flat["at"], "type": flat["type"], "left_out_chars": size}
        else:
            room -= size
        kept.append(flat)
    return kept


def _outcome_cells(closing: Closing) -> list[NotebookNode]:
    cells = []
    if closing.status in _GOOD or closing.result is not None:
        text = json.dumps(closing.result, indent=2, ensure_ascii=False)
        cells.append(_markdown(f"## Result\n\n{fence(_shorten(text, _RESULT_CHARS), 'json')}", "result"))
    if closing.error is not None or closing.error_type is not None:
        text = _shorten(": ".join(filter(None, (closing.error_type, closing.error))), _RESULT_CHARS)
        cells.append(_markdown(f"## Error\n\n{fence(text, 'text')}", "error"))
    return cells


def _closing_cell(closing: Closing) -> NotebookNode:
    ended = models.isoformat(closing.completed_at)
    line = f"**{closing.status.value.replace('_', ' ')}** · {_duration(closing)} · ended {ended}"
    return _markdown(f"---\n\n{line}", "closing")


def _duration(closing: Closing) -> str:
    return "did not start" if closing.duration_ms is None else f"took {closing.duration_ms} ms"


def _inject_parameters(notebook: NotebookNode, parameters: dict[str, Any]) -> None:
    """What papermill would have done, for a notebook that never ran."""
    if not parameters:
        return
    lines = [f"{name} = {value!r}" for name, value in parameters.items()]
    cell = new_code_cell("\n".join(("# Parameters", *lines)), metadata={"tags": ["injected-parameters"]})
    tagged = [i for i, old in enumerate(notebook["cells"]) if "parameters" in old["metadata"].get("tags", ())]
    notebook["cells"].insert(tagged[0] + 1 if tagged else 1, cell)


def _without_secrets(notebook: NotebookNode, redactor: Redactor) -> bytes:
    """Masked and checked; each further attempt keeps less, until it is valid and clean."""
    masked = redactor.walk(notebook)
    for keep in (_everything, _no_outputs, _closing_only):
        content = _serialised(keep(masked))
        if content is not None and not redactor.has_leak(content):
            return content
    # Only a secret that is a word of the notebook format itself (such as `metadata`) comes here.
    return _serialised(_closing_only(masked)) or b""


def _everything(notebook: dict[str, Any]) -> dict[str, Any]:
    return notebook


def _no_outputs(notebook: dict[str, Any]) -> dict[str, Any]:
    note = "[Bifrost: the outputs were left out, because they could not be written without a secret or were malformed]"
    for cell in notebook["cells"]:
        if cell.get("outputs"):
            cell["outputs"] = [new_output("display_data", data={"text/plain": note})]
    notebook["metadata"]["bifrost"]["outputs_left_out"] = True
    return notebook


def _closing_only(notebook: dict[str, Any]) -> dict[str, Any]:
    note = "The body of this record was left out, because it could not be written without a secret."
    about = {key: notebook["metadata"]["bifrost"].get(key) for key in ("schema", "execution_id", "status")}
    metadata = {"kernelspec": dict(KERNELSPEC), "bifrost": {**about, "outputs_left_out": True}}
    return _notebook([_markdown(note, "closing")], metadata)


def _serialised(notebook: dict[str, Any]) -> bytes | None:
    """The content of the file, laid out as nbformat does; None when it would be no valid notebook."""
    try:
        nbformat.validate(notebook)
        return pydantic_core.to_json(_sorted(notebook), indent=1) + b"\n"
    except (nbformat.ValidationError, ValueError, TypeError, KeyError):
        return None


def _sorted(value: Any) -> Any:
    """With the keys of all objects in order.

    Raises:
        ValueError: a number has no JSON form.
    """
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no JSON")
    return value


def _notebook(cells: list[NotebookNode], metadata: dict[str, Any]) -> NotebookNode:
    return NotebookNode(nbformat=4, nbformat_minor=5, metadata=from_dict(metadata), cells=cells)


# nbformat's own builders validate each cell alone; here the whole notebook is, once, when it is complete.


def _markdown(source: str, part: str) -> NotebookNode:
    return NotebookNode(id=generate_corpus_id(), cell_type="markdown", metadata=_of_part(part), source=source)


def _code(source: str, part: str) -> NotebookNode:
    metadata = _of_part(part)
    return NotebookNode(
        id=generate_corpus_id(), cell_type="code", metadata=metadata, execution_count=None, source=source, outputs=[]
    )


def _of_part(part: str) -> NotebookNode:
    return NotebookNode(bifrost=NotebookNode(part=part))


def code_span(text: str, *, table: bool = False) -> str:
    """Any text as inline code: nothing in it is read as Markdown, HTML or mathematics (CommonMark §6.1)."""
    line = _one_line(text) or "–"
    if table:
        line = line.replace("|", "\\|")
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def fence(text: str, language: str) -> str:
    """Any text as a fenced block, with a fence that the text cannot close (CommonMark §4.5)."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    body = _clean(text, keep="\n\t")
    return f"{ticks}{language}\n{body}\n{ticks}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _one_line(text: str) -> str:
    return _clean(" ".join(str(text).split()))


def _clean(text: str, keep: str = "") -> str:
    """Control characters, direction marks and lone surrogates in their escaped form."""
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else _compact(value)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _shorten(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[:room]} … [{len(text) - room} more characters]"
