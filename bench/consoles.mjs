// Looks at the screen of a guest and types into its serial line, in a real browser. Started by the bench program, which runs the
// server:
//
//   node consoles.mjs <url> <one-time link> <name of a machine that runs>
//
// It answers each line of standard input with a line of JSON: `look` when the screen is seen, `frames <ms>` with the pictures a
// second that came in that time, `echo <n>` with how long each key took until its row was painted, in milliseconds.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const { chromium } = createRequire(new URL('../end2end/package.json', import.meta.url))('@playwright/test');
const [url, link, machine] = process.argv.slice(2);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/google-chrome'].find(existsSync),
  // Chromium's sandbox refuses to run as root.
  args: [
    ...(process.getuid() === 0 ? ['--no-sandbox'] : []),
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});
const context = await browser.newContext({ baseURL: url, viewport: { width: 1280, height: 860 } });
const page = await context.newPage();
const linked = () => page.locator('offshoot-viewer[data-state=open]').waitFor();

/** Pictures are counted as the canvas is drawn to: each update of the screen ends with one flush of what is drawn. */
function watchCanvas() {
  window.benchFrames = 0;
  let due = false;
  const canvas = document.querySelector('offshoot-viewer .stage').shadowRoot.querySelector('canvas');
  const context = canvas.getContext('2d');
  const draw = context.drawImage;
  context.drawImage = function (...all) {
    // The pictures of one update come in one turn of the browser.
    if (!due) {
      due = true;
      window.benchFrames += 1;
      requestAnimationFrame(() => (due = false));
    }
    return draw.apply(this, all);
  };
}

const answers = {
  async look() {
    await page.goto(link);
    await page.goto(`/vms/${machine}/console`);
    await linked();
    await page.evaluate(watchCanvas);
    // The first ticks: it has booted.
    await page.waitForFunction(() => window.benchFrames > 100, undefined, { timeout: 120_000 });
    return null;
  },

  async frames(millis) {
    const before = await page.evaluate(() => window.benchFrames);
    const begin = performance.now();
    await new Promise((done) => setTimeout(done, Number(millis)));
    const seen = (await page.evaluate(() => window.benchFrames)) - before;
    return (1000 * seen) / (performance.now() - begin);
  },

  async echo(count) {
    await page.goto(`/vms/${machine}/console?view=serial`);
    await linked();
    const rows = page.locator('.xterm-rows');
    await page.getByRole('textbox', { name: /^Serial line of/ }).focus();
    await page.keyboard.press('Enter');
    await rows.filter({ hasText: '# ' }).waitFor();
    // Nothing else changes a row from here on.
    await page.keyboard.type("killall -STOP ticker; clear; echo si''lent");
    await page.keyboard.press('Enter');
    await rows.filter({ hasText: 'silent' }).waitFor();
    const taken = [];
    for (let n = 0; n < Number(count); n++) {
      const key = 'abcdefghijklmnopqrstuvwxyz'[n % 26];
      await page.evaluate((key) => {
        const rows = document.querySelector('offshoot-viewer .stage').shadowRoot.querySelector('.xterm-rows');
        let pressed;
        addEventListener('keydown', (event) => (pressed = event.timeStamp), { capture: true, once: true });
        const before = rows.textContent.split(key).length;
        window.benchEchoed = new Promise((done) => {
          const observer = new MutationObserver(() => {
            if (rows.textContent.split(key).length <= before) return;
            observer.disconnect();
            // Changed within a frame, which is drawn, and only then comes the message.
            const { port1, port2 } = new MessageChannel();
            port1.onmessage = () => done(performance.now() - pressed);
            requestAnimationFrame(() => port2.postMessage(0));
          });
          observer.observe(rows, { childList: true, subtree: true, characterData: true });
        });
      }, key);
      await page.keyboard.press(key);
      taken.push(await page.evaluate(() => window.benchEchoed));
    }
    return taken;
  },
};

try {
  for await (const line of createInterface({ input: process.stdin })) {
    const [question, argument] = line.split(' ');
    process.stdout.write(`${JSON.stringify(await answers[question](argument))}\n`);
  }
} finally {
  await browser.close();
}
