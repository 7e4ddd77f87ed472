// Writes what failed, and why, to test-results/failed.txt: the last words of `make test`.

import { mkdirSync, writeFileSync } from 'node:fs';
import { stripVTControlCharacters } from 'node:util';

export default class {
  failed = [];

  onTestEnd(test, { status, error }) {
    if (status === test.expectedStatus || status === 'skipped' || status === 'interrupted') return;
    const why = stripVTControlCharacters(error?.message ?? status).split('\n').filter((line) => line.trim());
    this.failed.push(`${test.titlePath().slice(2).join(' › ')}:\n  ${why.slice(0, 6).join('\n  ')}`);
  }

  onEnd() {
    mkdirSync('test-results', { recursive: true });
    if (this.failed.length) writeFileSync('test-results/failed.txt', `${this.failed.join('\n')}\n`);
  }
}
