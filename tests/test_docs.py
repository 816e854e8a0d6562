"""The documents are true: their commands and code run, their links and files exist."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{page}.md"
        for page in ("configuration", "placement", "calibration-cache", "tensorrt")
    ),
    ROOT / "docs/migrate-to-tensorrt-11.md",
]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
LANGUAGES = ("sh", "python", "yaml")


def blocks(document: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each fenced block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", document.read_text(), re.M | re.S):
        yield match[1], match[2]


def workspace(folder: Path) -> None:
    """Lay out what the documents take for granted: the examples, and a user's photos."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (folder / "images" / kind).mkdir()
        pixels = rng.integers(0, 255, (300, 260, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / kind / "1.png")
    weights = onnx.numpy_helper.from_array(
        rng.standard_normal((16, 3, 3, 3)).astype(np.float32), "w"
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv")],
        "photos",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 224, 224])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 16, 222, 222])],
        [weights],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, folder / "photos.onnx")


def run(command: str, folder: Path) -> None:
    """Run a line of a document as a shell would."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_every_block_of_code_runs(tmp_path: Path) -> None:
    workspace(tmp_path)
    for document in DOCUMENTS:
        found = list(blocks(document))
        for language, text in found:  # a file that a block names is there before it is used
            if language == "python" and text.startswith("# ") and text.split()[1].endswith(".py"):
                (tmp_path / text.split()[1]).write_text(text)
        for number, (language, text) in enumerate(found):
            assert language in LANGUAGES, f"{document.name}: block {number} has no language"
            if language == "python":
                run(f"{sys.executable} - <<'EOF'\n{text}\nEOF", tmp_path)
            elif language == "yaml":
                (tmp_path / f"block{number}.yaml").write_text(text)
                run(f"quantlab calibrate --quiet block{number}.yaml", tmp_path)
            else:
                for line in text.splitlines():
                    if not line.startswith("make "):  # .ci/run does those, on the checkout
                        run(line, tmp_path)


def test_the_two_commands_of_the_readme_are_what_ci_runs() -> None:
    commands = [line for _, text in blocks(ROOT / "README.md") for line in text.splitlines()]
    listed = [line for line in commands if line.startswith("make ")]
    assert listed == ["make demo", "make test"]
    ci = (ROOT / ".ci/run").read_text().splitlines()
    assert set(listed) <= set(ci)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_decision_and_document_is_reachable() -> None:
    readme = (ROOT / "README.md").read_text()
    for document in (ROOT / "docs").glob("*.md"):
        assert f"docs/{document.name}" in readme
    numbers = sorted(path.name[:4] for path in (ROOT / "docs/decisions").glob("*.md"))
    assert numbers == [f"{i + 1:04d}" for i in range(len(numbers))]


def test_the_architecture_page_gives_every_module_its_rank() -> None:
    from tests.test_architecture import RANKS

    text = (ROOT / "docs/architecture.md").read_text()
    for module in RANKS:
        if module != "__main__":
            assert re.search(rf"`{module}/?`", text), f"docs/architecture.md lacks {module}"
