import pytest
import torch
from builders import small_learner, step_of, two_views

from scanlearn.errors import ScanlearnError

TURNS = torch.tensor([3, 0, 1, 2])


@pytest.fixture
def step():
    return step_of(
        small_learner({"restore": {"view": "query", "target": "key"}}), {**two_views(4), "query.quarter_turns": TURNS}
    )


def test_a_target_is_what_the_view_handed_on(step):
    assert step.target("query", "quarter_turns") is TURNS


@pytest.mark.parametrize(
    ("view", "name", "message"),
    [
        ("key", "quarter_turns", "The view 'key' has no target 'quarter_turns': add the op labelled_turns to its ops"),
        ("quary", "quarter_turns", "There is no view 'quary'; did you mean 'query'"),
        ("query", "quarter_turn", "There is no target 'quarter_turn'; did you mean 'quarter_turns'"),
    ],
)
def test_a_target_that_no_op_makes_is_refused_with_the_op_to_add(step, view, name, message):
    with pytest.raises(ScanlearnError, match=message):
        step.target(view, name)
