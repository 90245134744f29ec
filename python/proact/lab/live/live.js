// Owns: the behaviour of the live page: it sends the form and shows each event of the run as it comes.
"use strict";

(() => {
  const byId = (id) => document.getElementById(id);
  const token = document.querySelector('meta[name="token"]').content;
  const form = byId("form");
  const models = [...form.querySelectorAll('input[name="models"]')].map((box) => box.value);
  const usual = JSON.parse(form.dataset.usual); // default values of the fields by the chosen kind; "" is for all kinds
  const fields = Object.keys(usual[""]);
  let usualFor = "";
  let cells = []; // the cells of this run that have numbers
  let run = null; // its number
  let planned = 0, done = 0; // steps: cells and timelines
  let drawing = null;
  let asked = false; // whether the run is to answer the three questions
  let ends = null; // when the run will end, in ms

  async function post(path, body) {
    byId("problem").textContent = "";
    const headers = { "Content-Type": "application/json", "X-Proact-Token": token };
    try {
      const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
      if (!response.ok) byId("problem").textContent = await response.text();
    } catch {
      byId("problem").textContent = "The server does not answer: it may have been stopped.";
    }
  }

  function chosen(name) {
    return [...form.querySelectorAll(`input[name="${name}"]:checked:enabled`)].map((box) => box.value).join(",");
  }

  function value(name) {
    const field = form.elements[name];
    return field.disabled ? "" : field.value.trim();
  }

  // Shows the fields of the chosen kind, with the default values unless the user has entered others.
  function suit() {
    const what = chosen("what");
    for (const part of form.querySelectorAll("[data-for]")) {
      part.hidden = !JSON.parse(part.dataset.for).includes(what);
      (part.matches("fieldset") ? part : part.querySelector("input")).disabled = part.hidden;
    }
    const works = chosen("workloads").split(",");
    const suits = what === "claims" ? what : works.includes("idle") ? "idle" : works.join() === "files" ? "files" : "";
    const [before, now] = [usualFor, suits].map((name) => ({ ...usual[""], ...usual[name] }));
    for (const name of fields) {
      if (form.elements[name].value === before[name]) form.elements[name].value = now[name];
    }
    usualFor = suits;
  }

  // Reports contradictory fields before the server has to.
  function problem() {
    const what = chosen("what"), works = chosen("workloads").split(","), files = works.join() === "files";
    if (what === "claims") return chosen("claims") ? "" : "Choose a claim.";
    if (!chosen("models")) return "Choose a model.";
    if (!works[0]) return "Choose a workload.";
    if (what === "timelines" && (works.length > 1 || files || works[0] === "idle" || value("size").includes(","))) {
      return "A timeline is of one workload with requests (not idle, not files) and of one size.";
    }
    if (works.includes("idle") && works.length > 1) return "idle has connections of its own: run it by itself.";
    if (files && (value("active") || value("rate") || value("size"))) {
      return "files have no share that sends, no bytes per message and no fixed rate: leave these empty.";
    }
    if (files && what !== "load") return "Timelines need a workload with requests: files has none.";
    return "";
  }

  form.addEventListener("change", suit);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    byId("problem").textContent = problem();
    if (problem()) return;
    asked = false;
    const groups = ["what", "models", "workloads", "claims"].map((name) => [name, chosen(name)]);
    post("/start", Object.fromEntries([...groups, ...fields.map((name) => [name, value(name)])]));
  });
  byId("stop").addEventListener("click", () => post("/stop", {}));
  byId("measure").addEventListener("click", () => {
    if (!choosing.valid()) return;
    asked = true;
    post("/start", choosing.asRun(usual[""], byId("choose").dataset.models));
  });
  for (const button of form.querySelectorAll("fieldset button")) {
    const boxes = button.closest("fieldset").querySelectorAll("input");
    button.addEventListener("click", () => boxes.forEach((box) => { box.checked = button.value === "yes"; }));
  }

  function running(yes) {
    byId("start").disabled = byId("measure").disabled = yes;
    byId("stop").disabled = !yes;
  }

  function number(value) {
    return value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 });
  }

  function duration(seconds) {
    return seconds < 100 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  }

  // The line of one step: its numbers, or a sentence in their place.
  function row(step, sentence, numbers = []) {
    const line = byId("cells").insertRow();
    const texts = [step.model, step.load, ...(step.status !== "ok" ? [`${step.status}: ${step.reason}`] : sentence ? [sentence] : numbers)];
    texts.forEach((text, at) => {
      const field = line.insertCell();
      field.textContent = typeof text === "number" ? number(text) : text;
      if (typeof text === "number") field.className = "number";
    });
    line.lastChild.colSpan = 7 - texts.length;
    byId("progress").value = ++done;
  }

  function verdict({ text, verdict: word, because }) {
    const card = document.createElement("article");
    card.className = `claim ${word.replace(" ", "-")}`;
    for (const [tag, said] of [["p", word], ["h3", text], ["p", because]]) {
      card.append(Object.assign(document.createElement(tag), { textContent: said }));
    }
    card.firstChild.className = "verdict";
    byId("verdicts").append(card);
  }

  function median(values) {
    const sorted = [...values].sort((one, other) => one - other);
    const middle = Math.floor(sorted.length / 2);
    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  }

  // A chart for each load, because one load's figures would flatten another's.
  function figures() {
    // If the rate is given, only the latency can be compared.
    const free = cells.filter((cell) => !cell.fixed), measured = free.length ? free : cells;
    const metric = free.length ? "rate" : "p99";
    const unit = measured.every((cell) => cell.load.startsWith("files")) ? "operations" : "messages";
    const title = free.length ? `${unit} per second` : "99th percentile of latency, µs";
    const shown = models.filter((model) => measured.some((cell) => cell.model === model));
    const loads = [...new Set(measured.map((cell) => cell.load))]
      .sort((one, other) => one.replaceAll(",", "").localeCompare(other.replaceAll(",", ""), "en", { numeric: true }));
    byId("drawn").textContent = `${title[0].toUpperCase()}${title.slice(1)} so far: ${free.length ? "longer" : "shorter"} is better`;
    return loads.map((load) => {
      const rates = (model) => measured.filter((cell) => cell.load === load && cell.model === model).map((cell) => cell[metric]);
      const there = shown.filter((model) => rates(model).length);
      const data = [{ type: "bar", orientation: "h", name: load, y: there, x: there.map((model) => median(rates(model))),
                      hovertemplate: "%{y}: %{x:,.4~g}<extra></extra>" }];
      const yaxis = { title: { text: "model" }, type: "category", categoryorder: "array", categoryarray: there,
                      autorange: "reversed", dtick: 1, showgrid: false };
      const xaxis = { title: { text: title }, rangemode: "tozero", tickformat: "~s" };
      return { load, data, layout: { xaxis, yaxis, showlegend: false }, height: 64 + there.length * 22 };
    });
  }

  function draw() {
    for (const { load, ...figure } of figures()) {
      let part = [...byId("chart").children].find((each) => each.dataset.load === load);
      if (!part) {
        part = document.createElement("figure");
        part.dataset.load = load;
        const chart = Object.assign(document.createElement("div"), { className: "chart" });
        part.append(Object.assign(document.createElement("h3"), { textContent: load }), chart);
        byId("chart").append(part);
      }
      charts.draw(part.querySelector(".chart"), figure);
    }
  }

  // Draw seldom: it takes CPU time from the measurement.
  function drawSoon() {
    drawing ??= setTimeout(() => {
      drawing = null;
      if (!cells.length) return;
      byId("figure").hidden = false;
      draw();
    }, 500);
  }

  // The figures of the cell that is measured, and at its end its result.
  function now({ rate, p50, p99 }) {
    for (const [name, figure] of Object.entries({ rate, p50, p99 })) byId(name).textContent = figure ? number(figure) : "–";
  }

  setInterval(() => {
    if (ends !== null) byId("left").textContent = duration(Math.max(0, Math.ceil((ends - Date.now()) / 1000)));
  }, 500);

  const shown = {
    begun() {
      [cells, planned, done] = [[], 0, 0];
      byId("cells").replaceChildren();
      byId("verdicts").replaceChildren();
      byId("figure").hidden = true;
      for (const chart of byId("chart").querySelectorAll(".chart")) charts.forget(chart);
      byId("chart").replaceChildren();
      byId("run").hidden = false;
      byId("options").open = false; // so that the figures stand under the bar
      byId("links").hidden = true;
      now({});
      byId("state").textContent = "Starting.";
      byId("progress").value = 0;
      running(true);
    },
    planned({ steps, seconds }) {
      planned = steps;
      byId("progress").max = Math.max(1, steps);
      byId("state").textContent = `${steps} steps, about ${duration(Math.ceil(seconds))}.`;
      ends = Date.now() + 1000 * seconds;
    },
    heard: now,
    started({ model, load, steps, left }) {
      planned = byId("progress").max = steps; // what is measured again is a step more
      ends = Date.now() + 1000 * left;
      now({});
      byId("state").textContent = `${done + 1} of ${planned}: ${model}, ${load}`;
    },
    finished(cell) {
      row(cell, null, [cell.rate, cell.p50, cell.p99, cell.cpu]);
      now(cell);
      if (cell.status !== "ok") return;
      cells.push(cell);
      drawSoon();
    },
    noted({ what }) {
      byId("state").textContent = `${done + 1} of ${planned}: ${what}`;
    },
    taken(timeline) {
      row(timeline, `answered in ${number(timeline.answered ?? 0)} µs`);
    },
    judged: verdict,
    ended({ how, reason, results }) {
      running(false);
      ends = null;
      byId("left").textContent = "–";
      if (asked && results) choosing.answer();
      byId("links").hidden = !results;
      byId("state").textContent = { done: "Done.", stopped: `Stopped early: ${reason}.`, failed: `Failed: ${reason}` }[how];
    },
  };

  suit();
  const events = new EventSource("/events");
  events.addEventListener("message", ({ data, lastEventId }) => {
    const number = lastEventId.split(".")[0];
    const event = JSON.parse(data);
    if (number !== run && event.event !== "begun") return;
    run = number;
    shown[event.event](event);
  });
})();
