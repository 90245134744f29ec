"""The report: its contents, the escaping of its data, and its requirements."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import plotly.graph_objects
import pytest
from support import made_up

from proact.cli.app import dispatch
from proact.cli.error import CommandError
from proact.lab.registry import MODELS
from proact.lab.report import drawing, figures, tables, timelines
from proact.lab.report.bars import bars_to_scale
from proact.lab.report.looks import looks
from proact.lab.report.page import to_html
from proact.lab.spread import Spread
from proact.lab.summary import blocks, latencies

if TYPE_CHECKING:
    from pathlib import Path

    from proact.lab.report.figures import Figure
    from proact.lab.results import Document


@pytest.fixture(scope="module")
def document() -> Document:
    return made_up.run()


@pytest.fixture(scope="module")
def page(document: Document) -> str:
    return to_html(document)


def data_of(page: str, name: str) -> object:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def every(document: Document) -> list[Figure]:
    found, looked = blocks(document), looks(document["models"])
    return [
        *timelines.of_requests(document["timelines"]),
        *figures.scaling(found, looked),
        *(figure for block in found for figure in figures.of_block(document, block, looked)),
    ]


def test_the_raw_data_is_in_the_page(page: str, document: Document) -> None:
    assert data_of(page, "results") == document


def test_what_is_written_in_results_stays_text(page: str) -> None:
    assert "&lt;script&gt;x&lt;/script&gt; &amp; Co" in page
    assert "it hangs &amp; &lt;b&gt;hangs&lt;/b&gt;" in page
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    assert "<script" not in body
    assert "<b>" not in body


def test_plotly_is_in_the_page_once(page: str) -> None:
    assert page.count("* plotly.js v") == 1
    assert not re.search(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="', page)


def test_plotly_knows_every_word_of_every_chart(document: Document) -> None:
    found = every(document)
    assert len(found) == 1 + 2 + 2 + 3 * 4
    for figure in found:
        plotly.graph_objects.Figure(figure.data, figure.layout)  # raises ValueError for unknown attributes
        assert figure.title
        assert figure.how.endswith(".")
        for axis in ("xaxis", "yaxis"):
            assert figure.layout[axis]["title"]["text"]


def test_bars_are_the_medians_with_their_intervals(document: Document) -> None:
    block = blocks(document)[1]
    rows = {row.model: row for row in block.rows}
    rate, cpu = figures.of_block(document, block, looks(document["models"]))[:2]
    for figure, spreads in (
        (rate, {name: row.rate for name, row in rows.items()}),
        (cpu, {name: row.cpu_us for name, row in rows.items()}),
    ):
        (bars,) = figure.data
        assert bars["y"] == list(rows)
        for at, name in enumerate(bars["y"]):
            assert bars["x"][at] == spreads[name].median
            assert bars["x"][at] + bars["error_x"]["array"][at] == pytest.approx(spreads[name].high)
            assert bars["x"][at] - bars["error_x"]["arrayminus"][at] == pytest.approx(spreads[name].low)


def test_calls_and_memory_have_their_intervals_where_several_repeats_have_them() -> None:
    found = made_up.run(repeats=2)
    for cell in found["cells"]:
        if (measured := cell["measured"]) is not None:
            measured["counted"]["calls"] *= 1 + cell["repeat"]
            measured["occupied"]["resident"] += 40_000 * cell["repeat"]
    block = blocks(found)[0]
    assert tables.block_numbers(block).count("<td class=number>33%</td>") == 2 * len(block.rows)
    for cell in found["cells"]:
        if cell["repeat"] and cell["measured"]:
            cell["measured"]["counted"] = cell["measured"]["occupied"] = None
    once = tables.block_numbers(blocks(found)[0])
    assert once.count("<td class=number>–</td>") == 2 * len(block.rows)


def test_curves_go_over_what_was_varied(document: Document) -> None:
    rate, _cpu = figures.scaling(blocks(document), looks(document["models"]))
    assert rate.title == "Messages per second: echo, 1 KiB"
    curves = {curve.get("meta", curve["name"]): curve["x"] for curve in rate.data}
    assert "gevent" not in curves
    assert curves.pop("blocking") == [1]
    assert set(map(tuple, curves.values())) == {(1, 10, 100)}
    for cell in document["cells"]:
        assert cell["rate"] is None
    fixed = made_up.run(connections=(10,))
    fixed["cells"] += [{**cell, "rate": 500.0} for cell in fixed["cells"]]
    fixed["cells"] += [{**cell, "rate": 5000.0} for cell in fixed["cells"] if cell["rate"]]
    tail, _cpu = figures.scaling(blocks(fixed), looks(fixed["models"]))
    assert tail.title == "99th percentile of latency: echo, 10 connections, 1 KiB"
    assert tail.data[0]["x"] == [500.0, 5000.0]


def test_the_split_is_stacked_and_others_stand_beside(document: Document) -> None:
    split = next(each for each in every(document) if each.title == "Where the time goes")
    *parts, others = split.data
    assert all("base" not in part for part in parts)
    assert set(others["base"]) == {0.0}
    whole = [sum(part["x"][at] for part in parts) for at in range(len(others["x"]))]
    micros = dict(zip(others["y"], whole, strict=True))
    assert micros["blocking"] == pytest.approx(20.0)
    assert others["x"][0] == pytest.approx(micros[others["y"][0]] / 12)


def test_a_long_wait_is_cut_off_and_the_caption_says_so() -> None:
    document = made_up.run(connections=(10,), repeats=1)
    for cell in document["cells"]:
        if cell["model"] == "threads":
            assert cell["measured"] is not None
            assert cell["measured"]["split"] is not None
            cell["measured"]["split"]["waiting"] *= 1000
    split = next(each for each in every(document) if each.title == "Where the time goes")
    assert "off the right edge" in split.how
    waiting = next(each for each in split.data if each["name"] == "waiting")
    assert split.layout["xaxis"]["range"][1] < max(waiting["x"])


def test_one_bar_fifty_times_the_others_does_not_flatten_them() -> None:
    document = made_up.run(connections=(10,), repeats=5)
    for cell in document["cells"]:
        if cell["model"] == "aio" and cell["measured"] is not None:
            cell["measured"]["server_user_seconds"] *= 50
    block = blocks(document)[0]
    cpu = next(each for each in every(document) if each.title == "CPU time per message")
    (bars,) = cpu.data
    others = [row.cpu_us.median for row in block.rows if row.model != "aio"]
    aio = next(row.cpu_us.median for row in block.rows if row.model == "aio")
    highest = max(row.cpu_us.high for row in block.rows if row.model != "aio")
    assert max(bars["x"]) == highest < 1.2 * max(others)
    assert highest < cpu.layout["xaxis"]["range"][1] < 1.1 * highest
    assert [(name, float(text)) for name, text in cpu.cut] == [("aio", pytest.approx(aio, rel=0.01))]
    assert "cut off" in cpu.how


def test_an_interval_is_drawn_whole_or_runs_off_the_edge() -> None:
    bars = [("a", Spread(10, 9, 14)), ("b", Spread(9, 8, 40)), ("c", Spread(8, 8, 8))]
    figure = bars_to_scale("", "", "", bars, ["red"] * 3)
    (drawn,) = figure.data
    assert drawn["error_x"]["array"] == [4, 31, 0]
    assert 15 < figure.layout["xaxis"]["range"][1] < 16  # the longest bar, half as long again


def test_many_loads_are_folded_in_the_contents() -> None:
    few = to_html(made_up.run(connections=(1, 2), repeats=1))
    many = to_html(made_up.run(connections=tuple(range(1, 9)), repeats=1))
    contents = [page[page.index("<nav") : page.index("</nav>")] for page in (few, many)]
    assert ["<details>" in each for each in contents] == [False, True]
    assert "8 loads" in contents[1]
    assert contents[1].count("#load-") == 8


def test_of_many_curves_the_best_of_each_kind_stand_out(document: Document) -> None:
    rate, _cpu = figures.scaling(blocks(document), looks(document["models"]))
    grey = [curve for curve in rate.data if "meta" in curve]
    vivid = [curve for curve in rate.data if "meta" not in curve]
    assert 2 <= len(vivid) <= 4
    assert len({MODELS[curve["name"]].kind for curve in vivid}) == len(vivid)
    assert len({curve["line"]["color"] for curve in vivid}) == len(vivid)
    assert {curve["line"]["color"] for curve in grey}.isdisjoint(curve["line"]["color"] for curve in vivid)
    assert sum(curve["showlegend"] for curve in grey) == 1
    few = figures.highlighted([dict(curve) for curve in vivid], [])
    assert [curve["name"] for curve in few] == [curve["name"] for curve in vivid]


def test_a_distribution_ends_at_all_answers(document: Document) -> None:
    steps = latencies(document, blocks(document)[0].load, "threads")
    assert steps[-1][1] == 1.0
    assert steps == sorted(steps)
    # All five repeats are in it: 100 answers each, one of them in the fastest step.
    assert steps[0] == (21.0, 0.002)


def test_models_differ_in_every_chart_and_depend_on_no_others() -> None:
    whole = looks({name: {"family": model.family} for name, model in MODELS.items()})
    assert len({(look.colour, look.marker) for look in whole.values()}) == len(MODELS)
    assert looks({"epoll": {"family": "plain"}}) == {"epoll": whole["epoll"]}
    assert list(looks({"new": {"family": "another"}, "epoll": {"family": "plain"}})) == ["epoll", "new"]


def test_a_call_is_its_wait_then_its_work() -> None:
    asked, moved, _ = made_up.timeline("epoll")["events"]
    assert list(timelines.states(asked, 50.0)) == [
        ("waiting", -40.0, 9.0),
        ("run_queue", 9.0, 10.0),
        ("asking", 10.0, 12.0),
    ]
    assert list(timelines.states(moved, 50.0))[-1] == ("copying", 15.0, 20.0)
    assert list(timelines.states({**moved, "errno": 11}, 50.0))[-1] == ("asking", 15.0, 20.0)
    assert list(timelines.states({**moved, "end": 90.0}, 50.0)) == [("waiting", 14.0, 90.0)]


def test_a_request_has_two_lanes_for_each_thread_that_moved_its_data() -> None:
    found = [made_up.timeline("epoll"), made_up.timeline("threads", 2)]
    *_, whole = timelines.of_requests(found)
    assert whole.layout["yaxis"]["categoryarray"] == [
        "epoll",
        "epoll, kernel",
        "threads",
        "threads, kernel",
    ]
    assert [name for name, _ in timelines.in_words(found)] == [
        "epoll: I/O multiplexing (fig. 6.3)",
        "threads: Blocking I/O (fig. 6.1)",
    ]
    *_, alone = timelines.of_requests(found[:1])
    bars = {(trace["name"], lane) for trace in alone.data for lane in trace["y"]}
    assert bars == {
        ("in the program", "epoll"),
        ("waiting", "epoll, kernel"),
        ("run queue", "epoll, kernel"),
        ("asking", "epoll, kernel"),
        ("copying", "epoll, kernel"),
    }
    first, last = whole.layout["xaxis"]["range"]
    for trace in whole.data:
        for start, length in zip(trace["base"], trace["x"], strict=True):
            assert first <= start < start + length <= last
    copying = next(trace for trace in alone.data if trace["name"] == "copying")
    assert copying["text"] == ["recv(7) = 1: copying, 5.0 of 6.0 µs", "send(7) = 1: copying, 9.0 of 11.0 µs"]


def test_the_models_are_compared_by_shares_and_without_the_wait() -> None:
    found = [made_up.timeline("epoll"), made_up.timeline("threads", 2)]
    micros, shares = timelines.comparison(found)
    for at in range(len(found)):
        assert sum(part["x"][at] for part in shares.data) == pytest.approx(1.0)
    spent = {part["name"]: part["x"][0] for part in micros.data}
    assert spent == pytest.approx(
        {"run queue": 3.0, "copying": 14.0, "asking (free)": 2.0, "in the program (free)": 12.0}
    )


def test_every_verdict_is_a_word(page: str, document: Document) -> None:
    for claim in document["claims"]:
        assert f"{claim['verdict']}</p>" in page
    assert page.count('<article class="claim') == 4


def test_a_run_without_numbers_still_has_a_page() -> None:
    document = made_up.run()
    document["cells"] = [{**cell, "measured": None, "reason": "no luck"} for cell in document["cells"]]
    document["timelines"], document["claims"] = [], []
    page = to_html(document)
    assert data_of(page, "figures") == []
    assert "no luck" in page
    assert "When each wins" not in page


def test_report_writes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], document: Document
) -> None:
    results, out = tmp_path / "run.json", tmp_path / "run.html"
    results.write_text(json.dumps(document))
    assert dispatch(["lab", "report", str(results), "--html", str(out)]) == 1  # poll had failed
    said = capsys.readouterr()
    assert said.err == f"proact: the report in {out}\n"
    assert "When each wins" in said.out
    assert out.read_text() == to_html(document)
    dispatch(["lab", "report", str(results), "--html", "-"])
    assert capsys.readouterr().out == out.read_text()


def test_without_plotly_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing.importlib.util, "find_spec", lambda name: None)
    out = tmp_path / "x.html"
    with pytest.raises(CommandError, match=r"drawn by plotly: pip install 'proact\[lab\]'"):
        dispatch(["lab", "run", "--html", str(out)])
    assert not out.exists()


@pytest.mark.parametrize("narrow", [False, True])
def test_a_logarithmic_axis_has_a_tick(narrow: bool) -> None:
    """A chart between 2.3 and 4.5 ms had none at 1, 2 and 5, and so no figures at all."""
    digits = {"D1": range(1, 10), "D2": (1, 2, 5), 1: (1,)}
    for low in (1.1, 2.1, 2.3, 5.1, 7.0, 9.5):
        for ratio in (1.0, 1.05, 1.4, 1.9, 2.4, 2.6, 4.9, 5.1, 60.0, 299.0, 1000.0):
            axis = figures._log("ms", [low, low * ratio], narrow=narrow)
            if "dtick" in axis:
                ticks = [digit * 10**power for power in range(5) for digit in digits[axis["dtick"]]]
                assert any(low <= tick <= low * ratio for tick in ticks), (low, ratio)
            else:
                assert axis["nticks"] > 1
