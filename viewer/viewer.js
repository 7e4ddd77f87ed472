// The screen and the serial line of a machine, live: what brings `<offshoot-viewer>` to life (app/src/pages/vm/console.rs).
//
// The page renders tools and words; here nothing is added to them but attributes, so that the page may be taken over by WASM
// before or after. What is drawn stands in a shadow tree of the stage.

const RETRY = [250, 500, 1000, 2000, 5000];
/// The code of a close that says that the machine is off: the page will say so itself, and only a machine that is on again by then
/// is asked for.
const OFF = 4000;
/// A guest's keyboard controller holds few keys: typed faster than this, some are lost. In milliseconds.
const KEY_EVERY = 15;

const KEYSYMS = {
  ControlLeft: 0xffe3, AltLeft: 0xffe9, MetaLeft: 0xffeb, ShiftLeft: 0xffe1, Delete: 0xffff, Escape: 0xff1b, Tab: 0xff09,
  Enter: 0xff0d, PrintScreen: 0xff61, F1: 0xffbe, F2: 0xffbf, F4: 0xffc1, KeyW: 0x77,
};
// The keys of a US keyboard, without and with shift.
const ROWS = [
  ["Backquote Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal", "`1234567890-=", "~!@#$%^&*()_+"],
  ["BracketLeft BracketRight Backslash Semicolon Quote Comma Period Slash Space", "[]\\;',./ ", "{}|:\"<>?"],
  ["ABCDEFGHIJKLMNOPQRSTUVWXYZ".replace(/./g, "Key$& ").trim(), "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"],
];
const TYPED = new Map([["\n", { code: "Enter", keysym: KEYSYMS.Enter }], ["\t", { code: "Tab", keysym: KEYSYMS.Tab }]]);
for (const [codes, ...levels] of ROWS) {
  for (const [shift, chars] of levels.entries()) {
    [...chars].forEach((char, n) =>
      TYPED.set(char, { code: codes.split(" ")[n], keysym: char.charCodeAt(0), shift: shift === 1 }));
  }
}

const pause = (millis) => new Promise((done) => setTimeout(done, millis));

function address(src) {
  const url = new URL(src, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  return url.href;
}

/// noVNC. `say` is told `open` and `lost`, with the code of the close.
async function screen(viewer, box, say) {
  const { default: RFB } = await import("./vendor/novnc.js");
  const press = (code, down) => rfb.sendKey(KEYSYMS[code], code, down);
  let rfb, fit = true;
  return {
    connect() {
      const socket = new WebSocket(address(viewer.dataset.src), ["binary"]);
      let code;
      socket.addEventListener("close", (event) => (code = event.code));
      rfb = new RFB(box, socket, { shared: true });
      rfb.background = "transparent";
      rfb.scaleViewport = fit;
      const canvas = box.querySelector("canvas");
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "application");
      canvas.setAttribute("aria-label", viewer.dataset.label);
      const mine = rfb;
      rfb.addEventListener("connect", () => mine === rfb && say("open"));
      rfb.addEventListener("disconnect", () => {
        if (mine !== rfb) return;
        rfb = undefined;
        say("lost", code);
      });
    },
    close() {
      const old = rfb;
      rfb = undefined;
      old?.disconnect();
    },
    focus: () => rfb?.focus(),
    fit(on) {
      fit = on;
      if (rfb) rfb.scaleViewport = on;
    },
    keys(codes) {
      if (!rfb) return;
      for (const code of codes) press(code, true);
      for (const code of codes.toReversed()) press(code, false);
    },
    /// Types a text, and answers the characters that a US keyboard does not have.
    async paste(text) {
      const untyped = new Set();
      for (const char of text.replace(/\r\n?/g, "\n")) {
        const key = TYPED.get(char);
        if (!key) {
          untyped.add(char);
          continue;
        }
        if (!rfb) break;
        if (key.shift) press("ShiftLeft", true);
        rfb.sendKey(key.keysym, key.code, true);
        rfb.sendKey(key.keysym, key.code, false);
        if (key.shift) press("ShiftLeft", false);
        await pause(KEY_EVERY);
      }
      return [...untyped].join("");
    },
  };
}

/// xterm.js makes `<style>` elements when it is opened, which the page's policy forbids. Sheets that scripts make are allowed, so what
/// it gets instead is an element that keeps such a sheet.
function styled(root, open) {
  const style = () => {
    const sheet = new CSSStyleSheet();
    root.adoptedStyleSheets.push(sheet);
    return Object.defineProperty(document.createElement("template"), "textContent", { set: (css) => sheet.replaceSync(css) });
  };
  const create = document.createElement;
  document.createElement = (tag, options) => (tag === "style" ? style() : create.call(document, tag, options));
  try {
    open();
  } finally {
    delete document.createElement;
  }
}

/// xterm.js on the serial line.
async function serial(viewer, box, say) {
  const root = box.getRootNode();
  const [{ Terminal, FitAddon }, css] = await Promise.all([
    import("./vendor/xterm.js"),
    fetch(new URL("./vendor/xterm.css", import.meta.url)).then((answer) => answer.text()),
  ]);
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(css);
  root.adoptedStyleSheets.push(sheet);
  const style = getComputedStyle(viewer);
  const term = new Terminal({
    fontFamily: style.getPropertyValue("--mono"),
    fontSize: 13,
    scrollback: 10_000,
    theme: { background: style.getPropertyValue("--screen").trim() || "#05080a" },
  });
  const fit = new FitAddon();
  term.loadAddon(fit);
  styled(root, () => term.open(box));
  term.textarea.setAttribute("aria-label", viewer.dataset.label);
  new ResizeObserver(() => fit.fit()).observe(box);

  const note = (text) => term.write(`\r\n\x1b[0;2m[${text}]\x1b[0m\r\n`);
  // What was said before may ask the terminal something: only what is asked now is answered, and only by the one that a
  // person types into.
  let socket, before = 0, pasting = false;
  const send = (data) => {
    const typing = root.activeElement === term.textarea && before <= 0;
    if ((typing || pasting) && socket?.readyState === WebSocket.OPEN) socket.send(data);
  };
  const encoder = new TextEncoder();
  term.onData((text) => send(encoder.encode(text)));
  term.onBinary((text) => send(Uint8Array.from(text, (char) => char.charCodeAt(0))));
  term.attachCustomKeyEventHandler((event) => {
    const both = event.ctrlKey && event.shiftKey && !event.altKey;
    if (both && event.code === "KeyC") {
      event.preventDefault();
      if (event.type === "keydown") navigator.clipboard?.writeText(term.getSelection());
    }
    // The browser pastes by itself.
    return !(both && (event.code === "KeyC" || event.code === "KeyV"));
  });
  const heard = {
    // The first that is said: all that is here already comes anew.
    backlog(bytes) {
      term.reset();
      before = bytes;
      say("open");
    },
    skipped: (bytes) => note(viewer.dataset.skipped.replace("{0}", bytes)),
    cut: () => note(viewer.dataset.cut),
  };
  return {
    connect() {
      const mine = (socket = new WebSocket(address(viewer.dataset.src)));
      mine.binaryType = "arraybuffer";
      mine.onmessage = ({ data }) => {
        if (mine !== socket) return;
        if (typeof data === "string") {
          for (const [kind, value] of Object.entries(JSON.parse(data))) heard[kind]?.(value);
          return;
        }
        const bytes = new Uint8Array(data);
        term.write(bytes, () => mine === socket && (before -= bytes.length));
      };
      mine.onclose = ({ code }) => mine === socket && say("lost", code);
    },
    close() {
      const old = socket;
      socket = undefined;
      old?.close();
    },
    focus: () => term.focus(),
    fit() {},
    keys() {},
    paste(text) {
      pasting = true;
      term.paste(text);
      pasting = false;
      return "";
    },
  };
}

class Viewer extends HTMLElement {
  connectedCallback() {
    // Its content may come just after it.
    queueMicrotask(() => this.isConnected && this.begin());
  }

  disconnectedCallback() {
    this.over?.abort();
    this.over = undefined;
  }

  async begin() {
    if (this.over) return;
    const over = (this.over = new AbortController());
    const { signal } = over;
    const stage = this.querySelector(".stage");
    const root = stage.shadowRoot ?? stage.attachShadow({ mode: "open" });
    const box = document.createElement("div");
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(":host, div.box { height: 100% } canvas:focus-visible { outline: 2px solid #45cf97; outline-offset: -2px }");
    root.adoptedStyleSheets = [sheet];
    box.className = "box";
    root.replaceChildren(box);
    this.dataset.state = "connecting";
    let tries = 0, timer;
    const say = (state, code) => {
      if (signal.aborted) return;
      this.dataset.state = state;
      if (state === "open") tries = 0;
      if (state !== "lost") return;
      if (code === OFF) tries = RETRY.length;
      timer = setTimeout(connect, RETRY[Math.min(tries++, RETRY.length - 1)]);
    };
    const connect = () => {
      clearTimeout(timer);
      if (tries === 0) this.dataset.state = "connecting";
      this.line.close();
      this.line.connect();
    };
    try {
      this.line = await (this.dataset.kind === "screen" ? screen : serial)(this, box, say);
    } catch (error) {
      console.error(error);
      this.dataset.state = "broken";
      return;
    }
    const line = this.line;
    if (signal.aborted) return;
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      line.close();
    });
    this.tools(line, signal);
    this.keyboard(stage, signal);
    addEventListener("online", () => this.dataset.state === "lost" && connect(), { signal });
    connect();
  }

  /// The buttons, and the form for what is pasted.
  tools(line, signal) {
    const form = this.querySelector("form.paste"), text = form.querySelector("textarea"), told = form.querySelector("[data-untyped]");
    const paste = () => {
      form.hidden = !form.hidden;
      told.title = told.textContent = "";
      if (form.hidden) line.focus();
      else text.focus();
    };
    this.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (!button) return;
      if (button.dataset.keys) {
        button.closest("details")?.removeAttribute("open");
        line.keys(button.dataset.keys.split(" "));
        line.focus();
      }
      switch (button.dataset.do) {
        case "paste":
          paste();
          break;
        case "fit": {
          const on = button.getAttribute("aria-pressed") !== "true";
          button.setAttribute("aria-pressed", on);
          this.toggleAttribute("data-whole", !on);
          line.fit(on);
          break;
        }
        case "full":
          if (document.fullscreenElement) document.exitFullscreen();
          else this.requestFullscreen().then(() => line.focus(), () => {});
      }
    }, { signal });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      event.stopPropagation();
      const untyped = await line.paste(text.value);
      if (untyped) {
        told.textContent = told.dataset.untyped.replace("{0}", untyped);
        return;
      }
      text.value = "";
      if (!form.hidden) paste();
    }, { signal });
  }

  /// All keys go to the guest, but Ctrl and Alt pressed together and let go give the keyboard back.
  keyboard(stage, signal) {
    let alone = false;
    const modifier = (event) => event.key === "Control" || event.key === "Alt";
    stage.addEventListener("keydown", (event) => {
      alone = modifier(event) && event.ctrlKey && event.altKey;
    }, { capture: true, signal });
    stage.addEventListener("keyup", (event) => {
      if (alone && modifier(event)) this.querySelector(".tools button").focus();
      alone = false;
    }, { capture: true, signal });
    // The console's own keys are none here.
    for (const kind of ["keydown", "keyup", "keypress"]) stage.addEventListener(kind, (event) => event.stopPropagation(), { signal });
  }
}

customElements.define("offshoot-viewer", Viewer);
