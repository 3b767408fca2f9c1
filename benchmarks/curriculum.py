"""What teaching to abstain beyond plain fine-tuning brings: options side by side, same rows.

    python -m benchmarks.curriculum --data DIR [--rows 256] [--epochs 1] [--docs docs/curriculum.md]

The same rows and judges as in `benchmarks.methods`; stopped and started again, it goes on where it
was.
"""

from pathlib import Path

from benchmarks.fine_tuning import arguments, command, document, split, tabulate, trained
from train.run_folder import TRAINING

# What each changes of `train run`'s defaults; what `benchmarks.methods` has trained has its name.
OPTIONS: dict[str, tuple[object, ...]] = {
    "lora": (),
    "lora, refusal-aware 0.5": ("--refusal-aware", 0.5),
    "lora, declining earns 0.2": ("--abstain-reward", 0.2),
    "lora, declining earns 0.5": ("--abstain-reward", 0.5),
}
PREFERRED = "lora, then preferences"


def run_of(out: Path, name: str, epochs: float) -> Path:
    """A run with one option; preferences are taught to the plain run."""
    if name != PREFERRED:
        return trained(out, name, "--epochs", epochs, *OPTIONS[name])
    plain, run = run_of(out, "lora", epochs), out / "lora-preferred"
    if not (run / TRAINING).exists():
        command("train", "prefer", plain, "--data", out / "data/all", "--out", run)
    return run


def main() -> None:
    given = arguments(__doc__).parse_args()
    split(given.data, given.out, given.rows)
    runs = ((name, run_of(given.out, name, given.epochs)) for name in (*OPTIONS, PREFERRED))
    found = tabulate(given.out, "curriculum", runs)
    document(
        given,
        "Teaching to abstain, beyond plain fine-tuning",
        found,
        OPTIONS,
        f"- {PREFERRED}: `train prefer` of the first",
    )


if __name__ == "__main__":
    main()
