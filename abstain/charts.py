"""The report's pictures as inline SVG: text stays text, colours follow the page's theme."""

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

from abstain.metrics import Judged, expected_errors

# Placeholders that become CSS variables, so that dark pages get light ink.
_INK, _SOFT, _YES, _NO, _LINE = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _YES: "var(--yes)",
    _NO: "var(--no)",
    _LINE: "var(--line)",
}


def _draw(title: str, paint: "Callable[[Axes], None]") -> str:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,  # the same data give the same bytes
        "font.family": "sans-serif",
        "font.size": 10.5,
        "axes.edgecolor": _SOFT,
        "axes.labelcolor": _SOFT,
        "xtick.color": _SOFT,
        "ytick.color": _SOFT,
        "text.color": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": _LINE,
        "grid.linewidth": 0.8,
        "axes.axisbelow": True,
        "legend.frameon": False,
    }
    with pyplot.rc_context(settings):
        figure, axes = pyplot.subplots(figsize=(4.6, 3.4), layout="constrained")
        paint(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Identifiers must not meet those of the page's other pictures.
    prefix = re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    # Without fixed measures it scales with its column.
    return re.sub(
        r'<svg [^>]*?(viewBox="[^"]+")[^>]*>',
        rf'<svg xmlns="http://www.w3.org/2000/svg" '
        rf'xmlns:xlink="http://www.w3.org/1999/xlink" \1 role="img" aria-label="{title}">',
        svg,
        count=1,
    )


def risk_coverage(judged: Judged, routed: Judged | None, threshold: float | None) -> str:
    """Risk among the answered against the share of rows answered, as the threshold falls.

    The dot is what came of it in the end.
    """
    confidence, right = judged.confidence[judged.answered], judged.right[judged.answered]

    def paint(axes: "Axes") -> None:
        count = len(confidence)
        errors = expected_errors(confidence, right)
        coverage = np.arange(1, count + 1) / len(judged.answered)
        risk = errors / np.arange(1, count + 1)
        axes.plot(coverage, risk, color=_YES, linewidth=2)
        if routed is not None and routed.answered.any():
            x, y = routed.answered.mean(), 1 - routed.right[routed.answered].mean()
            axes.plot(x, y, "o", color=_NO, markersize=8)
            axes.annotate(
                f"threshold {threshold:.2f}",
                (x, y),
                xytext=(8, -14),
                textcoords="offset points",
                color=_NO,
            )
        axes.set(
            xlabel="coverage (answered, of all rows)",
            ylabel="selective risk",
            xlim=(0, max(0.05, coverage.max() * 1.08) if count else 1),
            ylim=(0, min(1.0, max(0.1, float(risk.max()) * 1.1)) if count else 1),
        )

    return _draw("Risk-coverage curve", paint)


def risk_coverages(named: dict[str, Judged]) -> str:
    """The risk-coverage curves of several runs on the same rows."""
    styles = [(_YES, "-"), (_NO, "-"), (_INK, "--"), (_SOFT, ":")]

    def paint(axes: "Axes") -> None:
        for number, (name, judged) in enumerate(named.items()):
            colour, line = styles[number % len(styles)]
            confidence = judged.confidence[judged.answered]
            errors = expected_errors(confidence, judged.right[judged.answered])
            count = np.arange(1, len(confidence) + 1)
            axes.plot(
                count / len(judged.answered),
                errors / count,
                color=colour,
                linestyle=line,
                label=name,
            )
        axes.set(xlabel="coverage (answered, of all rows)", ylabel="selective risk", ylim=(0, None))
        axes.legend()

    return _draw("Risk-coverage curves", paint)


def differences(named: dict[str, dict[str, dict[str, float | None]]], keys: Sequence[str]) -> str:
    """Differences of some metrics from the first run's, with their intervals, a row each."""
    colours = [_NO, _INK, _SOFT]

    def paint(axes: "Axes") -> None:
        for number, (name, found) in enumerate(named.items()):
            metrics = [found[key] for key in keys]
            # A metric without an interval is NaN here, and not drawn.
            value, low, high = (
                np.array([metric[part] for metric in metrics], dtype=float)
                for part in ("value", "low", "high")
            )
            height = np.arange(len(keys)) + 0.18 * number
            colour = colours[number % len(colours)]
            axes.hlines(height, low, high, color=colour)
            axes.plot(value, height, "o", color=colour, label=name)
        axes.axvline(0, color=_SOFT, linewidth=1, linestyle="--")
        axes.set_yticks(range(len(keys)), keys)
        axes.invert_yaxis()
        axes.set(xlabel="difference")
        axes.legend()

    return _draw("Differences", paint)


def reliability(judged: Judged, bins: int = 10) -> str:
    """Share of right answers in bins of equal width of the confidence, sized by their rows."""
    confidence, right = judged.confidence[judged.answered], judged.right[judged.answered]

    def paint(axes: "Axes") -> None:
        number = np.clip((confidence * bins).astype(int), 0, bins - 1)
        sizes = np.bincount(number, minlength=bins)
        some = sizes > 0
        means = np.bincount(number, confidence, minlength=bins)[some] / sizes[some]
        shares = np.bincount(number, right.astype(float), minlength=bins)[some] / sizes[some]
        # 95 % Wilson intervals: half of the bins hold few rows.
        n, z = sizes[some], 1.96
        centre = (shares + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(shares * (1 - shares) / n + z * z / (4 * n * n))
        axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle="--")
        axes.vlines(means, centre - half, centre + half, color=_YES, linewidth=1.5, alpha=0.6)
        axes.scatter(means, shares, s=24 + 160 * n / max(1, n.sum()), color=_YES, zorder=3)
        axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))

    return _draw("Reliability diagram", paint)


def histogram(judged: Judged) -> str:
    """How P(the context suffices) is distributed over sufficient and insufficient rows."""

    def paint(axes: "Axes") -> None:
        edges = np.linspace(0, 1, 26).tolist()
        for flags, colour, label in (
            (judged.sufficient, _YES, "sufficient"),
            (~judged.sufficient, _NO, "insufficient"),
        ):
            axes.hist(judged.p_sufficient[flags], edges, color=colour, alpha=0.55, label=label)
        axes.set(xlabel="P(the context suffices)", ylabel="rows", xlim=(0, 1))
        axes.legend()

    return _draw("Scores of sufficient and insufficient rows", paint)
