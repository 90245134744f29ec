// Owns: the behaviour of the report in the browser: it draws a chart when the reader scrolls near it, and offers the data for download.
"use strict";

(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const elements = document.querySelectorAll(".chart");

  const near = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((each) => each.isIntersecting)) {
      near.unobserve(entry.target);
      charts.draw(entry.target, figures[entry.target.dataset.figure]);
    }
  }, { rootMargin: "600px 0px" });
  elements.forEach((element) => near.observe(element));

  // What is not near is drawn when there is nothing else to do, so that a picture of the whole page has it, and at once
  // if the page is printed. A chart in an answer that is not shown has no width, and waits until it is shown.
  const left = () => [...elements].filter((element) => element.clientWidth && !element.querySelector(".main-svg"));
  const draw = (element) => charts.draw(element, figures[element.dataset.figure]);
  const later = window.requestIdleCallback ?? setTimeout;
  function next() {
    const [element] = left();
    if (!element) return;
    draw(element);
    later(next);
  }
  addEventListener("load", () => later(next));
  addEventListener("beforeprint", () => left().forEach(draw));

  // Shows the answer to the three questions.
  const form = document.getElementById("choose");
  function choose() {
    const asked = JSON.stringify(["many", "does", "size"].map((name) => form.elements[name].value));
    let found = false;
    for (const answer of document.querySelectorAll(".answer")) {
      answer.hidden = JSON.stringify(JSON.parse(answer.dataset.for)) !== asked;
      found ||= !answer.hidden;
    }
    document.getElementById("unmeasured").hidden = found;
  }
  if (form) {
    form.addEventListener("change", choose);
    const first = document.querySelector(".answer:not(.none)") ?? document.querySelector(".answer");
    JSON.parse(first.dataset.for).forEach((value, at) => { form.elements[["many", "does", "size"][at]].value = value; });
    choose();
  }

  document.getElementById("download").addEventListener("click", () => {
    const results = new Blob([document.getElementById("results").textContent], { type: "application/json" });
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(results), download: "proact-lab.json" });
    link.click();
    URL.revokeObjectURL(link.href);
  });
})();
