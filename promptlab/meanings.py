"""What each key of a data file, each field of a result and each named file means, in one sentence.

The names come from the code and the meanings from here; a test holds that both list the same names.
"""

from __future__ import annotations

from collections.abc import Mapping

TASK: Mapping[str, str] = {
    "title": "What a reader calls the task.",
    "family": "Which templates and verbalizers speak about it.",
    "kind": "What is predicted; classification is the one kind so far.",
    "labels": "Our names of the classes, in order.",
    "sources": "Where rows come from; the first source that is there is read.",
    "metrics": "What is measured; the first one is the headline. `f1(LABEL)` names one of the labels.",
    "language": "Language of the texts, such as `en`.",
    "license": "Licence of the rows, in words.",
    "citation": "Who made the dataset.",
    "homepage": "Where the dataset is described.",
    "notes": "What a reader of figures should know.",
    "version": "Counts up when the same name stands for other rows or labels.",
}
SOURCE: Mapping[str, str] = {
    "local": "A folder under `--data` that holds `<split>.jsonl`, `.csv`, `.parquet`, `.json`, `.tsv` or `.txt`.",
    "bundled": "A folder beside the task file that ships with its rows.",
    "files": "Our name of a split and the file that holds it, relative to the folder of the task file.",
    "hub": "A dataset of the hub.",
    "splits": "Our name of a split (`train`, `validation`, `test`) and the source's name of it; not with `files`.",
    "fields": "A field of the templates, and the column or Jinja expression over the row that fills it.",
    "label": "Where the gold label stands; left out where there is none.",
}
HUB_SOURCE: Mapping[str, str] = {
    "path": "Name of the dataset on the hub.",
    "name": "Its configuration, where it has several.",
    "revision": "The commit that is read.",
    "verified": "Whether somebody has looked at revision, columns and label values.",
}
LABEL_COLUMN: Mapping[str, str] = {
    "column": "The column of the gold label.",
    "values": "Raw value to label; the raw value itself is the label where this is left out.",
}
TEMPLATE: Mapping[str, str] = {
    "fields": "Fields that the text may read; a misspelt one is then a fault of the file.",
    "tags": "What the template is for: `instructive`, or a control.",
    "domain_prompt": "The text without a row, which the calibration `pmi_dc` compares with.",
    "pieces": "How the text is cut before it is tokenised: not at all, or as the programs of LM-BFF or PET do.",
    "reference": "Where it was published.",
    "notes": "What a reader should know.",
}
VERBALIZER: Mapping[str, str] = {
    "labels": "Label to a word, a list of words, or words with weights; for k masks a word is a list of k words.",
    "pool": "How the words of one label become one score.",
    "multi_token": "How a word of several tokens is scored; `refuse` refuses it.",
    "normalize": "Whether the log-probabilities of the tokens of a word are summed or averaged.",
    "reference": "Where it was published.",
    "notes": "What a reader should know.",
}
RUN: Mapping[str, str] = {
    "models": "Bundled names, folders or hub names; the flag is `--model`.",
    "revision": "Branch, tag or commit of a hub model.",
    "tasks": "Names, globs or paths.",
    "templates": "Names, globs, paths, or the text itself.",
    "verbalizers": "Names, globs, paths, `label=word,label=word`, or a mapping; `@max` or `@left_to_right` behind one "
    "takes that pool or rule.",
    "calibrations": "Names or globs of calibrations, `none` among them.",
    "prepare": "Calibrations whose prompts are scored too, so that `rescore` can apply them later.",
    "ensembles": "Name to the templates whose probabilities are averaged; a glob takes instructive ones; `--ensemble`.",
    "metrics": "Metrics beside those of the tasks, such as `brier` or `f1(spam)`.",
    "rows": "A file of rows that no task describes.",
    "train_rows": "With `rows`: train rows with the same columns, for the calibrations `domain` and `support`.",
    "text_column": "With `rows`: the column that templates call `text`.",
    "fields": "With `rows`: field of the templates to column; without it every column is one. The flag is `--field`.",
    "label_column": "With `rows`: the column of the gold label; left out where there is none.",
    "label_values": "With `rows`: raw value of that column to label.",
    "labels": "With `rows`: the labels, in order; default: those of the verbalizers.",
    "family": "With `rows`: the family whose templates and verbalizers fit.",
    "data": "The folder that local sources lie in; default: `PROMPTLAB_DATA`.",
    "include": "Folders with `tasks/`, `templates/` and `verbalizers/` of your own.",
    "split": "The split that is scored.",
    "limit": "A number of rows, seeded and stratified, or `first:N`.",
    "max_length": "Most tokens of a prompt; default: the model's limit, at most 512.",
    "device": "`auto`, `cpu`, `cuda`, `cuda:N` or `mps`.",
    "dtype": "The dtype of the weights.",
    "scoring": "`mask`, or `replaced_token`: how original a detector finds each word in its place.",
    "batch_size": "`auto`, which is a budget of tokens, or a number of prompts.",
    "seed": "The one seed; everything random derives from it.",
    "output_path": "The folder that runs go into.",
    "name": "Name of the run's folder; default: made of the models and the plan.",
    "no_text": "Note in the manifest that no text of rows may be shown.",
    "store_states": "Keep the last states at masks, so that `rescore` can score words that come later.",
    "skip_preflight": "Score without looking first whether the model can be scored.",
}
RESULT: Mapping[str, str] = {
    "cell": "Id of the cell.",
    "block": "Id of the block that was read.",
    "model": "The model as it was asked for.",
    "task": "Name of the task.",
    "family": "Family of the task.",
    "split": "The split that was scored.",
    "template": "Name of the template.",
    "template_tags": "Its tags.",
    "verbalizer": "Name of the verbalizer.",
    "pool": "How it pools the words of a label.",
    "calibration": "Name of the calibration.",
    "labels": "The labels, in order.",
    "num_rows": "Rows of the split after `--limit`; unscored ones are among them.",
    "num_unscored": "Rows that could not be scored.",
    "num_truncated": "Rows of which some tokens were cut.",
    "num_near_ties": "Scored rows whose two best labels are within 1e-4 in log-probability.",
    "mass": "Mean over scored rows of the probability that all label words have together; null where they have none.",
    "prior": "Label to mean probability over the content-free texts, before calibration.",
    "predicted": "Label to number of rows that got it; `none` counts unscored rows.",
    "metrics": "Metric to value and interval; empty where rows have no gold labels.",
    "skipped": "Why nothing was decided, or null.",
    "num_calibration_prompts": "Prompts that the prior of the calibration was estimated from.",
    "members": "Ids of the cells that an ensemble averages; empty for a template.",
    "samples": "The file under `samples/` that has the decisions row by row; empty where nothing was decided.",
    "scoring": "`mask`, or `replaced_token` where a detector judged the words in place.",
    "multi_token": "The rule for words of several tokens.",
    "normalize": "Whether the log-probabilities of the tokens of a word were summed or averaged.",
    "num_tokens": "Label to the number of tokens of each of its words; empty where all are one token.",
}
METRIC_VALUE: Mapping[str, str] = {
    "value": "The metric on all rows.",
    "low": "Lower end of the interval.",
    "high": "Upper end of the interval.",
    "interval": "How the interval was made: `wilson`, `t`, `bootstrap`, or `bootstrap, approximate`.",
    "confidence": "Its two-sided confidence.",
    "higher_is_better": "Which way is good.",
}
AGREEMENT: Mapping[str, str] = {
    "model": "The model as it was asked for.",
    "task": "Name of the task.",
    "split": "The split that was scored.",
    "verbalizer": "Name of the verbalizer.",
    "calibration": "Name of the calibration.",
    "num_templates": "Instructive templates that were decided with both.",
    "num_rows": "Rows on which they are compared; unscored ones are among them and agree with nothing.",
    "value": "Mean over rows of the share of pairs of templates that predict the same label.",
    "low": "Lower end of the interval.",
    "high": "Upper end of the interval.",
    "interval": "How the interval was made: `t`, over rows.",
    "confidence": "Its two-sided confidence.",
}
BASELINE: Mapping[str, str] = {
    "task": "Name of the task.",
    "split": "The split that was scored.",
    "name": "`uniform`, `majority_train` or `majority_test`.",
    "metrics": "Metric to value.",
    "note": "What it does, in words.",
}
