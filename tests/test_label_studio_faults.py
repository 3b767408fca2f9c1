"""Label Studio where something goes wrong: nothing is lost, and messages say what to do."""

from pathlib import Path

from label_studio import (
    Studio,
    by_task,
    choose,
    judge,
    mark,
    no,
    part,
    rows_of,
    saved,
    studio,
    write,
    yes,
)

from curate.annotate import annotations


def test_what_the_page_does_not_offer_is_kept_and_does_not_count(
    label_studio: Studio, tmp_path: Path
) -> None:
    rows = rows_of(7, "odd")
    path, out = saved(rows, tmp_path / "rows.parquet"), tmp_path / "said.parquet"
    label_studio.json("annotate", "push", path, "--project", "odd", "--first", "random")
    project = label_studio.owner.project("odd")
    tasks = by_task(project, label_studio.owner)
    ann = label_studio.person("ann")
    context = rows[1].context
    elsewhere = mark(context, "mile 7") | {}
    elsewhere["value"] = elsewhere["value"] | {"text": "mile 8"}
    odd = {
        "the page has no control 'mood'": [yes(), part("mood", "choices", {"choices": ["good"]})],
        "'sufficient' does not offer 'maybe'": [choose("sufficient", "maybe")],
        "'mile 7', not 'mile 8'": [yes(), elsewhere],
        "nothing is chosen": [write("comment", "hm")],
        "is of kind choices, and not rating": [part("sufficient", "rating", {"rating": 3})],
    }
    made = {}
    for wrong, result in odd.items():
        made[ann.annotate(tasks[rows[1].id]["id"], result)] = wrong
    skipped = ann.annotate(tasks[rows[3].id]["id"], [], was_cancelled=True)
    bad = ann.annotate(tasks[rows[5].id]["id"], [choose("question", "bad")])
    first = judge(ann, tasks[rows[0].id], True)
    second = judge(ann, tasks[rows[0].id], False)
    # A colleague imports the same task once more, and one that is not ours.
    copy = {key: tasks[rows[2].id][key] for key in ("data", "meta")}
    strange = {"data": {"question": "Is it?", "context": "It is.", "history": "", "note": ""}}
    label_studio.owner.json("POST", f"/api/projects/{project['id']}/import", json=[copy, strange])
    there = label_studio.owner.tasks(project["id"])
    twice = [task for task in there if task["data"].get("row") == rows[2].id]
    assert len(twice) == 2
    judge(ann, twice[0], True)
    last = judge(ann, twice[1], False)
    foreign = next(task for task in there if "row" not in task["data"])
    ann.annotate(foreign["id"], [yes()])

    pulled = label_studio.json("annotate", "pull", "--project", "odd", "--out", out)
    found = {one.annotation_id: one for one in annotations.read(out)}
    for number, wrong in made.items():
        assert found[number].status == "invalid" and wrong in found[number].detail
    assert pulled["annotations"] == {"counts": 3, "invalid": 5, "skipped": 1, "superseded": 2}
    assert found[skipped].status == "skipped" and found[bad].said.bad
    assert [found[n].status for n in (first, second, last)] == ["superseded", "counts", "counts"]
    assert pulled["foreign"] == 1 and "It is." in out.with_suffix(".journal.jsonl").read_text()
    pushed = label_studio.json("annotate", "push", path, "--project", "odd", "--first", "random")
    assert list(pushed["duplicates"]) == [rows[2].id] and pushed["foreign"] == 1


def test_a_page_changed_by_hand_is_told_and_put_back_on_request(
    label_studio: Studio, tmp_path: Path
) -> None:
    path, out = saved(rows_of(3, "page"), tmp_path / "rows.parquet"), tmp_path / "said.parquet"
    push = ("annotate", "push", path, "--project", "page")
    pull = ("annotate", "pull", "--project", "page", "--out", out)
    label_studio.json(*push)
    owner = label_studio.owner
    number = owner.project("page")["id"]
    ours = owner.project("page")["label_config"]
    more = ours.replace("</View>\n", "</View>\n", 1).rstrip()
    more = more[: -len("</View>")] + '<Rating name="mood" toName="passage"/>'
    more += '<TextArea name="extra" toName="passage"/></View>'
    owner.json("PATCH", f"/api/projects/{number}/", json={"label_config": more})
    task = owner.tasks(number)[0]["id"]
    mood = part("mood", "rating", {"rating": 3})
    number_of_it = label_studio.person("ann").annotate(task, [no(), mood, write("extra", "x")])
    done = label_studio.curate(*pull)
    assert done.returncode == 0 and "'extra' is new, and is not read" in done.stdout
    (said,) = annotations.read(out)
    assert said.annotation_id == number_of_it and said.status == "counts"
    owner.http.delete(f"/api/annotations/{number_of_it}/")  # else the server keeps the page

    little = '<View><Text name="passage" value="$context"/>'
    little += '<Choices name="verdict" toName="passage"><Choice value="x"/></Choices></View>'
    owner.json("PATCH", f"/api/projects/{number}/", json={"label_config": little})
    done = label_studio.curate(*push)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "lacks sufficient, answer" in done.stderr and "--reset-page" in done.stderr
    # What was said on our page is still read: a pull refuses nothing.
    assert "'sufficient' is gone" in label_studio.json(*pull)["page_changes"]
    assert label_studio.json(*push, "--reset-page")["unchanged"] == 3
    assert label_studio.json(*pull)["page_changes"] == []


def test_a_deleted_project_takes_no_work_with_it(label_studio: Studio, tmp_path: Path) -> None:
    rows = rows_of(2, "gone")
    path, out = saved(rows, tmp_path / "rows.parquet"), tmp_path / "said.parquet"
    push = ("annotate", "push", path, "--project", "gone")
    pull = ("annotate", "pull", "--project", "gone", "--out", out)
    label_studio.json(*push)
    owner = label_studio.owner
    project = owner.project("gone")
    judge(label_studio.person("ann"), by_task(project, owner)[rows[0].id], False)
    label_studio.json(*pull)
    before = out.read_bytes()
    assert owner.http.delete(f"/api/projects/{project['id']}/").is_success
    done = label_studio.curate(*pull)
    assert done.returncode == 1 and "no project 'gone'" in done.stderr
    assert out.read_bytes() == before
    label_studio.json(*push)
    judge(label_studio.person("ben"), by_task(owner.project("gone"), owner)[rows[0].id], True)
    assert label_studio.json(*pull)["annotations"] == {"counts": 2}


def test_both_kinds_of_token_serve_and_a_bad_one_is_told_without_being_shown(
    label_studio: Studio, tmp_path: Path
) -> None:
    import jwt

    path, out = saved(rows_of(2, "token"), tmp_path / "rows.parquet"), tmp_path / "said.parquet"
    pull = ("annotate", "pull", "--project", "token", "--out", out)
    personal = label_studio.owner.personal_access_token()
    done = label_studio.curate("annotate", "push", path, "--project", "token", token=personal)
    assert done.returncode == 0, done.stderr
    for token in (personal, label_studio.administrator.token):
        assert label_studio.curate(*pull, token=token).returncode == 0
    expired = jwt.encode({"exp": 1_000_000, "token_type": "refresh"}, "k" * 32)
    for token in (expired, "f" * 40):
        done = label_studio.curate(*pull, token=token)
        assert done.returncode == 1 and "token is not accepted" in done.stderr, done.stderr
        assert token not in done.stdout + done.stderr and "Traceback" not in done.stderr
    log = (label_studio.folder / "server.log").read_text(errors="replace")
    assert personal not in log and label_studio.administrator.token not in log


def test_a_server_killed_in_the_middle_costs_nothing_that_was_done(tmp_path: Path) -> None:
    fragile = tmp_path / "server"
    rows = rows_of(2000, "kill")
    path, out = saved(rows, tmp_path / "rows.parquet"), tmp_path / "said.parquet"
    push = ("annotate", "push", path, "--project", "kill")
    pull = ("annotate", "pull", "--project", "kill", "--out", out)
    journal = out.with_suffix(".journal.jsonl")
    with studio(fragile) as running:
        port = int(running.address.rsplit(":", 1)[1])
        running.json(
            "annotate", "push", saved(rows[:1], tmp_path / "one.parquet"), "--project", "kill"
        )
        number = running.owner.project("kill")["id"]

        def there() -> int:
            return int(running.owner.json("GET", f"/api/projects/{number}/")["task_number"])

        done = running.killed_during(push, lambda: there() > 1)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert "no answer" in done.stderr and "goes on from here" in done.stderr
    with studio(fragile, port) as running:
        pushed = running.json(*push)
        assert pushed["added"] + pushed["unchanged"] == 2000 and 0 < pushed["added"] < 1999
        assert pushed["duplicates"] == {}
        tasks = running.owner.tasks(number)
        assert sorted(task["data"]["row"] for task in tasks) == sorted(row.id for row in rows)
        # As annotators would, only faster: the same tasks come with an annotation each.
        running.owner.json("POST", f"/api/projects/{number}/import", json=[
            {"data": task["data"], "meta": task["meta"], "annotations": [{"result": [no()]}]}
            for task in tasks
        ])  # fmt: skip
        done = running.killed_during(pull, journal.exists)
        assert done.returncode == 1 and "no answer" in done.stderr, done.stderr
        kept = len(journal.read_text().splitlines())
        assert 0 < kept < 2000
    with studio(fragile, port) as running:
        pulled = running.json(*pull)
        assert pulled["tasks"] == 2000 - kept and pulled["annotations"] == {"counts": 2000}
        assert len(annotations.read(out)) == 2000


def test_a_push_and_a_pull_that_are_killed_are_finished_by_the_next(
    label_studio: Studio, tmp_path: Path
) -> None:
    rows = rows_of(1500, "stop")
    path, out = saved(rows, tmp_path / "rows.parquet"), tmp_path / "said.parquet"
    push = ("annotate", "push", path, "--project", "stop")
    pull = ("annotate", "pull", "--project", "stop", "--out", out)
    journal = out.with_suffix(".journal.jsonl")
    label_studio.json(
        "annotate", "push", saved(rows[:1], tmp_path / "one.parquet"), "--project", "stop"
    )
    owner = label_studio.owner
    number = owner.project("stop")["id"]

    def there() -> int:
        return int(owner.json("GET", f"/api/projects/{number}/")["task_number"])

    label_studio.kill_command(push, lambda: there() > 1)
    assert there() < 1500
    label_studio.json(*push)
    tasks = owner.tasks(number)
    assert sorted(task["data"]["row"] for task in tasks) == sorted(row.id for row in rows)
    owner.json("POST", f"/api/projects/{number}/import", json=[
        {"data": task["data"], "meta": task["meta"], "annotations": [{"result": [no()]}]}
        for task in tasks
    ])  # fmt: skip
    label_studio.kill_command(pull, journal.exists)
    with journal.open("ab") as file:
        file.write(b'{"at": "2026-11-24", "task": {"id": 1, "da')  # a line that a crash cut off
    pulled = label_studio.json(*pull)
    assert pulled["annotations"] == {"counts": 1500} and pulled["torn"] == 1
