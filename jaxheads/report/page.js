"use strict";
(() => {
  const payload = JSON.parse(document.getElementById("payload").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // A chart names its colours "@name"; the palette lives in the style sheet.
  // Data is left as it is: only the specification around it is painted.
  function paint(value, palette, key) {
    if (key === "datasets" || key === "values") return value;
    if (typeof value === "string") {
      return value.startsWith("@") ? palette.getPropertyValue("--" + value.slice(1)).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => paint(item, palette));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, paint(item, palette, name)]));
    }
    return value;
  }

  const theme = {
    background: null,
    font: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
    view: { stroke: null },
    axis: {
      domainColor: "@line", tickColor: "@line", gridColor: "@grid", labelColor: "@muted", titleColor: "@muted",
      labelFontSize: 11, titleFontSize: 12, titleFontWeight: "normal", labelPadding: 4, tickSize: 4,
    },
    legend: { labelColor: "@muted", titleColor: "@muted", labelFontSize: 11 },
    scale: { bandPaddingInner: 0.04 },
  };

  function show(box, problem) {
    box.replaceChildren();
    const note = document.createElement("p");
    note.className = "problem";
    note.textContent = "This chart could not be drawn: " + problem;
    box.append(note);
  }

  const views = [];
  async function draw() {
    const palette = getComputedStyle(document.documentElement);
    views.splice(0).forEach((view) => view.finalize());
    for (const [number, chart] of payload.charts.entries()) {
      const box = document.getElementById("chart-" + number);
      const spec = paint(chart.spec, palette);
      spec.datasets = { ...spec.datasets, heads: payload.heads };
      try {
        views.push(await vegaEmbed(box, spec, {
          mode: "vega-lite",
          actions: false,
          ast: true,
          renderer: chart.renderer,
          config: paint(theme, palette),
          tooltip: { theme: dark.matches ? "dark" : "light" },
        }));
        box.style.minHeight = "";
      } catch (problem) {
        show(box, problem);
      }
    }
    document.documentElement.dataset.drawn = String(views.length);
  }

  draw();
  dark.addEventListener("change", draw);
})();
