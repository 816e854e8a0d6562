"""The tree of errors is the one that its module draws, and its exit codes are the promised ones."""

import re

import pytest

from quantlab import errors
from quantlab.errors import ConfigError, QuantlabError, TargetMissed


def drawn() -> dict[str, str]:
    """Return child to parent as the module's docstring draws them."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([ │├└─]+)([A-Z]\w+)(?:\s{2,}|$)", line)
        if match:
            depth, name = len(match[1]), match[2]
            path = [(at, parent) for at, parent in path if at < depth]
            if path:
                found[name] = path[-1][1]
            path.append((depth, name))
    return found


def defined() -> dict[str, type[QuantlabError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, QuantlabError)
    }


def test_the_drawn_tree_is_the_defined_one() -> None:
    bases = {name: cls.__mro__[1].__name__ for name, cls in defined().items()}
    assert bases.pop("QuantlabError") == "Exception"
    assert drawn() == bases


@pytest.mark.parametrize("cls", defined().values(), ids=lambda cls: cls.__name__)
def test_bad_input_is_2_and_a_missed_target_3(cls: type[QuantlabError]) -> None:
    assert cls.exit_code == (3 if cls is TargetMissed else 2)
    assert str(cls("what is wrong")) == "what is wrong"
    assert cls.__doc__


def test_a_config_error_knows_its_key() -> None:
    assert ConfigError("m", "samples").key == "samples"
    assert ConfigError("m").key is None
