"use strict";
(async () => {
  const plots = [...document.querySelectorAll(".plot")];
  const trouble = (text) => {
    const place = document.getElementById("trouble");
    place.textContent = text;
    place.hidden = false;
  };

  // Plotly travels gzipped: a report weighs two megabytes and not five.
  const load = async () => {
    if (!("DecompressionStream" in window)) throw new Error("this browser cannot unpack gzip");
    const raw = atob(document.getElementById("plotly").textContent);
    const packed = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i += 1) packed[i] = raw.charCodeAt(i);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  };
  try {
    await load();
  } catch (error) {
    trouble(`The figures cannot be drawn: ${error.message}. The tables hold every number that decides.`);
    return;
  }

  // On a touch screen a finger on a plot scrolls the page; with a mouse it zooms.
  const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: dragmode ? "hover" : false,
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]],
    toImageButtonOptions: { format: "svg", filename: document.title },
  };
  // The full data have plain numbers where the data that were handed in are packed.
  const linesOf = (plot) =>
    plot._fullData.filter((t) => t.visible && t.hoverinfo !== "skip" && /lines/.test(t.mode) && t.x && t.x.length);
  const draw = async (plot) => {
    const spec = JSON.parse(plot.parentElement.querySelector(".spec").textContent);
    await Plotly.newPlot(plot, spec.data, { ...spec.layout, dragmode, autosize: true }, config);
    plot.lastStep = Math.max(...linesOf(plot).map((trace) => trace.x[trace.x.length - 1]));
  };

  const pressed = (button) => button.getAttribute("aria-pressed") === "true";
  const press = (button) => {
    for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
  };

  // The y range of what is drawn from a step on, fitted to the lines and not to every single dot.
  const fitted = (plot, type, from) => {
    let low = Infinity;
    let high = -Infinity;
    for (const { x, y } of linesOf(plot)) {
      for (let i = 0; i < y.length; i += 1) {
        if (x[i] >= from && Number.isFinite(y[i]) && (type !== "log" || y[i] > 0)) {
          low = Math.min(low, y[i]);
          high = Math.max(high, y[i]);
        }
      }
    }
    if (!(high > low)) return null;
    const [a, b] = type === "log" ? [Math.log10(low), Math.log10(high)] : [low, high];
    return [a - 0.12 * (b - a), b + 0.12 * (b - a)];
  };

  // Both switches of a section together say what its panels show.
  const reframe = (section) => {
    const chosen = (name) => section.querySelector(`[${name}][aria-pressed="true"]`);
    const end = chosen("data-span")?.dataset.span === "end";
    for (const plot of section.querySelectorAll(".plot")) {
      if (!plot.data) continue;
      const type = chosen("data-scale")?.dataset.scale ?? "linear";
      const whole = (plot.layout.meta || {})[type];
      const range = end ? fitted(plot, type, plot.lastStep / 2) : whole && [...whole];
      Plotly.relayout(plot, {
        "yaxis.type": type,
        "yaxis.dtick": null,
        ...(end ? { "xaxis.range": [plot.lastStep / 2, plot.lastStep * 1.01] } : { "xaxis.autorange": true }),
        ...(range ? { "yaxis.range": range } : { "yaxis.autorange": true }),
      });
    }
  };
  for (const button of document.querySelectorAll(".switch button")) {
    button.addEventListener("click", () => {
      press(button);
      reframe(button.closest("section"));
    });
  }

  const hidden = new Set();
  const show = (plot) => {
    const touched = plot.data.flatMap((trace, i) => (trace.meta && trace.meta.arm !== undefined ? [i] : []));
    if (touched.length) {
      Plotly.restyle(plot, { visible: touched.map((i) => !hidden.has(plot.data[i].meta.arm)) }, touched);
    }
  };
  for (const chip of document.querySelectorAll(".chip")) {
    chip.addEventListener("click", () => {
      const arm = Number(chip.dataset.arm);
      chip.setAttribute("aria-pressed", String(!pressed(chip)));
      if (pressed(chip)) hidden.delete(arm);
      else hidden.add(arm);
      for (const plot of plots) if (plot.data) show(plot);
    });
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "selected";
      }
    });
  }

  // One plot per turn of the event loop: the page answers while it fills from the top.
  const started = performance.now();
  const first = plots.filter((plot) => plot.getBoundingClientRect().top < innerHeight).length;
  for (const [place, plot] of plots.entries()) {
    if (place === first) document.documentElement.dataset.firstMs = String(Math.round(performance.now()));
    await draw(plot);
    if (hidden.size) show(plot);
    await new Promise((next) => setTimeout(next));
  }
  document.documentElement.dataset.drawn = String(plots.length);
  document.documentElement.dataset.drawingMs = String(Math.round(performance.now() - started));
})();
