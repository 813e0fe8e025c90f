// Which clock's table is shown, and sorting by a click on a column. The page reads well without it.
(() => {
  document.body.classList.add("js");
  const buttons = [...document.querySelectorAll("button[data-clock]")];
  const show = (clock) => {
    for (const b of buttons) {
      b.setAttribute("aria-pressed", b.dataset.clock === clock);
      if (b.dataset.clock === clock) document.querySelector(".clock-about").textContent = b.title;
    }
    for (const t of document.querySelectorAll(".clock")) t.classList.toggle("shown", t.dataset.clock === clock);
  };
  for (const b of buttons) b.addEventListener("click", () => show(b.dataset.clock));
  if (buttons.length) show("response");
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.v === undefined
        ? row.cells[column].textContent : Number(row.cells[column].dataset.v);
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        const order = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows);
    }));
  }
})();
