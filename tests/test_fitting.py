"""What lies between the fits on validation and the thresholds that come of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from abstain.fitting import on_the_scale_of
from abstain.threshold import Units
from abstain.unguaranteed import by_coverage

UNIT = st.floats(0, 1, width=32)


@given(
    st.integers(1, 40).flatmap(lambda n: st.tuples(*2 * [arrays.arrays(float, n, elements=UNIT)]))
)
def test_order_and_ties_are_the_cross_fitted_ones_and_values_the_final_ones(pair: tuple) -> None:  # type: ignore[type-arg]
    final, unseen = pair
    mapped = on_the_scale_of(final, unseen)
    assert set(mapped) <= set(final)
    assert (unseen[:, None] >= unseen[None])[mapped[:, None] < mapped[None]].sum() == 0
    for value in set(unseen):
        assert len(set(mapped[unseen == value])) == 1
        # A threshold there lets at least as many of the final fit's rows pass.
        threshold = mapped[unseen == value][0]
        assert (final >= threshold).sum() >= (unseen >= value).sum()


def test_a_share_asked_for_is_reached_though_the_fits_have_other_scales() -> None:
    # All fifty answers are wrong: a fit without a fold says 1/42 of each, the final one 1/52.
    final, unseen = np.full(50, 1 / 52), np.full(50, 1 / 42)
    units = Units(on_the_scale_of(final, unseen), np.ones(50, bool), np.zeros(50, bool))
    assert (final >= by_coverage(units, 0.5)).mean() >= 0.5
