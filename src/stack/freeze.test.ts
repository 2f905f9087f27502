import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import type { Process, SpawnOptions } from '../machine/machine.ts'
import { freezeNested } from './freeze.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'freeze-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

/** Runs a script of the test's instead: the real one stops whatever has a virtual machine. */
class Guest extends LocalMachine {
  constructor(private readonly script: string) {
    super()
  }

  override spawn(_argv: readonly string[], options?: SpawnOptions): Promise<Process> {
    return super.spawn(['sh', '-c', this.script, 'sh', join(dir, 'thawed')], options)
  }
}

const thawed = () => readFileSync(join(dir, 'thawed'), 'utf8')

test('what was stopped runs on also when the save is called off', async () => {
  const stop = new AbortController()
  const frozen = await freezeNested(new Guest('echo frozen; read x; echo yes > "$1"'), 10_000, stop.signal)
  stop.abort()
  await frozen[Symbol.asyncDispose]()
  assert.equal(thawed(), 'yes\n')
})

test('and when it is called off before all has stopped', async () => {
  const stop = new AbortController()
  const freezing = freezeNested(new Guest('read x; echo yes > "$1"'), 10_000, stop.signal)
  setTimeout(() => stop.abort(), 50)
  await assert.rejects(freezing, { code: 'SAVE_FAILED' })
  assert.equal(thawed(), 'yes\n')
})
