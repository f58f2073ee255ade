"""What past runs say about the next one: covered as promised, not moved by an outlier, silent where too little is known, and never broken."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cc_executor.policy.hindsight import calibration, replay
from cc_executor.policy.kind import CATEGORIES, COMPLEXITIES, kind_of
from cc_executor.policy.predict import (
    LEAST,
    LOAD_GAIN,
    Basis,
    Confidence,
    Features,
    Forecast,
    PastRun,
    Range,
    quantiles,
    spread_words,
    total,
)

SAME: Final = Features(category="code", complexity="low", prompt_digest="p", cwd="/w", label="l")


def runs(*seconds: float, features: Features = SAME, **more: Any) -> list[PastRun]:
    return [PastRun(features, each, **more) for each in seconds]


def world(count: int, seed: int, *, prompts: int = 30, with_load: float = 0.0) -> Iterator[tuple[PastRun, float]]:
    """Runs as people have them, and how long each would have taken: prompts of very different lengths, 5 % in a Pareto tail, 8 % failed at some moment,
    12 % with a time limit that is often too short. `with_load`: the power of the machine's load in their time.
    """
    dice = random.Random(seed)  # noqa: S311 - made-up runs
    kinds = [
        (
            str(number),
            dice.choice(CATEGORIES),
            dice.choice(COMPLEXITIES),
            f"/f{number % 6}",
            math.exp(dice.gauss(3.2, 1.1)),
            dice.choice((0.3, 0.5, 0.8)),
        )
        for number in range(prompts)
    ]
    for _ in range(count):
        digest, category, complexity, cwd, scale, spread = dice.choice(kinds)
        load = abs(dice.gauss(0.5, 0.6))
        true = scale * math.exp(dice.gauss(0, spread)) * (1 + load) ** with_load
        if dice.random() < 0.05:
            true *= 2 * dice.paretovariate(1.2)
        seen, has_ended, fate = true, True, dice.random()
        if fate < 0.08:
            seen, has_ended = true * dice.random(), False
        elif fate < 0.2 and (limit := scale * math.exp(dice.gauss(0.5, 0.7))) < true:
            seen, has_ended = limit, False
        features = Features(category=category, complexity=complexity, prompt_digest=digest, cwd=cwd, load=load)
        yield PastRun(features, seen, cost=seen / 100, has_ended=has_ended), true


@pytest.mark.parametrize("prompts", [3, 30, 300])
def test_nine_of_ten_held_out_runs_end_below_p90_with_heavy_tails_and_cut_offs(prompts: int) -> None:
    within = halves = judged = 0
    for seed in range(1):
        story = list(world(1000, seed, prompts=prompts))
        forecast = Forecast(run for run, _ in story[:500])
        for run, true in story[500:]:
            expected = forecast.predict(run.features)
            assert expected.seconds is not None
            assert expected.cost is not None
            judged += 1
            within += true <= expected.seconds.p90
            halves += true <= expected.seconds.p50
            assert (true / 100 <= expected.cost.p90) == (true <= expected.seconds.p90)
            forecast.learn(run)
    assert 0.85 <= within / judged <= 0.95
    assert 0.40 <= halves / judged <= 0.60


def test_cut_off_runs_taken_at_face_value_would_promise_too_little() -> None:
    """What the censoring is good for: the same runs, with their cut-offs taken for ends, miss the mark."""
    dice = random.Random(5)  # noqa: S311 - made-up runs
    story = [(20 * math.exp(dice.gauss(0, 0.8)), 10 * math.exp(abs(dice.gauss(0, 1.2)))) for _ in range(400)]
    past = [PastRun(SAME, min(true, limit), has_ended=true <= limit) for true, limit in story]
    assert 0.3 < sum(run.has_ended for run in past) / len(past) < 0.7

    def within(past: list[PastRun]) -> float:
        expected = Forecast(past).predict(SAME).seconds
        assert expected is not None
        return sum(true <= expected.p90 for true, _ in story) / len(story)

    assert 0.85 <= within(past) <= 0.95
    assert within([replace(run, has_ended=True) for run in past]) < 0.8


@pytest.mark.parametrize("place", range(10))
def test_nine_runs_of_ten_seconds_and_one_of_a_thousand_do_not_predict_a_thousand(place: int) -> None:
    seconds = [10.0] * 9
    seconds.insert(place, 1000.0)
    expected = Forecast(runs(*seconds)).predict(SAME).seconds
    assert expected is not None
    assert expected.p50 == pytest.approx(10, rel=0.05)
    assert expected.expected < 20
    assert expected.p90 < 60
    assert expected.based_on == 10


def test_fewer_than_five_runs_that_ended_are_no_estimate_whatever_was_cut_off() -> None:
    assert LEAST == 5
    few = runs(*[10.0] * (LEAST - 1)) + runs(*[3.0] * 50, has_ended=False)
    assert Forecast(few).predict(SAME).seconds is None
    assert Forecast([*few, *runs(10.0)]).predict(SAME).seconds is not None
    assert Forecast().predict(SAME).cost is None


@pytest.mark.parametrize(
    ("seconds", "features", "confidence"),
    [
        ([10.0] * 9, SAME, Confidence.LOW),
        ([10.0] * 19, SAME, Confidence.MEDIUM),
        ([10.0] * 60, SAME, Confidence.HIGH),
        ([10.0] * 60, replace(SAME, category="data", prompt_digest="q", label="", cwd="/v"), Confidence.MEDIUM),
        ([1.0, 100.0] * 30, SAME, Confidence.LOW),
    ],
    ids=["few", "some", "many", "none alike", "wide"],
)
def test_how_much_to_make_of_a_range_is_said(seconds: list[float], features: Features, confidence: Confidence) -> None:
    expected = Forecast(runs(*seconds)).predict(features).seconds
    assert expected is not None
    assert expected.confidence is confidence, expected


def test_a_run_is_predicted_from_those_that_resemble_it_most() -> None:
    other = replace(SAME, prompt_digest="q", label="", cwd="/v", category="data")
    past = [run for pair in zip(runs(*[10.0] * 20), runs(*[1000.0] * 20, features=other), strict=True) for run in pair]
    forecast = Forecast(past)
    for features, seconds, basis in (
        (SAME, 10, Basis.PROMPT),
        (replace(SAME, prompt_digest="new"), 10, Basis.LABEL),
        (replace(SAME, prompt_digest="new", label=""), 10, Basis.FOLDER),
        (replace(SAME, prompt_digest="new", label="", cwd="/new"), 10, Basis.CATEGORY),
        (other, 1000, Basis.PROMPT),
    ):
        expected = forecast.predict(features).seconds
        assert expected is not None
        assert expected.basis is basis
        assert seconds / 2.5 < expected.p50 < seconds * 2.5
    nothing_alike = forecast.predict(Features(category="creative", complexity="high")).seconds
    assert nothing_alike is not None
    assert nothing_alike.basis is Basis.AGENT


def test_a_steady_prompt_is_not_made_uncertain_by_hundreds_of_wild_runs_of_other_prompts() -> None:
    dice = random.Random(1)  # noqa: S311 - made-up runs
    past: list[PastRun] = []
    for number in range(300):
        other = Features(category="data", complexity="low", prompt_digest=f"q{number % 20}", cwd="/v")
        past += runs(math.exp(dice.gauss(3, 2)), features=other)
        past += runs(10.0) if number % 20 == 0 else []
    expected = Forecast(past).predict(SAME).seconds
    assert expected is not None
    assert expected.basis is Basis.PROMPT
    assert 9 < expected.p50 < 11
    assert expected.p90 < 8 * expected.p50


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, -1.0])
def test_what_is_no_amount_teaches_nothing(odd: float) -> None:
    past = runs(*[10.0] * 10, cost=0.1)
    assert Forecast([*past, *runs(*[odd] * 50, cost=odd)]).predict(SAME) == Forecast(past).predict(SAME)


def test_a_program_says_nothing_about_another() -> None:
    make = Features(category="command:make", complexity="trivial", cwd="/w")
    forecast = Forecast(runs(*[10.0] * 20, features=make))
    assert forecast.predict(make).seconds is not None
    assert forecast.predict(replace(make, category="command:sleep")).seconds is None


def test_where_every_long_run_was_cut_off_the_range_is_a_lower_bound_and_says_so() -> None:
    past = [run for _ in range(15) for run in (*runs(8.0), *runs(60.0, 60.0, has_ended=False))]
    expected = Forecast(past).predict(SAME).seconds
    assert expected is not None
    assert expected.is_at_least
    assert expected.p90 >= 50
    assert expected.confidence is Confidence.LOW
    assert "or more" in expected.words()


def test_the_quantiles_are_those_of_kaplan_and_meier() -> None:
    # 6-MP arm of Freireich et al. 1963, the textbook example: median 23 weeks; S(22) = 0.538, S(23) = 0.448.
    weeks = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    censored = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    data = [(float(week), True, 1.0) for week in weeks] + [(float(week), False, 1.0) for week in censored]
    assert quantiles(data, (0.25, 0.5)) == ([13.0, 23.0], True)
    assert quantiles(data, (0.9,)) == ([35.0], False)


def test_the_load_of_the_machine_is_used_only_where_the_past_shows_that_it_helps() -> None:
    gains = {power: Forecast(run for run, _ in world(600, 1, with_load=power)).load_gain for power in (0.0, 0.5, 1.0, 2.0)}
    assert gains[0.0] < LOAD_GAIN < gains[2.0]
    assert gains[0.0] < gains[0.5] < gains[1.0] < gains[2.0]
    assert Forecast(run for run, _ in world(40, 1, with_load=2.0)).load_gain == 0, "by chance it may seem to help, where little is known"
    useless, useful = (Forecast(run for run, _ in world(600, 1, with_load=power)) for power in (0.0, 2.0))
    features = next(world(1, 1))[0].features

    def p50(forecast: Forecast, load: float | None) -> float:
        found = forecast.predict(replace(features, load=load)).seconds
        assert found is not None
        return found.p50

    assert p50(useless, 0.0) == p50(useless, 4.0)
    assert p50(useful, 0.0) < p50(useful, 4.0)
    assert not useless.predict(replace(features, load=4.0)).is_load_used
    assert useful.predict(replace(features, load=4.0)).is_load_used
    assert not useful.predict(replace(features, load=None)).is_load_used


_AMOUNTS: Final = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1e-300, 1e300, 10.0])
_FEATURES: Final = st.builds(
    Features,
    category=st.sampled_from(["code", "data", "command:make"]),
    complexity=st.sampled_from(COMPLEXITIES),
    prompt_digest=st.sampled_from(["", "p", "q"]),
    label=st.sampled_from(["", "l"]),
    cwd=st.sampled_from(["", "/a"]),
    load=st.none() | st.floats(min_value=0, max_value=1e6),
)
_RUNS: Final = st.lists(st.builds(PastRun, _FEATURES, _AMOUNTS, st.none() | _AMOUNTS, st.booleans()), max_size=60)


@given(_RUNS, _FEATURES)
def test_whatever_was_stored_a_range_is_finite_and_in_order(past: list[PastRun], features: Features) -> None:
    prediction = Forecast(past).predict(features)
    for found in (prediction.seconds, prediction.cost):
        if found is not None:
            assert 0 < found.p50 <= found.p90 < math.inf
            assert 0 < found.expected <= found.p90
            assert found.based_on >= LEAST
            assert found.words()
    assert 0 <= replay(past).within_p90 <= 1


_RANGES: Final = st.builds(
    lambda low, factor: Range(expected=low, p50=low, p90=low * factor, unit="s", based_on=5, basis=Basis.PROMPT, confidence=Confidence.LOW),
    st.floats(min_value=1e-3, max_value=1e6),
    st.floats(min_value=1, max_value=1e3),
)


@given(st.lists(_RANGES, min_size=1, max_size=20))
def test_a_sum_is_in_order_and_no_wider_than_all_at_their_worst(ranges: list[Range]) -> None:
    found = total(ranges)
    assert found is not None
    assert 0 < found.p50 <= found.p90 < math.inf
    assert found.p50 <= found.expected <= found.p90 or len(ranges) == 1
    assert found.p90 <= max(sum(item.p90 for item in ranges) * (1 + 1e-9), found.p50)


def test_the_range_of_a_sum_covers_sums() -> None:
    dice = random.Random(3)  # noqa: S311 - made-up runs
    one = Range(expected=11, p50=10, p90=10 * math.exp(1.2816 * 0.6), unit="s", based_on=30, basis=Basis.PROMPT, confidence=Confidence.HIGH)
    found = total([one] * 8)
    assert found is not None
    sums = [sum(10 * math.exp(dice.gauss(0, 0.6)) for _ in range(8)) for _ in range(4000)]
    assert 0.86 <= sum(each <= found.p90 for each in sums) / len(sums) <= 0.94
    assert 0.45 <= sum(each <= found.p50 for each in sums) / len(sums) <= 0.55


def test_a_run_that_was_cut_off_before_its_p90_judges_nothing() -> None:
    found = calibration([(10, 20, 5, True), (10, 20, 15, True), (10, 20, 25, False), (10, 20, 15, False), (10, 20, 30, True)])
    assert (found.runs, found.undecided) == (4, 1)
    assert (found.within_p50, found.within_p90) == (0.25, 0.5)
    assert calibration([]).words() == "No predicted run has ended yet."


@pytest.mark.parametrize(
    ("prompt", "category", "complexity"),
    [
        ("Summarise this file", "analysis", "trivial"),
        ("What is a 500-word story?", "explanation", "trivial"),
        ("Build a REST API", "code", "trivial"),
        ("Explain this function", "explanation", "trivial"),
        ("Write a poem about the sea.", "creative", "trivial"),
        ("Compute the sum of the first 100 primes.", "calculation", "trivial"),
        ("Refactor the whole project:\n1. a\n2. b\n3. c", "code", "high"),
        ("Hello there", "general", "trivial"),
        ("x " * 3000, "general", "high"),
    ],
)
def test_a_prompt_is_sorted_by_its_words_and_its_size(prompt: str, category: str, complexity: str) -> None:
    assert kind_of(prompt) == (category, complexity)


@pytest.mark.parametrize(
    ("command", "category"),
    [("make -j4 test", "command:make"), ("/usr/bin/pytest -q", "command:pytest"), ("TOKEN=s3cret run", "command"), ("", "command")],
)
def test_a_command_is_sorted_by_its_program_and_shows_nothing_else(command: str, category: str) -> None:
    assert kind_of(command, agent="shell")[0] == category


@given(st.text(), st.sampled_from(["claude", "shell"]))
def test_every_text_has_a_kind(text: str, agent: str) -> None:
    category, complexity = kind_of(text, agent=agent)
    assert category in CATEGORIES or category.startswith("command")
    assert complexity in COMPLEXITIES


@pytest.mark.parametrize("piece", ["\n", " ", "a-", "1.\n", "x", "\n- ", "é"])
def test_a_prompt_of_megabytes_is_sorted_at_once(piece: str) -> None:
    began = time.process_time()
    kind_of(piece * (9_000_000 // len(piece)))
    assert time.process_time() - began < 0.5


def test_a_range_in_words() -> None:
    assert spread_words(12, 40) == "12–40 s"
    assert spread_words(12, 90) == "12 s–1 min 30 s"
    assert spread_words(10, 10.2) == "10 s"
    assert spread_words(0.02, 0.5, "USD") == "$0.0200–$0.50"
