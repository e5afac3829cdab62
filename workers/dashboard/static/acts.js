// What can be done from the page: letters are listed, and each action is asked about once, by a word that confirms it once.
(function () {
    "use strict";

    const EVERY_MS = 5000, PATIENCE_MS = 30000;
    const page = document.getElementById("fleet");
    const root = window.location.origin + page.dataset.root;
    const mark = page.dataset.mark;
    const dialog = document.getElementById("fleet-dialog");
    const cards = [...document.querySelectorAll("[data-letters]")];
    let word = null, busy = false;

    function say(text) {
        document.getElementById("fleet-said").textContent = text;
    }

    async function answerOf(path, wish) {
        const post = wish && {
            method: "POST",
            headers: {"Content-Type": "application/json", "X-Fleet-Mark": mark},
            body: JSON.stringify(wish)
        };
        try {
            const answer = await fetch(root + path, {
                cache: "no-store",
                credentials: "same-origin",
                signal: AbortSignal.timeout(PATIENCE_MS),
                ...post
            });
            const document = await answer.json();
            return {...document, ok: answer.ok && !document.refused};
        } catch {
            return {ok: false, sentence: "Flower does not answer, or asks for the login again: reload this page."};
        }
    }

    async function ask(wish) {
        if (busy) {
            return;
        }
        busy = true;
        say("");
        const answer = await answerOf("/ask", wish);
        busy = false;
        if (!answer.ok) {
            say(answer.sentence);
            return;
        }
        word = answer.word;
        document.getElementById("fleet-question").textContent = answer.sentence;
        document.getElementById("fleet-details").replaceChildren(...answer.details.map((line) => Fleet.element("li", "fleet-code", line)));
        dialog.showModal();
    }

    async function confirm() {
        dialog.close();
        if (word === null) {
            return;
        }
        const given = word;
        word = null;
        say("…");
        const answer = await answerOf("/confirm", {word: given});
        say(answer.sentence);
        await list();
    }

    function button(text, className, wish) {
        const made = Fleet.element("button", "btn btn-sm " + className, text);
        made.type = "button";
        made.addEventListener("click", () => ask(wish));
        return made;
    }

    function row(card, one) {
        const cells = [
            Fleet.element("td", "text-nowrap", Fleet.span(Date.now() / 1000 - one.at) + " ago"),
            Fleet.element("td", "fleet-name", one.task),
            Fleet.element("td", "fleet-why", one.why + (one.whole ? "" : " (cut: it cannot be queued anew)"))
        ];
        if (mark) {
            const kind = card.dataset.letters;
            const buttons = Fleet.element("div", "fleet-buttons");
            if (one.whole) {
                const again = kind === "failures" ? "Retry…" : "Queue…";
                buttons.append(button(again, "btn-outline-primary", {what: "again", kind, ids: [one.id]}));
            }
            buttons.append(button("Drop…", "btn-outline-danger", {what: "drop", kind, ids: [one.id]}));
            const place = Fleet.element("td", "");
            place.append(buttons);
            cells.push(place);
        }
        const made = Fleet.row("", cells);
        made.dataset.id = one.id;
        return made;
    }

    function show(card, letters, sentence) {
        const body = card.querySelector("tbody");
        card.querySelector("[data-count]").textContent = letters ? Fleet.count(letters.count) : "—";
        const rows = letters ? letters.rows.map((one) => row(card, one)) : [];
        const more = letters ? letters.count - letters.rows.length : 0;
        if (!rows.length || more > 0) {
            const rest = Fleet.element("td", "empty-table-message", rows.length ? "and " + Fleet.count(more) + " more" : sentence);
            rest.colSpan = card.querySelectorAll("thead th").length;
            rows.push(Fleet.row("", [rest]));
        }
        body.replaceChildren(...rows);
    }

    let shown = "";

    async function list() {
        const answer = await answerOf("/letters");
        const text = JSON.stringify([answer, Math.floor(Date.now() / 10000)]);
        if (text === shown || cards.some((card) => card.querySelector("tbody").contains(document.activeElement))) {
            return;  // else a button that somebody is about to press would go
        }
        shown = text;
        cards.forEach((card) => show(card, answer.ok ? answer[card.dataset.letters] : null, answer.ok ? "None." : answer.sentence));
    }

    async function poll() {
        try {
            if (!document.hidden) {
                await list();
            }
        } finally {
            window.setTimeout(poll, EVERY_MS);
        }
    }

    if (mark) {
        cards.forEach((card) => {
            card.querySelector("form").addEventListener("submit", (event) => {
                event.preventDefault();
                const given = new FormData(event.target);
                const older = given.get("older");
                ask({
                    what: event.submitter ? event.submitter.value : "again",
                    kind: card.dataset.letters,
                    task: given.get("task") || null,
                    why: given.get("why") || null,
                    older_than_s: older ? Number(older) : null
                });
            });
        });
        document.getElementById("fleet-invalidate").addEventListener("submit", (event) => {
            event.preventDefault();
            ask({what: "invalidate", pattern: new FormData(event.target).get("pattern").trim()});
        });
        document.getElementById("fleet-preload").addEventListener("click", () => ask({what: "preload"}));
        document.getElementById("fleet-yes").addEventListener("click", confirm);
        document.getElementById("fleet-no").addEventListener("click", () => dialog.close());
        dialog.addEventListener("close", () => {
            if (document.activeElement && dialog.contains(document.activeElement)) {
                document.activeElement.blur();
            }
        });
    }
    poll();
}());
