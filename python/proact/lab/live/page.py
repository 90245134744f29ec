"""The page on which a run is chosen, started and watched. What it does in the browser is ``live.js``."""

from __future__ import annotations

from html import escape

from proact.lab.live.form import DEFAULTS
from proact.lab.registry import MODELS
from proact.lab.workloads import WORKLOADS

#: What the fields are called, and what they take.
_LABELS = {
    "connections": ("Connections", "such as 1,10,100"),
    "size": ("Bytes per message", "such as 64,1K,64K"),
    "duration": ("Seconds per cell", "0.01 to 3600"),
    "repeat": ("Repeats", "5 or more for intervals that mean something"),
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
<p class="how">The same work through every model, measured on this machine. Leave the machine alone
while it runs: what else it does is measured with it, this page included.</p>
<form id="form">
<fieldset><legend>Models</legend><div class="choices">{_models()}</div>
<p><button type="button" id="all">All</button> <button type="button" id="none">None</button></p></fieldset>
<fieldset><legend>Workload</legend><div class="choices">{_workloads()}</div></fieldset>
<fieldset><legend>Load</legend><div class="fields">{_fields()}</div></fieldset>
<p><button type="submit" id="start">Start</button></p>
</form>
<p id="problem" class="warning" role="alert"></p>
<section id="run" hidden>
<h2>The run</h2>
<p id="state" role="status"></p>
<progress id="progress" value="0" max="1"></progress>
<p><button type="button" id="stop" disabled>Stop</button></p>
<p id="links" hidden><a href="/report">Open the report</a> ·
<a href="/results.json">Download the raw results (JSON)</a></p>
<figure><h3>Messages per second so far</h3><div class="chart" id="chart"></div>
<figcaption>Longer is better: the median of the repeats so far. The report has the intervals.</figcaption>
</figure>
<div class="wide" tabindex="0"><table>
<thead><tr><th>model</th><th>load</th><th>messages/s</th><th>p50 µs</th><th>p99 µs</th><th>CPU µs</th></tr>
</thead><tbody id="cells"></tbody>
</table></div>
</section>
<script src="/plotly.js"></script>
<script src="/charts.js"></script>
<script src="/live.js"></script>
</body>
</html>
"""


def _models() -> str:
    """A box for each model; those that this machine does not have say why."""
    boxes = []
    for name, model in MODELS.items():
        reason = model.missing()
        boxes.append(_box("models", name, model.kind if reason is None else reason, usable=reason is None))
    return "".join(boxes)


def _workloads() -> str:
    return "".join(
        _box("workloads", name, workload.about, checked=name == "echo")
        for name, workload in WORKLOADS.items()
    )


def _box(group: str, name: str, about: str, *, usable: bool = True, checked: bool = True) -> str:
    state = (" checked" if checked else "") if usable else " disabled"
    return (
        f'<label><input type="checkbox" name="{group}" value="{escape(name)}"{state}> {escape(name)}'
        f' <small class="how">{escape(about)}</small></label>'
    )


def _fields() -> str:
    return "".join(
        f'<label>{label}<input name="{name}" value="{escape(DEFAULTS[name])}" autocomplete="off">'
        f'<small class="how">{hint}</small></label>'
        for name, (label, hint) in _LABELS.items()
    )
