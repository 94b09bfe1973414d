"use strict";
// Puts each new fragment in the place of the former one, but not under the hands of somebody who is typing in it.
const live = document.getElementById("live");
const follow = document.getElementById("follow");
let waiting = null;

function isTyping() {
  const at = document.activeElement;
  return at && live.contains(at) && ["INPUT", "SELECT", "TEXTAREA"].includes(at.tagName);
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

const source = new EventSource(live.dataset.live);
source.onopen = () => { follow.textContent = "live"; };
source.onerror = () => { follow.textContent = "not live: trying again"; };
source.onmessage = (event) => {
  if (isTyping()) waiting = event.data;
  else show(event.data);
};
live.addEventListener("focusout", () => setTimeout(() => {
  if (waiting !== null && !isTyping()) {
    show(waiting);
    waiting = null;
  }
}));
