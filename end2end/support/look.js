// What is asked of every page's looks: that machines and people can read it, at any size, in both themes.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { expect } from '@playwright/test';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** The pictures are there, and what was changed is painted. */
const painted = async (page) => {
  await expect.poll(() => page.evaluate(() => [...document.images].every((i) => i.complete && i.naturalWidth))).toBe(true);
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
};

/** Nothing that axe knows of is wrong, contrast included. */
export async function accessible(page, what) {
  await painted(page);
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  const told = violations.flatMap((v) =>
    v.nodes.map((n) => `${v.id}: ${n.target.join(' ')}\n  ${n.html.slice(0, 200)}\n  ${n.failureSummary.split('\n')[1]?.trim()}`),
  );
  expect(told, `axe, ${what}`).toEqual([]);
}

/** Nothing sticks out to the side, and what is to be touched is large enough for a thumb. */
export async function fitsThumb(page, what) {
  await painted(page);
  const found = await page.evaluate(() => {
    const wrong = [];
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    if (wide > 0) {
      wrong.push(`the page scrolls ${wide} px to the side`);
      for (const e of document.querySelectorAll('body *')) {
        const box = e.getBoundingClientRect();
        if (box.right > innerWidth + 1 && box.width && !e.closest('[role=group], table')) wrong.push(`  ${e.outerHTML.slice(0, 120)}`);
      }
    }
    const small = (e) => {
      // A box is touched by its label, too; a link within a sentence is as high as its line.
      const at = e.matches('input[type=checkbox], input[type=radio]') ? (e.closest('label, td, th') ?? e) : e;
      const box = at.getBoundingClientRect();
      return box.height < 40 || box.width < 40;
    };
    for (const e of document.querySelectorAll('button, input, select, textarea, summary, a')) {
      if (!e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || e.closest('.hidden, [hidden]')) continue;
      if (e.matches('a') && getComputedStyle(e).display === 'inline') continue;
      if (e.type === 'hidden' || e.closest('svg')) continue;
      // What is off the page until it has the focus.
      if (e.getBoundingClientRect().bottom <= 0) continue;
      if (e.matches('a, button, summary') && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflow === 'visible') {
        wrong.push(`its text sticks out: ${e.outerHTML.slice(0, 120)}`);
      }
      if (small(e)) {
        const box = e.getBoundingClientRect();
        wrong.push(`${Math.round(box.width)} × ${Math.round(box.height)}: ${e.outerHTML.slice(0, 120)}`);
      }
    }
    return wrong;
  });
  expect(found, `at 390 px, ${what}`).toEqual([]);
}
