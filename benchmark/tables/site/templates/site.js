const root = document.documentElement;
const asked = new URLSearchParams(location.search).get("theme");
const dark = (on) => root.classList.toggle("dark", on);
dark(asked ? asked === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
document.addEventListener("DOMContentLoaded", () => {
  document.getElementById("theme").addEventListener("click", () => dark(!root.classList.contains("dark")));
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
