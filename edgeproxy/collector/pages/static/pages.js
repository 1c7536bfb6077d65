// Comforts; every page works without. No inline handlers, no eval: script-src and connect-src are 'self'.
const find = document.querySelector("[data-key='/']");
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  if (find) { event.preventDefault(); find.focus(); find.select(); }
});
// Copies a field: <button hidden data-copies="ID" data-said="Copied">.
for (const button of document.querySelectorAll("[data-copies]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const from = document.getElementById(button.dataset.copies);
    await navigator.clipboard.writeText(from.value ?? from.textContent);
    button.textContent = button.dataset.said;
  });
}
// What is done to parts that may be replaced: exact times in the reader's zone too, and charts by the arrow keys.
const improve = (root) => {
  for (const time of root.querySelectorAll("time[title]")) {
    const at = new Date(time.dateTime);
    if (!isNaN(at)) time.title += ` \u00b7 ${at.toLocaleString(document.documentElement.lang, { timeZoneName: "short" })}`;
  }
  for (const plot of root.querySelectorAll(".plot")) {
    const points = [...plot.querySelectorAll(".pt")];
    if (!points.length) continue;
    plot.tabIndex = 0;
    const label = plot.getAttribute("aria-label"), unit = plot.closest(".chart").querySelector(".unit span").textContent;
    const show = (number) => {
      points.forEach((point, place) => point.classList.toggle("on", place === number));
      plot.setAttribute("aria-label", number < 0 ? label : `${unit}: ${points[number].querySelector(".tip").textContent}`);
    };
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -points.length, End: points.length }[event.key];
      if (!step) return;
      event.preventDefault();
      const on = points.findIndex((point) => point.classList.contains("on"));
      show(Math.max(0, Math.min(points.length - 1, (on < 0 ? (step > 0 ? -1 : points.length) : on) + step)));
    });
    plot.addEventListener("blur", () => show(-1));
    // Where values are links to their times: Enter follows one, and drawing over several leads to all of them.
    if (!points[0].href) continue;
    const go = (first, last) => {
      const [from, to] = [first, last].map((number) => new URL(points[number].href.baseVal, location.href));
      from.searchParams.set("to", to.searchParams.get("to"));
      location.assign(from);
    };
    plot.addEventListener("keydown", (event) => {
      const on = points.findIndex((point) => point.classList.contains("on"));
      if (event.key === "Enter" && on >= 0) go(on, on);
    });
    const at = (event) => points.indexOf(event.target.closest(".pt"));
    const mark = (low, high) => points.forEach((point, place) => point.classList.toggle("in", place >= low && place <= high));
    let start = -1;
    plot.addEventListener("dragstart", (event) => event.preventDefault());
    plot.addEventListener("pointerdown", (event) => { start = event.button ? -1 : at(event); });
    plot.addEventListener("pointermove", (event) => {
      if (!event.buttons) start = -1;
      const end = at(event);
      if (start >= 0 && end >= 0) mark(Math.min(start, end), Math.max(start, end));
      else if (start < 0) mark(0, -1);
    });
    plot.addEventListener("pointerup", (event) => {
      const end = at(event);
      if (start >= 0 && end >= 0 && end !== start) go(Math.min(start, end), Math.max(start, end));
      start = -1;
      mark(0, -1);
    });
  }
};
improve(document);
// Live parts: <div id="…" data-live="15">. The same page is fetched again (after a form the one in data-from, which can
// be fetched), and only these parts of it are replaced:
// never a part in which something has the focus, is open or has the pointer; not while the page cannot be seen.
const parts = [...document.querySelectorAll("[data-live]")];
if (parts.length) {
  const every = Math.max(5, Math.min(...parts.map((one) => Number(one.dataset.live)))) * 1000;
  const from = parts.map((one) => one.dataset.from).find(Boolean) || location.href;
  const again = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(from, { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(10000) });
        if (answer.redirected || !answer.ok) throw new Error(answer.status);
        const made = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const one of document.querySelectorAll("[data-live]")) {
          const fresh = made.getElementById(one.id);
          if (!fresh || one.matches(":focus-within, :hover, :has(details[open])")) continue;
          one.replaceWith(fresh);
          improve(fresh);
        }
        document.documentElement.removeAttribute("data-stale");
      } catch { document.documentElement.setAttribute("data-stale", ""); }
    }
    setTimeout(again, every);
  };
  setTimeout(again, every);
}
