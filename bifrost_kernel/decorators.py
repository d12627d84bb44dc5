"""`@workflow`, `@param`, `@data_provider`: declarations, checked when applied and attached as frozen metadata.

Authors' modules call them; `registry` and `notebooks` read what they attached. They return the function that they got,
run none of it, and keep no list of their own: what a module declares is found by whoever loads the module.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeVar

from bifrost_kernel import declarations, errors, inputs, models

F = TypeVar("F", bound=Callable[..., Any])
Metadata = models.WorkflowMetadata | models.DataProviderMetadata

_ATTRIBUTE = "__bifrost_declaration__"


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What the decorators attached to a function; `metadata` is None while there are only `@param`s."""

    kind: Literal["workflow", "data_provider"] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    params: tuple[inputs.ParamDeclaration, ...] = ()
    metadata: Metadata | None = None
    error: errors.DeclarationError | None = None


def workflow(
    name: str = "",
    *,
    description: str = "",
    category: str = "General",
    tags: Sequence[str] = (),
    execution_mode: str = "sync",
    timeout_seconds: int = 300,
    schedule: str | None = None,
    timezone: str = "UTC",
    retries: int = 0,
    idempotent: bool = False,
    overlap: str = "skip",
    egress: Sequence[str] | None = None,
    network: str = "proxy",
    requires_org: bool = True,
    expose_in_forms: bool = True,
    requires_approval: bool = False,
    required_permission: str = "canExecuteWorkflows",
) -> Callable[[F], F]:
    """Make a function an executable workflow; its first argument is the context, the others are its inputs.

    Args:
        schedule: five cron fields (POSIX: weekday 0 and 7 are Sunday), due in `timezone`.
        retries: how often a scheduled run that failed is tried again, if the workflow is `idempotent`.
        idempotent: running it twice does no harm.
        overlap: what a due time does while the last run still runs: `skip`, `queue` or `parallel`.
        egress: hosts that it may reach, e.g. `["graph.microsoft.com", "*.halopsa.com:443"]`, of those that its
            organization may; None is all of those, an empty list is no network at all.
        network: `proxy`, or `host` for this machine's own network, where the operator allows it.

    Raises:
        DeclarationError: an argument is wrong; says where, what was given, and the choices.
    """
    options = dict(locals())

    def decorate(function: F) -> F:
        return _apply(function, lambda found: _with_kind(found, "workflow", options))

    _refuse_function(name, "workflow")
    return decorate


def data_provider(
    name: str = "", *, description: str = "", category: str = "General", cache_ttl_seconds: int = 300
) -> Callable[[F], F]:
    """Make a function the source of a dropdown's options: a list of `{label, value, metadata}`.

    Raises:
        DeclarationError: an argument is wrong; says where, what was given, and the choices.
    """
    options = dict(locals())

    def decorate(function: F) -> F:
        return _apply(function, lambda found: _with_kind(found, "data_provider", options))

    _refuse_function(name, "data_provider")
    return decorate


def param(
    name: str,
    type: str | None = None,
    label: str | None = None,
    required: bool | None = None,
    validation: Mapping[str, Any] | None = None,
    data_provider: str | None = None,
    default_value: Any = inputs.UNSET,
    help_text: str | None = None,
    data_provider_inputs: Mapping[str, str] | None = None,
) -> Callable[[F], F]:
    """Describe one input: its type, its label in the form, and what is accepted.

    Args:
        type: `string`, `int`, `float`, `bool`, `email`, `json` or `list`; without it the annotation decides.
        validation: any of `pattern` (RE2, the whole text), `min`, `max`, `min_length`, `max_length`.
        data_provider: name of the data provider whose options are the only accepted values.
        data_provider_inputs: which other `@param` gives an input of the data provider; else its namesake does.

    Raises:
        DeclarationError: an argument is wrong; says where, what was given, and the choices.
    """
    declared = inputs.ParamDeclaration(
        name,
        type,
        label,
        required,
        validation or {},
        data_provider,
        default_value,
        help_text,
        data_provider_inputs or {},
    )

    def decorate(function: F) -> F:
        return _apply(function, lambda found: _with_param(found, declared))

    return decorate


def is_declared(function: object, kind: str, name: str) -> bool:
    """Whether the decorators call it so, right or wrong."""
    found = getattr(function, _ATTRIBUTE, None)
    return isinstance(found, Declaration) and found.kind == kind and found.options.get("name") == name


def find_declaration(function: object) -> Declaration | None:
    """What the decorators attached to `function`; None when it carries no `@workflow` and no `@data_provider`."""
    found = getattr(function, _ATTRIBUTE, None)
    if not isinstance(found, Declaration):
        return None
    if found.metadata is None and found.error is None:
        found = _completed_or_broken(function, found)
        setattr(function, _ATTRIBUTE, found)
    return None if found.kind is None and found.error is None else found


_collected: ContextVar[list[Callable[..., Any]] | None] = ContextVar("bifrost_collected", default=None)


@contextmanager
def collecting() -> Iterator[list[Callable[..., Any]]]:
    """While a module is loaded: gather every decorated function, and let a wrong one break only itself.

    Outside of it a wrong declaration raises, so that an author sees it where it stands.
    """
    functions: list[Callable[..., Any]] = []
    token = _collected.set(functions)
    try:
        yield functions
    finally:
        _collected.reset(token)


def workflow_options() -> dict[str, Any]:
    """The arguments of `@workflow` with their defaults."""
    return {name: argument.default for name, argument in inspect.signature(workflow).parameters.items()}


def _apply(function: F, extend: Callable[[Declaration], Declaration]) -> F:
    found, collected = getattr(function, _ATTRIBUTE, Declaration()), _collected.get()
    try:
        declaration = extend(found)
        if collected is None:
            declaration = _completed(function, declaration)
    except errors.DeclarationError as error:
        if collected is None:
            raise _located(error, function) from None
        declaration = dataclasses.replace(found, error=found.error or _located(error, function))
    if collected is not None and function not in collected:
        collected.append(function)
    setattr(function, _ATTRIBUTE, declaration)
    return function


def _completed_or_broken(function: Any, declaration: Declaration) -> Declaration:
    """With a module, a function is looked at once, when all its decorators have spoken."""
    try:
        return _completed(function, declaration)
    except errors.DeclarationError as error:
        return dataclasses.replace(declaration, error=_located(error, function))


def _with_kind(found: Declaration, kind: Literal["workflow", "data_provider"], options: dict[str, Any]) -> Declaration:
    if found.kind is not None:
        both = f"@{kind} twice" if found.kind == kind else "both @workflow and @data_provider"
        raise errors.DeclarationError(f"one function cannot carry {both}; make it two functions")
    return dataclasses.replace(found, kind=kind, options=options)


def _with_param(found: Declaration, declared: inputs.ParamDeclaration) -> Declaration:
    if any(other.name == declared.name for other in found.params):
        raise errors.DeclarationError(f"@param {declared.name!r} is declared twice; keep one")
    # Decorators run from the function upwards, so each one further up comes first.
    return dataclasses.replace(found, params=(declared, *found.params))


def _completed(function: Callable[..., Any], declaration: Declaration) -> Declaration:
    """Checked as far as it is known; the metadata is made anew because either order of decorators works."""
    _check_is_function(function)
    arguments, open_ended = _arguments(function)
    params = inputs.build_params(declaration.params, arguments, open_ended=open_ended)
    if declaration.kind is None:
        return declaration
    source = models.Source(file=function.__code__.co_filename, line=function.__code__.co_firstlineno)
    build = declarations.build_workflow if declaration.kind == "workflow" else declarations.build_provider
    return dataclasses.replace(declaration, metadata=build(declaration.options, params, source=source))


def _located(error: errors.DeclarationError, function: object) -> errors.DeclarationError:
    code = getattr(function, "__code__", None)
    if code is None:
        return errors.DeclarationError(f"{function!r}: {error.message}")
    where = f"{getattr(function, '__name__', '?')} ({code.co_filename}:{code.co_firstlineno})"
    return errors.DeclarationError(f"{where}: {error.message}", file=code.co_filename, line=code.co_firstlineno)


def _refuse_function(name: object, decorator: str) -> None:
    """`@workflow` without parentheses hands the function over as the name."""
    if callable(name):
        error = errors.DeclarationError(f'write @{decorator}(name="…", description="…") with its arguments')
        raise _located(error, name)


def _check_is_function(function: object) -> None:
    if not isinstance(function, types.FunctionType):
        raise errors.DeclarationError(f"only functions can be decorated, not a {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise errors.DeclarationError("it yields; a workflow or data provider returns its result")


def _arguments(function: Callable[..., Any]) -> tuple[list[inputs.Argument], bool]:
    """The inputs that the signature names, and whether it takes any other."""
    rest = list(inspect.signature(function).parameters.values())
    if not rest or rest[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        raise errors.DeclarationError("it needs a first argument for the context, e.g. (context, name)")
    del rest[0]
    hints = _type_hints(function)
    named = []
    for argument in rest:
        if argument.kind is argument.POSITIONAL_ONLY:
            raise errors.DeclarationError(f"argument {argument.name!r} must be passable by name; move it behind the /")
        if argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            named.append(_argument(argument, hints))
    return named, any(argument.kind is argument.VAR_KEYWORD for argument in rest)


def _argument(argument: inspect.Parameter, hints: Mapping[str, Any]) -> inputs.Argument:
    default = inputs.UNSET if argument.default is argument.empty else argument.default
    return inputs.Argument(argument.name, inputs.type_of(hints.get(argument.name), default), default)


def _type_hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError, SyntaxError):
        # A name that only type checkers import; the unresolved annotations are then all there is.
        return {name: hint for name, hint in function.__annotations__.items() if not isinstance(hint, str)}
