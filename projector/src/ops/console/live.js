"use strict";
// Puts each new fragment in the place of the former one, but not under the hands of somebody who is typing in it, or presses a
// button of it: a click is lost when its element is replaced between press and release.
const live = document.getElementById("live");
const follow = document.getElementById("follow");
let waiting = null;

function isInHand() {
  const at = document.activeElement;
  const isTyping = at && live.contains(at) && ["INPUT", "SELECT", "TEXTAREA"].includes(at.tagName);
  return isTyping || live.querySelector(":active") !== null;
}

function show(html) {
  const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
  const typed = [...live.querySelectorAll("input[id], select[id]")].map((field) => [field.id, field.value]);
  const open = [...live.querySelectorAll("details[id][open]")].map((details) => details.id);
  live.innerHTML = html;
  for (const [id, value] of typed) {
    const field = document.getElementById(id);
    if (field) field.value = value;
  }
  for (const id of open) {
    const details = document.getElementById(id);
    if (details) details.open = true;
  }
  if (focused) {
    const again = document.getElementById(focused);
    if (again) again.focus({ preventScroll: true });
  }
}

function showWaiting() {
  if (waiting === null || isInHand()) return;
  show(waiting);
  waiting = null;
}

const source = new EventSource(live.dataset.live);
source.onopen = () => { follow.textContent = "live"; };
source.onerror = () => { follow.textContent = "not live: trying again"; };
source.onmessage = (event) => {
  waiting = event.data;
  showWaiting();
};
for (const letGo of ["focusout", "pointerup", "pointercancel", "keyup"]) {
  document.addEventListener(letGo, () => setTimeout(showWaiting));
}
