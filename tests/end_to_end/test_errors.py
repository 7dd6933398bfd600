"""Whatever a user gets wrong is answered by a sentence with its place and its remedy, and by the right exit code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.end_to_end.terminal import Call, assert_fault

ERROR, USAGE, SOME_FAILED = 1, 2, 3
IT_WAS = ("--templates", "mood/it_was")
ASKED = ("--template", "{{ text }} It was {{ mask }}.", "--verbalizer", "bad=terrible,good=great")
TRIED = ("--template", "{{ text }} It was {{ mask }}.", "--labels", "bad=terrible,good=great")


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["rn"], USAGE, ["'rn'", "Did you mean 'run'?", "`promptlab --help`"]),
        (["run", "--tsks", "x"], USAGE, ["--tsks", "--tasks", "`promptlab run --help`"]),
        (["run", "extra"], USAGE, ["extra", "`promptlab run --help`"]),
        (["run", "--tasks"], USAGE, ["'--tasks' requires an argument", "`promptlab run --help`"]),
        (["run", "--quiet=3"], USAGE, ["'--quiet' does not take a value"]),
        (["run", "--tasks", ","], USAGE, ["--tasks: name at least one."]),
        (["run", "--config", "no.yaml"], USAGE, ["--config no.yaml: there is no such file."]),
        (["run", "--include", "nowhere"], USAGE, ["--include nowhere: there is no such folder."]),
        (["run", "--data", "nowhere"], USAGE, ["--data nowhere: there is no such folder."]),
        (["run", "--model", "mini,promptlab/mini"], USAGE, ["has the same weights and tokenizer as 'mini'"]),
        (["run", "--revision", "main"], USAGE, ["--revision main: model 'mini' is a folder", "only hub models"]),
        (["ls", "task"], USAGE, ["ls task: there is no such kind. Did you mean 'tasks'?", "Known: tasks, templates"]),
        (["ls", "tasks", "--output", "xml"], USAGE, ["--output xml: write text, json or names."]),
        (["ls", "--output", "names"], USAGE, ["--output names: say of which kind, as in `promptlab ls templates"]),
        (["ls", "templates", "sentimnt/*"], USAGE, ["no template matches 'sentimnt/*'.", "`promptlab ls templates`"]),
        (["ls", "templates", "it_wsa"], USAGE, ["template 'it_wsa' is unknown. Did you mean 'it_was'?"]),
        (["ls", "templates", "--task", "subjj"], USAGE, ["task 'subjj' is unknown. Did you mean 'subj'?"]),
        (["ls", "templates", "--tag", "nul"], USAGE, ["--tag nul: no templates have it. Did you mean 'null'?"]),
        (["ls", "templates", "--field", "txt"], USAGE, ["--field txt: no templates have it. Did you mean 'text'?"]),
        (["ls", "tasks", "--language", "eng"], USAGE, ["--language eng: no tasks have it. Did you mean 'en'?"]),
        (["ls", "tasks", "--label", "positiv"], USAGE, ["--label positiv: no tasks have it. Did you mean 'positive'?"]),
        (["ls", "tasks", "--tag", "null"], USAGE, ["--tag: only templates have tags."]),
        (["ls", "tasks", "--task", "sst2"], USAGE, ["--task: only templates, verbalizers apply to a task."]),
        (["ls", "tasks", "--include", "nowhere"], USAGE, ["--include nowhere: there is no such folder."]),
        (["show"], USAGE, ["Missing argument 'NAME'", "`promptlab show --help`"]),
        (
            ["show", "subjj"],
            USAGE,
            ["'subjj' is unknown. Did you mean 'subj'?", "`promptlab ls` counts what there is."],
        ),
        (["show", "null"], USAGE, ["'null' is one of several: template acceptability/null", "Give the whole name."]),
        (["show", "sst2", "--kind", "tasks"], USAGE, ["--kind tasks: there is no such kind. Did you mean 'task'?"]),
        (["show", "sst2", "--output", "names"], USAGE, ["--output names: write text or json."]),
        (["show", "{{ text }}"], ERROR, ["has no {{ mask }}: there is nothing to predict."]),
        (["schema", "taks"], USAGE, ["schema taks: there is no such file. Did you mean 'task'?"]),
        (["ls", "tasks", "--family", "sentimnt"], USAGE, ["Did you mean 'sentiment'?", "Known: acceptability, "]),
        (["ls", "models", "--family", "nli"], USAGE, ["only tasks, templates, verbalizers have families"]),
        (
            ["run", "--rows", "a.csv", "--limit", "3", "--limit=4"],
            USAGE,
            ["--limit takes one value and is given '3' and '4'."],
        ),
        (
            ["run", "--rows", "a.csv", "--text-column", "a", "--text_column", "b"],
            USAGE,
            ["--text-column takes one value and is"],
        ),
        (["run", "--rows", "a.csv"], USAGE, ["name --templates and --verbalizers, or a --family (acceptability, "]),
        (
            ["run", "--rows", "a.csv", "--family", "nli"],
            USAGE,
            ["several sets of labels (", "name one set by --labels"],
        ),
        (["run", "--rows", "a.csv", "--family", "sentimnt"], USAGE, ["'sentimnt'. Did you mean 'sentiment'?"]),
        (["preview", "--rows", "0"], USAGE, ["'--rows'", "greater than or equal to 1"]),
        (["preview", "--templates", "it_wass"], USAGE, ["template 'it_wass' is unknown. Did you mean 'it_was'?"]),
        (["doctor", "--dtype", "int8"], USAGE, ["--dtype int8: choose one of float32, bfloat16, float16."]),
        (["doctor", "--output", "xml"], USAGE, ["--output xml: write text or json."]),
        (["ls", "\udcff"], USAGE, [r"'\udcff' is not UTF-8 text."]),
        (["report"], USAGE, ["Missing argument 'RUN'", "`promptlab report --help`"]),
        (["report", "nowhere"], ERROR, ["nowhere: there is no such run folder", "--output-path"]),
        (["report", "."], ERROR, [".: holds no finished run", "The command of a run"]),
        (["rescore"], USAGE, ["Missing argument 'RUN'", "`promptlab rescore --help`"]),
        (["rescore", "x"], USAGE, ["rescore: name what is to be added with --verbalizers, --calibrations, --metrics"]),
        (["rescore", "nowhere", "--metrics", "brier"], ERROR, ["nowhere: there is no such run folder."]),
        (["rescore", ".", "--metrics", "brier"], ERROR, [".: holds no finished run."]),
        (["rescore", ".", "--metrics", "brier", "--output", "csv"], USAGE, ["--output csv: write text or json."]),
        (["compare"], USAGE, ["Missing argument 'RUN'", "`promptlab compare --help`"]),
        (["compare", "one"], USAGE, ["Missing argument 'RUN'"]),
        (["compare", "one", "other"], ERROR, ["one: there is no such run folder."]),
        (["compare", "a", "b", "--output", "html"], USAGE, ["--output html: write text, json or csv."]),
        (
            ["compare", "a", "b", *["--template", "x"] * 3],
            USAGE,
            ["--template: give it once, or twice", "found 3 values"],
        ),
        (["predict"], USAGE, ["Missing argument 'FILE'", "`promptlab predict --help`"]),
        (["predict", "a.csv"], USAGE, ["Missing option '--template'"]),
        (["predict", "a.csv", *ASKED[:2]], USAGE, ["Missing option '--verbalizer'"]),
        (["predict", "b.csv", *ASKED], ERROR, ["b.csv: there is no such file. Did you mean 'a.csv'?"]),
        (["predict", "a.csv", *ASKED, "--output", "json"], USAGE, ["--output json: write csv or jsonl."]),
        (["predict", "a.csv", *ASKED, "-o", "a.txt"], USAGE, ["--output-path a.txt: must end in .csv or .jsonl"]),
        (["predict", "a.csv", *ASKED, "--format", "csv"], USAGE, ["--format csv: is for standard input"]),
        (["predict", "a.csv", *ASKED, "--field", "who"], USAGE, ["--field: write name=value, found 'who'."]),
        (["predict", "a.csv", *ASKED, "--text-column", "txt"], USAGE, ["'txt' is missing. Did you mean 'text'?"]),
        (
            ["predict", "a.csv", *ASKED, "--calibration", "batch"],
            USAGE,
            ["needs all rows at once", "`promptlab run --row"],
        ),
        (["predict", "a.csv", *ASKED, "--calibration", "batsch"], USAGE, ["Did you mean 'batch'?"]),
        (["predict", "a.csv", *ASKED, "--dtype", "int8"], USAGE, ["--dtype int8: choose one of float32, bfloat16"]),
        (["predict", "a.csv", *ASKED, "--max-length", "2"], USAGE, ["'--max-length'", "greater than or equal to 4"]),
        (
            ["predict", "a.csv", *ASKED, "--prefix", "a", "--prefix", "b"],
            USAGE,
            ["--prefix takes one value and is given 'a' and 'b'."],
        ),
        (["try"], USAGE, ["Missing option '--template'", "`promptlab try --help`"]),
        (["try", *TRIED], USAGE, ["try: give the text by --text TEXT, or the template's fields by --field name=text."]),
        (
            ["try", *TRIED, "--text", "x", "--field", "text=y"],
            USAGE,
            ["--field text=y: the field 'text' is given twice."],
        ),
        (["try", *TRIED, "--field", "x"], USAGE, ["--field x: write field=text."]),
        (
            ["try", *TRIED, "--field", "txt=x"],
            ERROR,
            ["field 'text' is unknown in what was given. Did you mean 'txt'?"],
        ),
        (["try", *TRIED, "--text", "x", "--output", "csv"], USAGE, ["--output csv: write text or json."]),
        (
            ["try", *TRIED, "--text", "x", "--device", "gpu"],
            USAGE,
            ["--device gpu: write auto, cpu, cuda, cuda:N or mps."],
        ),
        (["try", *TRIED[:2], "--labels", "a=great", "--text", "x"], ERROR, ["labels: needs at least 2, found 1."]),
        (
            ["try", *TRIED[:2], "--labels", "a=zzzqqq,b=bad", "--text", "x"],
            ERROR,
            ["label word 'zzzqqq' splits into"],
        ),
        (["convert", "."], USAGE, ["'--output-path'", "`promptlab convert --help`"]),
        (["convert", ".", "-o", "there"], ERROR, ["has no pytorch_model.bin to convert"]),
    ],
)
def test_a_command_that_cannot_be_understood(call: Call, arguments: list[str], code: int, parts: list[str]) -> None:
    """Commands, flags, their values and their names are refused before anything is done."""
    Path("a.csv").write_text("text\na fine day\n", encoding="utf-8")
    assert_fault(call(*arguments), code, *parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--device", "gpu"], ["--device gpu: write auto, cpu, cuda, cuda:N or mps."]),
        (["--device", "cuda:99"], ["--device cuda:99: this machine has"]),
        (["--dtype", "float8"], ["--dtype: choose one of float32, bfloat16, float16, found 'float8'."]),
        (["--limit", "0"], ["--limit: write a whole number from 1, or first:N", "found '0'."]),
        (["--limit", "first:none"], ["--limit: write a whole number from 1", "found 'first:none'."]),
        (["--batch-size", "0"], ["--batch-size: write auto or a whole number from 1, found '0'."]),
        (["--batch-size", "big"], ["--batch-size: write auto or a whole number from 1, found 'big'."]),
        (["--max-length", "3"], ["--max-length: write a whole number from 4, found '3'."]),
        (["--max-length", "65"], ["--max-length 65: model", "reads at most 64 tokens."]),
        (["--seed", "-1"], ["--seed: write a whole number from 0, found '-1'."]),
        (["--seed", "one"], ["--seed: write a whole number from 0, found 'one'."]),
        (["--name", "../up"], ["--name: write letters, digits,", "no '/', found '../up'."]),
        (["--seed", "x", "--limit", "y"], ["--limit: write", "--seed: write"]),
        (["--calibrations", "contextul"], ["calibration 'contextul' is unknown. Did you mean 'contextual'?", "Known:"]),
        (["--templates", "it_wsa"], ["template 'it_wsa' is unknown.", "`promptlab ls templates` lists them."]),
        (["--templates", "nothing/*"], ["no template matches 'nothing/*'. `promptlab ls templates`"]),
        (
            ["--templates", "it_was"],
            ["'it_was' is one of several: mood/it_was, sentiment/it_was. Give the whole name."],
        ),
        (["--templates", "sentiment/it_was"], ["'sentiment/it_was' is of family 'sentiment'", "moods (mood)"]),
        (["--templates", "./none.jinja"], ["./none.jinja: there is no such template file."]),
        (["--verbalizers", "mood/yes_not"], ["Did you mean 'mood/yes_no'?", "`promptlab ls verbalizers`"]),
        (["--verbalizers", "bad=,good=x"], ["write label=word|word,label=word, found 'bad='."]),
        (["--verbalizers", "bad=no,bad=nope"], ["label 'bad' stands twice."]),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_value_that_no_run_can_have(run: Call, arguments: list[str], parts: list[str], more: list[str]) -> None:
    """Flag values and names are checked by a run and by a dry run alike, and nothing is written."""
    assert_fault(run(*arguments, *more), USAGE, *parts)
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--templates", "{{ text }} It was."], [":1 has no {{ mask }}: there is nothing to predict."]),
        (["--templates", "{{ txt }} {{ mask }}"], ["field 'txt' is unknown in task 'moods'. Did you mean 'text'?"]),
        (["--templates", "{{ text | shortn }} {{ mask }}"], ["filter 'shortn' is unknown. Did you mean 'shorten'?"]),
        (["--templates", "{{ text }} {{ mask"], [":1 is not valid Jinja:"]),
        (
            ["--templates", "{{ text }} {{ mask }} {{ mask }}"],
            ["has 2 masks, and no verbalizer that was"],
        ),
        (["--verbalizers", "bad=terrible"], ["verbalizer inline:1 labels: needs at least 2, found 1."]),
        (
            ["--verbalizers", "bad=no,god=yes"],
            ["misses 'good' and has 'god'", "the labels of task 'moods' are bad, good."],
        ),
        (["--verbalizers", "bad=yes,good=yes"], ["the word 'yes' stands for both 'bad' and 'good'."]),
        (["--verbalizers", "bad=Yes,good=yes"], ["'Yes' of label 'bad' and 'yes' of label 'good' are the same token"]),
        (
            ["--verbalizers", "bad=unbelievable,good=yes"],
            ["label word 'unbelievable' splits into", "use a word that is"],
        ),
        (["--verbalizers", "bad=☃,good=yes"], ["label word '☃' is unknown to the tokenizer"]),
        (["--split", "tset"], ["task 'moods' has no split 'tset'. Did you mean 'test'? It has: train, test, empty."]),
        (["--split", "empty"], ["task 'moods': ", "moods/empty.jsonl: has no rows: write one object {...} a line."]),
    ],
)
def test_content_that_cannot_be_scored(run: Call, arguments: list[str], parts: list[str]) -> None:
    """Templates, label words and rows are refused before any forward pass, with exit code 1."""
    assert_fault(run(*IT_WAS, *arguments) if "--templates" not in arguments else run(*arguments), ERROR, *parts)


def test_rows_without_any_data_folder_say_which_flag_names_it(call: Call, moods: Path, tiny: dict[str, Path]) -> None:
    """A local task without --data names the flag and the variable."""
    said = call("run", "--tasks", "moods", "--include", moods, "--model", tiny["bert"])
    assert_fault(said, ERROR, "task 'moods': no rows found.", "--data DIR or PROMPTLAB_DATA")


@pytest.mark.parametrize("model", ["nowhere/none", "/nowhere", "./nowhere"])
def test_an_unknown_model(run: Call, model: str) -> None:
    """A name that is neither a folder nor on the hub is a usage fault."""
    assert_fault(run(model=model), USAGE, f"model '{model}'")


def test_a_folder_that_is_no_checkpoint(run: Call, moods: Path, tiny: dict[str, Path], tmp_path: Path) -> None:
    """What is missing is named; pickled weights come with the command that converts them."""
    assert_fault(run(model=moods), ERROR, "has no config.json, so it is no checkpoint of transformers.")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for path in tiny["bert"].iterdir():
        if path.suffix != ".safetensors":
            (pickled / path.name).write_bytes(path.read_bytes())
    (pickled / "pytorch_model.bin").write_bytes(b"")
    assert_fault(run(model=pickled), ERROR, "only pickled weights", f"promptlab convert {pickled} --output-path")


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        (
            "verbalizers/mood/new.yaml",
            "labels:\n  bad: [no]\n  bad: [nope]\n  good: [yes]\n",
            ["new.yaml:3 labels.bad: the key stands twice, first on line 2."],
        ),
        (
            "verbalizers/mood/new.yaml",
            "labels:\n  bad: [no]\n  great: [yes]\npol: max\n",
            ["new.yaml:4 pol: unknown key. Did you mean 'pool'?"],
        ),
        ("verbalizers/mood/new.yaml", "labels: {bad: [no], great: [yes]}\n", ["new.yaml misses 'good'"]),
        ("templates/mood/new.jinja", "---\ntags: [fine]\n---\n{{ mask }}\n", ["new.jinja:2 tags.0: "]),
        ("templates/mood/new.jinja", "---\nfields: [text]\n---\n{{ txt }}\n{{ mask }}\n", ["new.jinja:4 ", "'txt'"]),
    ],
)
def test_a_file_of_the_users_own_with_a_fault(run: Call, moods: Path, name: str, text: str, parts: list[str]) -> None:
    """The fault names the file, the line and the key."""
    (moods / name).write_text(text, encoding="utf-8")
    kind = name.partition("/")[0]
    assert_fault(run(*([] if kind == "templates" else IT_WAS), f"--{kind}", "mood/new"), ERROR, *parts)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ('{"sentence": ', [":13: is not valid JSON"]),
        ('["a list"]', [":13: must be an object"]),
        ('{"sentenc": "x", "label": 1}', [":13 field 'text': column 'sentence' is missing. Did you mean 'sentenc'?"]),
        ('{"sentence": "x"}', [":13: label column 'label' is missing. Columns: sentence."]),
        ('{"sentence": "x", "label": 7}', [":13: label 7 (1 row) is unknown to task 'moods'. Known: 0, 1. Map it"]),
    ],
)
def test_a_broken_row(run: Call, moods: Path, row: str, parts: list[str]) -> None:
    """File and line are named; nothing is dropped in silence."""
    with (moods / "data/moods/test.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(row + "\n")
    assert_fault(run(*IT_WAS), ERROR, "data/moods/test.jsonl", *parts)


@pytest.mark.parametrize(
    ("metric", "parts"),
    [
        ("macro_f2", ["metric 'macro_f2' is unknown. Did you mean 'macro_f1'?", "Known: accuracy, "]),
        ("f1", ["metric 'f1' needs a label in parentheses, such as f1(bad). Labels: bad, good."]),
        ("f1(god)", ["there is no label 'god'. Did you mean 'good'? Labels: bad, good."]),
    ],
)
def test_a_wrong_metric_is_refused_before_scoring(run: Call, moods: Path, metric: str, parts: list[str]) -> None:
    """The task's file is named, and no forward pass is spent."""
    path = moods / "tasks/moods.yaml"
    path.write_text(path.read_text(encoding="utf-8") + f"metrics: [{metric}]\n", encoding="utf-8")
    assert_fault(run(*IT_WAS), ERROR, "tasks/moods.yaml metrics: ", *parts)
    assert not Path("results").exists()


def test_all_faults_of_a_config_come_at_once_with_their_lines(run: Call) -> None:
    """Four faults, four lines; a duplicate key and a list have sentences of their own."""
    config = Path("run.yaml")
    config.write_text("limt: 4\nseed: -2\nbatch_size: lots\ntasks: 5\n", encoding="utf-8")
    parts = [
        "run.yaml:1 limt: unknown key. Did you mean 'limit'?",
        "run.yaml:2 seed: write a whole number from 0, found -2.",
        "run.yaml:3 batch_size: write auto or a whole number from 1, found 'lots'.",
        "run.yaml:4 tasks: each must be a name, a glob, a path or a text, found 5.",
    ]
    assert_fault(run("--config", config), ERROR, *parts)
    config.write_text("seed: 1\nseed: 2\n", encoding="utf-8")
    assert_fault(run("--config", config), ERROR, "run.yaml:2 seed: the key stands twice, first on line 1.")
    config.write_text("- tasks\n", encoding="utf-8")
    assert_fault(run("--config", config), ERROR, "run.yaml:1 must hold keys and values, found a list.")


def test_an_output_folder_that_cannot_be_written(run: Call) -> None:
    """The folder and the flag are named, before any forward pass."""
    Path("file").write_text("in the way", encoding="utf-8")
    said = run(*IT_WAS, "--name", "n", "-o", "file/below")
    assert_fault(said, ERROR, "file/below/n: cannot be written: Not a directory.", "--output-path")
    assert "scoring" not in said.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_without_permission(run: Call) -> None:
    """A folder that belongs to somebody else is refused like one that cannot be."""
    Path("theirs").mkdir(mode=0o500)
    assert_fault(run(*IT_WAS, "-o", "theirs"), ERROR, "Permission denied", "--output-path")


def test_a_task_without_rows_does_not_keep_the_others_from_being_scored(run: Call, moods: Path) -> None:
    """Exit code 3: the others are stored, what failed is named at the start, at the end and in the manifest."""
    import json

    second = (moods / "tasks/moods.yaml").read_text(encoding="utf-8").replace("local: moods", "local: absent")
    (moods / "tasks/absent.yaml").write_text(second, encoding="utf-8")
    said = run(*IT_WAS, "--name", "some", tasks="moods,absent")
    assert_fault(said, SOME_FAILED, "1 of 2 tasks cannot be scored, the others are stored:", "task 'absent': no rows")
    assert said.err.startswith("left out: task 'absent': no rows found.")
    stored = json.loads(Path("results/some/results.json").read_text(encoding="utf-8"))
    manifest = json.loads(Path("results/some/manifest.json").read_text(encoding="utf-8"))
    assert {cell["task"] for cell in stored["cells"]} == {"moods"}
    assert list(manifest["failures"]) == ["absent"]
    dry = run(*IT_WAS, "--dry-run", tasks="moods,absent")
    assert_fault(dry, SOME_FAILED, "1 of 2 tasks cannot be scored, the others are planned:")


def test_words_that_only_a_glob_asked_for_are_skipped_in_the_open(run: Call, moods: Path) -> None:
    """A verbalizer that a glob found and the tokenizer splits costs its cells, not the run: exit code 0."""
    import json

    (moods / "verbalizers/mood/long.yaml").write_text("labels: {bad: [abysmally], good: [yes]}\n", encoding="utf-8")
    said = run(*IT_WAS, "--verbalizers", "mood/*", "--name", "skips")
    assert said.code == 0
    assert "skipped 2 of 6 cells" in said.out
    cells = json.loads(Path("results/skips/results.json").read_text(encoding="utf-8"))["cells"]
    assert {cell["verbalizer"] for cell in cells if cell["skipped"]} == {"mood/long"}


def test_a_run_in_which_no_row_fits_counts_every_row(run: Call) -> None:
    """Rows whose template alone is too long are unscored and wrong, not lost, and not a crash."""
    import json

    said = run(*IT_WAS, "--max-length", 5, "--name", "short")
    assert said.code == 0
    cells = json.loads(Path("results/short/results.json").read_text(encoding="utf-8"))["cells"]
    plain = [cell for cell in cells if cell["calibration"] == "none"]
    assert {(cell["num_unscored"], cell["metrics"]["accuracy"]["value"]) for cell in plain} == {(12, 0.0)}
    reason = "calibration 'contextual' has no prompt that can be scored: the text that must not be cut is longer than"
    assert all(reason in cell["skipped"] for cell in cells if cell["calibration"] == "contextual")
