import assert from 'node:assert/strict'
import { test } from 'node:test'
import { healthLoop } from './health.ts'

const defaults = {
  ...{ config: { env: [], workdir: '/', user: '' }, passwd: '', group: '' },
  ...{ hostname: 'h', privileged: false },
}

test('a check runs at its interval, and fails after its retries', () => {
  const loop = healthLoop({ test: ['CMD', 'probe', "it's"], intervalMs: 2500, retries: 5 }, defaults, 'exec crun') ?? ''
  assert.match(loop, /sleep 2\.500/)
  assert.match(loop, /-lt 5/)
  assert.match(loop, /"args":\["probe","it'\\''s"\]/)
})

test('without a check, or with one that is switched off, nothing runs', () => {
  assert.equal(healthLoop(undefined, defaults, ''), undefined)
  assert.equal(healthLoop({ test: ['NONE'] }, defaults, ''), undefined)
})
