// Owns: what the live page does: sends the form, shows each event of the run as it comes.
"use strict";

(() => {
  const byId = (id) => document.getElementById(id);
  const token = document.querySelector('meta[name="token"]').content;
  const form = byId("form");
  const boxes = [...form.querySelectorAll('input[name="models"]:enabled')];
  let cells = []; // the finished ones of this run
  let run = null; // its number
  let planned = 0;
  let drawing = null;

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
    return [...form.querySelectorAll(`input[name="${name}"]:checked`)].map((box) => box.value).join(",");
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const fields = Object.fromEntries(["connections", "size", "duration", "repeat"].map((name) => [name, form.elements[name].value]));
    post("/start", { ...fields, models: chosen("models"), workloads: chosen("workloads") });
  });
  byId("stop").addEventListener("click", () => post("/stop", {}));
  byId("all").addEventListener("click", () => boxes.forEach((box) => { box.checked = true; }));
  byId("none").addEventListener("click", () => boxes.forEach((box) => { box.checked = false; }));

  function running(yes) {
    byId("start").disabled = yes;
    byId("stop").disabled = !yes;
  }

  function number(value) {
    return value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 });
  }

  function row(cell) {
    const line = byId("cells").insertRow();
    const texts = cell.status === "ok"
      ? [cell.model, cell.load, ...[cell.rate, cell.p50, cell.p99, cell.cpu].map(number)]
      : [cell.model, cell.load, `${cell.status}: ${cell.reason}`];
    texts.forEach((text, at) => {
      const field = line.insertCell();
      field.textContent = text;
      if (at > 1 && cell.status === "ok") field.className = "number";
    });
    line.lastChild.colSpan = 7 - texts.length;
  }

  function median(values) {
    const sorted = [...values].sort((one, other) => one - other);
    const middle = Math.floor(sorted.length / 2);
    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  }

  function figure() {
    const measured = cells.filter((cell) => cell.status === "ok");
    const models = boxes.map((box) => box.value).filter((model) => measured.some((cell) => cell.model === model));
    const loads = [...new Set(measured.map((cell) => cell.load))].sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
    const patterns = ["", "/", "x", ".", "-", "|", "+"];
    const data = loads.map((load, at) => {
      const rates = (model) => measured.filter((cell) => cell.load === load && cell.model === model).map((cell) => cell.rate);
      const there = models.filter((model) => rates(model).length);
      return { type: "bar", orientation: "h", name: load, y: there, x: there.map((model) => median(rates(model))),
               marker: { pattern: { shape: patterns[at % patterns.length] } },
               hovertemplate: "%{y}: %{x:,.4~g} messages/s<extra></extra>" };
    });
    const yaxis = { title: { text: "model" }, type: "category", categoryorder: "array", categoryarray: models,
                    autorange: "reversed", dtick: 1, showgrid: false };
    const xaxis = { title: { text: "messages per second" }, rangemode: "tozero", tickformat: "~s" };
    return { data, layout: { barmode: "group", xaxis, yaxis }, height: 64 + models.length * (12 + 12 * loads.length) };
  }

  // Seldom: drawing takes CPU time from what is measured.
  function drawSoon() {
    drawing ??= setTimeout(() => {
      drawing = null;
      if (cells.some((cell) => cell.status === "ok")) charts.draw(byId("chart"), figure());
    }, 500);
  }

  const shown = {
    begun() {
      cells = [];
      byId("cells").replaceChildren();
      Plotly.purge(byId("chart"));
      byId("chart").style.height = "0";
      byId("run").hidden = false;
      byId("run").scrollIntoView({ behavior: "smooth" });
      byId("links").hidden = true;
      byId("state").textContent = "Starting.";
      byId("progress").value = 0;
      running(true);
    },
    planned({ cells: count, seconds }) {
      planned = count;
      byId("progress").max = Math.max(1, count);
      byId("state").textContent = `${count} cells, about ${Math.ceil(seconds)} s.`;
    },
    started({ model, load, done }) {
      byId("state").textContent = `${done + 1} of ${planned}: ${model}, ${load}`;
    },
    finished(cell) {
      cells.push(cell);
      byId("progress").value = cells.length;
      row(cell);
      drawSoon();
    },
    ended({ how, reason }) {
      running(false);
      byId("links").hidden = how !== "done";
      byId("state").textContent = { done: "Done.", stopped: "Stopped.", failed: `Failed: ${reason}` }[how];
    },
  };

  const events = new EventSource("/events");
  events.addEventListener("message", ({ data, lastEventId }) => {
    const number = lastEventId.split(".")[0];
    const event = JSON.parse(data);
    if (number !== run && event.event !== "begun") return;
    run = number;
    shown[event.event](event);
  });
})();
