// A first visit: what to do where there is nothing to see yet.
(function () {
    "use strict";

    const page = document.getElementById("fleet");

    function show(id, shown) {
        document.getElementById(id).hidden = !shown;
    }

    page.addEventListener("figures", (event) => {
        const {state, figures} = event.detail;
        if (state !== "live") {
            show("fleet-first", false);
            return;
        }
        const works = figures.nodes.some((node) => node.alive);
        const asked = Fleet.SOURCES.some((source) => figures.requests[source]) || figures.hot.length > 0;
        show("fleet-first-worker", !works);
        show("fleet-first-request", !asked);
        show("fleet-first", !works || !asked);
    });
}());
