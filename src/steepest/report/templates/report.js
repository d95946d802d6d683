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
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
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
  const draw = async (plot) => {
    const spec = JSON.parse(plot.parentElement.querySelector(".spec").textContent);
    await Plotly.newPlot(plot, spec.data, { ...spec.layout, dragmode, autosize: true }, config);
    const ends = plot.data.filter((t) => t.x && t.x.length && t.hoverinfo !== "skip").map((t) => t.x[t.x.length - 1]);
    plot.lastStep = Math.max(...ends);
  };

  const pressed = (button) => button.getAttribute("aria-pressed") === "true";
  const press = (button) => {
    for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
  };
  const panelsOf = (button) => [...button.closest("section").querySelectorAll(".plot")].filter((p) => p.data);

  for (const button of document.querySelectorAll("[data-scale]")) {
    button.addEventListener("click", () => {
      press(button);
      const type = button.dataset.scale;
      for (const plot of panelsOf(button)) {
        const range = (plot.layout.meta || {})[type];
        const patch = { "yaxis.type": type, "yaxis.dtick": null };
        Plotly.relayout(plot, range ? { ...patch, "yaxis.range": [...range] } : { ...patch, "yaxis.autorange": true });
      }
    });
  }

  // The last half alone, its y range fitted to the lines and not to every single dot.
  const fit = (plot, from) => {
    let low = Infinity;
    let high = -Infinity;
    for (const trace of plot.data) {
      if (trace.visible === false || trace.hoverinfo === "skip" || !/lines/.test(trace.mode)) continue;
      const x = plot._fullData[trace.index ?? plot.data.indexOf(trace)].x;
      const y = plot._fullData[plot.data.indexOf(trace)].y;
      for (let i = 0; i < y.length; i += 1) {
        if (x[i] >= from && Number.isFinite(y[i])) {
          low = Math.min(low, y[i]);
          high = Math.max(high, y[i]);
        }
      }
    }
    if (!(high > low)) return {};
    if (plot.layout.yaxis.type === "log") {
      const [a, b] = [Math.log10(low), Math.log10(high)];
      return { "yaxis.range": [a - 0.15 * (b - a), b + 0.15 * (b - a)] };
    }
    return { "yaxis.range": [low - 0.1 * (high - low), high + 0.1 * (high - low)] };
  };
  for (const button of document.querySelectorAll("[data-span]")) {
    button.addEventListener("click", () => {
      press(button);
      const end = button.dataset.span === "end";
      for (const plot of panelsOf(button)) {
        const last = plot.lastStep;
        const whole = (plot.layout.meta || {})[plot.layout.yaxis.type || "linear"];
        Plotly.relayout(
          plot,
          end
            ? { "xaxis.range": [last / 2, last * 1.01], ...fit(plot, last / 2) }
            : { "xaxis.autorange": true, ...(whole ? { "yaxis.range": [...whole] } : { "yaxis.autorange": true }) },
        );
      }
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
  for (const plot of plots) {
    await draw(plot);
    if (hidden.size) show(plot);
    await new Promise((next) => setTimeout(next));
  }
  document.documentElement.dataset.drawn = String(plots.length);
  document.documentElement.dataset.drawingMs = String(Math.round(performance.now() - started));
})();
