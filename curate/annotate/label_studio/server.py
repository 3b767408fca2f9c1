"""The server's API, in the few words that pushing and pulling need; its errors told to a person."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from curate.annotate.label_studio import keyring
from curate.errors import UserError

_PAGE = 500  # tasks a request; the server takes 0.7 s to list and 1.2 s to give so many
_SECONDS = 120.0  # that an answer may take
Marks = dict[int, str]  # annotation → when it was last changed


@dataclass(frozen=True)
class Seen:
    """What a listing tells of a task: its data and what annotations it has."""

    id: int
    data: dict[str, Any]  # empty where it was not asked for
    annotations: Marks


@dataclass(frozen=True)
class Server:
    """A Label Studio server and who we are to it."""

    address: str
    client: Any  # label_studio_sdk.LabelStudio

    def who(self) -> str:
        """The mail address of the token's owner."""
        with speaking(self.address):
            return str(self.client.users.whoami().email)

    def find(self, name: str) -> Any | None:
        """The project of this title; None where there is none, an error where there are several."""
        with speaking(self.address):
            found = [one for one in self.client.projects.list(title=name) if one.title == name]
        if len(found) > 1:
            numbers = ", ".join(str(one.id) for one in found)
            raise UserError(
                f"{self.address}: {len(found)} projects are called '{name}' ({numbers}); rename "
                "all but one"
            )
        return found[0] if found else None

    def project(self, name: str) -> Any:
        """The project of this title; raises `UserError` where there is none."""
        found = self.find(name)
        if found is None:
            raise UserError(
                f"{self.address}: there is no project '{name}' that {self.who()} may see (deleted, "
                "or of another name?); `curate annotate push` makes one"
            )
        return found

    def create(self, name: str, config: str, description: str) -> Any:
        """A new project."""
        with speaking(self.address):
            return self.client.projects.create(
                title=name, label_config=config, description=description
            )

    def update(self, project: int, **settings: Any) -> Any:
        """Change a project's settings."""
        with speaking(self.address):
            return self.client.projects.update(project, **settings)

    def scan(self, project: int, with_data: bool) -> Iterator[Seen]:
        """All tasks, by id: what each holds, and which annotations, without their contents.

        Pages go by the last id and not by number, so that a task that comes or goes meanwhile
        moves no other out of sight.
        """
        include = ["id", "annotations", "updated_at"]  # the last: of annotations too
        include += ["data"] if with_data else []
        last = 0
        while tasks := self._list(project, "greater", last, include):
            for task in tasks:
                marks = {mark["id"]: mark["updated_at"] for mark in task.get("annotations") or []}
                yield Seen(task["id"], task.get("data") or {}, marks)
            last = tasks[-1]["id"]

    def tasks(self, project: int, ids: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
        """Some tasks whole, some at a time; those that are gone meanwhile are left out."""
        for start in range(0, len(ids), _PAGE):
            yield self._list(project, "in_list", list(ids[start : start + _PAGE]), None)

    def _list(
        self, project: int, operator: str, value: Any, include: list[str] | None
    ) -> list[dict[str, Any]]:
        kind = "List" if operator == "in_list" else "Number"
        item = {"filter": "filter:tasks:id", "operator": operator, "type": kind, "value": value}
        filters = {"conjunction": "and", "items": [item]}
        with speaking(self.address):
            found = self.client.tasks.list(
                project=project,
                page=1,
                page_size=_PAGE,
                fields="all",
                query=json.dumps({"filters": filters, "ordering": ["tasks:id"]}),
                request_options={"timeout_in_seconds": _SECONDS},
                **({"include": include} if include else {}),
            )
        return [task.model_dump(mode="json") for task in found.items]

    def add(self, project: int, tasks: Sequence[dict[str, Any]]) -> None:
        """New tasks, all of them or none."""
        with speaking(self.address):
            self.client.projects.import_tasks(
                project,
                request=tasks,
                # Not tried again: what an answer was lost for may be there, and would be twice.
                request_options={"timeout_in_seconds": _SECONDS, "max_retries": 0},
            )

    def change(self, task: int, new: dict[str, Any]) -> None:
        """Put other data, meta and predictions in place of a task's own."""
        with speaking(self.address):
            for old in self.client.predictions.list(task=task):
                self.client.predictions.delete(old.id)
            for prediction in new["predictions"]:
                self.client.predictions.create(task=task, **prediction)
            # The data last: as long as they are the old ones, the next push does all of it again.
            self.client.tasks.update(str(task), data=new["data"], meta=new["meta"])

    def people(self) -> dict[int, str]:
        """The mail addresses of the users, by number."""
        with speaking(self.address):
            return {one.id: one.email for one in self.client.users.list()}

    @contextlib.contextmanager
    def webhook(
        self, project: int, target: str, headers: dict[str, str], actions: Sequence[str]
    ) -> Iterator[None]:
        """Have the project's events sent to an address as long as this lasts."""
        with speaking(self.address):
            made = self.client.webhooks.create(
                url=target, project=project, headers=headers, actions=actions, send_payload=True,
                send_for_all_actions=False, is_active=True,
            )  # fmt: skip
        try:
            yield
        finally:
            with speaking(self.address):
                self.client.webhooks.delete(made.id)


def connect(address: str, secret: str | None = None) -> Server:
    """Speak to the server, with the token that there is for it."""
    try:
        from label_studio_sdk import LabelStudio
    except ImportError as error:
        raise UserError(
            "Label Studio's client is not installed: pip install 'grounded-abstain[annotate]'"
        ) from error
    address = address.rstrip("/")
    secret = keyring.sound(secret, "what was given") if secret else keyring.token(address)
    with speaking(address):
        # A personal access token is looked at here, and may have expired.
        return Server(address, LabelStudio(base_url=address, api_key=secret, timeout=_SECONDS))


@contextlib.contextmanager
def speaking(address: str) -> Iterator[None]:
    """Turn what goes wrong with a server into a `UserError` that says what to do."""
    import httpx
    from label_studio_sdk.core.api_error import ApiError

    try:
        yield
    except ApiError as error:
        raise UserError(f"{address}: {_told(error.status_code, error.body)}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(
            f"{address}: no answer ({type(error).__name__}: {error}); is Label Studio running "
            "there? `make label-studio` starts one; then the same command goes on from here"
        ) from error


def _told(status: int | None, body: Any) -> str:
    detail = body
    if isinstance(body, dict):
        detail = body.get("validation_errors") or body.get("detail") or body
    said = " ".join(str(detail).split())[:500]
    if status == 401:
        return (
            f"the token is not accepted ({said}): it may have expired, or legacy tokens may be "
            "switched off; make a new one under Account & Settings, and `curate annotate login`, "
            f"or put it into {keyring.TOKEN_VARIABLE}"
        )
    if status == 403:
        return f"the token's owner may not do this ({said})"
    if status == 404:
        return f"it is not there any more, or never was ({said})"
    return f"the server refused (HTTP {status}): {said}"
