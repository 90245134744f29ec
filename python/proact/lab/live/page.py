"""The page on which a run is chosen, started and watched. ``live.js`` is its behaviour in the browser."""

from __future__ import annotations

import json
from html import escape

from proact.lab.choose.sources import CHOICES
from proact.lab.claims import TRIALS
from proact.lab.files import FILES
from proact.lab.live.form import DEFAULTS, TAKES, USUAL
from proact.lab.registry import MODELS
from proact.lab.registry import USUAL as USUAL_MODELS
from proact.lab.workloads import WORKLOADS

_NUMBERS = "[0-9]+[KkMm]?( *, *[0-9]+[KkMm]?)*"

#: The fields: their labels, what they accept in words, and as a pattern.
_LABELS = {
    "connections": ("Connections", "such as 1,10,100; on files: operations at once", _NUMBERS),
    "active": ("Of these, how many send", "such as 1,10; empty: all of them", _NUMBERS),
    "size": ("Bytes per message", "such as 64,1K,64K; files have none", _NUMBERS),
    "rate": ("Messages per second, fixed", "such as 500,5000; empty: as fast as they go", _NUMBERS),
    "duration": ("Seconds per cell", "0.01 to 3600", "[0-9]*[.]?[0-9]+"),
    "repeat": ("Repeats", "5 or more for intervals", "[0-9]+"),
}

#: Buttons for all boxes of a group.
_TICK = '<p><button type="button" value="yes">All</button> <button type="button" value="">None</button></p>'

#: The kinds of measurement, in a few words.
_WHAT = {
    "load": "every model under the same load: speed, latency, CPU, calls, memory",
    "load and timelines": "the same, then one request through each model",
    "timelines": "one request through each model, call by call",
    "claims": "what textbooks say, each sentence tested; some minutes for all",
}


def live_page(token: str) -> str:
    """The page, with the token that lets it start and stop runs."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="token" content="{escape(token)}">
<title>proact lab</title>
<link rel="stylesheet" href="/style.css">
<link rel="icon" href="data:,">
</head>
<body>
<h1>What each I/O model costs</h1>
<section><h2>Which model to use</h2>
<form id="choose" class="fields" data-models="{escape(",".join(CHOICES))}">
<label>Connections<input name="connections" value="1000" inputmode="numeric" required></label>
<label>Active<input name="active" placeholder="all of them" inputmode="numeric"></label>
<label>A request<select name="does"><option value="nothing">does nothing else</option>
<option value="cpu">computes for</option><option value="wait">waits for another server</option>
<option value="file">reads a file</option><option value="tls">goes over TLS</option>
<option value="fanout">asks three servers</option>
<option value="churn">has a connection of its own</option></select></label>
<label id="howlong" hidden>How long<input name="time" value="10ms"
 pattern="[0-9]+([.][0-9]+)? *(us|µs|ms|s)"></label>
<label>How large<input name="size" value="1K" pattern="[0-9]+[KkMm]?"></label>
<p class="buttons"><button type="submit">Answer</button>
<button type="button" id="measure" title="about a minute">Measure it</button></p>
</form>
<article class="answer" id="answer" hidden><div><p class="said" id="said" role="status"></p>
<p class="how" id="evidence"></p></div>
<figure><h3 id="answered"></h3><div class="chart" id="answerchart"></div></figure></article>
</section>
<form id="form" data-usual="{escape(json.dumps({"": DEFAULTS, **USUAL}))}">
<section id="bar" aria-label="The run">
<p class="buttons"><button type="submit" id="start">Start</button>
<button type="button" id="stop" disabled>Stop</button>
<span id="state" role="status">Nothing runs. What Start measures is chosen below.</span></p>
<progress id="progress" value="0" max="1"></progress>
<dl id="now"><div><dt>left</dt><dd id="left">–</dd></div><div><dt>per second</dt><dd id="rate">–</dd></div>
<div><dt>p50 µs</dt><dd id="p50">–</dd></div><div><dt>p99 µs</dt><dd id="p99">–</dd></div></dl>
<p id="problem" class="warning" role="alert"></p>
</section>
<section id="run" hidden>
<p id="links" hidden><a href="/report">Open the report</a> ·
<a href="/results.json">Download the raw results (JSON)</a></p>
<figure id="figure" hidden><h3 id="drawn"></h3><div class="figures" id="chart"></div>
<figcaption>The median of the repeats so far, an axis for each load. The report has intervals.</figcaption>
</figure>
<div class="claims" id="verdicts"></div>
<details open><summary>Each cell</summary><div class="wide" tabindex="0"><table>
<thead><tr><th>model</th><th>load</th><th>per second</th><th>p50 µs</th><th>p99 µs</th><th>CPU µs</th></tr>
</thead><tbody id="cells"></tbody>
</table></div></details>
</section>
<details id="options" open><summary>What is measured</summary>
<p class="how">The same work through every model, on this machine. Leave the machine alone
while it runs: what else it does is measured with it, this page included.</p>
<fieldset><legend>What to measure</legend><div class="choices">{_what()}</div></fieldset>
<fieldset data-for="{_kinds("models")}"><legend>Models</legend><div class="choices">{_models()}</div>
{_TICK}</fieldset>
<fieldset data-for="{_kinds("workloads")}"><legend>Workload</legend>
<div class="choices">{_workloads()}</div></fieldset>
<fieldset data-for="{_kinds("claims")}"><legend>Claims</legend>
<div class="choices">{_claims()}</div>
{_TICK}</fieldset>
<fieldset><legend>How</legend><div class="fields">{_fields()}</div></fieldset>
</details>
</form>
<script src="/plotly.js"></script>
<script src="/charts.js"></script>
<script src="/choose.js"></script>
<script src="/live.js"></script>
</body>
</html>
"""


def _models() -> str:
    """A box for each model; a model that this machine does not have says why."""
    boxes = []
    for name, model in MODELS.items():
        one = "echo" if "echo" in model.workloads else next(iter((*model.workloads, *FILES)))
        reason = model.missing(workload=one)
        about = model.kind if reason is None else reason
        boxes.append(_box("models", name, about, usable=reason is None, checked=name in USUAL_MODELS))
    return "".join(boxes)


def _workloads() -> str:
    listed = {name: workload.about for name, workload in WORKLOADS.items()} | {
        "idle": "echo over many connections, of which few send; by itself",
        "files": "many small files, and reads and appends of large ones",
    }
    return "".join(_box("workloads", name, about, checked=name == "echo") for name, about in listed.items())


def _what() -> str:
    return "".join(
        _box("what", name, about, kind="radio", checked=name == "load") for name, about in _WHAT.items()
    )


def _claims() -> str:
    return "".join(_box("claims", name, trial.text) for name, trial in TRIALS.items())


def _kinds(field: str) -> str:
    """The kinds that have a field: the page shows the field only for them."""
    return escape(json.dumps([kind for kind, fields in TAKES.items() if field in fields]))


def _box(
    group: str, name: str, about: str, *, kind: str = "checkbox", usable: bool = True, checked: bool = True
) -> str:
    state = (" checked" if checked else "") if usable else " disabled"
    return (
        f'<label><input type="{kind}" name="{group}" value="{escape(name)}"{state}> {escape(name)}'
        f' <small class="how">{escape(about)}</small></label>'
    )


def _fields() -> str:
    return "".join(
        f'<label data-for="{_kinds(name)}">{label}<input name="{name}" value="{escape(DEFAULTS[name])}"'
        f' pattern="{pattern}" title="{hint}" autocomplete="off"><small class="how">{hint}</small></label>'
        for name, (label, hint, pattern) in _LABELS.items()
    )
