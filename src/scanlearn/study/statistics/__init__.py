"""Statistics of a study: pure functions on arrays, checked on simulated studies with known truth (``simulate``)."""

from scanlearn.study.statistics.compare import compare_all, compare_methods, correct, mean_over_seeds
from scanlearn.study.statistics.delong import delong, delong_test
from scanlearn.study.statistics.holm import holm
from scanlearn.study.statistics.ranks import mean_ranks
from scanlearn.study.statistics.runs import Runs, case_runs, score_runs
from scanlearn.study.statistics.sentences import verdict_sentence, worth_sentence
from scanlearn.study.statistics.verdict import Verdict, verdict
from scanlearn.study.statistics.worth import worth_labels

__all__ = [
    "Runs",
    "Verdict",
    "case_runs",
    "compare_all",
    "compare_methods",
    "correct",
    "delong",
    "delong_test",
    "holm",
    "mean_over_seeds",
    "mean_ranks",
    "score_runs",
    "verdict",
    "verdict_sentence",
    "worth_labels",
    "worth_sentence",
]
