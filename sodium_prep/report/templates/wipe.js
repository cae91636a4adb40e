
for (const figure of document.querySelectorAll("figure.wipe")) {
  const slider = figure.querySelector("input");
  const names = [...figure.querySelectorAll(".layer b")].map((name) => name.textContent);
  const show = () => {
    const share = Math.round(slider.value);
    figure.style.setProperty("--at", share / 100);
    slider.setAttribute("aria-valuetext", share + " % " + names[0] + ", " + (100 - share) + " % " + names[1]);
  };
  figure.classList.add("live");
  figure.querySelector(".control").hidden = false;
  slider.addEventListener("input", show);
  show();
}
