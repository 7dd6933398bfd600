"""Which files a selector means, and what an unknown one is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from promptlab import library
from promptlab.errors import UsageError
from promptlab.library import (
    bundled_model_path,
    file_at,
    library_root,
    list_files,
    search_roots,
    select_files,
    shown_path,
)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small library in place of the shipped one."""
    root = tmp_path / "shipped"
    for name in ("sentiment/it_was", "sentiment/just", "topic/just", "topic/news"):
        write(root / f"templates/{name}.jinja")
    write(root / "tasks/sst2.yaml")
    monkeypatch.setattr(library, "library_root", lambda: root)
    return root


def write(path: Path) -> Path:
    """An empty file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


def names(selector: str, include: tuple[str, ...] = ()) -> list[str]:
    """Names of the templates that a selector means."""
    return [file.name for file in select_files("template", selector, include)]


def test_the_library_ships_with_the_package() -> None:
    """Tasks, templates and verbalizers are found from the package's own place; the model lies inside it."""
    assert all((library_root() / folder).is_dir() for folder in ("tasks", "templates", "verbalizers"))
    assert bundled_model_path().is_relative_to(Path(library.__file__).parent)


@pytest.mark.parametrize(
    ("expected", "selector"),
    [
        (["sentiment/it_was"], "sentiment/it_was"),
        (["sentiment/it_was", "sentiment/just"], "sentiment/*"),
        (["sentiment/just", "topic/just"], "*/ju?t"),
        (["sentiment/it_was"], "it_was"),
    ],
)
@pytest.mark.usefixtures("shipped")
def test_names_globs_and_bare_stems(expected: list[str], selector: str) -> None:
    """A whole name, a glob over whole names and a stem that only one file has are selectors."""
    assert expected == names(selector)


def test_a_path_is_a_selector(shipped: Path, tmp_path: Path) -> None:
    """A file anywhere is meant by its path; its family is its folder inside `templates`, and none elsewhere."""
    inside = select_files("template", str(shipped / "templates/topic/news.jinja"))[0]
    outside = select_files("template", str(write(tmp_path / "mine/own.jinja")))[0]
    assert (inside.name, inside.family) == ("topic/news", "topic")
    assert (outside.name, outside.family) == ("own", None)


def test_a_path_with_the_signs_of_a_glob_is_a_path(tmp_path: Path) -> None:
    """A folder may be called whatever its owner likes."""
    path = write(tmp_path / "mine [old]" / "templates" / "topic" / "own*.jinja")
    assert [path] == [file.path for file in select_files("template", str(path))]


@pytest.mark.usefixtures("shipped")
def test_a_file_is_shown_from_the_folder_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listed file has the name, the family and the place that it has as a path, in an included folder too."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine/templates/topic/own.jinja")
    listed = list_files("template", ["mine"])
    assert listed["topic/own"] == file_at("template", Path("mine/templates/topic/own.jinja"))
    assert "mine/templates/topic/own.jinja" == listed["topic/own"].shown
    assert "templates/topic/news.jinja" == listed["topic/news"].shown


def test_a_task_has_no_family_in_its_name(shipped: Path) -> None:
    """Tasks lie in one folder and are called by their stem."""
    assert [("sst2", None, shipped / "tasks/sst2.yaml")] == [
        (file.name, file.family, file.path) for file in list_files("task").values()
    ]


@pytest.mark.usefixtures("shipped")
def test_included_folders_come_first_and_hide_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of --include hides one of PROMPTLAB_PATH, which hides the shipped one; the others stay."""
    first = write(tmp_path / "first/templates/sentiment/it_was.jinja")
    second = write(tmp_path / "second/templates/sentiment/it_was.jinja")
    extra = write(tmp_path / "second/templates/sentiment/mine.jinja")
    monkeypatch.setenv("PROMPTLAB_PATH", f"{tmp_path / 'second'}{os.pathsep}")
    assert first == list_files("template", (str(tmp_path / "first"),))["sentiment/it_was"].path
    assert second == list_files("template")["sentiment/it_was"].path
    assert extra == list_files("template")["sentiment/mine"].path
    assert "topic/news" in list_files("template")


@pytest.mark.parametrize(
    ("message", "selector"),
    [
        (
            "template 'sentiment/it_wsa' is unknown. Did you mean 'sentiment/it_was'? "
            "`promptlab ls templates` lists them.",
            "sentiment/it_wsa",
        ),
        ("template 'it_wsa' is unknown. Did you mean 'it_was'? `promptlab ls templates` lists them.", "it_wsa"),
        ("template 'zzz' is unknown. `promptlab ls templates` lists them.", "zzz"),
        ("template 'just' is one of several: sentiment/just, topic/just. Give the whole name.", "just"),
        ("no template matches 'nli/*'. `promptlab ls templates` lists them.", "nli/*"),
        ("./own.jinja: there is no such template file.", "./own.jinja"),
        ("own.jinja: there is no such template file.", "own.jinja"),
    ],
)
@pytest.mark.usefixtures("shipped")
def test_an_unknown_selector_is_explained(message: str, selector: str) -> None:
    """The message names the nearest file, or all that a stem could mean, and the command that lists them."""
    with pytest.raises(UsageError) as fault:
        names(selector)
    assert message == str(fault.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A path with the wrong ending is told the right one."""
    path = write(tmp_path / "own.txt")
    with pytest.raises(UsageError, match=r"a template file ends in \.jinja, found '\.txt'"):
        names(str(path))


def test_a_missing_folder_is_named_with_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is not there is refused under the name of the flag or variable that gave it."""
    with pytest.raises(UsageError, match=r"^--include nowhere: there is no such folder\.$"):
        search_roots(["nowhere"])
    monkeypatch.setenv("PROMPTLAB_PATH", "nowhere")
    with pytest.raises(UsageError, match=r"^PROMPTLAB_PATH nowhere: there is no such folder\.$"):
        search_roots()


def test_paths_are_shown_from_the_library_or_the_working_folder(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages print no more of a path than is needed."""
    monkeypatch.chdir(tmp_path)
    assert shown_path(shipped / "tasks/sst2.yaml") == "tasks/sst2.yaml"
    assert shown_path(tmp_path / "a/b.yaml") == "a/b.yaml"
    assert shown_path(Path("/elsewhere/b.yaml")) == "/elsewhere/b.yaml"
