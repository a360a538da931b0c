// Controls, and tables that sort and show one page of their rows at a time.

let made = 0;

/** A labelled select. `options` are [value, words]; `onchange` gets the value. */
function choice(label, options, value, onchange) {
  const id = `choice-${++made}`;
  const select = element(
    "select",
    { id, onchange: () => onchange(select.value) },
    options.map(([one, words]) => element("option", { value: one, selected: one === value }, words)),
  );
  return element("div", { class: "field" }, element("label", { for: id }, label), select);
}

/** Put new controls in place of old ones; who was using one of them goes on using its successor. */
function refill(fields, ...controls) {
  const used = [...fields.children].findIndex((one) => one.contains(document.activeElement));
  fields.replaceChildren(...controls);
  if (used >= 0) (fields.children[used] || fields.firstChild)?.querySelector("select")?.focus();
}

/** A table whose columns sort. `columns` are {title, value(item), cell(item), number}; `items` are whatever they take. */
class SortedTable {
  constructor({ caption, columns, pageSize = 25, sort = null, descending = false }) {
    Object.assign(this, { caption, columns, pageSize, sort, descending, page: 0, items: [] });
    this.head = element("tr");
    this.body = element("tbody");
    this.count = element("p", { class: "count", role: "status", "aria-live": "polite" });
    this.back = element("button", { type: "button", onclick: () => this.turn(-1) }, "Previous page");
    this.forth = element("button", { type: "button", onclick: () => this.turn(1) }, "Next page");
    this.where = element("span", { class: "count" });
    const table = element(
      "table",
      {},
      element("caption", { class: "soft" }, caption),
      element("thead", {}, this.head),
      this.body,
    );
    this.node = element(
      "div",
      {},
      this.count,
      element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table),
      element("div", { class: "pages" }, this.back, this.forth, this.where),
    );
    this.drawHead();
  }

  drawHead() {
    this.head.replaceChildren(
      ...this.columns.map((column) => {
        const sorted = this.sort === column.title ? (this.descending ? "descending" : "ascending") : "none";
        const button = element("button", { type: "button", onclick: () => this.sortBy(column.title) }, column.title);
        return element("th", { scope: "col", "aria-sort": sorted, class: column.number ? "number" : null }, button);
      }),
    );
  }

  sortBy(title) {
    const column = this.columns.find((one) => one.title === title);
    this.descending = this.sort === title ? !this.descending : Boolean(column.number && !column.small);
    this.sort = title;
    this.drawHead();
    [...this.head.children].find((cell) => cell.textContent === title).firstChild.focus();
    this.show(this.items);
  }

  /** Show these items, sorted, from the first page on. */
  show(items) {
    this.items = [...items];
    const column = this.columns.find((one) => one.title === this.sort);
    if (column) {
      const keyed = this.items.map((item) => [column.value(item), item]);
      const none = (key) => key === null || key === undefined;
      keyed.sort(([a], [b]) => (none(a) || none(b) ? compare(a, b) : this.descending ? compare(b, a) : compare(a, b)));
      this.items = keyed.map(([, item]) => item);
    }
    this.page = 0;
    this.draw();
  }

  turn(by) {
    this.page += by;
    this.draw();
  }

  /** Only the rows of one page are in the document, however many there are. */
  draw() {
    const pages = Math.max(1, Math.ceil(this.items.length / this.pageSize));
    const shown = this.items.slice(this.page * this.pageSize, (this.page + 1) * this.pageSize);
    this.body.replaceChildren(
      ...shown.map((item) =>
        element(
          "tr",
          {},
          this.columns.map((column, place) => {
            const content = column.cell ? column.cell(item) : String(column.value(item) ?? "");
            const kind = column.number ? "number" : column.wide ? "wide" : column.line ? "line" : null;
            return place === 0 ? element("th", { scope: "row" }, content) : element("td", { class: kind }, content);
          }),
        ),
      ),
    );
    this.count.textContent = `${this.items.length.toLocaleString("en")} ${this.items.length === 1 ? "row" : "rows"}`;
    this.where.textContent = `page ${this.page + 1} of ${pages}`;
    this.back.disabled = this.page === 0;
    this.forth.disabled = this.page + 1 >= pages;
    this.node.lastChild.hidden = pages === 1;
  }
}

/** A plain table of text. */
function plainTable(caption, heads, body) {
  return element(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    element(
      "table",
      {},
      element("caption", { class: "soft" }, caption),
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          heads.map((head) => element("th", { scope: "col" }, head)),
        ),
      ),
      element(
        "tbody",
        {},
        body.map((line) =>
          element(
            "tr",
            {},
            line.map((cell, place) => (place ? element("td", {}, cell) : element("th", { scope: "row" }, cell))),
          ),
        ),
      ),
    ),
  );
}
