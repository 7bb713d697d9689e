"use strict";
// Shows the volumes of the page with NiiVue, which lies compressed in the page. Without WebGL 2 the note stays.
(async () => {
  const box = document.getElementById("viewer"), note = document.getElementById("viewer-note");
  const canvas = box.querySelector("canvas"), stage = box.querySelector(".stage"), tools = box.querySelector(".tools");
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const load = async (text) => {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    const address = URL.createObjectURL(new Blob([await new Response(stream).arrayBuffer()], { type: "text/javascript" }));
    await new Promise((done, failed) => {
      const script = document.createElement("script");
      script.onload = done; script.onerror = failed; script.src = address;
      document.head.append(script);
    });
    URL.revokeObjectURL(address);
  };
  try {
    if (!document.createElement("canvas").getContext("webgl2")) return;
    await load(document.getElementById("program").textContent);
    const volumes = JSON.parse(document.getElementById("volumes").textContent);
    stage.hidden = tools.hidden = false;
    const nv = new niivue.Niivue({ backColor: [0.05, 0.06, 0.07, 1], show3Dcrosshair: true, isColorbar: false,
      dragAndDropEnabled: false, logLevel: "silent", isResizeCanvas: true,
      crosshairColor: [1, 1, 1, 0.5], crosshairWidth: 0.4, multiplanarShowRender: 1, multiplanarLayout: 2 });
    await nv.attachToCanvas(canvas);
    nv.addColormap("reference", { R: [0, 255], G: [0, 212], B: [0, 0], A: [0, 255], I: [0, 255] });
    nv.addColormap("prediction", { R: [0, 53], G: [0, 182], B: [0, 255], A: [0, 255], I: [0, 255] });
    const shown = [true, true];
    const show = async (index) => {
      while (nv.volumes.length) nv.removeVolume(nv.volumes[0]);
      const one = volumes[index];
      const layers = [["image", "gray", 1, 0, 255], ["truth", "reference", 0.35, 0, 1], ["found", "prediction", 0.35, 0, 1]];
      for (const [name, colormap, opacity, low, high] of layers)
        nv.addVolume(await niivue.NVImage.loadFromBase64({ base64: one[name], name: name + ".nii.gz", colormap,
          opacity: name === "image" || shown[name === "truth" ? 0 : 1] ? opacity : 0, cal_min: low, cal_max: high }));
      nv.scene.crosshairPos = nv.mm2frac(one.centre);
      nv.setSliceType(box.querySelector("[data-mode]").ariaPressed === "true" ? nv.sliceTypeRender : nv.sliceTypeMultiplanar);
    };
    tools.addEventListener("click", async (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      if (button.dataset.volume !== undefined) {
        for (const other of tools.querySelectorAll("[data-volume]")) other.ariaPressed = String(other === button);
        await show(Number(button.dataset.volume));
        return;
      }
      const on = button.ariaPressed !== "true";
      button.ariaPressed = String(on);
      if (button.dataset.layer) {
        shown[Number(button.dataset.layer) - 1] = on;
        nv.setOpacity(Number(button.dataset.layer), on ? 0.35 : 0);
      } else nv.setSliceType(on ? nv.sliceTypeRender : nv.sliceTypeMultiplanar);
    });
    await show(0);
    note.textContent = "Drag, or use the arrow keys, to move the crosshair; the wheel goes through slices. Reference in yellow, prediction in blue.";
    box.dataset.ready = "yes";
  } catch (error) {
    stage.hidden = tools.hidden = true;
    note.textContent = "The viewer could not start in this browser (" + error.message + "); the slices above show the same cases.";
  }
})();
