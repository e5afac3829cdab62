// Drawings: SVG made here, of numbers alone.
(function () {
    "use strict";

    const WIDTH = 1000, HEIGHT = 240;

    function shape(tag, className, attributes) {
        const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
        element.setAttribute("class", className);
        Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, String(value)));
        return element;
    }

    // 1, 2, 3, 4, 6, 8, 10, 20 ...: the least that is enough.
    function roundUp(number) {
        const power = 10 ** Math.floor(Math.log10(Math.max(number, 1)));
        return [1, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= number);
    }

    // One source's area: along its upper edge, and back along its lower one.
    function area(lower, upper, y) {
        const step = WIDTH / lower.length;
        const points = [];
        upper.forEach((rate, at) => points.push([at * step, y(rate)], [(at + 1) * step, y(rate)]));
        lower.map((rate, at) => [rate, at]).reverse().forEach(([rate, at]) => {
            points.push([(at + 1) * step, y(rate)], [at * step, y(rate)]);
        });
        return "M" + points.map(([x, height]) => x.toFixed(1) + " " + height.toFixed(1)).join("L") + "Z";
    }

    Fleet.bar = function (source, share) {
        const drawing = shape("svg", "fleet-bar fleet-" + source, {viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": true});
        drawing.append(
            shape("rect", "fleet-bar-track", {width: 100, height: 10}),
            shape("rect", "fleet-bar-share", {width: (share * 100).toFixed(2), height: 10})
        );
        return drawing;
    };

    // Requests a second, stacked by source. `slots` are those that have ended. Returns what the axis ends at.
    Fleet.drawChart = function (drawing, slots, slotSeconds) {
        const rates = Fleet.SOURCES.map((source) => slots.map((slot) => slot.requests[source] / slotSeconds));
        const totals = slots.map((_, at) => rates.reduce((sum, series) => sum + series[at], 0));
        const most = roundUp(Math.max(...totals));
        const y = (rate) => HEIGHT * (1 - rate / most);
        const parts = [0, 0.5, 1].map((share) => shape("line", "fleet-grid-line", {x1: 0, x2: WIDTH, y1: HEIGHT * share, y2: HEIGHT * share}));
        let lower = slots.map(() => 0);
        Fleet.SOURCES.forEach((source, number) => {
            const upper = lower.map((rate, at) => rate + rates[number][at]);
            if (rates[number].some((rate) => rate > 0)) {
                parts.push(shape("path", "fleet-area fleet-" + source, {d: area(lower, upper, y)}));
            }
            lower = upper;
        });
        drawing.replaceChildren(...parts);
        return most;
    };

    Fleet.drawPointer = function (drawing, share) {
        drawing.append(shape("line", "fleet-pointer", {x1: WIDTH * share, x2: WIDTH * share, y1: 0, y2: HEIGHT}));
    };
}());
