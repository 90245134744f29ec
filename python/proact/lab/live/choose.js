// Owns: the three questions of the live page: it asks the server, shows the answer, and starts a measurement of it.
"use strict";

const choosing = (() => {
  const byId = (id) => document.getElementById(id);
  const form = byId("choose");
  const value = (name) => form.elements[name].value.trim();
  const takesTime = () => ["cpu", "wait"].includes(value("does"));
  const work = () => value("does") + (takesTime() ? `:${value("time")}` : "");

  async function answer() {
    const asked = new URLSearchParams({ connections: value("connections"), active: value("active"), does: work(), size: value("size") });
    let found;
    try {
      const response = await fetch(`/choose?${asked}`);
      found = response.ok ? await response.json() : { sentence: await response.text(), recommended: [], source: "", unknown: "" };
    } catch {
      found = { sentence: "The server does not answer: it may have been stopped.", recommended: [], source: "", unknown: "" };
    }
    byId("answer").hidden = false;
    byId("answer").classList.toggle("none", !found.recommended.length);
    byId("said").textContent = found.sentence;
    const source = byId("evidence");
    source.replaceChildren();
    if (found.source) {
      source.append("Evidence: ", Object.assign(document.createElement("a"), { href: found.link, textContent: found.source }), ". ");
    }
    if (found.unknown) source.append(`Not compared: ${found.unknown}.`);
    byId("answered").textContent = found.title ?? "";
    byId("answerchart").parentElement.hidden = !found.figure;
    if (found.figure) charts.draw(byId("answerchart"), found.figure);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answer();
  });
  form.addEventListener("change", () => {
    byId("howlong").hidden = !takesTime();
    byId("howlong").querySelector("input").disabled = !takesTime();
  });

  // The form of a run that measures the question; ``usual`` has the default value of each field.
  function asRun(usual, models) {
    const kind = value("does") === "nothing" ? "echo" : value("does");
    const time = value("time").replaceAll(" ", "").replace("µ", "u");
    const micros = takesTime() ? Math.round(parseFloat(time) * { us: 1, ms: 1e3, s: 1e6 }[time.replace(/[0-9.]+/, "")]) : 0;
    const seconds = micros / 1e6, name = micros % 1000 ? `${micros}us` : `${micros / 1000}ms`;
    return { ...usual, what: "choice", models, workloads: takesTime() ? `${kind}-${name}` : kind, claims: "",
             connections: value("connections"), active: value("active"), size: value("size"), rate: "",
             duration: String(Math.max(Number(usual.duration), 5 * seconds)) };
  }

  return { answer, asRun, valid: () => form.reportValidity() };
})();
