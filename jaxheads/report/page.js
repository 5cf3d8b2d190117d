"use strict";
(() => {
  const payload = JSON.parse(document.getElementById("payload").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // A chart names its colours "@name"; the palette lives in the style sheet.
  // Data is left as it is: only the specification around it is painted. Vega reads
  // titles within expressions, where a line separator would be an error.
  function paint(value, palette, key) {
    if (key === "datasets" || key === "values") return value;
    if (typeof value === "string") {
      const colour = value.startsWith("@") && palette.getPropertyValue("--" + value.slice(1)).trim();
      return colour || value.replace(/[\u2028\u2029]/g, " ");
    }
    if (Array.isArray(value)) return value.map((item) => paint(item, palette));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, paint(item, palette, name)]));
    }
    return value;
  }

  function show(box, problem) {
    box.replaceChildren();
    const note = document.createElement("p");
    note.className = "problem";
    note.textContent = "This chart could not be drawn: " + problem;
    box.append(note);
  }

  // The policy of the page forbids what the library would do on its own: to evaluate
  // text as code (hence "ast") and to add style sheets (theirs stands in page.css).
  const views = [];
  async function draw() {
    const palette = getComputedStyle(document.documentElement);
    views.splice(0).forEach((view) => view.finalize());
    const boxes = payload.charts.map((chart, number) => document.getElementById("chart-" + number));
    boxes.forEach((box, number) => { box.style.minHeight = payload.charts[number].spec.height + 40 + "px"; });
    for (const [number, chart] of payload.charts.entries()) {
      const box = boxes[number];
      const spec = paint(chart.spec, palette);
      spec.datasets = { ...spec.datasets, heads: payload.heads };
      try {
        views.push(await vegaEmbed(box, spec, {
          mode: "vega-lite",
          actions: false,
          ast: true,
          defaultStyle: false,
          renderer: chart.renderer,
          config: paint(payload.theme, palette),
          tooltip: { disableDefaultStyle: true },
        }));
        box.style.minHeight = "";
      } catch (problem) {
        show(box, problem);
      }
    }
    document.documentElement.dataset.drawn = String(views.length);
  }

  function offer(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // As a file a figure has its title and legend, and light ground whatever the page's.
  async function svg(chart) {
    const palette = getComputedStyle(document.getElementById("light"));
    const { datasets, ...inner } = chart.spec;
    const parts = [{ ...inner, width: chart.width, title: chart.title }, chart.legend].filter(Boolean);
    const spec = paint({ datasets: { ...datasets, heads: payload.heads }, vconcat: parts, spacing: 14 }, palette);
    const { view } = await vegaEmbed(document.createElement("div"), spec, {
      mode: "vega-lite", actions: false, ast: true, defaultStyle: false, renderer: "svg",
      tooltip: false,
      config: { ...paint(payload.theme, palette), background: palette.getPropertyValue("--paper").trim() },
    });
    const text = await view.toSVG();
    view.finalize();
    return text;
  }

  for (const button of document.querySelectorAll("button.save")) {
    button.addEventListener("click", async () => {
      const chart = payload.charts[button.dataset.chart];
      if (button.dataset.kind === "csv") offer(chart.name + ".csv", "text/csv", chart.csv);
      else offer(chart.name + ".svg", "image/svg+xml", await svg(chart));
    });
  }

  draw();
  dark.addEventListener("change", draw);
})();
