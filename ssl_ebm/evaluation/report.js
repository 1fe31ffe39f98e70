// Sorting by a click on a column's heading, and nothing folded on paper; the page is complete without either.
for (const table of document.querySelectorAll("table.results")) {
  const body = table.tBodies[0];
  const heads = [...table.querySelectorAll("th[data-column]")];
  const value = (row, head) => row.cells[head.dataset.column].dataset.value;
  for (const head of heads) {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const text = head.classList.contains("text");
      const before = head.getAttribute("aria-sort");
      const order = before === "none" ? (text ? "ascending" : "descending") : before === "ascending" ? "descending" : "ascending";
      const sign = order === "ascending" ? 1 : -1;
      heads.forEach((other) => other.setAttribute("aria-sort", other === head ? order : "none"));
      body.append(...[...body.rows].sort((a, b) => {
        const [x, y] = [value(a, head), value(b, head)];
        if (x === "" || y === "") return (x === "") - (y === ""); // what is missing comes last
        return sign * (text ? x.localeCompare(y) : x - y);
      }));
    });
  }
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
