// The charts over time: small ones that share the time axis and the pointer.
(function () {
    "use strict";

    const FINE_S = 5, PAGE = 10, SHOWN_MARKS = 10;
    const ANSWERED = ["l1", "l2", "joined", "stale", "no"];
    const NONE = {
        l1: "No answer came from L1", l2: "No answer came from L2", joined: "No answer was joined",
        stale: "No answer was stale", no: "No answer was computed"
    };
    const MARKS = {invalidations: "invalidations", version: "a version of workers appears", lost: "a node falls silent without leaving"};
    const area = document.getElementById("fleet-charts");
    let latest = null, panels = null;
    // Where the pointer is: a share of the window, as a mouse points, or a moment, as keys choose it; or nowhere.
    let pointed = {};

    function perSecond(number) {
        return (number ? Fleet.rate(number) : "0") + "/s";
    }

    function duration(ms) {
        return ms === 0 ? "0 ms" : Fleet.duration(ms);
    }

    // One of a slot's times, or null in a slot without any.
    function time(name, which) {
        return (slot) => slot.times[name] ? slot.times[name][which] : null;
    }

    function spread(name, tone) {
        return () => [
            {name: "p50", tone: tone, value: time(name, 0)},
            {name: "p99", tone: tone, value: time(name, 1)}
        ];
    }

    function ratio(found, looked) {
        return looked ? found / looked : null;
    }

    function total(requests) {
        return Fleet.SOURCES.reduce((sum, source) => sum + requests[source], 0);
    }

    function queues(slots) {
        const names = [...new Set(slots.flatMap((slot) => Object.keys(slot.queued)))].sort();
        return names.map((name) => ({name: name, tone: "ink", value: (slot) => name in slot.queued ? slot.queued[name] : null}));
    }

    // `series`: what is drawn of these slots; `none`: the sentence for a window without any; `empty`: whether 0 is as nothing.
    const CHARTS = [
        {
            id: "fleet-chart", title: () => "Requests a second, by source", label: perSecond, none: "No request was made", empty: true,
            series: () => Fleet.SOURCES.map((source) => ({
                name: Fleet.NAMES[source], tone: source, area: true, value: (slot) => slot.requests[source] / slot.seconds
            }))
        },
        {
            id: "fleet-chart-hits", title: () => "Hit rate, by tier", label: Fleet.percent, tick: (share) => (share * 100).toFixed(0) + "%", top: 1, none: "No request looked in a tier",
            series: () => [
                {name: "L1", tone: "l1", value: (slot) => ratio(slot.requests.l1, total(slot.requests))},
                {name: "L2", tone: "l2", value: (slot) => ratio(slot.requests.l2, total(slot.requests) - slot.requests.l1)}
            ]
        },
        ...ANSWERED.map((source) => ({
            id: "fleet-chart-time-" + source, title: () => "Time of an answer: " + Fleet.NAMES[source], label: duration,
            none: NONE[source], series: spread(source, source)
        })),
        {
            id: "fleet-chart-queue", title: () => "Messages that wait, by queue", label: Fleet.count, series: queues,
            none: "Flower has not seen the queues", whole: true
        },
        {
            id: "fleet-chart-wait", title: () => "Queue wait", label: duration, series: spread("queue_wait", "ink"),
            none: "No task was begun"
        },
        {
            id: "fleet-chart-failed", title: (stepS) => "Failed requests, in each " + Fleet.span(stepS), label: Fleet.count, empty: true,
            none: "No request failed", whole: true,
            series: () => [{name: "failed", tone: "failed", area: true, value: (slot) => slot.requests.failed}]
        },
        {
            id: "fleet-chart-staleness", title: () => "Staleness: from publishing to applied", label: duration,
            series: spread("staleness", "ink"), none: "No invalidation was applied"
        }
    ];

    // The slots that are drawn. One that has just begun says little; a long one, over which much would be missing, counts as long
    // as it has run.
    function shownSlots(figures) {
        const runsFor = Math.max(1, figures.at - figures.slots[figures.slots.length - 1].at);
        const last = figures.slot_s > FINE_S || figures.slots.length === 1 ? figures.slots.length : figures.slots.length - 1;
        return figures.slots.slice(0, last).map((slot, at) => Object.assign({}, slot, {
            seconds: at === figures.slots.length - 1 ? runsFor : figures.slot_s
        }));
    }

    function legendRow(swatch, name) {
        const row = Fleet.element("li", "");
        row.append(swatch, Fleet.element("span", "", name));
        return row;
    }

    function build(chart) {
        const panel = Fleet.element("div", "fleet-panel" + (chart.id === "fleet-chart" ? " fleet-panel-wide" : ""));
        const title = Fleet.element("h3", "fleet-panel-title"), moment = Fleet.element("p", "fleet-moment");
        const plot = Fleet.element("div", "fleet-plot"), drawing = Fleet.drawing("fleet-drawing");
        const legend = Fleet.element("ul", "fleet-legend"), none = Fleet.element("p", "fleet-none");
        drawing.id = chart.id;
        title.id = chart.id + "-title";
        panel.id = chart.id + "-panel";
        plot.tabIndex = 0;
        plot.setAttribute("role", "slider");
        plot.setAttribute("aria-labelledby", title.id);
        plot.setAttribute("aria-describedby", chart.id === "fleet-chart" ? "fleet-chart-summary fleet-chart-help" : "fleet-chart-help");
        plot.append(drawing);
        panel.append(title, legend, plot, moment, none);
        plot.addEventListener("pointermove", (event) => point({share: Fleet.shareAt(drawing, event.clientX)}));
        plot.addEventListener("pointerdown", (event) => point({share: Fleet.shareAt(drawing, event.clientX)}));
        plot.addEventListener("pointerleave", () => point({}));
        plot.addEventListener("keydown", onKey);
        // Once it is there by keys it stays at a moment: else what it says would change every second, and be read aloud.
        plot.addEventListener("focus", () => {
            if (latest && plot.matches(":focus-visible")) {
                point({at: shownSlots(latest).at(-1).at});
            }
        });
        plot.addEventListener("blur", () => point({}));
        return {chart, panel, title, moment, plot, drawing, legend, none, names: ""};
    }

    function begin() {
        area.append(Fleet.patterns());
        panels = CHARTS.map(build);
        area.append(...panels.map((each) => each.panel));
        document.getElementById("fleet-mark-legend").replaceChildren(
            ...Object.entries(MARKS).map(([kind, name]) => legendRow(Fleet.markSwatch(kind), name))
        );
        new ResizeObserver(() => {
            if (latest) {
                drawAll();
            }
        }).observe(area);
    }

    function indexOf(slots) {
        if (pointed.at !== undefined) {
            return Math.max(slots.findLastIndex((slot) => slot.at <= pointed.at), 0);
        }
        return pointed.share === undefined ? null : Math.min(Math.floor(pointed.share * slots.length), slots.length - 1);
    }

    function point(where) {
        pointed = where;
        if (latest) {
            drawAll();
        }
    }

    function onKey(event) {
        if (!latest || event.altKey || event.ctrlKey || event.metaKey) {
            return;
        }
        const slots = shownSlots(latest), end = slots.length - 1, at = indexOf(slots);
        const from = at === null ? end : at;
        const next = {
            ArrowLeft: from - 1, ArrowDown: from - 1, ArrowRight: from + 1, ArrowUp: from + 1,
            PageDown: from - PAGE, PageUp: from + PAGE, Home: 0, End: end
        }[event.key];
        if (next !== undefined) {
            event.preventDefault();
            point({at: slots[Math.min(Math.max(next, 0), end)].at});
        } else if (event.key === "Escape") {
            point({});
        }
    }

    function clock(seconds) {
        const shown = latest.window_s > 3600 ? {weekday: "short", hour: "2-digit", minute: "2-digit"} : undefined;
        return shown ? new Date(seconds * 1000).toLocaleString([], shown) : Fleet.clock(seconds);
    }

    function markText(mark) {
        return mark.kind === "version" ? "version " + mark.name + " appeared" : mark.name + " fell silent without leaving";
    }

    function marksOf(slots) {
        const began = slots[0].at, span = slots.reduce((sum, slot) => sum + slot.seconds, 0);
        const step = latest.slot_s * slots.length;
        return [
            ...slots.filter((slot) => slot.invalidations).map((slot) => ({kind: "invalidations", share: (slot.at + latest.slot_s / 2 - began) / step})),
            ...latest.marks.filter((mark) => mark.at <= began + span).map((mark) => ({kind: mark.kind, share: (mark.at - began) / step}))
        ].filter((mark) => mark.share >= 0 && mark.share <= 1);
    }

    // What happened in a slot beside what the charts draw.
    function eventsOf(slot) {
        const marks = latest.marks.filter((mark) => mark.at >= slot.at && mark.at < slot.at + latest.slot_s).map(markText);
        return slot.invalidations ? [Fleet.count(slot.invalidations) + " invalidations", ...marks] : marks;
    }

    // Where an axis ends; of whole numbers at one whose half is whole.
    function axisEnd(most, whole) {
        const end = Fleet.roundUp(most);
        return whole ? 2 * Math.ceil(end / 2) : end;
    }

    function drawPanel(each, slots, marks) {
        const {chart, title, moment, plot, drawing, legend, none} = each;
        const series = chart.series(slots).map((one) => Object.assign({}, one, {values: slots.map(one.value)}));
        const known = series.flatMap((one) => one.values).filter((value) => value !== null);
        const empty = chart.empty ? !known.some((value) => value > 0) : !known.length;
        title.textContent = chart.title(latest.slot_s);
        none.textContent = empty ? chart.none + " in the last " + Fleet.windowName(latest.window_s) + "." : "";
        none.hidden = !empty;
        plot.hidden = legend.hidden = moment.hidden = empty;
        if (empty) {
            drawing.replaceChildren();
            return;
        }
        const at = indexOf(slots), slot = slots[at === null ? slots.length - 1 : at];
        const stacked = slots.map((_, number) => series.reduce((sum, one) => sum + (one.area ? one.values[number] : 0), 0));
        const most = Math.max(...known, ...stacked);
        const texts = series.map((one) => {
            const value = one.values[slots.indexOf(slot)];
            return value === null ? "—" : chart.label(value);
        });
        const names = series.map((one) => one.name).join("\n");
        if (each.names !== names) {  // else a reader of the screen would lose its place every second
            legend.replaceChildren(...series.map((one, number) => {
                const row = legendRow(Fleet.swatch(one, number), one.name);
                row.append(Fleet.element("span", "fleet-value"));
                return row;
            }));
            each.names = names;
        }
        series.forEach((one, number) => {
            const value = legend.children[number].lastChild, exact = one.values[slots.indexOf(slot)];
            value.textContent = texts[number];
            value.dataset.value = String(exact);
        });
        const when = at === null ? "latest" : clock(slot.at);
        moment.textContent = at === null ? "" : [when, ...eventsOf(slot)].join(", ");
        const spoken = series.map((one, number) => one.name + " " + texts[number]);
        plot.setAttribute("aria-valuemin", String(slots[0].at));
        plot.setAttribute("aria-valuemax", String(slots[slots.length - 1].at));
        plot.setAttribute("aria-valuenow", String(slot.at));
        plot.setAttribute("aria-valuetext", [when + ": " + spoken.join(", "), ...eventsOf(slot)].join("; "));
        Fleet.draw(drawing, {
            series: series,
            top: chart.top || axisEnd(most, chart.whole),
            tick: chart.tick || chart.label,
            marks: marks,
            pointer: at,
            times: [clock(slots[0].at), clock(slots[Math.floor(slots.length / 2)].at), "now"]
        });
    }

    function drawAll() {
        const slots = shownSlots(latest), marks = marksOf(slots);
        panels.forEach((each) => drawPanel(each, slots, marks));
    }

    function showMarks(figures) {
        const list = document.getElementById("fleet-marks");
        const shown = figures.marks.slice(0, SHOWN_MARKS).map((mark) => {
            const row = Fleet.element("li", "");
            row.append(Fleet.markSwatch(mark.kind), Fleet.element("span", "fleet-muted", clock(mark.at)), Fleet.element("span", "fleet-name", markText(mark)));
            return row;
        });
        const more = figures.marks.length - shown.length;
        if (!shown.length || more > 0) {
            shown.push(Fleet.element("li", "fleet-muted", more > 0 ? "and " + more + " more" : "None in the last " + Fleet.windowName(figures.window_s) + "."));
        }
        list.replaceChildren(...shown);
    }

    Fleet.showCharts = function (figures) {
        latest = figures;
        if (!panels) {
            begin();
        }
        area.dataset.window = String(figures.window_s);
        const highest = Math.max(...shownSlots(figures).map((slot) => total(slot.requests) / slot.seconds));
        document.getElementById("fleet-chart-summary").textContent = Fleet.rate(figures.requests_per_s) + " requests a second now, "
            + Fleet.rate(highest) + " at most. The table below has the counts.";
        drawAll();
        showMarks(figures);
    };
}());
