import numpy as np
import pytest

from scanlearn.study.statistics import case_runs, compare_all, correct, verdict, verdict_sentence
from scanlearn.study.statistics.compare import facts_of
from scanlearn.study.statistics.two_way import TwoWay


def comparison(a, b, mean_a, mean_b, error=0.01, seeds=5, patients=120, **more):
    way = TwoWay(mean_a - mean_b, error**2 / 2 if seeds > 1 else 0.0, error**2 / 2, seeds, patients)
    return {"a": a, "b": b, "mean_a": mean_a, "mean_b": mean_b, **facts_of(way), "seeds_matter": True, **more}


def three(moco, genesis, scratch, **more):
    return [
        comparison("scratch", "moco_v2", scratch, moco, **more),
        comparison("scratch", "genesis", scratch, genesis, **more),
        comparison("moco_v2", "genesis", moco, genesis, **more),
    ]


def test_the_winner_of_two():
    found = verdict([comparison("scratch", "moco_v2", 0.800, 0.841)], 100, "AUROC")
    assert found.winner == found.best == "moco_v2" and found.beaten == ["scratch"] and found.reasons == []
    assert found.against["scratch"]["difference"]["value"] == pytest.approx(0.041)
    assert verdict_sentence(found) == (
        "With 100 labels, moco_v2 beats scratch by 0.041 AUROC (95 % interval 0.017 to 0.065; p = 0.006)."
    )


def test_the_winner_beats_every_other_method_after_correction():
    found = verdict(three(0.9, 0.84, 0.8), 1000, "Dice")
    assert found.winner == "moco_v2" and found.beaten == ["genesis", "scratch"]
    sentence = verdict_sentence(found)
    assert sentence.startswith("With 1,000 labels, moco_v2 beats genesis by 0.060 Dice (95 % interval")
    assert "and scratch by 0.100" in sentence and sentence.count("after Holm over 3 comparisons") == 2


def test_two_good_methods_share_the_place_and_no_winner_is_called():
    found = verdict(three(0.9, 0.895, 0.8), "all", "Dice")
    assert found.winner is None and found.tied == ["genesis"] and found.beaten == ["scratch"]
    sentence = verdict_sentence(found)
    assert sentence.startswith("With all labels no single method can be called best: moco_v2 has the best mean Dice")
    assert "not told apart from genesis" in sentence and "it beats scratch by 0.100" in sentence


def test_where_nothing_is_shown_the_sentence_says_what_could_have_been():
    found = verdict(three(0.81, 0.805, 0.8), 50, "AUROC")
    assert found.winner is None and found.tied == ["genesis", "scratch"] and found.reasons == ["not shown"]
    expected = TwoWay(0.0, 0.01**2 / 2, 0.01**2 / 2, 5, 120).smallest_shown(0.05 / 3)
    assert found.smallest_shown == pytest.approx(expected) and expected > 0.03
    sentence = verdict_sentence(found)
    assert sentence.startswith("With 50 labels no method can be called better: moco_v2 has the best mean AUROC (0.810)")
    assert f"5 seeds and 120 patients like these would show a difference of {expected:.3f} in four of five" in sentence
    assert "−0." in sentence and "beats" not in sentence


def test_a_difference_that_the_correction_takes_back_wins_nothing():
    found = verdict(three(0.827, 0.7995, 0.8), 50, "AUROC")
    assert 0.017 < min(c["p"] for c in found.against.values()) < 0.05
    assert found.winner is None and "correction" in found.reasons
    assert "does not hold against the number of comparisons" in verdict_sentence(found)


def test_only_the_leads_that_the_correction_takes_back_are_named():
    found = verdict(three(0.827, 0.826, 0.8), 50, "AUROC")
    assert (
        found.against["genesis"]["p"] > 0.9
        and found.against["scratch"]["p"] < 0.05 < found.against["scratch"]["p_holm"]
    )
    assert "; that it leads scratch does not hold against the number of comparisons;" in verdict_sentence(found)


def test_a_wider_family_counts():
    pair = comparison("scratch", "moco_v2", 0.8, 0.83)
    assert verdict([pair], 100, "AUROC").winner == "moco_v2"
    family = correct([pair, *(comparison("scratch", "moco_v2", 0.8, 0.801) for _ in range(5))])
    found = verdict(family[:1], 100, "AUROC")
    assert found.winner is None and found.against["scratch"]["family"] == 6


@pytest.mark.parametrize(
    ("more", "reason", "words"),
    [
        ({"seeds": 1}, "one seed", "one seed, and its luck cannot be told from the method; run 3 seeds or more"),
        ({"seeds": 2}, "few seeds", "two seeds do not show"),
        ({"patients": 0}, "one patient", "known as one patient"),
        ({"seeds_matter": False}, "seeds do nothing", "seed of its own"),
        ({"error": 0.0}, "no test", "no test can judge"),
    ],
)
def test_it_refuses_where_a_source_of_chance_is_unknown(more, reason, words):
    found = verdict([comparison("scratch", "moco_v2", 0.5, 0.9, **more)], 50, "AUROC")
    assert found.winner is None and found.reasons == [reason]
    assert verdict_sentence(found).startswith("With 50 labels no method can be called better: ")
    assert words in verdict_sentence(found)


def test_a_small_distance_is_better():
    pair = comparison("scratch", "moco_v2", 9.0, 6.0, error=0.5)
    assert verdict([pair], 20, "mm HD95", higher_is_better=False).winner == "moco_v2"
    sentence = verdict_sentence(verdict([pair], 20, "mm HD95", higher_is_better=False))
    assert "moco_v2 beats scratch by 3.000 mm HD95 (95 % interval 1.8" in sentence
    assert verdict([pair], 20, "Dice").winner == "scratch"


def test_a_difference_against_the_means_wins_nothing():
    odd = comparison("scratch", "moco_v2", 0.8, 0.9)
    odd["difference"] = {"value": 0.1, "low": 0.08, "high": 0.12}  # on the cases that both have, scratch is ahead
    assert verdict([odd], 20, "Dice").winner is None


def test_pairs_that_are_missing_are_refused():
    with pytest.raises(ValueError, match="not all pairs of 3"):
        verdict(three(0.9, 0.8, 0.7)[:2], 50, "Dice")


def test_it_reads_what_compare_all_writes():
    rng = np.random.default_rng(0)
    hard = rng.normal(0.7, 0.1, 60)
    runs = {
        name: case_runs(hard + gain + rng.normal(0, 0.005, (4, 1)) + rng.normal(0, 0.02, (4, 60)), np.arange(60))
        for name, gain in (("scratch", 0.0), ("genesis", 0.05))
    }
    found = verdict(compare_all(runs), 20, "Dice")
    assert found.winner == "genesis" and found.means["genesis"] == pytest.approx(runs["genesis"].draws[:, 0].mean())
