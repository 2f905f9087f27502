import assert from 'node:assert/strict'
import { test } from 'node:test'
import { appletNames } from './base.ts'

test('the applets are read from their table in the program, not from that of the built-in commands', () => {
  const builtIns = '4[\x004[[\x004alias\0'
  const program = Buffer.from(`\x7fELF${builtIns}code[\0[[\0ash\0busybox\0run-parts\0sh\0zcat\0\0strings\0`)
  assert.deepEqual(appletNames(program), ['[', '[[', 'ash', 'run-parts', 'sh', 'zcat'])
})

test('the table ends where the names are no longer sorted', () => {
  assert.deepEqual(appletNames(Buffer.from('\0[\0[[\0ash\0sh\0another\0')), ['[', '[[', 'ash', 'sh'])
})

test('a program without the table is no busybox', () => {
  assert.throws(() => appletNames(Buffer.from('\x7fELF')), { code: 'BAD_BUSYBOX' })
})
