"""Functions of the user's own, named in the config as "module:function" or "file.py:function".

Loading one runs the user's code with the rights of whoever runs the config.  What that code raises
is not caught: its author needs the traceback.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from quantlab.errors import ConfigError


def split(role: str, function: str) -> tuple[str, str]:
    """Return the module or file, and the name, that ``function`` is made of.

    Raises:
        ConfigError: it is not of that form; ``role`` says whose parameter it is.
    """
    source, _, name = function.rpartition(":")
    if not source or not name.isidentifier():
        raise ConfigError(
            f"{role}: function is {function!r}; expected 'module:function' or 'file.py:function'"
        )
    return source, name


def load(role: str, function: str, folder: Path) -> Callable[..., object]:
    """Import what ``function`` names; a relative file is looked for in ``folder``.

    Raises:
        ConfigError: there is no such module, file or function.
    """
    source, name = split(role, function)
    path = (folder / source).resolve()
    try:
        module = _from_file(path) if source.endswith(".py") else importlib.import_module(source)
    except ImportError as error:
        raise ConfigError(
            f"{role}: cannot import {source!r}: {error}; a module is imported from where Python "
            "finds it, a file from the config's folder, and what a file imports from beside it"
        ) from error
    loaded = getattr(module, name, None)
    if not callable(loaded):
        raise ConfigError(f"{role}: {source} has no function {name!r}")
    return loaded  # type: ignore[no-any-return]  # what it returns is checked by the caller


def _from_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, which no other module can have."""
    if not path.is_file():
        raise ImportError(f"there is no file {path}")
    name = f"quantlab_user_{sha256(bytes(path.resolve())).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101  the name ends in .py, so Python has a loader for it
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look modules up here
    sys.path.insert(0, str(path.parent))  # as if the file were run: it may import what is beside it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module
