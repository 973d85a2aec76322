"use strict";
// The theme button, and the values under the pointer. Nothing here loads or sends anything.
document.querySelector("#theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
for (const figure of document.querySelectorAll("figure[data-values]")) {
  const { x, s } = JSON.parse(figure.dataset.values);
  const [left, right] = [Number(figure.dataset.left), Number(figure.dataset.right)];
  const [svg, tip, cross] = [figure.querySelector("svg"), figure.querySelector(".tip"), figure.querySelector(".cross")];
  const width = svg.viewBox.baseVal.width;
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * width;
    const share = x.length > 1 ? Math.min(1, Math.max(0, (at - left) / (right - left))) : 0.5;
    const i = x.length > 1 ? Math.round(share * (x.length - 1)) : 0;
    const place = x.length > 1 ? left + ((right - left) * i) / (x.length - 1) : (left + right) / 2;
    cross.setAttribute("x1", place);
    cross.setAttribute("x2", place);
    cross.classList.add("on");
    tip.replaceChildren();
    const head = document.createElement("b");
    head.textContent = x[i];
    tip.append(head);
    for (const [name, colour, values] of s) {
      const row = document.createElement("div");
      row.className = colour;
      row.textContent = `${name}  ${values[i]}`;
      tip.append(row);
    }
    tip.hidden = false;
    const pixel = (place / width) * box.width;
    tip.style.left = pixel > box.width / 2 ? "" : `${pixel + 14}px`;
    tip.style.right = pixel > box.width / 2 ? `${box.width - pixel + 14}px` : "";
  });
  svg.addEventListener("pointerleave", () => {
    tip.hidden = true;
    cross.classList.remove("on");
  });
}
