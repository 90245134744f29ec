// What a reader would complain of in a page of the laboratory, as a list of sentences.
(() => {
  const wrong = [], root = document.documentElement;
  if (root.scrollWidth > innerWidth) wrong.push(`the page is ${root.scrollWidth} px wide`);
  const overlap = (one, other) => one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
  for (const chart of document.querySelectorAll(".chart")) {
    if (!chart.clientWidth) continue;
    const name = chart.closest("figure")?.querySelector("h3")?.textContent ?? chart.id;
    const box = (each) => each.getBoundingClientRect();
    const legend = chart.querySelector(".legend"), plot = chart.querySelector(".nsewdrag");
    if (legend && plot && box(legend).height > box(plot).height) wrong.push(`${name}: the legend outgrows the plot`);
    for (const ticks of [".xtick text", ".ytick text"]) {
      const found = [...chart.querySelectorAll(ticks)].map((each) => [each.textContent, box(each)]).filter(([, each]) => each.width);
      for (let at = 1; at < found.length; at++) {
        if (overlap(found[at - 1][1], found[at][1])) wrong.push(`${name}: ${found[at - 1][0]} and ${found[at][0]} overlap`);
      }
    }
    for (const text of chart.querySelectorAll("text")) {
      const { left, right, width } = box(text);
      if (width && (left < box(chart).left - 1 || right > box(chart).right + 1)) wrong.push(`${name}: ${text.textContent} is cut`);
    }
  }
  for (const each of document.querySelectorAll("button, th, dd, label, .said, h1, h2, h3")) {
    if (each.checkVisibility() && each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== "inline") {
      wrong.push(`${each.tagName} ${each.textContent.slice(0, 40)} is cut`);
    }
  }
  return wrong;
})()
