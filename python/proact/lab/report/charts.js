// Owns: drawing one chart with plotly, in the page's colours and width. Knows nothing of what the chart shows.
"use strict";

const charts = (() => {
  const LEGEND_ROW = 20; // px
  const LEGEND_LINE = 45; // px, what stands before a name
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map(); // element -> figure

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function template() {
    const [text, soft, line, box] = ["--text", "--soft", "--line", "--box"].map(colour);
    const axis = {
      automargin: true, gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, ticks: "outside",
      title: { font: { size: 12, color: soft }, standoff: 8 }, tickfont: { size: 11 }, fixedrange: touch(),
    };
    const bar = { error_x: { color: text }, marker: { line: { width: 0 } } };
    return {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, sans-serif", color: text },
        xaxis: axis, yaxis: axis, hovermode: "closest", hoverlabel: { bgcolor: box, bordercolor: line, font: { color: text } },
        shapedefaults: { line: { color: soft } }, annotationdefaults: { font: { color: soft, size: 11 } },
        dragmode: touch() ? false : "zoom",
      },
      data: { bar: [bar] },
    };
  }

  function touch() {
    return matchMedia("(pointer: coarse)").matches;
  }

  // A legend lies under the chart in as many rows as the width asks for; the chart itself keeps its height.
  function legend(figure, width) {
    if (figure.layout.showlegend === false) return { rows: 0, name: 0 };
    const columns = Math.max(2, Math.floor(width / 155));
    return { rows: Math.ceil(figure.data.length / columns), name: Math.floor(width / columns) - LEGEND_LINE };
  }

  function draw(element, figure) {
    const { rows, name } = legend(figure, element.clientWidth - 24);
    const height = figure.height + rows * LEGEND_ROW + (rows ? 8 : 0);
    element.style.height = `${height}px`;
    const top = figure.layout.annotations ? 24 : 8;
    const layout = {
      ...figure.layout, height, template: template(), margin: { l: 8, r: 12, t: top, b: 8 },
      legend: { orientation: "h", x: 0, xanchor: "left", xref: "container", y: 0, yanchor: "bottom", yref: "container",
                entrywidth: name, maxheight: rows * LEGEND_ROW + 12, font: { size: 11 }, traceorder: "normal" },
    };
    drawn.set(element, figure);
    const config = { responsive: true, displayModeBar: false };
    return Plotly.react(element, figure.data.map((trace) => ({ ...trace })), layout, config);
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
  return { draw };
})();
