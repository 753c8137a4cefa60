"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const strips = [...document.querySelectorAll(".strip")];
  const explanations = [...document.querySelectorAll(".explanation")];

  const precision = (strip) => Number(strip.dataset.precision);
  const number = (strip, name) => Number(strip.dataset[name]);
  const orders = {
    worst: (a, b) => precision(a) - precision(b),
    best: (a, b) => precision(b) - precision(a),
    identity: (a, b) => number(a, "identity") - number(b, "identity") || precision(a) - precision(b),
    camera: (a, b) => number(a, "camera") - number(b, "camera") || precision(a) - precision(b),
  };
  const outcomes = {
    "": () => true,
    wrong: (strip) => number(strip, "first") > 1,
    right: (strip) => number(strip, "first") === 1,
    explained: (strip) => "explained" in strip.dataset,
  };

  function arrange() {
    const camera = byId("camera").value;
    const identity = byId("identity").value.trim();
    const wanted = outcomes[byId("outcome").value];
    let shown = 0;
    for (const strip of [...strips].sort(orders[byId("order").value])) {
      strip.hidden = !(wanted(strip) && (!camera || strip.dataset.camera === camera)
        && (!identity || strip.dataset.identity === identity));
      shown += !strip.hidden;
      byId("strips").append(strip);
    }
    byId("shown").textContent = `${shown} of ${strips.length} strips`;
  }

  function explain(id) {
    const chosen = explanations.find((one) => one.id === id);
    if (!chosen) return false;
    for (const one of explanations) one.hidden = one !== chosen;
    byId("explained").value = id;
    return true;
  }

  function follow() {
    const id = location.hash.slice(1);
    if (explain(id)) {
      byId("why").scrollIntoView();
      byId(id).focus({ preventScroll: true });
    } else if (id.startsWith("strip-") && byId(id)) {
      byId(id).hidden = false;
      byId(id).scrollIntoView();
    }
  }

  for (const id of ["order", "outcome", "camera", "identity"]) byId(id).addEventListener("input", arrange);
  byId("explained").addEventListener("input", (event) => explain(event.target.value));
  byId("strips").addEventListener("click", (event) => {
    const strip = event.target.closest(".strip[data-explained]");
    if (strip && !event.target.closest("a")) strip.querySelector(".explain").click();
  });
  addEventListener("hashchange", follow);

  document.documentElement.classList.remove("no-script");
  arrange();
  if (explanations.length) explain(explanations[0].id);
  follow();
})();
