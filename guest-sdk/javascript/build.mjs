// Makes NAME.wasm of NAME.js: `node build.mjs NAME.js [--out FOLDER] [--wit FOLDER]`.

import { mkdir, rename, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { componentize } from '@bytecodealliance/componentize-js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: 'string', default: '.' },
    // The contract, as it lies in Backstop's repository. Whoever copies this folder elsewhere copies that one too.
    wit: { type: 'string', default: fileURLToPath(new URL('../../wit', import.meta.url)) },
  },
});
const [source] = positionals;
if (positionals.length !== 1 || !source.endsWith('.js')) {
  console.error('usage: node build.mjs NAME.js [--out FOLDER] [--wit FOLDER], where NAME is what the policy calls itself');
  process.exit(2);
}

const { component } = await componentize({
  sourcePath: source,
  witPath: values.wit,
  worldName: 'policy',
  // With all of these off a component imports the world's functions and nothing else; the host refuses any other.
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});

// Written beside and renamed, so that a running host never reads half a policy.
const target = join(values.out, `${basename(source, '.js')}.wasm`);
await mkdir(values.out, { recursive: true });
await writeFile(`${target}.tmp`, component);
await rename(`${target}.tmp`, target);
console.log(`${target}: ${(component.length / 2 ** 20).toFixed(1)} MiB`);
