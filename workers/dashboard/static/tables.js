// Tables: their rows, what a narrow screen needs of each cell, and their roles, which a table that is no grid of boxes would lose.
(function () {
    "use strict";

    const ROLES = {TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell"};

    function roleOf(element) {
        if (element.tagName !== "TH") {
            return ROLES[element.tagName];
        }
        return element.scope === "col" ? "columnheader" : "rowheader";
    }

    function giveRole(element) {
        element.setAttribute("role", roleOf(element));
    }

    function label(table) {
        const names = [...table.tHead.rows[0].cells].map((head) => head.firstElementChild ? "" : head.textContent);
        [...table.tBodies[0].rows].forEach((row) => {
            giveRole(row);
            [...row.cells].forEach((cell, at) => {
                giveRole(cell);
                if (cell.tagName === "TD" && cell.colSpan === 1 && names[at]) {
                    cell.dataset.label = names[at].replaceAll("-", "\u2011");  // where no line ends
                }
            });
        });
    }

    // The rows of a table; of none, a sentence. A row in which somebody is stays, or a button would go from under a finger.
    Fleet.fill = function (id, rows, none) {
        const table = document.getElementById(id), body = table.tBodies[0];
        if (body.contains(document.activeElement)) {
            return;
        }
        if (!rows.length) {
            const empty = Fleet.element("td", "empty-table-message", none);
            empty.colSpan = table.tHead.rows[0].cells.length;
            rows = [Fleet.row("", [empty])];
        }
        body.replaceChildren(...rows);
    };

    document.querySelectorAll("#fleet table").forEach((table) => {
        [table, table.tHead, table.tBodies[0], ...table.tHead.rows, ...table.tHead.rows[0].cells].forEach(giveRole);
        // Told before the next frame is drawn, whoever has made the rows.
        new MutationObserver(() => label(table)).observe(table.tBodies[0], {childList: true});
    });
}());
