"""The recipe: a YAML file that says how a data set is made, as typed settings."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from curate import typed_yaml
from curate.errors import UserError
from curate.record import FOLDS


class Settings(BaseModel):
    """Settings that refuse keys which nothing would read."""

    model_config = ConfigDict(extra="forbid")


class Located(Settings):
    """What every source has: where it is, how rows name it, and under which licence it stands."""

    path: str
    name: str = ""  # the file's name where it is empty
    licence: str = ""


class FileSource(Located):
    """A benchmark in its official format: a file, or ``hub:NAME``."""

    kind: Literal["squad", "nq", "nq_open", "coqa", "quac"]


class TriviaQASource(Located):
    """TriviaQA: a file of its ``qa`` folder, or ``hub:NAME``."""

    kind: Literal["triviaqa"]
    evidence: str = Field("", description="the folder of documents, if it is not beside qa")


class TableSource(Located):
    """A JSONL, CSV or Parquet file, or ``hub:NAME``, one question a row."""

    kind: Literal["table"]
    columns: dict[str, str] = Field(
        default_factory=dict, description="our field: the file's column, where they differ"
    )


class SiteSource(Located):
    """A folder of HTML files: passages, and the question-answer pairs that they show."""

    kind: Literal["site"]
    base_url: str = Field("", description="prefix of the pages' URLs, for provenance")


class ForumSource(Located):
    """Stack Exchange (Posts.xml, or the API's JSON) or Discourse (topics as JSON)."""

    kind: Literal["stackexchange", "discourse"]
    base_url: str = Field("", description="the site's address, for provenance")


class RowsSource(Located):
    """A file that `curate` wrote (scrape, import, generate, annotate), as it is."""

    kind: Literal["rows"]
    licence: Literal[""] = ""  # the rows have their own


Source = Annotated[
    FileSource | TriviaQASource | TableSource | SiteSource | ForumSource | RowsSource,
    Field(discriminator="kind"),
]


class CleanSettings(Settings):
    """What a usable row looks like."""

    max_context_chars: int = Field(20_000, ge=1)
    max_question_chars: int = Field(2_000, ge=1)
    min_question_words: int = Field(1, ge=0)
    boilerplate: bool = Field(True, description="lines of cookies, navigation and rights go")
    spelling: bool = Field(False, description="put misspelt words of English questions right")
    languages: list[str] = Field(
        default_factory=list, description="ISO codes let pass; empty: all of them"
    )
    answer_in_question: Literal["keep", "drop"] = "drop"


class FoldShares(Settings):
    """Shares of the rows that each fold should get; documents are never divided."""

    train: float = Field(0.6, ge=0)
    validation: float = Field(0.1, ge=0)
    calibration: float = Field(0.15, ge=0)
    test: float = Field(0.15, ge=0)
    stream: float = Field(0.0, ge=0)
    by: Literal["balance", "time"] = Field(
        "balance", description="time: the newest documents (published, retrieved) are tested on"
    )
    test_sources: list[str] = Field(
        default_factory=list, description="names of sources that are tested on, and nothing else"
    )

    @model_validator(mode="after")
    def _sum_to_one(self) -> "FoldShares":
        total = sum(self.as_dict().values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares add up to {total:g}, and 1 is needed")
        return self

    def as_dict(self) -> dict[str, float]:
        """Fold names to shares, in the folds' order, without empty folds."""
        return {fold: getattr(self, fold) for fold in FOLDS if getattr(self, fold) > 0}


Method = Literal[
    "no_context",
    "evidence_removed",
    "truncated",
    "partial_evidence",
    "context_swapped",
    "noise_passages",
    "distracted",
    "entity_swapped",
    "number_swapped",
    "negated",
    "antonym",
    "false_premise",
    "underspecified",
    "rewritten",
    "recombined",
    "rematched",
    "false_premise_written",
    "underspecified_written",
]


class ModelSettings(Settings):
    """A model behind an OpenAI-compatible address; the key is OPENAI_API_KEY's."""

    url: str
    model: str = Field("", description="the first that the server lists, where it is empty")
    name: str = Field("", description="how votes name it; the model where it is empty")


# Of readers and judges one may be meant alone: reader:NAME.
VOTES = ("answer_present", "answer_variant", "premise_supported", "reader", "judge")


class VerifySettings(Settings):
    """Who votes on a derived row's label, whose votes decide, and what comes of disagreement."""

    decide: list[str] = Field(
        ["answer_present", "answer_variant", "premise_supported", "judge"],
        description="votes that must not contradict the label; the others are kept with the row",
    )

    @field_validator("decide")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name.split(":")[0] not in VOTES:
                raise ValueError(f"no vote is called '{name}'; known: {', '.join(VOTES)}")
        return names

    disagreement: Literal["drop", "annotate"] = Field(
        "drop", description="annotate: such rows go to annotate.parquet, for people to label"
    )
    readers: list[ModelSettings] = Field(default_factory=list)
    predictions: list[str] = Field(
        default_factory=list, description="predictions.parquet of runs: readers' votes as well"
    )
    judge: ModelSettings | None = None


class InsufficientSettings(Settings):
    """How many rows get a context that does not answer, and how they are made."""

    share: float = Field(0.5, ge=0, lt=1, description="share of insufficient rows aimed at")
    methods: list[Method] | None = Field(
        None, description="every method that can be had, where it is left out"
    )
    writer: ModelSettings | None = Field(None, description="for methods that write or judge")
    swap_from: Literal["any", "same_document", "other_documents"] = "any"
    swap_rank: int = Field(
        1, ge=1, description="of context_swapped's passages, the nearest left out"
    )
    passages: int = Field(3, ge=2, description="of noise_passages and distracted")
    verify: VerifySettings = Field(default_factory=VerifySettings)

    @model_validator(mode="after")
    def _has_twins(self) -> "InsufficientSettings":
        methods = self.methods or ()
        if "distracted" in methods and "noise_passages" not in methods:
            raise ValueError("'distracted' is the twin of 'noise_passages': name both")
        return self


class SplitSettings(Settings):
    """How the train split is balanced; the other splits are left as they are."""

    balance: bool = True
    tolerance: float = Field(0.05, ge=0, le=1, description="distance from the share let pass")
    shortcut_limit: float | None = Field(
        None, gt=0.5, le=1, description="AUROC that no shortcut of train may pass"
    )


class Recipe(Settings):
    """One data set, from its sources to its splits."""

    name: str
    description: str = ""
    task: Literal["open", "closed", "fact", "conversational"] = Field(
        "open", description="closed: yes or no; fact: a few words of the context"
    )
    seed: int = 13
    sources: list[Source] = Field(min_length=1)
    clean: CleanSettings = Field(default_factory=CleanSettings)
    folds: FoldShares = Field(default_factory=FoldShares)
    insufficient: InsufficientSettings = Field(default_factory=InsufficientSettings)
    split: SplitSettings = Field(default_factory=SplitSettings)


def load(path: Path) -> Recipe:
    """Read a recipe; relative paths in it are taken from the recipe's own folder."""
    recipe = typed_yaml.load(path, Recipe)
    for source in recipe.sources:
        if not source.path.startswith("hub:"):
            source.path = str((path.parent / source.path).resolve())
        if isinstance(source, TriviaQASource) and source.evidence:
            source.evidence = str((path.parent / source.evidence).resolve())
        source.name = source.name or Path(source.path.removeprefix("hub:")).stem
    # A file of rows keeps the names that its rows have.
    names = [source.name for source in recipe.sources if source.kind != "rows"]
    for name in recipe.folds.test_sources:
        if name not in names:
            raise UserError(
                f"{path}: 'folds.test_sources' names '{name}'; the sources are {', '.join(names)}"
            )
    verify = recipe.insufficient.verify
    verify.predictions = [str((path.parent / file).resolve()) for file in verify.predictions]
    return recipe
