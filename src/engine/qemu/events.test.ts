import assert from 'node:assert/strict'
import { test } from 'node:test'
import { whyEnded } from './events.ts'

const greeting = '{"QMP": {"version": {}, "capabilities": ["oob"]}}\n{"return": {}}\n'
const shutdown = (reason: string) =>
  `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "${reason}"}}\n`

test('the reason is that of the last SHUTDOWN', () => {
  assert.match(whyEnded(`${greeting}{"event": "RESET", "data": {"reason": "guest-reset"}}\n`) ?? 'none', /^none$/)
  assert.match(whyEnded(greeting + shutdown('guest-reset')) ?? '', /panic.*triple fault/)
  assert.match(whyEnded(greeting + shutdown('guest-reset') + shutdown('host-signal')) ?? '', /signal/)
})

test('a reason that is not known is given as it is', () => {
  assert.equal(whyEnded(greeting + shutdown('subsystem-reset')), 'subsystem-reset')
})

test('a QEMU that was killed has told nothing, or half a line', () => {
  assert.equal(whyEnded(greeting), undefined)
  assert.equal(whyEnded(''), undefined)
  assert.equal(whyEnded(greeting + shutdown('guest-reset').slice(0, 40)), undefined)
})
