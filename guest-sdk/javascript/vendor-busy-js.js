// A vendor that answers 200 whatever happened, and says in the body what did: `{"code": "BUSY", "message": "…"}`.
//
// The route says which codes mean what:
//
//     policy_config: { success: ["OK"], retryable: [BUSY, QUOTA] }
//
// Everything is decided from the arguments. What the module keeps is only its configuration, which `configure` sets
// once, before any question.

import attribute from 'attribute';
import log from 'log';

const CONFIG_SCHEMA = {
  type: 'object',
  additionalProperties: false,
  required: ['retryable'],
  properties: {
    success: { type: 'array', items: { type: 'string' }, description: 'Codes of an answer that is one. Default: OK.' },
    retryable: { type: 'array', items: { type: 'string' }, description: 'Codes of a failure that passes.' },
  },
};

let success = new Set();
let retryable = new Set();

export function describe() {
  return {
    name: 'vendor-busy-js',
    version: '1.0.0',
    configSchema: JSON.stringify(CONFIG_SCHEMA),
    // The host answers the other questions itself.
    hooks: { judge: true },
  };
}

export function configure(config) {
  const { success: fine = ['OK'], retryable: passing } = JSON.parse(config);
  const both = passing.find((code) => fine.includes(code));
  if (both !== undefined) {
    // What is thrown is the error's text: the operator reads it, and the configuration is refused.
    throw `${both} is both a success and retryable`;
  }
  success = new Set(fine);
  retryable = new Set(passing);
  return { headers: ['x-quota-reset'], bodyLimit: 4096, requestLimit: 0 };
}

export function judge(attempt, outcome) {
  if (outcome.tag === 'silence') return silence(outcome.val);
  const response = outcome.val;
  if (response.status >= 500) return retry(`status ${response.status}`);
  if (response.status !== 200) return { verdict: { tag: 'dead-letter' }, reason: `status ${response.status}` };

  const code = codeOf(response.body);
  if (code === undefined) return retry('an answer that is not the vendor\'s JSON');
  if (success.has(code)) return { verdict: { tag: 'accept' }, reason: code };
  if (!retryable.has(code)) return { verdict: { tag: 'dead-letter' }, reason: code };
  const reset = field(response, 'x-quota-reset');
  if (reset === undefined || !/^\d{1,5}$/.test(reset)) return retry(code);
  log('info', `${code}: the vendor's quota is reset in ${reset} s`);
  // The contract's u64 is a BigInt.
  return retry(code, BigInt(reset) * 1000n);
}

// No answer. Where the vendor may have done the work, only a person can say whether it may be done again: this vendor
// does not look at idempotency keys.
function silence(fault) {
  const untouched = ['resolve', 'connect', 'tls', 'credentials'].includes(fault);
  if (untouched || attribute('method') === 'GET') return retry(fault);
  return { verdict: { tag: 'dead-letter' }, reason: `${fault}: the vendor may have done it` };
}

function retry(reason, after) {
  return { verdict: { tag: 'retry', val: { after, scope: 'standard' } }, reason };
}

// The header fields asked for, one a line: `name: value`.
function field({ headers = '' }, name) {
  const line = headers.split('\n').find((line) => line.startsWith(`${name}: `));
  return line?.slice(name.length + 2);
}

function codeOf(body = new Uint8Array()) {
  try {
    const { code } = JSON.parse(new TextDecoder().decode(body));
    return typeof code === 'string' ? code : undefined;
  } catch {
    return undefined;
  }
}

// The world has these questions too, so a policy must export them; `hooks` above says that they are not asked.
export function admit() {
  return { tag: 'accept' };
}

export function fallBack() {
  return undefined;
}

export function settle() {
  return 'unknown';
}
