"""Parts by name: a literal dict of constructors, and the errors of whoever misspells one of them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any


def build(
    kind: str,
    registry: Mapping[str, Callable[..., Any]],
    choice: Any,
    /,
    *,
    also: Collection[str] = (),
    remedies: Mapping[str, str] = MappingProxyType({}),
    **known: Any,
) -> Any:
    """Call the constructor that a choice names: `cosine`, or `{name: cosine, temperature: 0.1}`.

    Args:
        kind: What the registry holds, for the errors: energy, objective, generative.sampler.
        registry: Constructors by name.
        choice: A name, or a mapping of `name` and arguments.
        also: Further arguments that the caller reads itself; errors list them among the valid ones.
        remedies: How to get an argument that no number or word of a config can be.
        **known: Values from other parts: the constructor gets those that it has an argument for and the choice omits.

    Raises:
        TypeError: The choice is neither a name nor a mapping, or an argument is unknown or missing.
        ValueError: The name is unknown or missing, or the constructor refuses a value.
    """
    if not isinstance(choice, (str, Mapping)):
        raise TypeError(f"{kind} must be a name, or a mapping of name and arguments, got {choice!r}")
    arguments = {"name": choice} if isinstance(choice, str) else dict(choice)
    if "name" not in arguments:
        raise ValueError(f"{kind} needs a name: {{name: {next(iter(registry))}, ...}}, got {arguments!r}")
    name = arguments.pop("name")
    if name not in registry:
        raise ValueError(unknown_name(kind, name, registry))
    parameters = parameters_of(registry[name])
    values = {argument: value for argument, value in known.items() if argument in parameters}
    for argument, value in arguments.items():
        if argument not in parameters:
            raise TypeError(unknown_name(f"argument of {kind} {name!r}", argument, [*parameters, *also]))
        values[argument] = _from_yaml(value, str(parameters[argument].annotation))
    for argument, parameter in parameters.items():
        if parameter.default is parameter.empty and argument not in values:
            remedy = remedies.get(argument, f"{kind}.{argument}=...")
            raise TypeError(f"{kind} {name!r} needs {argument}: {remedy}")
    return registry[name](**values)


def parameters_of(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments that a constructor names; not the `*args, **kwargs` of a module that defines no `__init__`."""
    parameters = inspect.signature(constructor).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def _from_yaml(value: Any, annotation: str) -> Any:
    """YAML's 1 as 1.0 where a float and no integer is annotated, and its lists as tuples."""
    if isinstance(value, (list, tuple)):
        return tuple(_from_yaml(item, annotation) for item in value)
    if isinstance(value, int) and not isinstance(value, bool) and "float" in annotation and "int" not in annotation:
        return float(value)
    return value


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> str:
    """`unknown KIND 'NAME': did you mean 'NEAREST'?`, with all valid names where none is near or they are few."""
    options = sorted(valid)
    near = difflib.get_close_matches(str(name), options, n=3, cutoff=0.5)
    message = f"unknown {kind} {name!r}"
    if near:
        message += ": did you mean " + " or ".join(repr(option) for option in near) + "?"
    if len(options) <= 30:
        valid_names = ", ".join(options) or "none"
        message += f" Valid: {valid_names}" if near else f"; valid: {valid_names}"
    return message
