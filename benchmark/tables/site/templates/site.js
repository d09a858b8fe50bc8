const root = document.documentElement;
const query = new URLSearchParams(location.search);
const asked = query.get("theme");
const dark = (on) => root.classList.toggle("dark", on);
dark(asked ? asked === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
document.addEventListener("DOMContentLoaded", () => {
  document.getElementById("theme").addEventListener("click", () => dark(!root.classList.contains("dark")));
  const buttons = document.querySelectorAll(".filter button");
  const show = (what) => {
    root.classList.toggle("only-measured", what === "measured");
    for (const button of buttons) button.setAttribute("aria-pressed", button.dataset.show === what);
  };
  for (const button of buttons) button.addEventListener("click", () => show(button.dataset.show));
  if (buttons.length) show(query.get("show") === "all" ? "all" : "measured");
});

// order: [] keeps the document's order until somebody sorts
async function sortable() {
  const { ITable } = await window.datatables;
  for (const table of document.querySelectorAll("table.board")) {
    new ITable(table, {
      paging: false, info: false, order: [], autoWidth: false,
      layout: { topStart: "search", topEnd: null, bottomStart: null, bottomEnd: null },
      language: { search: "Filter:" },
    });
  }
  document.body.dataset.ready = "yes";
}
