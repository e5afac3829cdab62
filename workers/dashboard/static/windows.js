// The choice of a window, which the page's address keeps.
(function () {
    "use strict";

    const choices = [...document.querySelectorAll("#fleet-windows input")];
    const asked = new URLSearchParams(window.location.search).get("window");
    const found = choices.find((choice) => choice.value === asked);

    function nameOf(choice) {
        return choice.labels[0].textContent;
    }

    if (found) {
        found.checked = true;
    } else if (asked !== null) {
        const notice = document.getElementById("fleet-window-notice");
        notice.textContent = "There is no such window as this address asks for, but those of " + choices.map(nameOf).join(", ") + ".";
        notice.hidden = false;
    }

    Fleet.windowSeconds = function () {
        return Number(choices.find((choice) => choice.checked).value);
    };

    Fleet.windowName = function (seconds) {
        const choice = choices.find((each) => Number(each.value) === seconds);
        return choice ? nameOf(choice) : Fleet.span(seconds);
    };

    // Calls what is given whenever another window is chosen.
    Fleet.onWindow = function (chosen) {
        choices.forEach((choice) => choice.addEventListener("change", () => {
            const query = new URLSearchParams(window.location.search);
            query.set("window", choice.value);
            window.history.replaceState(null, "", "?" + query + window.location.hash);
            document.getElementById("fleet-window-notice").hidden = true;
            chosen();
        }));
    };
}());
