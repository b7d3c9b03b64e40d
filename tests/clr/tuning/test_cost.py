import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.spec import JobSpec
from clr.trials.baselines import BASELINES
from clr.tuning.cost import predict

PUBLISHED = {"properties": {"train_size": {"type": "integer", "default": 1000}}}


def spec(**fields: object) -> JobSpec:
    return JobSpec.model_validate({"task": "digits"} | fields)


def test_each_stage_costs_what_it_trains() -> None:
    cost = predict(spec(epochs=10, search={"trials": 8, "epochs": 5}, confirm={"seeds": 2, "baselines": ["fixed"]}))
    assert cost.stages == {"range_test": 1.0, "search": 4.0, "confirm": 3 * 2.0 + BASELINES["fixed"].probes}
    assert cost.relative_to_one_training == 14.0
    assert cost.epochs == 140.0


def test_the_range_test_costs_its_own_epochs_whatever_its_seeds() -> None:
    assert predict(spec(epochs=10, range_test={"epochs": 4, "seeds": 7})).stages["range_test"] == 0.4


def test_the_range_test_of_a_long_training_is_a_small_share_of_it() -> None:
    long = predict(spec(epochs=100, args={"train_size": 50_000}, batch_size=100))
    assert long.stages["range_test"] == 4 / 100


def test_without_a_search_there_is_a_range_test_alone() -> None:
    cost = predict(spec(search=None))
    assert cost.stages == {"range_test": 1.0, "search": 0.0, "confirm": 0.0}
    assert cost.relative_to_one_training == 1.0


def test_without_a_confirmation_nothing_is_confirmed() -> None:
    assert predict(spec(confirm=None)).stages["confirm"] == 0.0


def test_the_size_given_goes_before_the_published_default() -> None:
    given = predict(spec(args={"train_size": 640}, batch_size=64), PUBLISHED)
    assert (given.iterations_per_epoch, predict(spec(batch_size=64), PUBLISHED).iterations_per_epoch) == (10, 15)


def test_a_batch_larger_than_the_data_is_one_iteration() -> None:
    assert predict(spec(batch_size=5000), PUBLISHED).iterations_per_epoch == 1


@pytest.mark.parametrize("size", [True, "1000", 0, -5, 10**400, None, [1000]])
def test_steps_are_unknown_where_the_size_is_not_a_count(size: object) -> None:
    cost = predict(spec(args={"train_size": size}), PUBLISHED)
    assert (cost.steps, cost.iterations_per_epoch) == (None, None)


@pytest.mark.parametrize("schema", [None, {}, {"properties": None}, {"properties": {"train_size": {}}}])
def test_steps_are_unknown_where_nothing_is_published(schema: dict[str, object] | None) -> None:
    assert predict(spec(limits={"max_steps": 5}), schema).steps is None


def test_steps_stay_within_the_limit() -> None:
    assert predict(spec(limits={"max_steps": 500}), PUBLISHED).steps == 500


@given(
    epochs=st.floats(0.01, 100_000),
    trials=st.integers(1, 10_000),
    size=st.integers(1, 2**53),
    batch=st.integers(1, 10**6),
)
def test_steps_are_the_epochs_times_their_iterations(epochs: float, trials: int, size: int, batch: int) -> None:
    cost = predict(spec(epochs=epochs, search={"trials": trials}, args={"train_size": size}, batch_size=batch))
    assert cost.iterations_per_epoch == max(1, size // batch)
    assert cost.steps is not None
    assert cost.steps == pytest.approx(cost.epochs * cost.iterations_per_epoch, abs=1)
    assert cost.relative_to_one_training == pytest.approx(sum(cost.stages.values()))
