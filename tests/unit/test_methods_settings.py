"""What a user says about hyper-parameters."""

from __future__ import annotations

import pytest

from promptlab.errors import UsageError
from promptlab.methods.lora import Lora
from promptlab.methods.prompt_fine_tune import PromptFineTune
from promptlab.methods.settings import amended_grid, check_settings
from promptlab.methods.soft_prompt import SoftPrompt

METHODS = (SoftPrompt(), PromptFineTune())


def test_a_value_holds_for_every_setting() -> None:
    """The grid is otherwise the method's own."""
    grid = amended_grid(SoftPrompt(), {"steps": "7"})
    assert [7] * len(SoftPrompt().grid()) == [setting.steps for setting in grid]
    assert [one.learning_rate for one in SoftPrompt().grid()] == [one.learning_rate for one in grid]


def test_several_values_take_the_place_of_the_methods_own() -> None:
    """Each is tried once, in the order that was given."""
    grid = amended_grid(SoftPrompt(), {"soft_prompt.learning_rate": "0.5|0.25", "start": "random|words"})
    expected = [(0.5, "random"), (0.5, "words"), (0.25, "random"), (0.25, "words")]
    assert expected == [(one.learning_rate, one.options["start"]) for one in grid]


def test_an_option_that_no_setting_of_the_grid_names_can_be_said() -> None:
    """`lora.rank` holds for every setting; targets are several names that are one value."""
    grid = amended_grid(Lora(), {"lora.rank": "4", "lora.learning_rate": "0.1", "lora.targets": "query+key|value"})
    assert [(4, ("query", "key")), (4, ("value",))] == [(one.options["rank"], one.options["targets"]) for one in grid]


def test_what_is_said_of_another_method_changes_nothing() -> None:
    """`soft_prompt.steps` is not prompt fine-tuning's."""
    assert PromptFineTune().grid() == amended_grid(PromptFineTune(), {"soft_prompt.steps": "7"})


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"stepps": "3"},
            "--setting stepps: 'stepps' is no setting. Did you mean 'steps'? Known: learning_rate,",
        ),
        (
            {"lora.steps": "3"},
            "--setting lora.steps: method 'lora' is not among --methods soft_prompt,",
        ),
        ({"steps": "many"}, "--setting steps=many: method 'soft_prompt' needs a whole number."),
        ({"steps": "0"}, "--setting steps=0: write a whole number from 1."),
        ({"dropout": "perhaps"}, "--setting dropout=perhaps: method 'soft_prompt' needs true or false."),
        ({"learning_rate": "-1"}, "--setting learning_rate=-1: method 'soft_prompt' needs a number from 0."),
        (
            {"schedule": "steep"},
            "--setting schedule=steep: method 'soft_prompt' needs one of linear, cosine,",
        ),
        ({"prompt_fine_tune.start": "words"}, "--setting prompt_fine_tune.start: 'start' is no setting."),
    ],
)
def test_faults_are_named(said: dict[str, str], message: str) -> None:
    """What is wrong and what is allowed."""
    with pytest.raises(UsageError) as fault:
        check_settings(METHODS, said)
    assert str(fault.value).startswith(message)
