// Mark the tables of numbers, which the style sheet sets closer, and keep each number with its unit:
// their cells break only after a comma or a semicolon.
for (const table of document.querySelectorAll(".md-typeset table:not([class])")) {
  const cells = [...table.querySelectorAll("td:not(:first-child)")];
  const numbers = cells.filter((cell) => /^[\d–+-][^a-z]*/i.test(cell.textContent.trim()));
  if (numbers.length < 0.5 * cells.length) continue;
  table.setAttribute("data-numbers", "");
  for (const cell of numbers) {
    for (const node of cell.childNodes) {
      if (node.nodeType === Node.TEXT_NODE && node.length < 80) {
        node.data = node.data.replace(/(?<![,;]) /g, "\u00a0");
      }
    }
  }
}
