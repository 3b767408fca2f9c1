"""People at a real Label Studio server: they come by invitation and annotate by its API."""

import contextlib
import functools
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from curate_helpers import make_row
from helpers import BIN, ENVIRONMENT, run_command

from curate import record
from curate.annotate.label_studio import local
from curate.annotate.label_studio.local import Administrator
from curate.record import Row

ROOT = Path(__file__).resolve().parents[1]
EXECUTABLE = ROOT / ".venv-label-studio" / "bin" / "label-studio"
PASSWORD = "correct horse battery"  # noqa: S105


@dataclass
class Person:
    """Someone with an account, logged in."""

    email: str
    http: httpx.Client

    def token(self) -> str:
        """Their legacy token."""
        return str(self.json("GET", "/api/current-user/token")["token"])

    def personal_access_token(self) -> str:
        """A new one, which is exchanged for bearer tokens of five minutes."""
        return str(self.json("POST", "/api/token/", json={})["token"])

    def json(self, method: str, path: str, **options: Any) -> Any:
        """Ask the API; what it refuses is an error of the test's."""
        answer = self.http.request(method, path, **options)
        assert answer.is_success, (path, answer.status_code, answer.text[:500])
        return answer.json() if answer.content else None

    def annotate(self, task: int, result: Sequence[Any], seconds: float = 5.0, **more: Any) -> int:
        """Submit an annotation; returns its number."""
        body = {"result": list(result), "lead_time": seconds, **more}
        return int(self.json("POST", f"/api/tasks/{task}/annotations/", json=body)["id"])

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """All tasks of a project."""
        query = {"project": project, "page_size": 10_000, "fields": "all"}
        return list(self.json("GET", "/api/tasks/", params=query)["tasks"])

    def project(self, title: str) -> dict[str, Any]:
        """The project of this title."""
        found = self.json("GET", "/api/projects/", params={"title": title})["results"]
        return next(one for one in found if one["title"] == title)


def _form(http: httpx.Client, url: str, fields: dict[str, str]) -> httpx.Response:
    page = http.get(url)
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    token = found.group(1) if found else http.cookies.get("csrftoken", "")
    fields = {**fields, "csrfmiddlewaretoken": token}
    return http.post(url, data=fields, headers={"Referer": str(page.url)})


def _enter(http: httpx.Client, email: str) -> Person:
    # The API takes a session's requests that bring its cross-site token along.
    http.headers["X-CSRFToken"] = http.cookies.get("csrftoken", "")
    http.headers["Referer"] = str(http.base_url)
    person = Person(email, http)
    assert person.json("GET", "/api/current-user/whoami")["email"] == email
    return person


def log_in(address: str, email: str, password: str) -> Person:
    """Someone who has an account."""
    http = httpx.Client(base_url=address, follow_redirects=True, timeout=60, trust_env=False)
    _form(http, "/user/login/", {"email": email, "password": password})
    return _enter(http, email)


def invited(owner: Person, email: str) -> Person:
    """Someone new, who signs up with the owner's invitation."""
    link = str(owner.json("GET", "/api/invite")["invite_url"])
    http = httpx.Client(
        base_url=owner.http.base_url, follow_redirects=True, timeout=60, trust_env=False
    )
    _form(http, link, {"email": email, "password": PASSWORD, "allow_newsletters": "false"})
    return _enter(http, email)


@dataclass
class Studio:
    """A running server, and the command line that speaks to it."""

    address: str
    owner: Person
    administrator: Administrator
    folder: Path
    process: "subprocess.Popen[bytes]"
    _people: dict[str, Person] = field(default_factory=dict)

    def person(self, name: str) -> Person:
        """Someone with an account of their own; made when first asked for."""
        if name not in self._people:
            self._people[name] = invited(self.owner, f"{name}@example.org")
        return self._people[name]

    def environment(self, token: str | None = None) -> dict[str, str]:
        """What the commands need to know."""
        token = token or self.administrator.token
        known = {name: value for name, value in ENVIRONMENT.items() if "LABEL_STUDIO" not in name}
        return known | {"LABEL_STUDIO_URL": self.address, "LABEL_STUDIO_API_KEY": token}

    def curate(
        self, *arguments: object, token: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run `curate` against the server."""
        return run_command("curate", *arguments, env=self.environment(token))

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        """Start `curate` against the server, and do not wait."""
        return subprocess.Popen(
            [str(BIN / "curate"), *map(str, arguments)],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def killed_during(
        self, arguments: Sequence[object], begun: Callable[[], bool]
    ) -> "subprocess.CompletedProcess[str]":
        """Kill the server once a command has begun; what became of the command."""
        command = self.start(*arguments)
        wait_until(begun)
        self.process.kill()
        out, err = command.communicate(timeout=120)
        return subprocess.CompletedProcess(command.args, command.returncode, out, err)

    def kill_command(self, arguments: Sequence[object], begun: Callable[[], bool]) -> None:
        """Kill a command once it has begun."""
        command = self.start(*arguments)
        wait_until(begun)
        command.kill()
        command.communicate(timeout=60)

    def json(self, *arguments: object) -> dict[str, Any]:
        """Run `curate … --json`, which must succeed."""
        done = self.curate(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


def wait_until(so: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.02)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def studio(folder: Path, port: int | None = None) -> Iterator[Studio]:
    """Start a server on a data folder, new or of before; stopped in the end."""
    if not EXECUTABLE.exists():
        pytest.skip("Label Studio is not installed beside the project: make label-studio-env")
    with local.serving(EXECUTABLE, folder, port or free_port()) as running:
        owner = log_in(running.address, running.owner.email, running.owner.password)
        yield Studio(running.address, owner, running.owner, folder, running.process)


def choose(name: str, value: str) -> dict[str, Any]:
    """A choice, as the labelling page sends it."""
    return part(name, "choices", {"choices": [value]})


def mark(context: str, text: str) -> dict[str, Any]:
    """A marked answer, as the labelling page sends it."""
    start = context.index(text)
    value = {"start": start, "end": start + len(text), "text": text, "labels": ["answer"]}
    return part("answer", "labels", value)


def write(name: str, text: str) -> dict[str, Any]:
    """A text, as the labelling page sends it."""
    return part(name, "textarea", {"text": [text]})


def part(name: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    """Any part of a result."""
    return {"from_name": name, "to_name": "passage", "type": kind, "value": value}


yes = functools.partial(choose, "sufficient", "yes")
no = functools.partial(choose, "sufficient", "no")


def rows_of(count: int, name: str) -> list[Row]:
    """Rows half of which their context answers; verifiers disagree on every tenth."""
    made = []
    for n in range(count):
        context = f"Sign {n} of {name} 🔔 stands at mile {n * 7}.\nIt is kept by warden Zoë{n}."
        answers = [f"mile {n * 7}"] if n % 2 else []
        row = make_row(
            f"Where does sign {n} of {name} stand?"
            if n % 2
            else f"Who painted sign {n} of {name}?",
            context,
            answers,
            document=f"{name}{n // 4}",
            reason="" if n % 2 else "evidence_missing",
            votes={"reader:a": 1.0, "reader:b": float(n % 10 != 0)} if n % 5 == 0 else {},
        )
        made.append(row)
    return made


def saved(rows: list[Row], path: Path) -> Path:
    record.write_table(record.to_table(rows), path)
    return path


def judge(person: Person, task: dict[str, Any], says: bool, **more: Any) -> int:
    """Annotate a task as the page would: with its answer, or with a reason."""
    context = task["data"]["context"]
    place = context.split(" stands at ")[1].split(".")[0]
    result = [yes(), mark(context, place)] if says else [no(), choose("reason", "evidence_missing")]
    return person.annotate(task["id"], result, **more)


def by_task(project: dict[str, Any], person: Person) -> dict[str, dict[str, Any]]:
    return {task["data"]["row"]: task for task in person.tasks(project["id"])}
