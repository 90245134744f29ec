// Owns: drawing one chart with plotly, in the page's colours and width. Knows nothing of what the chart shows.
"use strict";

const charts = (() => {
  const LEGEND_ROW = 20; // px
  const LEGEND_LINE = 46; // px, the line and gap before a name
  const LEGEND_GAP = 10; // px, the part of it between two names; the last name needs none
  const LETTER = 5.8; // px, the width of a letter of the small print in a chart
  const COLOURS = ["#0a78b8", "#d08700", "#00966d", "#c8649c", "#3a9ad8", "#d55e00", "#85827c"]; // the colours of looks.py
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map(); // element -> figure

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function template() {
    const [text, soft, line, box] = ["--text", "--soft", "--line", "--box"].map(colour);
    const axis = {
      gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, ticks: "outside",
      title: { font: { size: 12, color: soft }, standoff: 8 }, tickfont: { size: 11 }, fixedrange: touch(),
    };
    const bar = { error_x: { color: text }, marker: { line: { width: 0 } } };
    return {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, sans-serif", color: text },
        xaxis: axis, yaxis: axis, colorway: COLOURS, hovermode: "closest", hoverlabel: { bgcolor: box, bordercolor: line, font: { color: text } },
        shapedefaults: { line: { color: soft } }, annotationdefaults: { font: { color: soft, size: 11 } },
        dragmode: touch() ? false : "zoom",
      },
      data: { bar: [bar] },
    };
  }

  function touch() {
    return matchMedia("(pointer: coarse)").matches;
  }

  // Room for the longest word: plotly could find it out only after drawing the chart.
  function longest(words) {
    return Math.ceil(LETTER * Math.max(0, ...words.map((word) => word.length)));
  }

  // The legend lies under the chart, in as many rows as it needs; the chart itself keeps its height.
  function legend(figure, width) {
    if (figure.layout.showlegend === false) return { rows: 0, name: 0 };
    const named = figure.data.filter((trace) => trace.showlegend !== false);
    const name = longest(named.map((trace) => trace.name));
    const columns = Math.max(1, Math.floor((width + LEGEND_GAP) / (name + LEGEND_LINE)));
    return { rows: Math.ceil(named.length / columns), name };
  }

  function draw(element, figure) {
    const margin = { l: 36 + longest(figure.layout.yaxis.categoryarray ?? ["100%"]), r: 8, b: 44,
                     t: figure.layout.annotations ? 24 : 8 };
    const width = element.clientWidth;
    const { rows, name } = legend(figure, width - margin.l - margin.r);
    const under = rows * LEGEND_ROW + (rows ? 12 : 0);
    const plot = Math.max(figure.height - margin.t - margin.b, rows * LEGEND_ROW + 8); // never less than its legend
    const height = plot + margin.t + margin.b + under;
    margin.b += under;
    element.style.height = `${height}px`;
    const given = figure.layout;
    // A bar that is cut off at the end of the axis: a gap in it, and its value on it.
    const paper = colour("--paper");
    const cut = (figure.cut ?? []).map(([y, text]) => ({ y, text, x: given.xaxis.range[1] / 1.03 }));
    const gaps = cut.map(({ y, x }) => ({ type: "path", xref: "x", yref: "y", xsizemode: "pixel", xanchor: 0.9 * x, ysizemode: "pixel",
      yanchor: y, path: "M 0,10 L 6,-10 L 11,-10 L 5,10 Z", fillcolor: paper, line: { width: 0 } }));
    const values = cut.map(({ y, x, text }) => ({ x: 0.88 * x, y, text, xanchor: "right", showarrow: false, bgcolor: paper, borderpad: 1,
      font: { size: 11, color: colour("--text") } }));
    const layout = {
      ...given, ...(cut.length ? { shapes: [...(given.shapes ?? []), ...gaps], annotations: [...(given.annotations ?? []), ...values] } : {}), width, height, margin, template: template(),
      legend: { orientation: "h", x: 0, xanchor: "left", xref: "container", y: 0, yanchor: "bottom", yref: "container",
                entrywidth: name, maxheight: under, font: { size: 11 }, traceorder: "normal" },
    };
    drawn.set(element, figure);
    return Plotly.react(element, figure.data.map((trace) => ({ ...trace })), layout, { displayModeBar: false });
  }

  function forget(element) {
    drawn.delete(element);
    Plotly.purge(element);
  }

  function again() {
    for (const [element, figure] of drawn) draw(element, figure);
  }

  let width = document.documentElement.clientWidth;
  addEventListener("resize", () => {
    if (document.documentElement.clientWidth === width) return; // a phone's address bar comes and goes
    width = document.documentElement.clientWidth;
    again();
  });
  dark.addEventListener("change", again);

  // Paper is white and has a width of its own, so the charts are drawn again for it, and afterwards for the screen.
  function print(paper) {
    document.documentElement.classList.toggle("paper", paper);
    again();
  }
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  return { draw, forget };
})();
