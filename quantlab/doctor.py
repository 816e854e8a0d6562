"""``quantlab doctor``: what can be used on this machine."""

from quantlab.collect.executors import EXECUTORS
from quantlab.engines import ENGINES
from quantlab.engines.base import Engine
from quantlab.engines.host import host, versions
from quantlab.errors import EngineUnavailable


def findings() -> list[str]:
    """Return a line for the machine, the packages, each engine and executor: usable, or why not."""
    here = host()
    memory = f"{here['memory_bytes'] / 2**30:.0f} GiB"
    lines = [
        f"{here['cpu']}, {here['usable_cores']} usable cores, {memory}",
        f"{here['system']}, {here['python']}",
        f"instruction sets: {' '.join(here['flags']) or 'not told'}",
        "packages: " + ", ".join(f"{name} {found}" for name, found in versions().items()),
    ]
    lines += [f"engine {name}: {_engine(engine())}" for name, engine in ENGINES.items()]
    for name, executor in EXECUTORS.items():
        try:
            lines.append(f"executor {name}: usable: {executor().available()}")
        except EngineUnavailable as error:
            lines.append(f"executor {name}: not usable: {error}")
    return lines


def _engine(engine: Engine) -> str:
    try:
        found = engine.available()
    except EngineUnavailable as error:
        return f"not usable: {error}"
    try:
        engine.runnable()
    except EngineUnavailable as error:
        return f"usable to build: {found}; not to run: {error}"
    return f"usable: {found}"
