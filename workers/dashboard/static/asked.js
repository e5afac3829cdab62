// What is asked for most: by which persona and for which resonance, its share, its age and what is left of its time.
(function () {
    "use strict";

    const EVERY_MS = 3000, PATIENCE_MS = 10000;
    const address = window.location.origin + document.getElementById("fleet").dataset.root + "/asked";
    const NONE = "—";

    function number(text, value) {
        const cell = Fleet.element("td", "fleet-number", text);
        if (typeof value === "number") {
            cell.dataset.value = String(value);
        }
        return cell;
    }

    function timeLeft(answer) {
        if (answer.standing === "stale") {
            return "past it";
        }
        if (answer.standing === "ended") {
            return "invalidated";
        }
        return answer.left_s === null ? NONE : Fleet.span(answer.left_s);
    }

    function row(answer) {
        const place = Fleet.element("td", "");
        const name = answer.persona === null ? answer.key : answer.key.slice(answer.key.lastIndexOf(":") + 1);
        place.append(Fleet.asks(name, () => Fleet.explain(answer.key)));
        const made = Fleet.row("", [
            Fleet.element("td", "fleet-name", answer.persona === null ? NONE : answer.persona),
            Fleet.element("td", "fleet-name", answer.resonance === null ? NONE : answer.resonance),
            place,
            number(Fleet.percent(answer.share), answer.share),
            number(answer.age_s === null ? NONE : Fleet.span(answer.age_s), answer.age_s),
            number(timeLeft(answer), answer.left_s)
        ]);
        made.dataset.key = answer.key;
        return made;
    }

    async function poll() {
        try {
            if (!document.hidden) {
                const answer = await fetch(address, {
                    cache: "no-store",
                    credentials: "same-origin",
                    signal: AbortSignal.timeout(PATIENCE_MS)
                });
                const answers = answer.ok ? (await answer.json()).answers : null;
                if (answers !== null) {  // else the old ones stay, as the page says
                    Fleet.fill("fleet-hot", answers.map(row), "No counts yet.");
                }
            }
        } catch {  // fleet.js says that Flower does not answer
        } finally {
            window.setTimeout(poll, EVERY_MS);
        }
    }

    poll();
}());
