/** Texts, attributes and tables in the document. It knows nothing of what they say. */

export function byId(id) {
  return document.getElementById(id);
}

/** Sets a text. An unchanged text is left alone, so that a selection in it survives. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttributes(node, attributes) {
  for (const key in attributes) node.setAttribute(key, attributes[key]);
}

function emptyRow(columns, scope) {
  const row = document.createElement('tr');
  for (let column = 0; column < columns; column += 1) {
    row.append(emptyCell(scope === 'col' || column === 0, scope));
  }
  return row;
}

function emptyCell(isHeader, scope) {
  if (isHeader) {
    const header = document.createElement('th');
    header.scope = scope;
    return header;
  }
  const cell = document.createElement('td');
  cell.dir = 'auto'; // a number does not change places with its unit in a right-to-left text
  return cell;
}

/** Gives a table the cells for these rows under this head, if it does not have them. */
function shapeTable(table, head, rows) {
  const shape = [head.length, rows.length, ...rows.map((row) => row.length)].join();
  if (table.dataset.shape === shape) return;
  table.dataset.shape = shape;
  const body = document.createElement('tbody');
  body.append(...rows.map((row) => emptyRow(row.length, 'row')));
  table.replaceChildren(body);
  if (!head.length) return;
  const top = document.createElement('thead');
  top.append(emptyRow(head.length, 'col'));
  table.prepend(top);
}

/** Where there is no room for columns, the style puts the head of its column before each cell. */
function fillRow(row, texts, head, timeColumn) {
  texts.forEach((text, column) => {
    const cell = row.cells[column];
    say(cell, text);
    cell.dataset.head = head[column] ?? '';
    cell.classList.toggle('time', column === timeColumn);
  });
}

/**
 * Shows rows of texts under the texts of a head; an empty head is left out. `current` is the number of a row that is
 * marked, `timeColumn` that of a column of dates. While the numbers of rows and columns do not change the cells stay the
 * same nodes, so that a selection and a screen reader's position survive.
 */
export function fillTable(table, { head = [], rows, current = -1, timeColumn = -1 }) {
  shapeTable(table, head, rows);
  if (head.length) fillRow(table.tHead.rows[0], head, [], -1);
  [...table.tBodies[0].rows].forEach((row, line) => {
    fillRow(row, rows[line], head, timeColumn);
    if (line === current) row.setAttribute('aria-current', 'true');
    else row.removeAttribute('aria-current');
  });
}

/** Shows a section's table, or hides the section when there are no rows. */
export function showSection(id, contents) {
  const section = byId(id);
  section.hidden = !contents.rows.length;
  if (contents.rows.length) fillTable(section.querySelector('table'), contents);
}
