"use strict";

// Without this script the page shows everything; with it, what the reader asked for.
const form = document.getElementById("filter");
const words = document.getElementById("words");
const area = document.getElementById("area");
const tier = document.getElementById("tier");
const shown = document.getElementById("shown");
const outcomes = [...form.querySelectorAll("[name=outcome]")];
const promises = [...document.querySelectorAll(".promise")].map((element) => ({
  element,
  outcome: element.dataset.outcome,
  area: element.dataset.area,
  tier: element.dataset.tier,
  text: element.textContent.toLowerCase(),
}));

function filter() {
  const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = new Set(outcomes.filter((box) => box.checked).map((box) => box.value));
  let number = 0;
  for (const promise of promises) {
    const matches =
      wanted.has(promise.outcome) &&
      (!area.value || promise.area === area.value) &&
      (!tier.value || promise.tier === tier.value) &&
      asked.every((word) => promise.text.includes(word));
    promise.element.hidden = !matches;
    number += matches;
  }
  for (const section of document.querySelectorAll(".area")) {
    section.hidden = !section.querySelector(".promise:not([hidden])");
  }
  shown.textContent = `${number} of ${promises.length} promises`;
}

form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
// The fields have their old values until the event is over.
form.addEventListener("reset", () => setTimeout(filter));

// A link to a promise that the filter hides shows everything again.
window.addEventListener("hashchange", () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target?.hidden) {
    form.reset();
    setTimeout(() => target.scrollIntoView());
  }
});

// On paper nothing can be unfolded: what a promise that failed said is opened, its logs and events are not.
const failed = ":is([data-outcome=broken], [data-outcome=error]) > details:not([open])";
let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll(failed)];
  opened.forEach((details) => (details.open = true));
});
window.addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));

// What a mark of a picture stands for, when the pointer rests on it.
for (const mark of document.querySelectorAll("svg [role=graphics-symbol][aria-label]")) {
  const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
  title.textContent = mark.getAttribute("aria-label");
  mark.append(title);
}

form.hidden = false;
filter();
