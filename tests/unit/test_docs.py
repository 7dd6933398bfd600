"""The pages say what is there: links, commands, snippets and listed names are checked against the code."""

from __future__ import annotations

import dataclasses
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from docs import generate
from promptlab.cli.app import app
from promptlab.documents import parse_yaml, validate
from promptlab.registry import METHODS
from promptlab.rendering import compile_template
from promptlab.schemas import file_keys
from promptlab.specs.run import RunSpec
from promptlab.specs.task import Task
from promptlab.specs.template import Template
from promptlab.specs.verbalizer import Verbalizer

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path for path in (ROOT / "docs").rglob("*.md") if not {"_build", "generated"} & set(path.relative_to(ROOT).parts)
)
LINKED = [*PAGES, *(path for name in ("README.md", "CONTRIBUTING.md") if (path := ROOT / name).is_file())]
COMMANDS: Any = typer.main.get_command(app)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    return [block for page in LINKED for block in fenced(page) if block.language in languages]


def fenced(page: Path) -> Iterator[Block]:
    pattern = re.compile(r"^```([\w-]*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    text = page.read_text(encoding="utf-8")
    for match in pattern.finditer(text):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])


def shell_lines(block: Block) -> Iterator[str]:
    """The commands of a shell block: lines after a prompt in a console, all but here-documents elsewhere."""
    text = block.text.replace("\\\n", " ")
    text = re.sub(r"<<'END'\n.*?^END$", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        if block.language == "console" and not line.startswith("$ "):
            continue
        yield line.removeprefix("$ ").strip()


def commands() -> list[tuple[Block, list[str]]]:
    shells = blocks("bash", "sh", "console")
    split = [(block, shlex.split(line, comments=True)) for block in shells for line in shell_lines(block)]
    return [(block, words[1:]) for block, words in split if words and Path(words[0]).name == "promptlab"]


def headings(page: Path) -> set[str]:
    """The anchors of a page, as they are made from its headings."""
    plain = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    names = re.findall(r"^#+ +(.+?) *$", plain, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in names}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_points_to_a_file_that_exists(page: Path) -> None:
    """A link to a file finds the file, and one to a heading finds the heading."""
    plain = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", plain):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in headings(path)):
            broken.append(target)
    assert [] == broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_named_path_of_the_repository_exists(page: Path) -> None:
    """A file of the package or of the tests that a sentence names is there."""
    named = re.findall(r"`((?:tests|promptlab|benchmarks)/[\w./-]*)`", page.read_text(encoding="utf-8"))
    assert [] == [name for name in named if not (ROOT / name).exists()]


def test_every_page_is_in_a_table_of_contents() -> None:
    """A page that the index does not list cannot be found by a reader."""
    entries: set[str] = set()
    for block in (block for page in PAGES for block in fenced(page) if "toctree" in page.read_text(encoding="utf-8")):
        for entry in block.text.splitlines():
            found = block.page.parent.glob(f"{entry}.md") if entry and not entry.startswith(":") else ()
            entries |= {path.relative_to(ROOT).as_posix() for path in found}
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES} - {"docs/index.md"}
    assert set() == pages - entries


@pytest.mark.parametrize(("block", "words"), commands(), ids=lambda value: str(value)[:60])
def test_every_command_uses_verbs_and_flags_that_exist(block: Block, words: list[str]) -> None:
    """A command of a page is understood by the command line; nothing is run."""
    if words[0].startswith("-"):
        COMMANDS.make_context("promptlab", words, resilient_parsing=True)
        return
    end = next((number for number, word in enumerate(words) if word in ("|", ">", "&&", ";")), len(words))
    assert words[0] in COMMANDS.commands, f"{block}: promptlab has no command '{words[0]}'"
    COMMANDS.commands[words[0]].make_context(words[0], words[1:end])


def test_commands_in_running_text_exist() -> None:
    """A command that is named inside a sentence has a verb and flags of the command line."""
    unknown = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for verb, rest in re.findall(r"`promptlab ([a-z]+)([^`]*)`", text):
            command = COMMANDS.commands.get(verb)
            flags = set() if command is None else {flag for option in command.params for flag in option.opts}
            used = {word.partition("=")[0] for word in rest.split() if word.startswith("--")}
            if command is None or used - flags - {"--help"}:
                unknown.append(f"{page.name}: promptlab {verb}{rest}")
    assert [] == unknown


@pytest.mark.parametrize("block", blocks("jinja"), ids=str)
def test_every_template_snippet_compiles(block: Block, tmp_path: Path) -> None:
    """A template of a page, with a head or without, is one that promptlab can use."""
    path = tmp_path / "snippet.jinja"
    path.write_text(block.text, encoding="utf-8")
    assert compile_template(Template.load(str(path))).fields


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_every_data_file_snippet_is_valid(block: Block) -> None:
    """A data file of a page says in its first line which kind it is, and has the keys of that kind."""
    first = block.text.splitlines()[0].removeprefix("# ")
    document = parse_yaml(block.text, shown=str(block))
    kind = first.partition("/")[0]
    if kind == "tasks":
        validate(Task, document, name="snippet", path=first)
    elif kind == "verbalizers":
        validate(Verbalizer, document, name="snippet", family=None, path=first)
    else:
        assert "run.yaml" == first
        validate(RunSpec, document)


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_every_file_that_a_page_tells_to_write_is_valid(block: Block, tmp_path: Path) -> None:
    """The task, template and verbalizer files of a here-document are ones that promptlab can load."""
    loaders: dict[str, Any] = {"tasks": Task, "templates": Template, "verbalizers": Verbalizer}
    for name, text in re.findall(r"cat > (\S+) <<'END'\n(.*?)^END$", block.text, flags=re.MULTILINE | re.DOTALL):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        kinds = [kind for kind in loaders if kind in path.parts]
        assert not kinds or loaders[kinds[0]].load(str(path))


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_every_python_snippet_parses(block: Block) -> None:
    """A snippet of a page is valid Python."""
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize(("title", "model", "known"), generate.file_models(), ids=lambda value: str(value)[:30])
def test_every_key_of_a_data_file_has_a_meaning(title: str, model: Any, known: dict[str, str]) -> None:
    """The reference explains the keys that the models have, and no others."""
    assert set(file_keys(model)) == set(known), title


@pytest.mark.parametrize(("title", "kind", "known"), generate.result_kinds(), ids=lambda value: str(value)[:30])
def test_every_field_of_a_result_has_a_meaning(title: str, kind: Any, known: dict[str, str]) -> None:
    """The reference explains the fields that results.json has, and no others."""
    assert {field.name for field in dataclasses.fields(kind)} == set(known), title


def test_the_reference_lists_the_whole_library(tmp_path: Path) -> None:
    """Every command, task, template, verbalizer and method has a heading in the generated pages."""
    from promptlab.library import list_files

    written = {path.stem: path.read_text(encoding="utf-8") for path in generate.write_reference(tmp_path)}
    assert set(generate.PAGES) == set(written)
    assert all(f"\n## promptlab {verb}\n" in written["cli"] for verb in COMMANDS.commands)
    for page, names in (
        ("tasks", list_files("task")),
        ("templates", list_files("template")),
        ("verbalizers", list_files("verbalizer")),
        ("methods", METHODS.names()),
    ):
        assert all(f"\n## {name}\n" in written[page] for name in names)


def test_the_front_page_counts_what_the_library_has() -> None:
    """The numbers of tasks, templates and verbalizers on the front page and in the changelog are those of a listing."""
    from promptlab.library import list_files

    counts = [len(list_files(kind)) for kind in ("task", "template", "verbalizer")]
    for name in ("README.md", "CHANGELOG.md"):
        found = re.search(
            r"(\d+) tasks, (\d+) templates and (\d+) verbalizers", (ROOT / name).read_text(encoding="utf-8")
        )
        assert found is not None and counts == [int(number) for number in found.groups()], name


def test_the_generated_flags_are_those_of_the_command_tree(tmp_path: Path) -> None:
    """The page of the command line names every flag that the parser knows."""
    page = generate.cli_page()
    for verb, command in COMMANDS.commands.items():
        section = page.partition(f"## promptlab {verb}\n")[2].partition("\n## ")[0]
        options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
        flags = [flag for option in options for flag in option.opts if flag not in ("--help", "-h")]
        assert [] == [flag for flag in flags if f"`{flag}`" not in section], verb


def test_the_floors_note_names_every_module_of_the_contract() -> None:
    """The note on floors lists the modules that pyproject.toml puts on floors."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    modules = {name for layer in contracts[0]["layers"] for name in layer.replace(":", "|").split("|")}
    text = (ROOT / "docs" / "design" / "floors.md").read_text(encoding="utf-8")
    assert [] == [name for name in sorted(name.strip() for name in modules) if f"`{name}`" not in text]


def test_prose_has_one_sentence_a_line() -> None:
    """A line of running text ends where its sentence ends, so that changes are read line by line."""
    long_lines = []
    for page in PAGES:
        plain = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for line in plain.splitlines():
            is_prose = line and not line.startswith(("|", "#"))
            sentence = re.sub(r"`[^`]*`|\"[^\"]*\"", "x", line)
            if is_prose and re.search(r"[a-z)][.?] [A-Z]", sentence.replace("et al. ", "")):
                long_lines.append(f"{page.name}: {line}")
    assert [] == long_lines
