// What is known of a key, of a task, of an invalidation: asked for in words, or by a click where one is named.
(function () {
    "use strict";

    const PATIENCE_MS = 20000;
    const address = window.location.origin + document.getElementById("fleet").dataset.root + "/explain?of=";
    const card = document.getElementById("fleet-explain");
    const form = card.querySelector("form");
    const place = document.getElementById("fleet-account");
    const MOMENTS = new Set(["fresh_until", "kept_until", "computed_at", "queued_at", "begun_at", "ended_at", "at"]);
    const SECONDS = new Set(["queue_s", "wait_s", "model_s"]);
    const NAMES = {queue_s: "in the queue for", wait_s: "waited for another's answer", model_s: "took with the model", why: "failed by"};
    const NONE = {ended_by: "nothing", computed_by: "nobody", computed_from: "nothing"};
    let asked = 0;

    // A name to press, to have it explained.
    Fleet.asks = function (text, explain) {
        const button = Fleet.element("button", "fleet-asks fleet-code", text);
        button.type = "button";
        button.title = "Explain";
        button.addEventListener("click", explain);
        return button;
    };

    function moment(seconds) {
        const away = seconds - Date.now() / 1000;
        return Fleet.clock(seconds) + (away >= 0 ? ", in " + Fleet.span(away) : ", " + Fleet.span(-away) + " ago");
    }

    function words(name) {
        return NAMES[name] || name.replaceAll("_", " ");
    }

    function said(name, value) {
        if (value === null || (Array.isArray(value) && !value.length)) {
            return [NONE[name] || "not kept"];
        }
        if (name === "tasks") {
            return value.map((task) => Fleet.asks(task, () => Fleet.explain(task)));
        }
        if (Array.isArray(value)) {
            return value.map((each) => Fleet.element("span", "fleet-code fleet-part", each));
        }
        if (typeof value === "object") {
            const parts = Object.entries(value).filter(([, each]) => each !== null && !(Array.isArray(each) && !each.length));
            return parts.map(([part, each]) => {
                const line = Fleet.element("span", "fleet-part", words(part) + " ");
                line.append(...said(part, each));
                return line;
            });
        }
        if (MOMENTS.has(name)) {
            return [moment(value)];
        }
        if (SECONDS.has(name)) {
            return [Fleet.duration(value * 1000)];
        }
        return [Fleet.element("span", ["key", "task", "pattern", "means", "by", "worker"].includes(name) ? "fleet-code" : "", String(value))];
    }

    function show(account) {
        const list = Fleet.element("dl", "fleet-facts");
        Object.entries(account).forEach(([name, value]) => {
            if (name !== "standing" && name !== "notes") {
                const fact = Fleet.element("dd", "");
                fact.append(...said(name, value));
                fact.dataset.fact = name;
                list.append(Fleet.element("dt", "", words(name)), fact);
            }
        });
        place.replaceChildren(list, ...(account.notes || []).map((note) => Fleet.element("p", "fleet-muted", "Note: " + note + ".")));
    }

    function say(sentence) {
        place.replaceChildren(Fleet.element("p", "fleet-name", sentence));
    }

    function turnTo() {
        place.hidden = false;
        place.focus({preventScroll: true});
        card.scrollIntoView({block: "nearest"});
    }

    Fleet.explain = async function (subject) {
        const mine = asked += 1;
        form.elements.of.value = subject;
        say("…");
        turnTo();
        let account;
        try {
            const answer = await fetch(address + encodeURIComponent(subject), {
                cache: "no-store",
                credentials: "same-origin",
                signal: AbortSignal.timeout(PATIENCE_MS)
            });
            account = await answer.json();
        } catch {
            account = {refused: true, sentence: "Flower does not answer, or asks for the login again: reload this page."};
        }
        if (mine !== asked) {
            return;  // something else was asked meanwhile
        }
        if (account.refused) {
            say(account.sentence);
        } else {
            show(account);
        }
        turnTo();
    };

    // The page has all that is known of it.
    Fleet.explainInvalidation = function (made) {
        asked += 1;
        const more = made.pattern_count - made.patterns.length;
        show({
            invalidated: more > 0 ? [...made.patterns, "and " + more + " more"] : made.patterns,
            at: made.at,
            by: made.by,
            "in the log": made.durable ? "yes" : "no: the cache's server was away; those who heard of it tell it later",
            "nodes that follow the log": String(made.alive),
            "applied by": made.reach.map((each) => each.node + " after " + Fleet.duration(each.delay_ms))
        });
        turnTo();
    };

    form.addEventListener("submit", (event) => {
        event.preventDefault();
        Fleet.explain(form.elements.of.value.trim());
    });
}());
