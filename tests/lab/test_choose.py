"""`proact lab choose`: what it recommends, from what, and when it refuses to."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING

import pytest
from support import made_up
from support.trials import once_of_five

from proact.cli import lab_reference as reference
from proact.cli.app import dispatch
from proact.cli.error import CommandError
from proact.lab.asked import AskedError
from proact.lab.choose import packed
from proact.lab.choose.answer import Answer, answer, winners
from proact.lab.choose.packed import slim
from proact.lab.choose.points import points
from proact.lab.choose.question import Question, question
from proact.lab.choose.sources import CHOICES, REFERENCE, job_for, machine, shipped
from proact.lab.registry import MODELS, Family
from proact.lab.report.page import to_html
from proact.lab.results import ResultsError

if TYPE_CHECKING:
    from pathlib import Path

    from proact.lab.results import CellResult, Document


def ask(connections: int, active: int | None = None, work: str = "nothing", size: int = 1024) -> Question:
    return Question(connections, active or connections, work, 0.0, size)


@pytest.fixture
def document() -> Document:
    """`threads` has the least CPU time and the highest rate of the models that serve ten connections."""
    return made_up.run(connections=(1, 10, 1000))


def set_rate(document: Document, model: str, connections: int, factor: float) -> None:
    for cell in document["cells"]:
        if cell["model"] == model and cell["connections"] == connections and cell["measured"]:
            cell["measured"]["messages"] = int(cell["measured"]["messages"] * factor)
            cell["measured"]["server_user_seconds"] /= 10
            cell["measured"]["server_system_seconds"] /= 10


def test_the_winner_with_its_figures_and_the_reason(document: Document) -> None:
    set_rate(document, "epoll", 10, 10)
    found = answer(ask(10), document)
    assert found.models == ("epoll",)
    assert not found.interpolated
    (row,) = (row for row in found.points[0].rows if row.model == "epoll")
    assert f"epoll serves {row.rate.median:,.0f} messages/s ({row.rate.low:,.0f} to " in found.sentence
    assert "µs of CPU each" in found.sentence
    assert "the next, threads, reaches" in found.sentence
    assert "threads cost 4 KiB a connection" in found.sentence
    assert found.unknown["blocking"].startswith("serves one connection")


def test_a_model_that_never_sleeps_is_not_recommended_without_a_word(document: Document) -> None:
    set_rate(document, "nonblocking", 10, 10)
    found = answer(ask(10), document)
    assert found.models == ("nonblocking",)
    assert "nonblocking keeps its core busy also while nothing comes" in found.sentence


def test_models_whose_intervals_overlap_are_recommended_together(document: Document) -> None:
    found = answer(ask(10), document)
    assert len(found.models) > 1
    assert found.models == winners(found.points[0].rows)
    assert all(name in found.sentence for name in found.models[:3])
    if len(found.models) > 4:
        assert f"or {len(found.models) - 3} that cannot be told from them" in found.sentence


def test_the_next_model_is_said_to_lack_what_it_lacks(document: Document) -> None:
    """A model that is slower than the fastest, or as fast for more CPU time."""
    set_rate(document, "epoll", 10, 10)
    assert "the next, threads, reaches" in answer(ask(10), document).sentence
    epoll = {cell["repeat"]: cell["measured"] for cell in document["cells"] if _is(cell, "epoll")}
    for cell in document["cells"]:
        if _is(cell, "threads") and (measured := cell["measured"]) and (like := epoll[cell["repeat"]]):
            measured["messages"] = like["messages"] + 1  # so it is the fastest, and does not win
            measured["seconds"] = like["seconds"]
            measured["server_user_seconds"] = 3 * (
                like["server_user_seconds"] + like["server_system_seconds"]
            )
    said = answer(ask(10), document)
    assert said.models == ("epoll",)
    assert "the next, threads, is as fast for " in said.sentence


def _is(cell: CellResult, model: str) -> bool:
    return cell["model"] == model and cell["connections"] == 10


def test_no_ceiling_is_recommended(document: Document) -> None:
    set_rate(document, "bare-epoll", 10, 1000)
    found = answer(ask(10), document)
    assert not any(MODELS[name].family == Family.CEILING for name in found.models)


def test_what_lies_between_two_loads_with_one_winner_is_said_to_be_interpolated(document: Document) -> None:
    for connections in (10, 1000):
        set_rate(document, "epoll", connections, 10)
    found = answer(ask(100), document)
    assert found.models == ("epoll",)
    assert found.interpolated
    assert "10 connections and 1,000 connections: interpolated, not measured" in found.sentence
    assert {point.load.connections for point in found.points} == {10, 1000}


def test_a_load_of_which_few_send_is_not_in_the_way_of_one_in_which_all_do(document: Document) -> None:
    """The reference has 1,000 connections of which ten send, and none with ten that all send."""
    for cell in document["cells"]:
        if cell["connections"] == 10:
            cell["connections"] = 1000  # and ten of them send
    for connections in (1, 1000):
        set_rate(document, "epoll", connections, 10)
    found = answer(ask(10), document)
    assert found.models == ("epoll",)
    assert {(point.load.connections, point.load.active) for point in found.points} == {(1, 1), (1000, 1000)}
    apart = answer(ask(500, 10), document)
    assert len(apart.points) == 3  # it lies between them, and all of them have to agree


def test_of_so_many_connections_those_that_send_are_between_what_was_measured(document: Document) -> None:
    """1,000 connections of which 500 send lie between 10 and 1,000 that send, whatever else was measured."""
    cells = [cell for cell in document["cells"] if cell["connections"] == 1000]
    few = [{**cell, "active": 10} for cell in cells]
    for cell in document["cells"]:
        if cell["connections"] == 10:
            cell["connections"] = cell["active"] = 100
    for connections in (100, 1000):
        set_rate(document, "epoll", connections, 10)
    document["cells"] += few  # type: ignore[arg-type]  # a copy by `**` is a plain dictionary
    set_rate(document, "epoll", 1000, 1)
    found = answer(ask(1000, 500), document)
    assert {(point.load.connections, point.load.active) for point in found.points} == {
        (1000, 10),
        (1000, 1000),
    }


def test_beyond_what_was_measured_the_nearest_load_is_named(document: Document) -> None:
    set_rate(document, "epoll", 1000, 10)
    found = answer(ask(2000), document)
    assert found.models == ()
    assert [point.load.connections for point in found.points] == [1000]
    assert found.sentence.endswith(
        "The nearest load that was measured is echo: 1,000 connections x 1 KiB, closed loop; "
        "there epoll did best."
    )
    set_rate(document, "select", 1000, 1000)
    assert "select" not in answer(ask(2000), document).sentence  # it cannot have so many
    for far in (ask(50_000), ask(10, size=32)):
        assert answer(far, document).points == ()


def test_a_wait_is_shown_with_the_rate_that_it_allows() -> None:
    found = shipped()
    assert found is not None
    said = answer(Question(100, 100, "wait", 0.01, 1024), found).sentence
    assert "messages/s (" in said
    assert ", of the 10,000 that the wait allows, for " in said


def test_between_different_winners_nothing_is_recommended(document: Document) -> None:
    set_rate(document, "epoll", 10, 10)
    set_rate(document, "asyncio", 1000, 10)
    found = answer(ask(100), document)
    assert found.models == ()
    assert "it lies between loads with different winners (epoll at echo: 10 connections" in found.sentence


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (ask(5000), "nothing above 1,000 connections was measured"),
        (ask(10, size=64), "nothing below 1 KiB was measured"),
        (ask(1000, active=20), "with so many connections nothing below 1,000 that send was measured"),
        (ask(10, work="file"), "there are results only of requests of the kinds nothing"),
    ],
)
def test_beyond_what_was_measured_it_does_not_guess(document: Document, asked: Question, reason: str) -> None:
    found = answer(asked, document)
    assert found.models == ()
    assert reason in found.sentence


def test_few_repeats_decide_nothing() -> None:
    found = answer(ask(10), made_up.run(connections=(10,), repeats=4))
    assert found.models == ()
    assert "4 repeats, and an interval needs 5" in found.sentence


def test_disturbed_repeats_decide_nothing(document: Document) -> None:
    set_rate(document, "epoll", 10, 10)
    for cell in document["cells"]:
        if cell["model"] == "epoll" and cell["repeat"] == 0 and cell["measured"]:
            cell["measured"]["disturbance"] = {"cores": 0.5, "by": {"make": 0.5}}
    found = answer(ask(10), document)
    assert "epoll" not in found.models
    assert found.unknown["epoll"] == (
        "1 of 5 repeats disturbed (0.50 cores by make (0.50)), and an interval needs 5 others"
    )
    for cell in document["cells"]:
        if cell["measured"]:
            cell["measured"]["disturbance"] = {"cores": 0.5, "by": {"make": 0.5}}
    found = answer(ask(10), document)
    assert found.models == ()
    assert "0.50 cores by make" in found.sentence


def test_a_fixed_rate_and_other_workloads_are_no_evidence(document: Document) -> None:
    for cell in document["cells"]:
        if cell["connections"] == 10:
            cell["rate"] = 500.0
        elif cell["connections"] == 1000:
            cell["workload"] = "web"
    assert {point.load.connections for point in points(document)} == {1}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("1000", "10", "wait:10ms", "4K"), Question(1000, 10, "wait", 0.01, 4096)),
        (("100", "", "cpu:50us", ""), Question(100, 100, "cpu", 5e-5, 1024)),
        (("1", "", "file", "64K"), Question(1, 1, "file", 0.0, 65536)),
        (("1", "", "wait:2.5ms", "1"), Question(1, 1, "wait", 0.0025, 1)),
        (("9", "", "churn", "16M"), Question(9, 9, "churn", 0.0, 16 << 20)),
    ],
)
def test_the_three_questions(given: tuple[str, str, str, str], expected: Question) -> None:
    found = question(*given)
    assert replace(found, seconds=0.0) == replace(expected, seconds=0.0)
    assert found.seconds == pytest.approx(expected.seconds)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", "", "nothing", ""), "--connections is ''"),
        (("10,20", "", "nothing", ""), "it takes one whole number from 1 to 1,000,000"),
        (("10", "11", "nothing", ""), "--active is 11, but --connections is 10"),
        (("10", "", "sleep", ""), "--does is 'sleep': it takes nothing, cpu:TIME, wait:TIME, file, tls, fan"),
        (("10", "", "cpu", ""), "--does is 'cpu'"),
        (("10", "", "file:2ms", ""), "--does is 'file:2ms'"),
        (("10", "", "wait:1h", ""), "--does's time is '1h': it takes a time with its unit, such as 10ms"),
        (("10", "", "wait:9s", ""), "--does's time is '9s': it must be from 1 µs to 2 s"),
    ],
)
def test_a_wrong_answer_to_a_question(given: tuple[str, str, str, str], message: str) -> None:
    with pytest.raises(AskedError) as error:
        question(*given)
    assert message in str(error.value)


def test_what_would_be_measured() -> None:
    job = job_for(question("200", "20", "wait:100ms", "4K"))
    loads = {(c.workload, c.connections, c.active, c.size) for c in job.cells}
    assert loads == {("wait-100ms", 200, 20, 4096)}
    assert {cell.model for cell in job.cells} == set(CHOICES)
    assert len(job.cells) == 5 * len(CHOICES)
    assert job.settings.duration >= 5 * 0.1


@pytest.mark.parametrize(
    ("does", "workload", "times"),
    [
        ("wait:2.5ms", "wait-2500us", ""),
        ("wait:500ms", "wait-500ms", " --duration 2.5 --warmup 0.75"),
        ("wait:1.9999994s", "wait-2000ms", " --duration 10 --warmup 3"),
        ("churn", "churn", ""),
    ],
)
def test_the_command_that_measures_it(does: str, workload: str, times: str) -> None:
    asked = question("10", "", does, "")
    said = f"proact lab run --workload {workload} --connections 10 --size 1024{times} --json mine.json"
    assert asked.command == said
    assert job_for(asked).settings.workloads == (workload,)


def test_in_the_shell(document: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_rate(document, "epoll", 10, 10)
    file = tmp_path / "run.json"
    file.write_text(json.dumps(document))
    asked = ["lab", "choose", "--connections", "10", "--from", str(file)]
    assert dispatch(asked) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "For 10 connections and a request of 1 KiB that does nothing else, use epoll: epoll"
    )
    assert "Evidence: " in said
    assert "proact lab run --workload echo --connections 10" in said.replace("\n", " ")
    assert dispatch([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recommended"] == ["epoll"]
    assert dispatch([*asked[:3], "5000", *asked[4:]]) == 3
    assert "No recommendation" in capsys.readouterr().out
    with pytest.raises(CommandError, match="how many connections"):
        dispatch(["lab", "choose"])


def test_what_contradicts_itself_is_one_line(document: Document, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps(document))
    asked = ["lab", "choose", "--connections", "10", "--from", str(file)]
    for more, message in (
        (["--measure"], "--measure measures now, and --from reads a file"),
        (["--models", "threads"], "--models names what --measure is to measure"),
        (["--json", "--html", "-"], "only one of --json, --csv and --html can go to stdout"),
        (["--html", str(file)], "holds the results, and would be written over"),
    ):
        with pytest.raises(CommandError, match=message):
            dispatch([*asked, *more])
    with pytest.raises(CommandError, match="holds the results, and would be written over"):
        dispatch(["lab", "report", str(file), "--csv", str(file)])
    assert json.loads(file.read_text()) == document


def test_a_report_on_stdout_is_nothing_but_the_report(
    document: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps(document))
    dispatch(["lab", "choose", "--connections", "10", "--from", str(file), "--html", "-"])
    said = capsys.readouterr().out
    assert said.startswith("<!DOCTYPE html>")
    assert said.endswith("</html>\n")


@pytest.mark.parametrize("text", ["", "{", '{"schema": 3}', '{"schema": 2}'])
def test_a_damaged_reference_is_none(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "reference.json").write_text(text)
    monkeypatch.setattr("proact.lab.choose.sources.files", lambda _: tmp_path)
    assert shipped() is None
    assert dispatch(["lab", "choose", "--connections", "10"]) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "this copy of proact ships no reference results" in said
    with pytest.raises(CommandError, match="there are no results to draw a report of"):
        dispatch(["lab", "choose", "--connections", "10", "--html", str(tmp_path / "x.html")])


def test_the_reference_is_whole_whatever_ends_its_measurement(
    document: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes on with what the file has; what was under way when it was stopped is left out."""
    file = tmp_path / "reference.json"
    asked = [ask(connections) for connections in (1, 2, 3)]

    class Made:
        def __init__(self, question: Question) -> None:
            self.connections = question.connections

        def begin(self) -> Document:
            return made_up.run(connections=(self.connections,))

        def measure(self, document: Document, progress: object) -> None:
            if self.connections == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(reference, "questions", lambda: asked)
    monkeypatch.setattr(reference, "job_for", lambda question, _: Made(question))
    for _ in range(2):
        assert reference.main(str(file)) == 130
        assert {cell["connections"] for cell in packed.read(file)["cells"]} == {1, 2}
    assert [path.name for path in tmp_path.iterdir()] == ["reference.json"]
    file.write_text("half of it")
    assert reference.main(str(file)) == 1
    assert "is no reference" in capsys.readouterr().err
    assert file.read_text() == "half of it"


def test_a_question_that_the_reference_does_not_answer_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its repeats were disturbed, so the file has cells of it, and no answer."""

    class Made:
        def __init__(self, _question: Question, _models: object) -> None:
            self.document = made_up.run(connections=(1,), repeats=3 if not file.exists() else 5)

        def begin(self) -> Document:
            return self.document

        def measure(self, document: Document, progress: object) -> None:
            pass

    file = tmp_path / "reference.json"
    monkeypatch.setattr(reference, "questions", lambda: [ask(1)])
    monkeypatch.setattr(reference, "job_for", Made)
    for _ in range(3):
        assert reference.main(str(file)) == 0
    found = packed.read(file)
    assert answer(ask(1), found).models
    assert len(found["cells"]) == len(made_up.run(connections=(1,))["cells"])


def test_a_kind_of_request_is_of_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another machine has measured of a kind that is not whole is measured again; the file says so."""

    class Made:
        def __init__(self, question: Question, _models: object) -> None:
            measured.append(question.connections)
            self.document = made_up.run(connections=(question.connections,))

        def begin(self) -> Document:
            return self.document

        def measure(self, document: Document, progress: object) -> None:
            pass

    measured: list[int] = []
    file = tmp_path / "reference.json"
    monkeypatch.setattr(reference, "job_for", Made)
    for asked, expected in (((1, 2), [1, 2]), ((1, 2, 3), [1, 2, 3]), ((1, 2, 3, 4), [4]), ((1, 2), [])):
        monkeypatch.setattr(reference, "questions", lambda asked=asked: [ask(each) for each in asked])
        monkeypatch.setattr(reference, "cpu_model", lambda: "one" if not file.exists() else "another")
        measured.clear()
        assert reference.main(str(file)) == 0
        assert measured == expected
    found = packed.read(file)
    assert found["environment"]["also"] == {"nothing": "another"}
    assert machine(found).endswith("; nothing: another")


def test_help_begins_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["lab", "choose", "--help"])
    assert "Examples:" in capsys.readouterr().out.split("proact lab choose --connections")[0]


@once_of_five  # a measurement fails if it gets no core
def test_it_measures_now(capsys: pytest.CaptureFixture[str]) -> None:
    """On a busy machine nothing may be recommended; the answer is right in either case."""
    asked = "lab choose --connections 2 --does wait:1ms --measure --models threads,epoll --json"
    code = dispatch(asked.split())
    said = json.loads(capsys.readouterr().out)
    assert code == (0 if said["recommended"] else 3)
    assert bool(said["recommended"]) != said["sentence"].startswith("No recommendation")
    if not said["recommended"]:
        assert "disturbed" in said["sentence"]


def test_the_report_begins_with_an_answer_for_each_load(document: Document) -> None:
    page = to_html({**document, "claims": []})
    body = page[page.index("<body>") :]
    assert body.index('id="choose"') < body.index("When each wins")
    assert body.count('<article class="answer') == 3
    for load in range(3):
        assert f'href="#load-{load}"' in body
        assert f'id="load-{load}"' in body


def test_the_report_of_a_run_for_claims_begins_with_the_claims(document: Document) -> None:
    page = to_html(document)
    parts = (
        "What the textbooks say</h2>",
        'aria-label="Contents"',
        "Which model to use</h2>",
        "When each wins</h2>",
    )
    assert [page.count(part) for part in parts] == [1] * 4
    assert sorted(parts, key=page.index) == list(parts)


def test_the_slim_results_give_the_same_answers(document: Document) -> None:
    whole, small = answer(ask(10), document), answer(ask(10), slim(document))  # type: ignore[arg-type]  # it is a plain dictionary
    assert isinstance(whole, Answer)
    assert whole.sentence == small.sentence
    assert 'histogram": [[' not in json.dumps(slim(document))


def test_packed_results_are_the_slim_ones(document: Document, tmp_path: Path) -> None:
    file = tmp_path / "packed.json"
    packed.write(document, file)
    assert packed.read(file) == slim(document)
    for damaged in ("[]", '{"columns": []}', '{"columns": {"a": 1}}', '{"columns": {"a": [1], "b": []}}'):
        file.write_text(damaged)
        with pytest.raises(ResultsError, match="is no reference"):
            packed.read(file)


def test_memory_is_stored_in_steps_and_read_in_bytes(document: Document, tmp_path: Path) -> None:
    """Eight digits for each of 8,000 figures were 7 KB of a wheel."""
    file = tmp_path / "packed.json"
    for cell in document["cells"]:
        if cell["measured"] is not None:
            cell["measured"]["occupied"] = {
                "threads": 3,
                "kernel_threads": 0,
                "resident_before": 25 << 20,
                "resident": 26 << 20,
            }
            cell["measured"]["held"] = [
                {"connections": 0, "resident": 25 << 20, "kernel": 7 << 20},
                {"connections": 10, "resident": (25 << 20) + 40_000, "kernel": 8 << 20},
            ]
    packed.write(document, file)
    columns = json.loads(file.read_text())["columns"]
    assert {400, 416} == {
        value
        for name in ("resident_before", "resident")
        for value in columns[f"measured/occupied/{name} x65536"]
        if value != "absent"
    }
    held = [value for value in columns["measured/held[]"] if value != "absent"]
    assert held[0] == {"connections": [0, 10], "resident x65536": [400, 401], "kernel x65536": [0, 16]}
    assert packed.read(file) == slim(document)
    # A file with bytes, as they were written before, means the same.
    shipped_before = json.loads(file.read_text())
    for name in ("resident_before", "resident"):
        steps = shipped_before["columns"].pop(f"measured/occupied/{name} x65536")
        shipped_before["columns"][f"measured/occupied/{name}"] = [
            value if value == "absent" else value * 65536 for value in steps
        ]
    file.write_text(json.dumps(shipped_before))
    assert packed.read(file) == slim(document)


def test_the_reference_that_is_shipped_is_as_small_as_it_is_written(tmp_path: Path) -> None:
    found = shipped()
    assert found is not None
    packed.write(found, tmp_path / "again.json")
    with resources.as_file(resources.files("proact.lab.choose") / REFERENCE) as file:
        assert file.read_bytes() == (tmp_path / "again.json").read_bytes()


def test_the_reference_that_is_shipped_answers() -> None:
    found = shipped()
    assert found is not None
    for asked in (ask(100), ask(1000, 10)):
        assert answer(asked, found).models
    # The rest is between loads: there need not be one winner, but both sides are there.
    assert "(1 connection and 100 connections: interpolated" in answer(ask(9), found).sentence
    for connections in (2, 10, 50, 500, 999):
        assert len(answer(ask(connections), found).points) == 2
