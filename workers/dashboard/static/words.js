// Figures in words, and elements that hold nothing but text.
const Fleet = {};

(function () {
    "use strict";

    const counts = new Intl.NumberFormat("en");

    Fleet.SOURCES = ["l1", "l2", "joined", "stale", "no", "failed"];
    Fleet.NAMES = {l1: "L1", l2: "L2", joined: "joined", stale: "stale", no: "computed", failed: "failed"};

    Fleet.count = function (number) {
        return counts.format(number);
    };

    Fleet.rate = function (number) {
        return number >= 100 ? counts.format(Math.round(number)) : number.toFixed(1);
    };

    Fleet.percent = function (share) {
        return share === null ? "—" : (share * 100).toFixed(1) + "%";
    };

    Fleet.duration = function (ms) {
        if (ms >= 10000) {
            return (ms / 1000).toFixed(1) + " s";
        }
        return ms.toFixed(ms >= 100 ? 0 : ms >= 1 ? 1 : 3) + " ms";
    };

    Fleet.span = function (seconds) {
        if (seconds < 120) {
            return Math.max(0, Math.round(seconds)) + " s";
        }
        return seconds < 7200 ? Math.round(seconds / 60) + " min" : Math.round(seconds / 3600) + " h";
    };

    Fleet.clock = function (seconds) {
        return new Date(seconds * 1000).toLocaleTimeString();
    };

    // Names come from foreign hosts, programs and keys: only textContent takes them, which makes no element of them.
    Fleet.element = function (tag, className, text) {
        const element = document.createElement(tag);
        if (className) {
            element.className = className;
        }
        if (text !== undefined && /\bfleet-(code|name)\b/.test(className)) {
            element.append(...parts(text));
        } else if (text !== undefined) {
            element.textContent = text;
        }
        return element;
    };

    // A name may be broken behind what separates its parts, and not within one, as long as a part fits.
    function parts(text) {
        return text.split(/(?<=[:@\/._=&?,-])(?=[^\s])/).flatMap((part, at) => at ? [document.createElement("wbr"), part] : [part]);
    }

    Fleet.row = function (className, cells) {
        const row = Fleet.element("tr", className);
        row.append(...cells);
        return row;
    };
}());
