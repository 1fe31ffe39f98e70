// Sorting by a heading, a switch between light and dark, nothing folded on paper; the page is complete without them.
for (const table of document.querySelectorAll("table.results")) {
  const body = table.tBodies[0];
  const heads = [...table.querySelectorAll("th[data-column]")];
  const value = (row, head) => row.cells[head.dataset.column].dataset.value;
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
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

const root = document.documentElement;
const theme = document.createElement("button");
theme.type = "button";
theme.className = "theme";
const show = (dark) => {
  theme.textContent = dark ? "Light" : "Dark";
  theme.setAttribute("aria-label", `Switch to ${dark ? "light" : "dark"} colours`);
};
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.style.colorScheme ? root.style.colorScheme === "dark" : system.matches);
theme.addEventListener("click", () => {
  root.style.colorScheme = isDark() ? "light" : "dark";
  show(isDark());
});
system.addEventListener("change", () => show(isDark()));
show(isDark());
document.body.prepend(theme);

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
