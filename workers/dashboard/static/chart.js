// Drawings: SVG made here, of numbers alone, in pixels of the screen so that neither text nor pattern is stretched.
(function () {
    "use strict";

    const LEFT = 64, RIGHT = 8, TOP = 16, BOTTOM = 20, MARKERS = 6;
    // Each line of a chart has a dash and a marker of its own, and each area a pattern.
    const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
    const SHAPES = [
        "M-3 0A3 3 0 1 0 3 0A3 3 0 1 0 -3 0Z",
        "M0 -4L3.6 3L-3.6 3Z",
        "M-3 -3H3V3H-3Z",
        "M0 -4L4 0L0 4L-4 0Z"
    ];
    const PATTERNS = {l2: "M0 8L8 0", joined: "M2 2H4V4H2Z", stale: "M0 2H8M0 6H8", no: "M0 8L8 0M0 0L8 8", failed: "M2 0V8M6 0V8"};

    function shape(tag, className, attributes, text) {
        const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
        element.setAttribute("class", className);
        Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, String(value)));
        if (text !== undefined) {
            element.textContent = text;
        }
        return element;
    }

    Fleet.bar = function (source, share) {
        const drawing = shape("svg", "fleet-bar fleet-" + source, {viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": true});
        drawing.append(
            shape("rect", "fleet-bar-track", {width: 100, height: 10}),
            shape("rect", "fleet-bar-share", {width: (share * 100).toFixed(2), height: 10})
        );
        return drawing;
    };

    // 1, 2, 3, 4, 6, 8, 10, 20 ... of any power of ten: the least that is enough.
    Fleet.roundUp = function (number) {
        if (!(number > 0)) {
            return 1;
        }
        const power = 10 ** Math.floor(Math.log10(number));
        return [1, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= number * 0.999999);
    };

    Fleet.patterns = function () {
        const drawing = shape("svg", "fleet-patterns", {width: 0, height: 0, "aria-hidden": true});
        drawing.append(...Object.entries(PATTERNS).map(([source, path]) => {
            const pattern = shape("pattern", "fleet-" + source, {
                id: "fleet-pattern-" + source, width: 8, height: 8, patternUnits: "userSpaceOnUse"
            });
            pattern.append(shape("rect", "fleet-ground", {width: 8, height: 8}), shape("path", "fleet-weave", {d: path}));
            return pattern;
        }));
        return drawing;
    };

    function filled(tag, source, attributes) {
        const woven = source in PATTERNS ? {fill: "url(#fleet-pattern-" + source + ")"} : {};
        return shape(tag, "fleet-area fleet-" + source + (source in PATTERNS ? "" : " fleet-solid"), Object.assign(woven, attributes));
    }

    // How a series looks, for its legend.
    Fleet.swatch = function (series, number) {
        const drawing = shape("svg", "fleet-swatch fleet-" + series.tone, {width: 28, height: 12, "aria-hidden": true});
        if (series.area) {
            drawing.append(filled("rect", series.tone, {width: 28, height: 12}));
        } else {
            drawing.append(
                shape("path", "fleet-line", {d: "M0 6H28", "stroke-dasharray": DASHES[number % DASHES.length]}),
                shape("path", "fleet-marker", {d: SHAPES[number % SHAPES.length], transform: "translate(14 6)"})
            );
        }
        return drawing;
    };

    const GLYPHS = {
        invalidations: ["fleet-glyph", "M-1 -5H1V5H-1Z"],
        version: ["fleet-glyph fleet-glyph-version", "M0 -6L6 5H-6Z"],
        lost: ["fleet-glyph fleet-glyph-lost", "M-5 -5L5 5M5 -5L-5 5"]
    };

    function glyph(kind, x, y) {
        const [className, path] = GLYPHS[kind];
        return shape("path", className, {d: path, transform: "translate(" + x.toFixed(1) + " " + y + ")"});
    }

    Fleet.markSwatch = function (kind) {
        const drawing = shape("svg", "fleet-swatch", {width: 14, height: 14, "aria-hidden": true});
        drawing.append(glyph(kind, 7, 7));
        return drawing;
    };

    // Along an area's upper edge, and back along its lower one.
    function area(lower, upper, x, y) {
        const there = upper.flatMap((value, at) => [[x(at), y(value)], [x(at + 1), y(value)]]);
        const back = lower.flatMap((value, at) => [[x(at), y(value)], [x(at + 1), y(value)]]).reverse();
        return "M" + [...there, ...back].map(([left, top]) => left.toFixed(1) + " " + top.toFixed(1)).join("L") + "Z";
    }

    function areas(series, x, y) {
        let lower = series.length ? series[0].values.map(() => 0) : [];
        return series.flatMap((each) => {
            const upper = lower.map((value, at) => value + (each.values[at] || 0));
            const drawn = each.values.some((value) => value > 0)
                ? [filled("path", each.tone, {d: area(lower, upper, x, y)})]
                : [];
            lower = upper;
            return drawn;
        });
    }

    // Without a value there is a gap; a value between two gaps is a marker alone.
    function line(series, number, x, y) {
        const known = series.values.map((value, at) => [at, value]).filter(([, value]) => value !== null);
        const path = known.map(([at, value], nth) => {
            const goesOn = nth > 0 && known[nth - 1][0] === at - 1;
            return (goesOn ? "L" : "M") + x(at + 0.5).toFixed(1) + " " + y(value).toFixed(1);
        }).join("");
        const every = Math.max(1, Math.floor(series.values.length / MARKERS));
        const marked = known.filter(([at], nth) => at % every === Math.floor(every / 2)
            || ((nth === 0 || known[nth - 1][0] < at - 1) && (nth === known.length - 1 || known[nth + 1][0] > at + 1)));
        return [
            shape("path", "fleet-line fleet-" + series.tone, {d: path || "M0 0", "stroke-dasharray": DASHES[number % DASHES.length]}),
            ...marked.map(([at, value]) => shape("path", "fleet-marker fleet-" + series.tone, {
                d: SHAPES[number % SHAPES.length], transform: "translate(" + x(at + 0.5).toFixed(1) + " " + y(value).toFixed(1) + ")"
            }))
        ];
    }

    // Which share of the window a place on the screen is, 0 to 1.
    Fleet.shareAt = function (drawing, clientX) {
        const box = drawing.getBoundingClientRect();
        return Math.min(Math.max((clientX - box.left - LEFT) / Math.max(box.width - LEFT - RIGHT, 1), 0), 1);
    };

    // `chart`: series of values (a number or null) with a tone, stacked if they are areas; `top`, where the axis ends, which begins
    // at 0; `tick`, which makes text of a value; `marks`, each of a kind at a share of the window; `pointer`, the number of a
    // value or null; `times`, the texts below.
    Fleet.draw = function (drawing, chart) {
        const width = drawing.clientWidth, height = drawing.clientHeight, count = chart.series[0].values.length;
        const place = (share) => LEFT + share * (width - LEFT - RIGHT);
        const x = (at) => place(at / count);
        const y = (value) => TOP + (1 - value / chart.top) * (height - TOP - BOTTOM);
        const parts = [0, 0.5, 1].flatMap((share) => {
            const at = y(share * chart.top);
            return [
                shape("line", "fleet-grid-line", {x1: LEFT, x2: width - RIGHT, y1: at, y2: at}),
                shape("text", "fleet-tick", {x: LEFT - 6, y: at + 4, "text-anchor": "end"}, chart.tick(share * chart.top))
            ];
        });
        ["start", "middle", "end"].forEach((anchor, number) => parts.push(
            shape("text", "fleet-tick", {x: place(number / 2), y: height - 5, "text-anchor": anchor}, chart.times[number])
        ));
        chart.marks.forEach(({kind, share}) => {
            if (kind !== "invalidations") {
                parts.push(shape("line", "fleet-mark-line fleet-mark-" + kind, {x1: place(share), x2: place(share), y1: TOP, y2: height - BOTTOM}));
            }
        });
        parts.push(...areas(chart.series.filter((each) => each.area), x, y));
        chart.series.forEach((each, number) => {
            if (!each.area) {
                parts.push(...line(each, number, x, y));
            }
        });
        parts.push(...chart.marks.map(({kind, share}) => glyph(kind, place(share), TOP - 8)));
        if (chart.pointer !== null) {
            parts.push(shape("line", "fleet-pointer", {x1: x(chart.pointer + 0.5), x2: x(chart.pointer + 0.5), y1: TOP, y2: height - BOTTOM}));
        }
        drawing.setAttribute("viewBox", "0 0 " + width + " " + height);
        drawing.replaceChildren(...parts);
    };

    Fleet.drawing = function (className) {
        return shape("svg", className, {"aria-hidden": true});
    };
}());
