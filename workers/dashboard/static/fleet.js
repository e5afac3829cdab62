// The page of the fleet: asks for the figures every second and shows them.
(function () {
    "use strict";

    const EVERY_MS = 1000, PATIENCE_MS = 10000;
    const SHOWN_INVALIDATIONS = 10, SHOWN_PROCESSES = 16;
    const NOTICES = {
        away: "The cache's server does not answer: there are no figures now. This page comes back with it.",
        unconfigured: "There is no shared cache (PERSONA_CACHE_URL is empty), so processes tell no figures.",
        refused: "Flower asks for the login again: reload this page.",
        silent: "Flower does not answer. This page comes back with it."
    };
    const page = document.getElementById("fleet");
    // Not the path alone: fetch refuses it where the page's own address has a password in it.
    const address = window.location.origin + page.dataset.figures;
    let latest = null, turns = 0, timer = 0;

    function put(id, text) {
        document.getElementById(id).textContent = text;
    }

    // The number itself stands beside its words: for tests, and for programs that read the page.
    function figure(name, text, number) {
        const element = page.querySelector("[data-figure='" + name + "']");
        element.textContent = text;
        if (number !== undefined) {
            element.dataset.value = String(number);
        }
    }

    function cell(text, className) {
        return Fleet.element("td", className, text);
    }

    function number(text, value) {
        const element = cell(text, "fleet-number");
        if (value !== undefined) {
            element.dataset.value = String(value);
        }
        return element;
    }

    function total(requests) {
        return Fleet.SOURCES.reduce((sum, source) => sum + requests[source], 0);
    }

    function saved(requests) {
        return total(requests) - requests.no - requests.failed;
    }

    // Each counts where it was made: one request may count one in the producer, and one in the worker that gets its task.
    function lookUps(process) {
        return total(process.requests) - process.requests.failed + process.missed;
    }

    function showSummary(figures, tiers) {
        const requests = figures.requests;
        figure("window", Fleet.windowName(figures.window_s), figures.window_s);
        figure("rate", Fleet.rate(figures.requests_per_s), figures.requests_per_s);
        figure("total", Fleet.count(total(requests)), total(requests));
        figure("failed", Fleet.count(requests.failed), requests.failed);
        figure("hit-rate", total(requests) ? Fleet.percent(figures.hit_rate) : "—", figures.hit_rate);
        figure("hit-rate-l1", Fleet.percent(tiers.l1), tiers.l1);
        figure("hit-rate-l2", Fleet.percent(tiers.l2), tiers.l2);
        figure("saved", Fleet.count(figures.saved), figures.saved);
        figure("computed", Fleet.count(requests.no), requests.no);
        figure("staleness", figures.spreads.staleness.count ? Fleet.duration(figures.spreads.staleness.p99_ms) : "—", figures.spreads.staleness.p99_ms);
        figure("invalidations", Fleet.count(figures.invalidation_count), figures.invalidation_count);
        figure("queue-wait", figures.spreads.queue_wait.count ? Fleet.duration(figures.spreads.queue_wait.p99_ms) : "—", figures.spreads.queue_wait.p99_ms);
        figure("queue-wait-p50", figures.spreads.queue_wait.count ? Fleet.duration(figures.spreads.queue_wait.p50_ms) : "—", figures.spreads.queue_wait.p50_ms);
    }

    // What the auditor has found since the figures began.
    function showAudit(audit, fresh) {
        figure("fresh", fresh || "—");
        figure("checks", Fleet.count(audit.checks), audit.checks);
        figure("stale-serves", Fleet.count(audit.stale), audit.stale);
        figure("undecided", Fleet.count(audit.undecided), audit.undecided);
        document.getElementById("fleet-fresh").classList.toggle("fleet-broken", audit.stale > 0);
    }

    function showSources(figures) {
        const failed = {source: "failed", count: figures.requests.failed, share: null};
        Fleet.fill("fleet-sources", [...figures.sources, failed].map((each) => {
            const name = Fleet.element("th", "");
            name.scope = "row";
            name.append(Fleet.element("span", "fleet-mark fleet-" + each.source), Fleet.NAMES[each.source]);
            const bar = cell("", "fleet-bar-column");
            if (each.share !== null) {
                bar.append(Fleet.bar(each.source, each.share));
            }
            const timed = each.share !== null && each.count;
            const row = Fleet.row("", [
                name,
                number(Fleet.count(each.count), each.count),
                number(timed ? Fleet.percent(each.share) : "—"),
                bar,
                number(timed ? Fleet.duration(each.p50_ms) : "—", timed ? each.p50_ms : undefined),
                number(timed ? Fleet.duration(each.p99_ms) : "—", timed ? each.p99_ms : undefined)
            ]);
            row.dataset.source = each.source;
            return row;
        }), "");
    }

    function nodeRow(node) {
        const name = Fleet.element("th", "fleet-name", node.name);
        name.scope = "rowgroup";
        const looked = node.processes.reduce((sum, each) => sum + lookUps(each), 0);
        const cells = [
            cell(node.alive ? "worker" : "programs that ask", "fleet-muted"),
            number(Fleet.count(node.processes.reduce((sum, each) => sum + total(each.requests), 0))),
            number(looked ? Fleet.percent(node.processes.reduce((sum, each) => sum + saved(each.requests), 0) / looked) : "—"),
            number(Fleet.count(node.processes.reduce((sum, each) => sum + each.requests.failed, 0))),
            cell("", ""),
            cell("", "")
        ];
        return Fleet.row("fleet-node", [name, ...cells]);
    }

    function processRow(each, at) {
        const looked = lookUps(each);
        return Fleet.row("", [
            cell("", ""),
            cell(each.role + " " + each.pid, ""),
            number(Fleet.count(total(each.requests))),
            number(looked ? Fleet.percent(saved(each.requests) / looked) : "—"),
            number(Fleet.count(each.requests.failed)),
            number(each.l1_entries === null ? "—" : Fleet.count(each.l1_entries)),
            number(Fleet.span(at - each.since))
        ]);
    }

    function showNodes(figures) {
        const rows = figures.nodes.flatMap((node) => {
            const shown = node.processes.slice(0, SHOWN_PROCESSES).map((each) => processRow(each, figures.at));
            const more = node.processes.length - shown.length;
            const rest = more > 0 ? [Fleet.row("fleet-muted", [cell("", ""), cell("and " + more + " more", "")])] : [];
            return [nodeRow(node), ...shown, ...rest];
        });
        Fleet.fill("fleet-nodes", rows, "No process has told of itself within 45 s.");
    }

    function reach(made) {
        if (!made.durable) {
            return "not durable when it was made";
        }
        const slowest = made.reach.length ? " within " + Fleet.duration(Math.max(...made.reach.map((each) => each.delay_ms))) : "";
        return made.reach.length + " of " + made.alive + " nodes" + slowest;
    }

    function showInvalidations(figures) {
        Fleet.fill("fleet-invalidations", figures.invalidations.slice(0, SHOWN_INVALIDATIONS).map((made) => {
            const more = made.pattern_count - made.patterns.length;
            const text = made.patterns.join(" ") + (more > 0 ? " and " + more + " more" : "");
            const what = cell("", "");
            what.append(Fleet.asks(text, () => Fleet.explainInvalidation(made)));
            return Fleet.row("", [
                cell(Fleet.span(figures.at - made.at) + " ago", "text-nowrap"),
                what,
                cell(reach(made), ""),
                cell(made.by, "fleet-name fleet-muted")
            ]);
        }), "None so far.");
    }

    function show(answer) {
        page.dispatchEvent(new CustomEvent("figures", {detail: answer}));
        if (answer.state !== "live") {
            say(answer.state, answer.refused);
            return;
        }
        latest = answer.figures;
        showSummary(latest, answer.tiers);
        showAudit(answer.audit, answer.fresh);
        Fleet.showCharts(latest);
        showSources(latest);
        showNodes(latest);
        showInvalidations(latest);
        say("live", answer.refused);
    }

    // The fault, if there is one. The figures below it are then old, unless the server can be read and only refuses writes.
    function say(state, refused) {
        const notice = document.getElementById("fleet-notice");
        const live = state === "live";
        const text = refused ? "The cache's server refuses (" + refused + "): answers are not kept there." : NOTICES[state];
        page.dataset.state = state;
        notice.hidden = !text;
        if (text && notice.textContent !== text) {  // else a screen reader would say it every second
            notice.textContent = text;
        }
        document.getElementById("fleet-content").classList.toggle("fleet-old", !live);
        document.getElementById("fleet-dot").className = "status-dot " + (live ? "status-dot-live" : "status-dot-error");
        put("fleet-status", live ? "Live, " + Fleet.clock(latest.at) : latest ? "As of " + Fleet.clock(latest.at) : "No figures");
    }

    async function ask() {
        try {
            const answer = await fetch(address + "?window=" + Fleet.windowSeconds(), {
                cache: "no-store",
                credentials: "same-origin",
                signal: AbortSignal.timeout(PATIENCE_MS)
            });
            if (!answer.ok) {
                return {state: answer.status === 401 ? "refused" : "silent"};
            }
            return await answer.json();
        } catch {  // the network's, a time-out's, or an answer that was cut short
            return {state: "silent"};
        }
    }

    // An answer that comes after another window was chosen is of no use any more.
    async function poll() {
        const turn = ++turns;
        window.clearTimeout(timer);
        try {
            const answer = document.hidden ? null : await ask();
            if (answer && turn === turns) {
                show(answer);
            }
        } finally {
            if (turn === turns) {
                timer = window.setTimeout(poll, EVERY_MS);
            }
        }
    }

    Fleet.onWindow(poll);
    poll();
}());
