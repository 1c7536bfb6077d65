"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const main = document.getElementById("report");
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const ink = dark ? "#e6e9ef" : "#1d2430", line = dark ? "#343b48" : "#d8dce4";
  const colours = dark
    ? ["#60a5fa", "#f472b6", "#34d399", "#fbbf24", "#a78bfa", "#f87171", "#22d3ee", "#cbd5e1"]
    : ["#2563eb", "#db2777", "#059669", "#d97706", "#7c3aed", "#dc2626", "#0891b2", "#64748b"];

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const add = (...given) => main.append(element(...given)) || main.lastChild;
  const shown = (value) => value === null || value === undefined ? "–" : String(value);
  const table = (heads, rows, where = main) => {
    const made = element("table"), head = element("tr"), box = element("div", undefined, "scroll");
    heads.forEach((text) => head.append(element("th", text)));
    made.append(head);
    for (const row of rows) {
      const tr = element("tr");
      row.forEach((value) => tr.append(element("td", shown(value))));
      made.append(tr);
    }
    box.append(made);
    where.append(box);
  };
  const folded = (title, heads, rows) => {
    const details = element("details");
    details.append(element("summary", title));
    table(heads, rows, details);
    main.append(details);
  };
  const plot = (x, series, unit, options = {}) => {
    const box = add("div");
    const axis = { stroke: ink, grid: { stroke: line }, ticks: { stroke: line } };
    new uPlot({
      width: Math.min(1040, main.clientWidth - 20), height: 240,
      scales: { x: { time: false, ...options.x }, y: { ...options.y } },
      axes: [{ ...axis, ...options.xAxis }, { ...axis, size: 64, values: (u, at) => at.map((v) => (v === null ? "" : v + unit)) }],
      series: [{ label: options.xLabel || "s" }, ...series.map(([label, , more], number) => ({
        label, stroke: colours[number % colours.length], width: 1.5, spanGaps: false, points: { show: false }, ...more,
      }))],
    }, [x, ...series.map(([, values]) => values)], box);
  };

  // A bar for each region, on one scale, so that a glance shows which is slow, and by how much.
  const pictured = (rows) => {
    const svg = (name, attributes, text) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      if (text !== undefined) made.textContent = text;
      return made;
    };
    const width = Math.min(1040, main.clientWidth - 20), left = 190, right = 110, step = 30;
    const most = Math.max(...rows.flatMap((row) => [row.p99, row.accepted_p95_ms || 0])) * 1.05;
    const x = (value) => left + (width - left - right) * value / most;
    const picture = svg("svg", { width, height: rows.length * step + 26, role: "img",
      "aria-label": rows.map((row) => row.name + " p95 " + row.p95 + " ms").join(", ") });
    rows.forEach((row, number) => {
      const y = number * step + 6, late = row.accepted_p95_ms !== null && row.p95 > row.accepted_p95_ms;
      const colour = row.accepted_p95_ms === null ? colours[7] : late ? colours[5] : colours[2];
      picture.append(svg("text", { x: left - 8, y: y + 14, "text-anchor": "end", fill: ink, "font-size": 13 }, row.name));
      picture.append(svg("rect", { x: left, y, width: Math.max(x(row.p95) - left, 1), height: 18, fill: colour, opacity: 0.75 }));
      for (const p of ["p50", "p99"]) picture.append(svg("circle", { cx: x(row[p]), cy: y + 9, r: 4, fill: ink }));
      if (row.accepted_p95_ms !== null) picture.append(svg("line", { x1: x(row.accepted_p95_ms), x2: x(row.accepted_p95_ms),
        y1: y - 4, y2: y + 22, stroke: colours[5], "stroke-width": 2 }));
      picture.append(svg("text", { x: width - right + 12, y: y + 14, fill: ink, "font-size": 13 },
        row.p95.toFixed(0) + (row.accepted_p95_ms === null ? " ms" : " of " + row.accepted_p95_ms.toFixed(0) + " ms")));
    });
    const axis = rows.length * step + 18;
    for (let part = 0; part <= 4; part += 1) picture.append(svg("text",
      { x: x(most * part / 4), y: axis, fill: ink, "font-size": 11, "text-anchor": "middle" }, (most * part / 4).toFixed(0)));
    add("div").append(picture);
  };

  // The verdict first.
  const whole = figures.not_judged.filter((one) => one.whole).map((one) => one.threshold);
  const title = add("h1", "verdict: " + figures.verdict
    + (figures.verdict === "pass" && whole.length ? " (not judged: " + whole.join(", ") + ")" : ""), figures.verdict);
  title.title = "pass: every threshold holds; fail: one does not; invalid: the generator spoilt the run";
  const judged = figures.seconds.toFixed(0) + " s with warm-up, " + figures.counts.started + " requests";
  add("p", "p95 " + shown(figures.p95_ms) + " ms (home clients of the worst region) · " + judged + " · "
    + new Date(figures.begin * 1000).toISOString().slice(0, 19) + "Z"
    + (figures.injected ? " · injected fault: " + figures.injected : ""), "dim");
  const findings = add("ul", undefined, "findings");
  for (const text of figures.findings) findings.append(element("li", text, text.startsWith("fail") ? "fail" : "invalid"));
  if (!figures.findings.length) findings.append(element("li", whole.length ? "every threshold that was judged holds" : "every threshold holds", "pass"));
  if (figures.not_judged.length) {
    add("p", "A pass says nothing of these:", "dim");
    const unjudged = add("ul", undefined, "findings");
    for (const one of figures.not_judged) unjudged.append(element("li", one.threshold + ": " + one.why, "invalid"));
  }

  const rounded = (value) => value === null ? null : Number(value.toPrecision(4)).toLocaleString("en-US");
  add("h2", "By region, beside what is accepted");
  add("p", "Response time from the intended start, ms: the bar ends at p95, the dots are p50 and p99, the line is what p95 may be.", "dim");
  pictured(figures.by_region);
  add("h2", "Measured beside accepted");
  table(["threshold", "of", "measured", "accepted", "unit", ""], figures.measured.map((one) =>
    [one.threshold, one.of, rounded(one.measured), (one.is_least ? "≥ " : "≤ ") + rounded(one.accepted), one.unit, one.state]));
  if (figures.requests.length) {
    add("h2", "By request");
    table(["request", "requests", "p50", "p95", "p99", "statuses"], figures.requests.map((one) =>
      [one.name, one.requests, one.response_ms.p50, one.response_ms.p95, one.response_ms.p99,
        Object.entries(one.statuses).map(([status, count]) => count + " × " + status).join(", ")]));
  }

  const seconds = figures.series.due.map((_, second) => second);
  const names = Object.keys(figures.series);
  add("h2", "Response time, second by second");
  add("p", "From the intended start, home clients; ms.", "dim");
  const latencies = names.filter((name) => name.endsWith(" p95") && name !== "lag p95");
  plot(seconds, [...latencies, "lag p95"].map((name) => [name, figures.series[name]]), " ms");
  folded("as a table", ["s", ...latencies, "lag p95"], seconds.map((second) =>
    [second, ...latencies.map((name) => figures.series[name][second]), figures.series["lag p95"][second]]));
  if (figures.events.length) table(["what happened", "at s", "until s"],
    figures.events.map((one) => [one.name, one.at, one.until]));

  add("h2", "Percentiles by region and tier");
  add("p", "Response time counts from the intended start and is judged; service time, from the real start, is not.", "dim");
  const steps = ["p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99"];
  plot(steps.map((_, number) => number), figures.by_region.map((row) => [row.name, steps.map((p) => row[p])]),
    " ms", { xLabel: "percentile", y: { distr: 3 },
      xAxis: { splits: () => steps.map((_, number) => number), values: (u, at) => at.map((n) => steps[n]) } });
  folded("by region and tier, as a table", ["region, tier", "place", "requests", "429", ...steps, "service p95"], figures.latency.map((row) =>
    [row.region + " " + row.tier, row.place, row.requests, row.refused, ...steps.map((p) => row.response_ms[p]), row.service_ms.p95]));

  add("h2", "Offered and achieved");
  plot(seconds, ["due", "started", "answered", "refused", "failed"].map((name) => [name, figures.series[name]]), "/s");
  folded("as a table", ["s", "due", "started", "answered", "refused", "failed"], seconds.map((second) =>
    [second, ...["due", "started", "answered", "refused", "failed"].map((name) => figures.series[name][second])]));

  add("h2", "Allowed and promised");
  add("p", "The fullest window of each limited customer, by the requests admitted in it, and what is accepted.", "dim");
  if (figures.limits.length) {
    plot(figures.limits.map((_, number) => number), [
      ["admitted ÷ limit", figures.limits.map((one) => one.admitted / one.limit)],
      ["accepted ÷ limit", figures.limits.map((one) => one.accepted / one.limit)],
    ], "", { xLabel: "customer", xAxis: { values: (u, at) => at.map((n) => (figures.limits[n] || {}).customer || "") } });
    folded("as a table", ["customer", "limit", "admitted", "accepted", "from s"], figures.limits.map((one) =>
      [one.customer, one.limit, one.admitted, one.accepted, one.begin]));
  }
  table(["tier", "refused although there was room", "requests"],
    Object.entries(figures.false_429).map(([kind, one]) => [kind, one.refused, one.asked]));

  const samples = Object.entries(figures.samples);
  const sampled = (field, unit, text) => {
    add("h2", text);
    const at = [...new Set(samples.flatMap(([, found]) => found.map((one) => Math.round(one.at))))].sort((a, b) => a - b);
    const of = (found) => at.map((second) => {
      const one = found.find((each) => Math.round(each.at) === second);
      return one === undefined || one[field] === undefined ? null : one[field];
    });
    plot(at, samples.map(([region, found]) => [region, of(found)]), unit);
    folded("as a table", ["s", ...samples.map(([region]) => region)],
      at.map((second, row) => [second, ...samples.map(([, found]) => of(found)[row])]));
  };
  if (samples.some(([, found]) => found.length)) {
    sampled("sync_age_s", " s", "Age of what the hub said");
    sampled("unshipped", "", "Usage not yet shipped, batches");
    sampled("workers_cores", "", "Cores that an edge's workers take");
  }

  add("h2", "Conservation");
  const conserved = figures.conservation;
  if (conserved === null) add("p", "The ledger of these edges was not asked.", "dim");
  else {
    table(["answered to clients", "in the ledger", "answered by the upstream"], [[conserved.answered, conserved.ledger, conserved.upstream]]);
    folded("by customer", ["customer", "answered", "ledger", "upstream", "sent and never answered"], conserved.rows);
  }
  if (figures.compared) {
    add("h2", "Against the earlier run");
    table(["region", "tier", "p50", "p95", "p99", ""], figures.compared.map((one) =>
      [one.region, one.tier, ...one.quotients.map((ratio) => "× " + ratio.toFixed(2)), one.slower ? "slower" : ""]));
  }
  add("h2", "The generator, and what took part");
  table(["worker", "share of a core", "ready without one"], Object.entries(figures.generator).map(([number, one]) =>
    [number, one.cpu_share, one.without_cpu_share]));
  if (figures.machine) add("p", figures.machine.cores + " cores: "
    + (figures.machine.others * figures.machine.cores).toFixed(1) + " of them taken by other work, "
    + (100 * figures.machine.idle).toFixed(0) + " % idle", "dim");
  table(["lag, ms", ...steps], [["", ...steps.map((p) => figures.lag_ms[p])]]);
  table(["what", "version"], Object.entries(figures.versions));
})();
